"""One parameter at a time: its low and its high end, all others at their base.

Axes: points (the base; then of every parameter its low end and its high end), parameters, metrics, replicas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.studies.intervals import t_quantile

FIGURES = ("base", "at_low", "at_high", "swing", "swing_low", "swing_high")


def points(base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in the ranges of the parameters, float64[points, parameters]; `base` is float64[parameters]."""
    found = np.tile(base, (1 + 2 * len(base), 1))
    parameter = np.arange(len(base))
    found[1 + 2 * parameter, parameter] = 0.0
    found[2 + 2 * parameter, parameter] = 1.0
    return found


def figures(y: NDArray[np.float64], confidence: float) -> dict[str, NDArray[np.float64]]:
    """What metrics are at both ends, and how far they swing from the low end to the high end.

    Parameters
    ----------
    y : float64[points, metrics, replicas]
        Replicas with the same number have the same random numbers at all points, so that their swings are compared.
    confidence : float
        Of the interval of a swing, Student's over replicas; NaN of a single one.

    Returns
    -------
    dict of str to float64[metrics, parameters]
    """
    mean = y.mean(axis=-1)
    swings = y[2::2] - y[1::2]  # [parameters, metrics, replicas]
    replicas = y.shape[-1]
    half = np.full(swings.shape[:2], np.nan)
    if replicas > 1:
        half = t_quantile(0.5 + confidence / 2, replicas - 1) * swings.std(axis=-1, ddof=1) / np.sqrt(replicas)
    swing = swings.mean(axis=-1)
    found = (np.broadcast_to(mean[0], swing.shape), mean[1::2], mean[2::2], swing, swing - half, swing + half)
    return {name: np.asarray(each.T) for name, each in zip(FIGURES, found, strict=True)}
