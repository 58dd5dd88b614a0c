"""Distributions of lengths, item counts and reasoning shares, as a user states them: all that there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from servegen_gpu.clients.stated.distribution import Array, Distribution, numbers
from servegen_gpu.clients.stated.empirical import FromScipy, Histogram, Pmf, Samples
from servegen_gpu.clients.stated.families import Beta, Constant, Exponential, LogNormal, Normal, Pareto, Uniform, Zipf
from servegen_gpu.errors import OptionError

__all__ = [
    "Beta",
    "Constant",
    "Distribution",
    "Exponential",
    "FromScipy",
    "Histogram",
    "LogNormal",
    "Mixture",
    "Normal",
    "Pareto",
    "Pmf",
    "Samples",
    "Uniform",
    "Zipf",
    "as_distribution",
]


@dataclass(frozen=True, repr=False)
class Mixture(Distribution):
    """One of several distributions for each request, by weights; each may have a `min` and a `max` of its own."""

    parts: Sequence[Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = tuple(as_distribution(part) for part in self.parts)
        weights = numbers("weights", (1.0,) * len(parts) if self.weights is None else tuple(self.weights))
        if len(weights) != len(parts) or not weights.any():
            raise OptionError(
                "a weight for every part, not all of them 0", f"{len(parts)} parts, weights {weights}", "fix weights"
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
