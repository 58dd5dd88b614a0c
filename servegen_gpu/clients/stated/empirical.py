"""Distributions from data, or from an object that knows its distribution function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from servegen_gpu.clients.stated.distribution import Array, Distribution, middle, numbers, rounded
from servegen_gpu.errors import OptionError


@dataclass(frozen=True, eq=False, repr=False)
class Pmf(Distribution):
    """Values with weights: probabilities, counts, or any multiple of them."""

    values: ArrayLike
    weights: ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        values, weights = numbers("values", self.values), numbers("weights", self.weights)
        if values.shape != weights.shape:
            raise OptionError("a weight for every value", f"{len(values)} values, {len(weights)} weights", "add some")
        if not weights.any():
            raise OptionError("a positive weight", "zeros only", "fix weights")
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


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Distribution):
    """Observed values, each as likely as often it occurs."""

    values: ArrayLike
    pmf: Pmf = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        values, counts = np.unique(numbers("samples", self.values), return_counts=True)
        object.__setattr__(self, "pmf", Pmf(values, counts))
        object.__setattr__(self, "values", self.pmf.values)

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        return self.pmf.at_most(k, unit)

    def atoms(self) -> Array:
        """See `Distribution`."""
        return self.pmf.atoms()


@dataclass(frozen=True, eq=False, repr=False)
class Histogram(Distribution):
    """Bins ``edges[i]`` to ``edges[i + 1]`` with weights, even inside a bin; tokens of the right edge are outside."""

    edges: ArrayLike
    weights: ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        edges, weights = numbers("edges", self.edges), numbers("weights", self.weights)
        if len(edges) != len(weights) + 1:
            raise OptionError("one edge more than weights", f"{len(edges)} edges, {len(weights)} weights", "add some")
        if (np.diff(edges) <= 0).any():
            i = int(np.argmax(np.diff(edges) <= 0))
            raise OptionError("ascending edges", f"{edges[i + 1]:g} after {edges[i]:g}", "sort the histogram")
        if not weights.any():
            raise OptionError("a positive weight", "zeros only", "fix weights")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "weights", weights)

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        upto = np.concatenate(([0.0], np.cumsum(self.weights)))
        x = k + 1 if unit == 1 else middle(k, unit)
        return np.asarray(np.interp(x, np.asarray(self.edges), upto / upto[-1]))

    def atoms(self) -> Array:
        """See `Distribution`."""
        return np.asarray(self.edges)


@dataclass(frozen=True, eq=False, repr=False)
class FromScipy(Distribution):
    """A frozen distribution of ``scipy.stats``, or whatever has a vectorized ``cdf``."""

    frozen: Any

    def at_most(self, k: Array, unit: int) -> Array:
        """See `Distribution`."""
        try:
            share = np.asarray(self.frozen.cdf(middle(k, unit)), np.float64)
        except Exception as error:  # the user's own object may raise anything
            got = f"{type(error).__name__}: {error}"
            raise OptionError("a distribution whose cdf takes arrays", got[:200], "fix it") from error
        fault = share.shape != k.shape or not bool(((share >= 0) & (share <= 1)).all())
        if fault or (np.diff(share[np.argsort(k)]) < -1e-9).any():
            raise OptionError(
                "a distribution function that rises from 0 to 1",
                f"values from {share.min():g} to {share.max():g}",
                "check the parameters of the distribution",
            )
        return rounded(share)
