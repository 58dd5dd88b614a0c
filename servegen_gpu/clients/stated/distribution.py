"""What a distribution of lengths, item counts or reasoning shares is, whatever its family.

A distribution says which share of its values rounds to at most k / unit (`Distribution.at_most`); `tabulate` makes a
table of whole numbers out of that. Its `min` and `max` cut it: what lies outside falls on the bound.

Lengths are whole tokens: a continuous value is rounded to the nearest. Reasoning shares are rounded to k/501. The
elementary functions are those of the law, so a table has the same bits on every machine; what comes from a library's
functions is rounded to 2**-28 for the same reason.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.text import few

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Distribution(ABC):
    """Base of all distributions.

    Parameters
    ----------
    min, max : float, optional
        Values below or above fall on these (tokens, items, or a share). Fields bring bounds of their own where none
        are stated: lengths begin at 1 token, for instance.
    """

    _: KW_ONLY
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        for name in ("min", "max"):
            if (bound := getattr(self, name)) is not None:
                object.__setattr__(self, name, number(name, bound, 0))
        if self.min is not None and self.max is not None and self.min > self.max:
            raise OptionError("min <= max", f"min {self.min:g}, max {self.max:g}", "change one of them")

    def __repr__(self) -> str:
        stated = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        inside = ", ".join(
            f"{name}={few(value) if isinstance(value, np.ndarray) else repr(value)}"
            for name, value in stated.items()
            if value is not None
        )
        return f"{type(self).__name__}({inside})"

    @abstractmethod
    def at_most(self, k: Array, unit: int) -> Array:
        """Share of the values that round to at most k / unit, float64[n], before `min` and `max`."""

    def atoms(self) -> Array:
        """Values that need a bin of their own: explicit ones, and ends of the support."""
        return np.empty(0)

    def cut_at_most(self, k: Array, unit: int) -> Array:
        """`at_most` after `min` and `max`."""
        below = self.at_most(k, unit)
        if self.min is not None:
            below = np.where(k < np.rint(self.min * unit), 0.0, below)
        return below if self.max is None else np.where(k >= np.rint(self.max * unit), 1.0, below)


def number(name: str, value: object, low: float = -math.inf, above: float = -math.inf, high: float = 1e15) -> float:
    """A finite number from `low`, above `above`, up to `high`."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not (max(low, -high) <= float(value) <= high and float(value) > above):  # type: ignore[arg-type]
        what = f"above {above:g}" if above > -math.inf else f"of at least {low:g}" if low > -math.inf else "finite"
        what = f"up to {high:g}" if real and value > high else what  # type: ignore[operator]
        raise OptionError(f"{name} as a number, {what}", repr(value)[:60], f"change {name}")
    return float(value)  # type: ignore[arg-type]


def numbers(what: str, values: ArrayLike) -> Array:
    """Finite, non-negative numbers, a private copy, float64[n] with n at least 1."""
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"{given.dtype} {str(values)[:60]}")
        array = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"numbers as {what}", str(error)[:100], f"fix {what}") from None
    if array.ndim != 1 or not len(array):
        raise OptionError(f"a list of {what}, at least one", f"shape {array.shape}", f"fix {what}")
    wrong = ~((array >= 0) & (array <= 1e15))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise OptionError(f"{what} that are finite and not negative", f"{array[i]:g} (number {i + 1})", f"fix {what}")
    array.setflags(write=False)
    return array


def middle(k: Array, unit: int) -> Array:
    """Where rounding to k / unit ends."""
    return (k + 0.5) / unit


def rounded(share: ArrayLike) -> Array:
    """To 2**-28, far above the differences between versions of a library."""
    return np.asarray(np.rint(np.asarray(share, np.float64) * 2.0**28) * 2.0**-28)
