"""Words to standard normals and back, by tables of short polynomials: no division, no logarithm, no branch.

Both functions are polynomials of degree 6, one for each row of a table. They pass through the exact function, that of
`elementary`, at both ends of a row and at five points between (the extrema of a Chebyshev polynomial), so neighbours
meet at their border and a larger word has a larger normal.

============  =============================  ======  ================================================
table         row                            rows    error against the exact function
============  =============================  ======  ================================================
`QUANTILE`    a quarter of a binade of the   128     4e-10 of a normal; 0.55 units of 2**-32 of the
              folded word                            mass
`MASS`        a fifth of a unit of ``|z|``   32      0.02 units of 2**-32 of the mass
============  =============================  ======  ================================================

A word that becomes a normal and a word again is the same word or its neighbour. Rows are made of the operations that
the law allows, so every machine computes the same tables; kernels/normal_tables.h holds them for compilers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.elementary import ONE_BITS, horner, normal_cdf, normal_quantile

HALF, LAST = 2**31, 2**32 - 1
DEGREE = 6
QUARTER_BITS = 50
"""Bits of a double below those that choose the quarter of its binade."""
FIRST_QUARTER = 1022 << 2
"""The first row: folded words from 1/2 on."""
ROWS_PER_UNIT = 5.0
Z_LIMIT = 6.35
"""`word_of_normal` takes |z| beyond this as this: 1.1e-10 of the mass, half of the first word."""


def _rows(exact: Any, begin: NDArray[np.float64], end: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Polynomials through `exact` at seven points of every row, float64[terms, rows].

    The argument is the distance from the row's begin, in units in which a row is `width` wide. Newton's divided
    differences, multiplied out from the last point to the first.
    """
    cosines = np.array([-1.0, -np.sqrt(0.75), -0.5, 0.0, 0.5, np.sqrt(0.75), 1.0])
    share = (1.0 + cosines) * 0.5
    found: NDArray[np.float64] = exact(begin + (end - begin) * share[:, None])
    t = share * width
    for k in range(1, DEGREE + 1):
        found[k:] = (found[k:] - found[k - 1 : -1]) / (t[k:] - t[:-k])[:, None]
    terms: NDArray[np.float64] = np.zeros_like(found)
    for k in range(DEGREE, -1, -1):
        shifted = terms * -t[k]
        shifted[1:] += terms[:-1]
        terms = shifted
        terms[0] += found[k]
    return terms


def _quantile_rows() -> NDArray[np.float64]:
    quarter = np.arange(FIRST_QUARTER, FIRST_QUARTER + 129) << QUARTER_BITS
    border = quarter.view(np.float64)
    return _rows(lambda v: -normal_quantile(np, v * 2.0**-32), border[:-1], border[1:], 0.25)


def _mass_rows() -> NDArray[np.float64]:
    border = np.arange(33) / ROWS_PER_UNIT
    rows = _rows(lambda z: (normal_cdf(np, z) - 0.5) * 2.0**32, border[:-1], border[1:], 1.0)
    rows[0, 0] = 0.0  # half of the mass is below 0, exactly
    return rows


QUANTILE = _quantile_rows()
"""float64[7, 128]: size of the normal, by the place of a folded word in its quarter."""
MASS = _mass_rows()
"""float64[7, 32]: words between the middle and ``|z|``, by the place in a row."""


def _at(xp: Any, table: NDArray[np.float64], row: Any, t: Any) -> Any:
    return horner(t, [terms[row] for terms in xp.asarray(table)])


def normal_of_word(xp: Any, word: Any) -> Any:
    """The standard normal below which the share ``(word + 1/2) / 2**32`` lies, float64.

    Parameters
    ----------
    word : uint64
        Below 2**32.
    """
    lower = word < HALF
    folded = xp.where(lower, word, LAST - word).astype(xp.float64) + 0.5
    bits = folded.view(xp.int64)
    row = (bits >> QUARTER_BITS) - FIRST_QUARTER
    place = (bits & ((1 << QUARTER_BITS) - 1)) | ONE_BITS
    size = _at(xp, QUANTILE, row, place.view(xp.float64) - 1.0)
    return xp.where(lower, -size, size)


def word_of_normal(xp: Any, z: Any) -> Any:
    """The word whose share of the standard normal distribution holds `z`, uint64 below 2**32.

    Parameters
    ----------
    z : float64
    """
    x = xp.minimum(xp.abs(z), Z_LIMIT) * ROWS_PER_UNIT
    row = xp.rint(x - 0.5)
    between = _at(xp, MASS, row.astype(xp.int64), x - row).astype(xp.uint64)
    return xp.where(z < 0.0, HALF - 1 - between, HALF + between)
