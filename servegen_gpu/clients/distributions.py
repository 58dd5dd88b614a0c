"""Distributions of lengths, item counts and reasoning shares, as a user states them.

A distribution says which share of its values rounds to at most k / unit (`Distribution.at_most`); `tabulate` makes a
table of whole numbers out of that. Its `min` and `max` cut it: what lies outside falls on the bound.

Lengths are whole tokens: a continuous value is rounded to the nearest. Reasoning shares are rounded to k/501. The
elementary functions are those of the law, so a table has the same bits on every machine; what comes from SciPy's
library functions is rounded to 2**-28 for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.law.elementary import CDF_LIMIT, exp, log, normal_cdf

Array = NDArray[np.float64]
TINY = 1e-300
ZIPF_LIMIT = 1 << 22


@dataclass(frozen=True, eq=False)
class Distribution:
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

    def at_most(self, k: Array, unit: int) -> Array:
        """Share of the values that round to at most k / unit, float64[n], before `min` and `max`."""
        raise NotImplementedError

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
        raise OptionError(f"{name} as a number, {what}", repr(value)[:60], f"change {name}")
    return float(value)  # type: ignore[arg-type]


def _numbers(what: str, values: ArrayLike) -> Array:
    """Finite, non-negative numbers, a private copy, float64[n] with n at least 1."""
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"{given.dtype} {str(values)[:60]}")
        array = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"numbers as {what}", str(error)[:100], f"mend {what}") from None
    if array.ndim != 1 or not len(array):
        raise OptionError(f"a list of {what}, at least one", f"shape {array.shape}", f"mend {what}")
    wrong = ~((array >= 0) & (array <= 1e15))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise OptionError(f"{what} that are finite and not negative", f"{array[i]:g} (number {i + 1})", f"mend {what}")
    array.setflags(write=False)
    return array


def _middle(k: Array, unit: int) -> Array:
    """Where rounding to k / unit ends."""
    return (k + 0.5) / unit


def _normal(z: Array) -> Array:
    """Standard normal distribution function; all or nothing beyond the clip of `normal_cdf`, 1.3e-12 of the mass."""
    return np.where(np.abs(z) < CDF_LIMIT, normal_cdf(np, z), np.asarray(z > 0, np.float64))


@dataclass(frozen=True)
class Constant(Distribution):
    """One value."""

    value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", number("value", self.value, 0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        return np.asarray(k >= np.rint(self.value * unit), np.float64)

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.array([self.value])


@dataclass(frozen=True)
class Uniform(Distribution):
    """Every whole number of tokens from `low` to `high` alike, both included; a share anywhere between them."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "low", number("low", self.low, 0))
        object.__setattr__(self, "high", number("high", self.high, self.low))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        if unit == 1:
            return np.clip((k - self.low + 1) / (self.high - self.low + 1), 0.0, 1.0)
        return np.clip((_middle(k, unit) - self.low) / max(self.high - self.low, TINY), 0.0, 1.0)

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.array([self.low, self.high])


