"""Pareto and log-normal together, fitted to counted lengths: the form that the paper has for inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distributions import Constant, Distribution, LogNormal, Mixture, Pareto

SCALE_LEVELS = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Quantiles of the log at which the Pareto part may begin: the likelihood has no slope in its scale."""
STEPS, SETTLED = 300, 1e-7
LEAST_SIGMA = 1e-3
MOST_ALPHA = 100.0
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
    log_likelihood : float
        Per value.
    """

    body_weight: float
    median: float
    sigma: float
    alpha: float
    scale: float
    log_likelihood: float


def pareto_lognormal(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Distribution:
    """The mixture of largest likelihood, cut at the least and the largest value of the log.

    Parameters
    ----------
    values, counts : int64[bins]
        Different values, ascending, and how often each occurred; counts are positive.

    Returns
    -------
    Distribution
        `Mixture` of `LogNormal` and `Pareto`; one of them alone if the other has no weight; `Constant` for one value.
    """
    if len(values) == 1:
        return Constant(float(values[0]))
    found = fit_mixture(values, counts)
    low, high = float(values[0]), float(values[-1])
    parts = [LogNormal(median=found.median, sigma=found.sigma), Pareto(alpha=found.alpha, scale=found.scale)]
    weights = [found.body_weight, 1 - found.body_weight]
    return Mixture(parts, weights, min=low, max=high)


def fit_mixture(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Fitted:
    """Expectation and maximisation from several scales of the tail; the best is taken."""
    x, weight = _binned(np.maximum(values, 0.5).astype(np.float64), counts.astype(np.float64))
    upto = np.cumsum(weight) / weight.sum()
    scales = np.unique(x[np.searchsorted(upto, np.array(SCALE_LEVELS))])
    return max((_fit(np.log(x), weight / weight.sum(), float(s)) for s in scales), key=lambda f: f.log_likelihood)


def _binned(x: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Many values as fewer, evenly spaced in their logarithm."""
    if len(x) <= MOST_BINS:
        return x, weight
    log = np.log(x)
    cell = np.floor((log - log[0]) * (MOST_BINS / (log[-1] - log[0] + 1e-9))).astype(np.int64)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    total = np.add.reduceat(weight, first)
    return np.exp(np.add.reduceat(weight * log, first) / total), total


def _fit(log: NDArray[np.float64], weight: NDArray[np.float64], scale: float) -> Fitted:
    beyond = log - np.log(scale)
    tail = beyond >= 0
    mean = float(weight @ log)
    sigma = max(float(np.sqrt(weight @ (log - mean) ** 2)), LEAST_SIGMA)
    body_weight, alpha = 0.7, min(float(weight[tail].sum() / max(weight[tail] @ beyond[tail], 1e-9)), MOST_ALPHA)
    before = -np.inf
    likelihood = before
    for _ in range(STEPS):
        # densities of the logarithm: the Jacobian is the same for both
        z = (log - mean) / sigma
        body = body_weight * np.exp(-0.5 * z * z) / (sigma * np.sqrt(2 * np.pi))
        pareto = np.where(tail, (1 - body_weight) * alpha * np.exp(-alpha * np.maximum(beyond, 0)), 0.0)
        both = np.maximum(body + pareto, 1e-300)
        likelihood = float(weight @ np.log(both))
        if likelihood - before < SETTLED:
            break
        before = likelihood
        own = weight * body / both
        rest = weight - own
        body_weight = float(own.sum())
        if body_weight < 1e-6:
            break
        mean = float(own @ log / body_weight)
        sigma = max(float(np.sqrt(own @ (log - mean) ** 2 / body_weight)), LEAST_SIGMA)
        alpha = min(float(rest.sum() / max(rest[tail] @ beyond[tail], 1e-12)), MOST_ALPHA) or MOST_ALPHA
    weighted = min(max(body_weight, 0.0), 1.0)
    return Fitted(weighted, float(np.exp(mean)), sigma, max(alpha, 1e-6), scale, likelihood)
