"""Pareto and log-normal together, fitted to counted lengths: the form that the paper has for inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distributions import Constant, Distribution, LogNormal, Mixture, Pareto

SCALE_LEVELS = (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Quantiles of the log at which the Pareto part may begin: the likelihood has no slope in its scale."""
STEPS, SETTLED = 300, 1e-7
LEAST_SIGMA = 1e-3
LEAST_ALPHA, MOST_ALPHA = 0.05, 20.0
LEAST_BODY = 1e-6
MOST_BINS = 2048


@dataclass(frozen=True)
class Fitted:
    """A mixture of a log-normal body and a Pareto tail.

    Attributes
    ----------
    body_weight : float
    median, sigma : float
        Of the body.
    alpha, scale : float
        Of the tail.
    ks : float
        Kolmogorov–Smirnov distance to what it was fitted to.
    """

    body_weight: float
    median: float
    sigma: float
    alpha: float
    scale: float
    ks: float


def pareto_lognormal(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Distribution:
    """The mixture of `fit_mixture`, cut at the least and the largest value of the log.

    Parameters
    ----------
    values, counts : int64[bins]
        Different values, ascending, and how often each occurred; counts are positive.

    Returns
    -------
    Distribution
        `Mixture` of `LogNormal` and `Pareto`; `Constant` for one value.
    """
    if len(values) == 1:
        return Constant(float(values[0]))
    found = fit_mixture(values, counts)
    low, high = float(values[0]), float(values[-1])
    parts = [LogNormal(median=found.median, sigma=found.sigma), Pareto(alpha=found.alpha, scale=found.scale)]
    weights = [found.body_weight, 1 - found.body_weight]
    return Mixture(parts, weights, min=low, max=high)


def fit_mixture(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Fitted:
    """Expectation and maximisation from several scales of the tail; the one nearest to the log is taken.

    Nearest by the Kolmogorov–Smirnov distance: a likelihood would take a steep tail on a context limit, where many
    requests have one length.
    """
    x, weight = _binned(np.maximum(values, 0.5).astype(np.float64), counts / counts.sum())
    scales = np.unique(x[np.minimum(np.searchsorted(np.cumsum(weight), SCALE_LEVELS), len(x) - 1)])
    return min((_fit(x, weight, float(scale)) for scale in scales), key=lambda f: f.ks)


def _binned(x: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Many values as fewer, evenly spaced in their logarithm."""
    if len(x) <= MOST_BINS:
        return x, weight
    log = np.log(x)
    cell = np.floor((log - log[0]) * (MOST_BINS / (log[-1] - log[0] + 1e-9))).astype(np.int64)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    total = np.add.reduceat(weight, first)
    return np.exp(np.add.reduceat(weight * log, first) / total), total


def _fit(x: NDArray[np.float64], weight: NDArray[np.float64], scale: float) -> Fitted:
    log, beyond = np.log(x), np.log(x / scale)
    tail = beyond >= 0
    mean = float(weight @ log)
    sigma = max(float(np.sqrt(weight @ (log - mean) ** 2)), LEAST_SIGMA)
    body, before = 0.7, -np.inf
    alpha = _alpha(weight[tail], beyond[tail])
    for _ in range(STEPS):
        # densities of the logarithm: the Jacobian is the same for both
        z = (log - mean) / sigma
        of_body = body * np.exp(-0.5 * z * z) / (sigma * np.sqrt(2 * np.pi))
        of_tail = np.where(tail, (1 - body) * alpha * np.exp(-alpha * np.maximum(beyond, 0)), 0.0)
        both = np.maximum(of_body + of_tail, 1e-300)
        likelihood = float(weight @ np.log(both))
        if likelihood - before < SETTLED:
            break
        before = likelihood
        own = weight * of_body / both
        body = min(float(own.sum()), 1.0)
        if body < LEAST_BODY:
            break
        mean = float(own @ log / own.sum())
        sigma = max(float(np.sqrt(own @ (log - mean) ** 2 / own.sum())), LEAST_SIGMA)
        alpha = _alpha((weight - own)[tail], beyond[tail])
    median = float(np.exp(mean))
    parts = LogNormal(median=median, sigma=sigma), Pareto(alpha=alpha, scale=scale)
    reached = Mixture(parts, (body, 1 - body)).at_most(np.floor(x), 1)
    return Fitted(body, median, sigma, alpha, scale, float(np.abs(reached - np.cumsum(weight))[:-1].max(initial=0.0)))


def _alpha(weight: NDArray[np.float64], beyond: NDArray[np.float64]) -> float:
    """Exponent of a Pareto tail by maximum likelihood."""
    return float(np.clip(weight.sum() / max(float(weight @ beyond), 1e-12), LEAST_ALPHA, MOST_ALPHA))