@dataclass(frozen=True)
class Exponential(Distribution):
    """Exponential with a mean."""

    mean: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", number("mean", self.mean, above=0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        x = np.maximum(_middle(k, unit), 0.0)
        return np.where(x > 0, 1.0 - exp(np, -x / self.mean), 0.0)


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal with a mean and a standard deviation."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", number("mean", self.mean))
        object.__setattr__(self, "std", number("std", self.std, above=0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        return _normal((_middle(k, unit) - self.mean) / self.std)


@dataclass(frozen=True)
class LogNormal(Distribution):
    """Log-normal, by its median or mean, and by `sigma` (of the natural logarithm) or its coefficient of variation."""

    median: float | None = None
    sigma: float | None = None
    mean: float | None = None
    cv: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for a, b in (("median", "mean"), ("sigma", "cv")):
            given = [name for name in (a, b) if getattr(self, name) is not None]
            if len(given) != 1:
                raise OptionError(f"{a} or {b} of a log-normal", " and ".join(given) or "neither", "give one of them")
            object.__setattr__(self, given[0], number(given[0], getattr(self, given[0]), above=0))

    def parameters(self) -> tuple[float, float]:
        """Median and sigma."""
        if self.sigma is not None:
            sigma = self.sigma
        else:
            assert self.cv is not None
            sigma = math.sqrt(float(log(np, np.array([1.0 + self.cv * self.cv]))[0]))
        if self.median is not None:
            return self.median, sigma
        assert self.mean is not None
        return self.mean * float(exp(np, np.array([-0.5 * sigma * sigma]))[0]), sigma

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        median, sigma = self.parameters()
        x = _middle(k, unit)
        z = log(np, np.maximum(x / median, TINY)) / sigma
        return np.where(x > 0, _normal(z), 0.0)


@dataclass(frozen=True)
class Pareto(Distribution):
    """Pareto: a share (`scale` / x) ** `alpha` of the values is above x, none below `scale`."""

    alpha: float
    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "scale"):
            object.__setattr__(self, name, number(name, getattr(self, name), above=0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        ratio = np.maximum(_middle(k, unit) / self.scale, 1.0)
        return np.where(ratio > 1, 1.0 - exp(np, -self.alpha * log(np, ratio)), 0.0)


@dataclass(frozen=True)
class Zipf(Distribution):
    """Whole numbers from `min` (1) to `max`, each k with a weight of k ** -`exponent`; `max` must be stated."""

    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "exponent", number("exponent", self.exponent, 0, high=100))
        low, high = self._range()
        if not (low.is_integer() and high.is_integer() and 1 <= low <= high <= ZIPF_LIMIT):
            raise OptionError(
                f"a Zipf distribution over whole numbers from 1, with a max up to {ZIPF_LIMIT:,}",
                f"min {self.min}, max {self.max}",
                "state max",
            )

    def _range(self) -> tuple[float, float]:
        return 1.0 if self.min is None else self.min, math.inf if self.max is None else self.max

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        if unit != 1:
            raise OptionError("a Zipf distribution for tokens or items", "one for a share", "choose another")
        low, high = (int(end) for end in self._range())
        parts = _zipf(self.exponent, low, high)
        at = np.clip(k - low + 1, 0, len(parts) - 1).astype(np.int64)
        return np.asarray(parts[at] / parts[-1])

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.array(self._range())


@lru_cache(maxsize=8)
def _zipf(exponent: float, low: int, high: int) -> NDArray[np.int64]:
    """Running sums of weights, the largest of which is 2**40: integers, so exact in any order."""
    k = np.arange(low, high + 1, dtype=np.float64)
    weights = np.rint(exp(np, -exponent * log(np, k / low)) * 2.0**40).astype(np.int64)
    return np.concatenate(([0], np.cumsum(weights)))


@dataclass(frozen=True)
class Beta(Distribution):
    """Beta over the shares from 0 to 1."""

    a: float
    b: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a", "b"):
            object.__setattr__(self, name, number(name, getattr(self, name), above=0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        from scipy.special import betainc

        if unit == 1:
            raise OptionError("a Beta distribution for a share", "one for tokens or items", "choose another")
        return _rounded(betainc(self.a, self.b, np.clip(_middle(k, unit), 0.0, 1.0)))


def _rounded(share: ArrayLike) -> Array:
    """To 2**-28, far above the differences between versions of a library."""
    return np.asarray(np.rint(np.asarray(share, np.float64) * 2.0**28) * 2.0**-28)


@dataclass(frozen=True, eq=False)
class FromScipy(Distribution):
    """A frozen distribution of ``scipy.stats``, or whatever has a vectorized ``cdf``."""

    frozen: Any

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        try:
            share = np.asarray(self.frozen.cdf(_middle(k, unit)), np.float64)
        except Exception as error:  # the user's own object may raise anything
            got = f"{type(error).__name__}: {error}"
            raise OptionError("a distribution whose cdf takes arrays", got[:200], "mend it") from error
        fault = share.shape != k.shape or not bool(((share >= 0) & (share <= 1)).all())
        if fault or (np.diff(share[np.argsort(k)]) < -1e-9).any():
            raise OptionError(
                "a distribution function that rises from 0 to 1",
                f"shape {share.shape}, from {share.min():g} to {share.max():g}",
                "check the parameters of the distribution",
            )
        return _rounded(share)


@dataclass(frozen=True, eq=False)
class Pmf(Distribution):
    """Values with weights: probabilities, counts, or any multiple of them."""

    values: ArrayLike
    weights: ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        values, weights = _numbers("values", self.values), _numbers("weights", self.weights)
        if values.shape != weights.shape:
            raise OptionError("a weight for every value", f"{len(values)} values, {len(weights)} weights", "add some")
        if not weights.any():
            raise OptionError("a positive weight", "zeros only", "mend weights")
        order = np.argsort(values, kind="stable")
        order = order[weights[order] > 0]
        object.__setattr__(self, "values", values[order])
        object.__setattr__(self, "weights", weights[order])

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        upto = np.concatenate(([0.0], np.cumsum(self.weights)))
        return np.asarray(upto[np.searchsorted(np.rint(self.atoms() * unit), k, side="right")] / upto[-1])

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.asarray(self.values)


@dataclass(frozen=True, eq=False)
class Samples(Distribution):
    """Observed values, each as likely as often it occurs."""

    values: ArrayLike
    pmf: Pmf = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        values, counts = np.unique(_numbers("samples", self.values), return_counts=True)
        object.__setattr__(self, "pmf", Pmf(values, counts))
        object.__setattr__(self, "values", self.pmf.values)

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        return self.pmf.at_most(k, unit)

    def atoms(self) -> Array:
        """See `Distribution`."""
        return self.pmf.atoms()


@dataclass(frozen=True, eq=False)
class Histogram(Distribution):
    """Bins ``edges[i]`` to ``edges[i + 1]`` with weights, even inside a bin; tokens of the right edge are outside."""

    edges: ArrayLike
    weights: ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        edges, weights = _numbers("edges", self.edges), _numbers("weights", self.weights)
        if len(edges) != len(weights) + 1:
            raise OptionError("one edge more than weights", f"{len(edges)} edges, {len(weights)} weights", "add some")
        if (np.diff(edges) <= 0).any():
            i = int(np.argmax(np.diff(edges) <= 0))
            raise OptionError("ascending edges", f"{edges[i + 1]:g} after {edges[i]:g}", "sort the histogram")
        if not weights.any():
            raise OptionError("a positive weight", "zeros only", "mend weights")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "weights", weights)

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        upto = np.concatenate(([0.0], np.cumsum(self.weights)))
        x = k + 1 if unit == 1 else _middle(k, unit)
        return np.asarray(np.interp(x, np.asarray(self.edges), upto / upto[-1]))

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.asarray(self.edges)[:-1]


@dataclass(frozen=True)
class Mixture(Distribution):
    """One of several distributions for each request, by weights; each may have a `min` and a `max` of its own."""

    parts: Sequence[Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = tuple(as_distribution(part) for part in self.parts)
        weights = _numbers("weights", (1.0,) * len(parts) if self.weights is None else tuple(self.weights))
        if len(weights) != len(parts) or not weights.any():
            raise OptionError(
                "a weight for every part, not all of them 0", f"{len(parts)} parts, weights {weights}", "mend weights"
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "weights", tuple(weights.tolist()))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        assert self.weights is not None
        total = math.fsum(self.weights)
        share = np.zeros(len(k))
        for part, weight in zip(self.parts, self.weights, strict=True):
            share = share + weight / total * part.cut_at_most(k, unit)
        return np.minimum(share, 1.0)

    def atoms(self) -> Array:
        """See `Distribution`."""
        bounds = [b for part in self.parts for b in (part.min, part.max) if b is not None]
        return np.unique(np.concatenate([np.array(bounds, np.float64), *(part.atoms() for part in self.parts)]))


def as_distribution(value: Any) -> Distribution:
    """A distribution in any of the forms it may be given.

    Parameters
    ----------
    value : Distribution, number, mapping, sequence, array or frozen SciPy distribution
        A number is a constant, a mapping ``{value: weight}`` a PMF, a sequence or array samples; whatever has a
        ``cdf``, such as ``scipy.stats.gamma(2, scale=300)``, is taken as it is.
    """
    if isinstance(value, Distribution):
        return value
    if isinstance(value, Mapping):
        return Pmf(list(value), list(value.values()))
    if isinstance(value, int | float | np.integer | np.floating):
        return Constant(value)  # type: ignore[arg-type]
    if callable(getattr(value, "cdf", None)):
        return FromScipy(value)
    if hasattr(value, "__array__") or (isinstance(value, Sequence) and not isinstance(value, str | bytes)):
        return Samples(value)
    raise OptionError(
        "a distribution: a number, {value: weight}, samples, a frozen SciPy distribution, or one of ours",
        f"{type(value).__name__} {str(value)[:60]}",
        "see servegen_gpu.distributions",
    )
