"""Elementary effects: what a parameter does from many places, in few points (Morris, Technometrics 33, 1991).

A trajectory begins somewhere on a grid of four levels, and every parameter once moves by two thirds of its range, in
random order. What a metric changes by, over the part of the range, is an elementary effect. Of a parameter's effects,
``mu`` is their mean, ``mu_star`` the mean of their sizes (Campolongo et al., Environ. Model. Softw. 22, 2007), and
``sigma`` their standard deviation: large where effects are not linear, or depend on others. All are in units of
the metric, over the whole range of the parameter on its scale.

Axes: points (trajectories one after the other, each of parameters + 1 points), parameters, metrics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.studies.bootstrap import percentile_interval, resamples, uniforms

FIGURES = ("mu_star", "mu_star_low", "mu_star_high", "mu", "sigma")
LEVELS, STEP = 4, 2 / 3


def points(parameters: int, trajectories: int, seed: int) -> NDArray[np.float64]:
    """Places in the ranges of the parameters, float64[points, parameters]."""
    start, rank = _trajectories(parameters, trajectories, seed)
    moved = rank[:, None, :] < np.arange(parameters + 1)[None, :, None]
    found = start[:, None, :] + np.where(moved, _steps(start)[:, None, :], 0.0)
    return np.clip(found, 0.0, 1.0).reshape(-1, parameters)


def figures(y: NDArray[np.float64], parameters: int, seed: int, confidence: float) -> dict[str, NDArray[np.float64]]:
    """Figures of the elementary effects, dict of str to float64[metrics, parameters].

    Parameters
    ----------
    y : float64[points, metrics]
    parameters, seed : int
        As for `points`.
    confidence : float
        Of the interval of `mu_star`: from resamples of the trajectories.
    """
    by_trajectory = y.reshape(-1, parameters + 1, y.shape[-1])
    trajectories = len(by_trajectory)
    start, rank = _trajectories(parameters, trajectories, seed)
    each = np.arange(trajectories)[:, None]
    effects = (by_trajectory[each, rank + 1] - by_trajectory[each, rank]) / _steps(start)[..., None]
    effects = effects.transpose(2, 1, 0)  # [metrics, parameters, trajectories]
    size = np.abs(effects)
    low, high = percentile_interval(size @ resamples(trajectories, seed).T / trajectories, confidence)
    found = (size.mean(axis=-1), low, high, effects.mean(axis=-1), effects.std(axis=-1, ddof=1))
    return dict(zip(FIGURES, found, strict=True))


def _trajectories(parameters: int, trajectories: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where trajectories begin, float64[trajectories, parameters], and when each parameter moves, int64 alike."""
    level, order = uniforms(seed, 0, (2, trajectories, parameters))
    return np.floor(level * LEVELS) / (LEVELS - 1), np.argsort(np.argsort(order, axis=1), axis=1)


def _steps(start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Away from the end that is near."""
    return np.where(start < 0.5, STEP, -STEP)
