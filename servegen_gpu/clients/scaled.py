"""Distributions made longer or shorter by a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.errors import OptionError

if TYPE_CHECKING:
    from servegen_gpu.clients.pool import ClientPool
    from servegen_gpu.clients.stated.turns import TurnModel

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


def scaled_turns(model: TurnModel, factor: float) -> TurnModel:
    """A model of conversations with inter-turn times `factor` times as long, and as long a time to end in.

    A pool at X times its rate has the conversations that it had, only more of them (``itt``). With inter-turn times of
    1 / X as well, it is what ``naive`` scaling makes of it, see `servegen_gpu.rescale`.

    Parameters
    ----------
    model : TurnModel
    factor : float
        Above 0.
    """
    factor = number("factor", factor, above=0)
    return replace(model, gap_s=scaled(model.gap_s, factor, times=True), session_s=model.session_s * factor)


def rescaled_pool(pool: ClientPool, factor: float, method: str) -> ClientPool:
    """A pool at `factor` times its rates; see `ClientPool.rescaled`."""
    factor = number("factor", factor, above=0)
    if method not in ("itt", "naive"):
        raise OptionError("method as itt or naive", repr(method), "change method")
    models = pool.turn_models
    if method == "naive":
        models = tuple(scaled_turns(model, 1 / factor) for model in models)
    whole_rps = None if pool.whole_rps is None else pool.whole_rps * factor
    return replace(pool, rate_factor=pool.rate_factor * factor, turn_models=models, whole_rps=whole_rps)


def scaled(distribution: d.Distribution, factor: float, *, times: bool = False) -> d.Distribution:
    """The distribution of lengths `factor` times as long; bounds (`min`, `max`) stay where they are.

    With `times`, of times instead of tokens: bounds move along, and nothing is rounded to whole numbers.

    Raises
    ------
    OptionError
        For a distribution without a scale.
    """
    if factor == 1:
        return distribution
    if isinstance(distribution, d.Mixture):
        parts = tuple(scaled(part, factor, times=times) for part in distribution.parts)
        moved: dict[str, Any] = {"parts": parts} | (_bounds(distribution, factor) if times else {})
        return replace(distribution, **moved)
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
    changes: dict[str, Any] = _bounds(distribution, factor) if times else {}
    for name in names:
        if (value := getattr(distribution, name)) is not None:
            longer = np.asarray(value) * factor
            if isinstance(distribution, WHOLE) and not times:
                longer = np.maximum(np.rint(longer), np.minimum(value, 1))
            changes[name] = longer if longer.ndim else float(longer)
    return replace(distribution, **changes)


def _bounds(distribution: d.Distribution, factor: float) -> dict[str, float]:
    """Stated bounds, `factor` times as large."""
    stated = {"min": distribution.min, "max": distribution.max}
    return {name: bound * factor for name, bound in stated.items() if bound is not None}
