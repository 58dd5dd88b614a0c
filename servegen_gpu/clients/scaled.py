"""Distributions made longer or shorter by a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from servegen_gpu.clients import distributions as d
from servegen_gpu.errors import OptionError

SCALES: dict[type[d.Distribution], tuple[str, ...]] = {
    d.Constant: ("value",),
    d.Uniform: ("low", "high"),
    d.Exponential: ("mean",),
    d.Normal: ("mean", "std"),
    d.LogNormal: ("median", "mean"),
    d.Pareto: ("scale",),
    d.Pmf: ("values",),
    d.Histogram: ("edges",),
}
"""Parameters that are lengths; values that are stated one by one stay whole tokens."""
WHOLE = (d.Constant, d.Uniform, d.Pmf)


def scaled(distribution: d.Distribution, factor: float) -> d.Distribution:
    """The distribution of lengths `factor` times as long; bounds (`min`, `max`) stay where they are.

    Raises
    ------
    OptionError
        For a distribution without a scale.
    """
    if factor == 1:
        return distribution
    if isinstance(distribution, d.Mixture):
        return replace(distribution, parts=tuple(scaled(part, factor) for part in distribution.parts))
    if isinstance(distribution, d.Samples):  # whose counts are not among its values
        counted = distribution.pmf
        distribution = d.Pmf(counted.values, counted.weights, min=distribution.min, max=distribution.max)
    names = SCALES.get(type(distribution))
    if names is None:
        with_scale: list[type] = [*SCALES, d.Samples]
        kinds = ", ".join(kind.__name__.lower() for kind in with_scale)
        raise OptionError(
            f"distributions with a scale where lengths are spread ({kinds}, mixture)",
            type(distribution).__name__,
            "choose another, or state a spread of 0",
        )
    changes: dict[str, Any] = {}
    for name in names:
        if (value := getattr(distribution, name)) is not None:
            longer = np.asarray(value) * factor
            if isinstance(distribution, WHOLE):
                longer = np.maximum(np.rint(longer), np.minimum(value, 1))
            changes[name] = longer if longer.ndim else float(longer)
    return replace(distribution, **changes)
