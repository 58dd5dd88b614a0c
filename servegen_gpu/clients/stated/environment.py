"""What all clients share: a random factor on their rates, on many time scales at once.

Real logs are burstier together than any client is alone: something outside moves everybody. An *environment* is a
factor M(t) with a mean of 1, constant in cells of `cell_s`, that multiplies rates. It comes from a Gaussian process
z(t), which is a sum of *octaves*: smooth noise on lattices of 1, 2, 4, … cells, each with a weight; and from a
*margin*, the distribution that M has: M = Q(Φ(z)), with Q its quantile function (`law/environment.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.clients.stated.distribution import Array, number, numbers, rounded
from servegen_gpu.errors import OptionError
from servegen_gpu.law.environment import MAX_OCTAVE, factor_of
from servegen_gpu.options import check_choice

Each = Literal["pool", "group", "client"]
MAX_CELL_S, MAX_KNOTS = 86_400.0, 1 << 14
MAX_NUMBER = 2**31 - 1
TAIL = 2.0**-26
"""Where the knots of a stated margin end: what is rarer than this share of the cells has the factor there."""


@dataclass(frozen=True, eq=False, repr=False)
class Margin:
    """The distribution of the factor: its quantile function, linear between knots.

    Attributes
    ----------
    at : float64[knots]
        Shares of the cells, ascending, from 0 to 1.
    values : float64[knots]
        The factor below which that share lies, not falling; scaled to a mean of 1. Before the first knot and after the
        last one the factor is that of the knot.
    zero : float
        Share of the cells without any request: the factor is 0 below it, whatever the knots say.

    Raises
    ------
    OptionError
        If knots are out of order, or all factors are 0.
    """

    at: NDArray[np.float64]
    values: NDArray[np.float64]
    zero: float = 0.0

    def __post_init__(self) -> None:
        at, values = numbers("at of a margin", self.at), numbers("values of a margin", self.values)
        zero = number("zero of a margin", self.zero, 0)
        if len(at) != len(values) or len(at) > MAX_KNOTS:
            raise OptionError(
                f"as many at as values, at most {MAX_KNOTS:,}", f"{len(at)} and {len(values)}", "fix them"
            )
        for name, knots, low in (("at", at, -1.0), ("values", values, 0.0)):
            if (falls := np.flatnonzero(np.diff(knots) < 0)).size or knots[0] < low:
                i = int(falls[0]) if falls.size else 0
                raise OptionError(f"{name} of a margin that do not fall", f"{knots[i : i + 2].tolist()}", "sort them")
        if at[-1] > 1 or zero >= 1:
            raise OptionError("shares of the cells from 0 to 1", f"at up to {at[-1]:g}, zero {zero:g}", "fix them")
        mean = _mean(at, values, zero)
        if not mean > 0:
            raise OptionError("a margin with a mean above 0", f"{mean:g}", "give factors above 0")
        if abs(mean - 1.0) > 1e-12:  # so that a margin that was written is the same when it is read
            values = values / mean
        values.setflags(write=False)
        for name, value in (("at", at), ("values", values), ("zero", zero)):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<Margin: variance {self.variance:.4g}, {self.zero:.1%} of the cells empty, {len(self.at)} knots>"

    @classmethod
    def gamma(cls, variance: float, zero: float = 0.0) -> Margin:
        """Gamma distributed factors, and a share `zero` of cells without any; `variance` is that of all together.

        Parameters
        ----------
        variance : float
            Above zero / (1 - zero), which the empty cells alone make; up to 10,000.
        zero : float
            0 to below 1.
        """
        from scipy.special import gammaincinv

        zero, inside = _inside(variance, zero)
        shape = 1.0 / inside
        at = _knots()
        return cls(zero + (1.0 - zero) * at, rounded(gammaincinv(shape, at) / shape), zero)

    @classmethod
    def lognormal(cls, variance: float, zero: float = 0.0) -> Margin:
        """Log-normal factors, and a share `zero` of cells without any; see `gamma`."""
        from scipy.special import ndtri

        zero, inside = _inside(variance, zero)
        sigma = np.sqrt(np.log1p(inside))
        at = _knots()
        return cls(zero + (1.0 - zero) * at, rounded(np.exp(sigma * ndtri(at))), zero)

    @classmethod
    def of_levels(cls, levels: ArrayLike, weights: ArrayLike) -> Margin:
        """A margin from levels of the factor and their weights, smoothed: linear between the middles of their shares.

        A level of 0 keeps its share exactly: it is `zero`.

        Parameters
        ----------
        levels : float[n]
            Ascending, not negative.
        weights : float[n]
        """
        level, weight = numbers("levels", levels), numbers("weights", weights)
        if len(level) != len(weight) or not weight.any():
            raise OptionError("a weight for every level", f"{len(level)} and {len(weight)}", "fix weights")
        share = np.cumsum(weight) / weight.sum()
        middle = share - weight / weight.sum() / 2
        return cls(middle, level, float(share[0]) if level[0] == 0 else 0.0)

    @property
    def variance(self) -> float:
        """Of the factor, exactly, whose mean is 1."""
        at, y = self._pieces
        low, high = y[:-1], y[1:]
        return float((np.diff(at) * (low * low + low * high + high * high)).sum() / 3.0 - 1.0)

    @property
    def _pieces(self) -> tuple[Array, Array]:
        """Shares and factors where the quantile function bends above `zero`."""
        return _above(self.at, self.values, self.zero)

    def quantile(self, share: ArrayLike) -> NDArray[np.float64]:
        """The factor Q(u) at shares of the cells, as the law has it, float64[n]."""
        found: NDArray[np.float64] = factor_of(np.asarray(share, np.float64), self.at, self.values, self.zero)
        return found


def _above(at: Array, values: Array, zero: float) -> tuple[Array, Array]:
    inner = (at > zero) & (at < 1.0)
    low, high = np.interp([zero, 1.0], at, values)
    return np.concatenate(([zero], at[inner], [1.0])), np.concatenate(([low], values[inner], [high]))


def _mean(at: Array, values: Array, zero: float) -> float:
    share, y = _above(at, values, zero)
    return float((np.diff(share) * (y[1:] + y[:-1])).sum() / 2.0)


def _inside(variance: float, zero: float) -> tuple[float, float]:
    """The share of empty cells, and the variance of the others in units of their squared mean."""
    zero = number("zero of a margin", zero, 0)
    variance = number("variance of a margin", variance, above=0, high=1e4)
    inside = variance * (1.0 - zero) - zero
    if zero >= 1 or not inside > 0:
        least = "below 1" if zero >= 1 else f"with a variance above {zero / (1 - zero):.4g}, which they alone make"
        raise OptionError(f"a share of empty cells {least}", f"zero {zero:g}, variance {variance:g}", "change them")
    return zero, inside


def _knots() -> Array:
    """Shares that follow smooth quantile functions closely: dense towards both ends."""
    lower: Array = 0.5 * (2.0 * TAIL) ** np.linspace(1.0, 0.0, 257)
    return np.concatenate((lower, 1.0 - lower[-2::-1]))


@dataclass(frozen=True, eq=False)
class Environment:
    """A random factor on the rates of all clients, of a group of them, or of each.

    Attributes
    ----------
    margin : Margin
    octaves : dict of int to float
        Weight of octave k, whose lattice has a step of 2**k cells: 0 to 24. Weights are scaled to a sum of 1.
    cell_s : float
        In which the factor is constant: whole milliseconds, a whole part or a multiple of a pool's windows.
    each : {"pool", "group", "client"}
        Who has a factor of its own: all clients together; those that point at one row of ``pool.environments``; or
        every client.
    common : float
        Of a group or a client: the share of z's variance that it has in common with all of the same `number`.
    number : int
        Environments of one number share random numbers.

    Raises
    ------
    OptionError
        If a parameter is out of range.

    Examples
    --------
    >>> Environment(Margin.gamma(variance=0.4), {2: 0.3, 6: 0.4, 9: 0.3})  # bursts of seconds, a minute, ten minutes
    """

    margin: Margin
    octaves: Mapping[int, float]
    cell_s: float = 1.0
    each: Each = "pool"
    common: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.margin, Margin):
            raise OptionError("a Margin", repr(self.margin)[:60], "make one with Margin.gamma(variance=…)")
        cell_s = number("cell_s", self.cell_s, 1e-3, high=MAX_CELL_S)
        if abs(cell_s * 1e3 - round(cell_s * 1e3)) > 1e-6:
            raise OptionError("cell_s in whole milliseconds", f"{cell_s!r}", "change cell_s")
        check_choice("each", self.each, get_args(Each))
        if not isinstance(self.octaves, Mapping) or not self.octaves:
            raise OptionError("octaves as {k: weight}", repr(self.octaves)[:60], "such as {2: 0.5, 6: 0.5}")
        weights: dict[int, float] = {}
        for k, weight in self.octaves.items():
            if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k <= MAX_OCTAVE:
                raise OptionError(f"octaves from 0 to {MAX_OCTAVE}", repr(k)[:60], "change octaves")
            weights[int(k)] = number(f"weight of octave {k}", weight, 0)
        total = sum(weights.values())
        if not total > 0:
            raise OptionError("octaves with a weight above 0", repr(dict(self.octaves))[:60], "change octaves")
        whole = isinstance(self.number, int | np.integer) and not isinstance(self.number, bool)
        if not whole or not 0 <= self.number <= MAX_NUMBER:
            raise OptionError(f"number from 0 to {MAX_NUMBER:,}", repr(self.number)[:60], "change number")
        if abs(total - 1) <= 1e-12:
            total = 1.0  # as written by somebody who read them: not scaled again
        object.__setattr__(self, "octaves", {k: weights[k] / total for k in sorted(weights) if weights[k] > 0})
        object.__setattr__(self, "cell_s", round(cell_s * 1e3) / 1e3)
        object.__setattr__(self, "common", number("common", self.common, 0, high=1))
        object.__setattr__(self, "number", int(self.number))

    @property
    def cell_us(self) -> int:
        """`cell_s` in microseconds."""
        return round(self.cell_s * 1e6)

    @property
    def longest_s(self) -> float:
        """Step of the coarsest lattice: on longer times than a few of these the factor is its mean."""
        return float(self.cell_s * 2.0 ** max(self.octaves))

    def check_windows(self, window_s: int) -> None:
        """Refuse cells that are neither whole parts nor multiples of windows."""
        window_us = window_s * 1_000_000
        if window_us % self.cell_us and self.cell_us % window_us:
            raise OptionError(
                f"cells that divide windows of {window_s} s, or are whole numbers of them",
                f"cell_s {self.cell_s:g}",
                "change cell_s",
            )

    def describe(self) -> dict[str, Any]:
        """For provenance, in terms that JSON has."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("margin", "octaves")}
        margin = {"variance": self.margin.variance, "zero": self.margin.zero, "knots": len(self.margin.at)}
        octaves = {str(k): weight for k, weight in self.octaves.items()}
        return {"margin": margin, "octaves": octaves} | named

    def digest(self) -> bytes:
        """Of everything that sampling depends on."""
        plain = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("margin", "octaves")]
        hasher = hashlib.sha256(f"{plain} {sorted(self.octaves.items())} {self.margin.zero!r}".encode())
        hasher.update(self.margin.at.tobytes() + self.margin.values.tobytes())
        return hasher.digest()
