"""Families of distributions with a few parameters each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import Array, Distribution, middle, number, rounded
from servegen_gpu.errors import OptionError
from servegen_gpu.law.elementary import CDF_LIMIT, exp, log, normal_cdf

TINY = 1e-300
ZIPF_LIMIT = 1 << 22
BETA_LIMIT, BETA_TERMS = 1000.0, 1000


@dataclass(frozen=True, repr=False)
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


@dataclass(frozen=True, repr=False)
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
        return np.clip((middle(k, unit) - self.low) / max(self.high - self.low, TINY), 0.0, 1.0)

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.array([self.low, self.high])


@dataclass(frozen=True, repr=False)
class Exponential(Distribution):
    """Exponential with a mean."""

    mean: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", number("mean", self.mean, above=0))

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        x = np.maximum(middle(k, unit), 0.0)
        return np.where(x > 0, 1.0 - exp(np, -x / self.mean), 0.0)


@dataclass(frozen=True, repr=False)
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
        return _normal((middle(k, unit) - self.mean) / self.std)


@dataclass(frozen=True, repr=False)
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
        x = middle(k, unit)
        z = log(np, np.maximum(x / median, TINY)) / sigma
        return np.where(x > 0, _normal(z), 0.0)


@dataclass(frozen=True, repr=False)
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
        ratio = np.maximum(middle(k, unit) / self.scale, 1.0)
        return np.where(ratio > 1, 1.0 - exp(np, -self.alpha * log(np, ratio)), 0.0)


@dataclass(frozen=True, repr=False)
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


@dataclass(frozen=True, repr=False)
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
        if unit == 1:
            raise OptionError("a Beta distribution for a share", "one for tokens or items", "choose another")
        return rounded(_beta_cdf(self.a, self.b, np.clip(middle(k, unit), 0.0, 1.0)))


def _beta_cdf(a: float, b: float, x: Array) -> Array:
    """Beta distribution function: the regularized incomplete beta function.

    By its continued fraction (DLMF 8.17.22, with Lentz's method) on the side of the mean where that is short: off by
    less than 1e-11. SciPy has it, too, but takes 0.1 s to import; it is for parameters that need many terms.
    """
    if max(a, b) > BETA_LIMIT:
        from scipy.special import betainc

        return np.asarray(betainc(a, b, x))
    above = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(above, b, a), np.where(above, a, b), np.where(above, 1 - x, x)
    with np.errstate(divide="ignore"):  # log(0) where the answer is 0 or 1
        log_density = p * np.log(y) + q * np.log1p(-y) + (math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    c, d = np.ones_like(y), 1 / (1 - (p + q) * y / (p + 1))
    fraction = d
    for m in range(1, BETA_TERMS):
        even = m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m))
        odd = -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1))
        step = np.ones_like(y)
        for term in (even, odd):
            c, d = 1 + term / c, 1 / (1 + term * d)
            step = step * (c * d)
        fraction = fraction * step
        if np.abs(step - 1).max() < 1e-15:
            break
    share = np.exp(log_density) / p * fraction
    return np.asarray(np.where(above, 1 - share, share))


def _normal(z: Array) -> Array:
    """Standard normal distribution function; all or nothing beyond the clip of `normal_cdf`, 1.3e-12 of the mass."""
    return np.where(np.abs(z) < CDF_LIMIT, normal_cdf(np, z), np.asarray(z > 0, np.float64))


@lru_cache(maxsize=8)
def _zipf(exponent: float, low: int, high: int) -> NDArray[np.int64]:
    """Running sums of weights, the largest of which is 2**40: integers, so exact in any order."""
    k = np.arange(low, high + 1, dtype=np.float64)
    weights = np.rint(exp(np, -exponent * log(np, k / low)) * 2.0**40).astype(np.int64)
    return np.concatenate(([0], np.cumsum(weights)))
