"""Families of gaps between the requests of a client: one row each, and everyone asks the rows.

Law and kernels know a family by its code. How its gaps are drawn is in `law/variates.py` and `kernels/variates.h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_FAMILY, EXPONENTIAL, GAMMA, WEIBULL, LOGNORMAL = range(5)
"""Codes: a window without requests has none. Part of the random stream, never changed."""

CV_RANGE = (0.01, 1000.0)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GapFamily:
    """A family of gaps.

    Attributes
    ----------
    code : int
    name : str
        As users write it; in capitals in figures and in released files.
    draw, first_draw : int
        Codes of the families by whose draws a gap, and the first gap of a stationary process, are made.
    shape_range : tuple of float
        Least and largest shape; equal where the family has but one.
    cv_of, shape_of : callable
        Coefficient of variation of a shape, and the shape with a coefficient of variation.
    log_mean : callable
        The law's logarithm ``log(np, x)`` and shapes, float64[n], to logarithms of mean gaps at scale 1, float64[n];
        the same bits on every machine.
    released : bool
        Whether released profiles have it.
    """

    code: int
    name: str
    draw: int
    first_draw: int
    shape_range: tuple[float, float]
    cv_of: Callable[[float], float]
    shape_of: Callable[[float], float]
    log_mean: Callable[[Callable[[Any, Array], Array], Array], Array]
    released: bool = True

    @property
    def title(self) -> str:
        """The name in figures and in released files."""
        return self.name.capitalize()

    @property
    def has_shape(self) -> bool:
        """Whether there is more than one shape."""
        return self.shape_range[0] < self.shape_range[1]

    @property
    def cv_range(self) -> tuple[float, float]:
        """Least and largest coefficient of variation."""
        ends = sorted(settled(self.cv_of(shape)) for shape in self.shape_range)
        return max(ends[0], CV_RANGE[0]), min(ends[1], CV_RANGE[1])


def settled(x: float) -> float:
    """Rounded to 30 bits: libraries differ in the last of 53 from machine to machine."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(math.ldexp(mantissa, 30)), exponent - 30)


def _no_log_mean(log: Callable[[Any, Array], Array], shape: Array) -> Array:
    return np.zeros(len(shape))


def _weibull_cv(shape: float) -> float:
    return math.sqrt(math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2 - 1)


def _weibull_shape(cv: float) -> float:
    """By halving: there is no formula."""
    low, high = (math.log2(end) for end in FAMILIES["weibull"].shape_range)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _weibull_cv(2.0**middle) > cv else (low, middle)
    return settled(2.0**low)


def _weibull_log_mean(log: Callable[[Any, Array], Array], shape: Array) -> Array:
    distinct, at = np.unique(shape, return_inverse=True)
    # one by one: SciPy's takes 0.1 s to import
    logs = np.array([math.lgamma(1.0 + 1.0 / k) for k in distinct.tolist()])
    return np.asarray(np.rint(logs * 2.0**32) * 2.0**-32)[at]


ROWS = (
    GapFamily(
        code=EXPONENTIAL,
        name="exponential",
        draw=WEIBULL,  # of shape 1
        first_draw=GAMMA,
        shape_range=(1.0, 1.0),
        cv_of=lambda shape: 1.0,
        shape_of=lambda cv: 1.0,
        log_mean=_no_log_mean,
    ),
    GapFamily(
        code=GAMMA,
        name="gamma",
        draw=GAMMA,
        first_draw=GAMMA,
        shape_range=(1e-6, 1e4),
        cv_of=lambda shape: shape**-0.5,
        shape_of=lambda cv: 1.0 / (cv * cv),
        log_mean=lambda log, shape: log(np, shape),
    ),
    GapFamily(
        code=WEIBULL,
        name="weibull",
        draw=WEIBULL,
        first_draw=GAMMA,
        shape_range=(0.05, 1e3),
        cv_of=_weibull_cv,
        shape_of=_weibull_shape,
        log_mean=_weibull_log_mean,
    ),
    GapFamily(
        code=LOGNORMAL,
        name="lognormal",
        draw=LOGNORMAL,
        first_draw=LOGNORMAL,
        shape_range=(0.005, 3.0),  # sigma; beyond, normals from 32 bits would miss much of the mean
        cv_of=lambda shape: math.sqrt(math.expm1(shape * shape)),
        shape_of=lambda cv: settled(math.sqrt(math.log1p(cv * cv))),
        log_mean=lambda log, shape: shape * shape * 0.5,
        released=False,
    ),
)

FAMILIES = {row.name: row for row in ROWS}
"""Rows by name."""

WITH_SHAPE = tuple(row.name for row in ROWS if row.has_shape)

FAMILY_NAMES = ("", *(row.title for row in ROWS))
"""Names in figures by code; the empty name marks a window without requests."""

RELEASED = {"": NO_FAMILY} | {row.title: row.code for row in ROWS if row.released}
"""Codes by the names in released profiles."""

DRAWS = np.array([WEIBULL, *(row.draw for row in ROWS)], np.uint8)
"""Draw of a family's gaps by code; silent windows have one, too."""

FIRST_DRAWS = np.array([GAMMA, *(row.first_draw for row in ROWS)], np.uint8)
"""Draw of a family's first gaps by code."""

assert [row.code for row in ROWS] == list(range(1, len(FAMILY_NAMES)))


LEAST_SHAPE, LARGEST_SHAPE = np.array(
    [(0.0, np.inf), *(row.shape_range if row.has_shape else (0.0, np.inf) for row in ROWS)]
).T
"""Bounds of shapes by code: beyond them gaps cannot be drawn, or a mean takes more of them than there is memory."""


def family_of(code: int) -> GapFamily:
    """The row of a code."""
    return ROWS[code - 1]


def log_mean_gaps(log: Any, family: NDArray[np.uint8], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the mean gaps at scale 1; `log` is the one of the law."""
    found = np.empty(shape.shape)
    for code in np.unique(family):
        mine = family == code
        found[mine] = family_of(int(code)).log_mean(log, shape[mine])
    return found
