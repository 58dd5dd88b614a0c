"""The random environment: a factor with a mean of 1 that many clients share, cell of time by cell.

Notation: s the number of a cell on the time axis, k an octave, whose lattice has a step of τ = 2**k cells, ε(k, j) its
standard normals, φ its phase, 0 to τ - 1 cells; j and f the whole and the fractional part of (s + φ + 1/2) / τ;
b_0 … b_3 the cubic B-spline weights at f. Then

    z(s) = Σ_k √w_k · Σ_m b_m(f) ε(k, j + m) / √(Σ_m b_m(f)²),        Σ_k w_k = 1

is standard normal in every cell and smooth on the scale of each lattice, and M(s) = Q(Φ(z(s))) has the quantile
function Q. All normals have addresses, so any cells can be computed without those before them, with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Key, Purpose, draw
from servegen_gpu.law.elementary import normal_cdf
from servegen_gpu.law.normal import normal_of_word
from servegen_gpu.law.philox import MASK

MAX_OCTAVE = 24
BY_NUMBER, BY_GROUP, BY_CLIENT = 0, 1, 2
"""Whose process it is, as the stream of an address."""
NORMALS, PHASE = 0, 1
"""What a draw is for, as the turn of an address."""


def process(
    key: Key, whose: int, number: int, octaves: Mapping[int, float], first_cell: int, cells: int
) -> NDArray[np.float64]:
    """The process z in consecutive cells, float64[cells].

    Parameters
    ----------
    key : 2 of int
        Of `derive_key`.
    whose : int
        `BY_NUMBER`, `BY_GROUP` or `BY_CLIENT`.
    number : int
        Of the environment, the group or the client: below 2**32.
    octaves : mapping of int to float
        Weights by octave, whose sum is 1.
    first_cell : int
        On the time axis; negative before it begins.
    cells : int
    """
    z = np.zeros(cells)
    cell = np.arange(first_cell, first_cell + cells, dtype=np.int64)
    for octave, weight in octaves.items():
        step = 1 << octave
        word = draw(
            np, key, Purpose.ENVIRONMENT, ordinal=0, client=number, window=octave, stream=whose, turn=PHASE, item=0
        )[0]
        at = cell + (int(word) & (step - 1))
        lattice = at >> octave
        first = int(lattice[0]) if cells else 0
        normals = _normals(key, whose, number, octave, first, (int(lattice[-1]) - first if cells else 0) + 4)
        f = ((at & (step - 1)) + 0.5) / step
        z += np.sqrt(weight) * _spline(f, normals, lattice - first)
    return z


def _normals(key: Key, whose: int, number: int, octave: int, first: int, count: int) -> NDArray[np.float64]:
    """Normals of a lattice from index `first` on, four to a draw, float64[count]."""
    begin = first >> 2
    ordinal = np.arange(begin, ((first + count - 1) >> 2) + 1, dtype=np.int64) & MASK
    words = draw(
        np, key, Purpose.ENVIRONMENT, ordinal=ordinal.astype(np.uint64), client=number, window=octave, stream=whose
    )
    normals: NDArray[np.float64] = normal_of_word(np, np.stack(words, axis=1).ravel())
    return normals[first - 4 * begin :][:count]


def _spline(f: NDArray[np.float64], normals: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """The smooth noise of one octave, with a variance of 1: normals weighted by the cubic B-spline (times 6)."""
    rest = 1.0 - f
    total, squares = np.zeros(len(f)), np.zeros(len(f))
    for m, b in enumerate(
        (rest * rest * rest, (3.0 * f - 6.0) * f * f + 4.0, ((3.0 - 3.0 * f) * f + 3.0) * f + 1.0, f * f * f)
    ):
        total += b * normals[at + m]
        squares += b * b
    return total / np.sqrt(squares)


def factor_of(
    share: NDArray[np.float64], at: NDArray[np.float64], values: NDArray[np.float64], zero: float
) -> NDArray[np.float64]:
    """Q at shares of the cells: linear between knots, the knot's own value beyond them, 0 below `zero`.

    Parameters
    ----------
    share : float64[n]
    at, values : float64[knots]
        Of `Margin`.
    zero : float
    """
    right = np.clip(np.searchsorted(at, share, side="right"), 1, max(len(at) - 1, 1))
    if len(at) == 1:
        found = np.full(share.shape, values[0])
    else:
        left = right - 1
        width = at[right] - at[left]
        place = np.divide(share - at[left], width, out=np.zeros(share.shape), where=width > 0)
        found = values[left] + np.minimum(np.maximum(place, 0.0), 1.0) * (values[right] - values[left])
    return np.where(share < zero, 0.0, found)


def factors(
    z: NDArray[np.float64], at: NDArray[np.float64], values: NDArray[np.float64], zero: float
) -> NDArray[np.float64]:
    """M = Q(Φ(z)), float64[n]; see `factor_of`."""
    return factor_of(normal_cdf(np, z), at, values, zero)
