"""Octaves of an environment: the correlations that the law gives each, and the weights with which they are a log's.

Notation as in `environment.py`: Cov M(l) = H(Σ_k w_k ρ_k(l)), of which `kernels` are the ρ_k, and `Link` is H.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from servegen_gpu.clients.stated.environment import Margin

Array = NDArray[np.float64]

BLOCKS = 16
"""Of a log, each of which is left out once for the errors of weights."""
SURE = 2.0
"""Standard errors that a weight must have to stay."""
HERMITES, PHASES = 100, 64


def kernels(lags: NDArray[np.int64], octaves: tuple[int, ...]) -> Array:
    """Correlation of an octave's noise at lags of cells, float64[lags, octaves]: the law's, over all phases."""
    found = np.empty((len(lags), len(octaves)))
    for i, octave in enumerate(octaves):
        step = 1 << octave
        if step <= PHASES:
            found[:, i] = _kernel(np.minimum(lags, 4 * step), step)
        else:
            fine = _kernel(np.arange(4 * PHASES + 1), PHASES)
            found[:, i] = np.interp(lags / step, np.arange(4 * PHASES + 1) / PHASES, fine)
    return found


def _kernel(lags: NDArray[np.int64], step: int) -> Array:
    at = np.arange(step)
    b = _spline_weights((at + 0.5) / step)
    later = at[None] + lags[:, None]
    moved = later // step
    c = b[:, later % step]
    total = np.zeros(later.shape)
    for m in range(4):
        other = m - moved
        inside = (other >= 0) & (other < 4)
        total += np.where(inside, b[m][None] * np.take_along_axis(c, np.clip(other, 0, 3)[None], axis=0)[0], 0.0)
    return np.asarray(total.mean(axis=1))


def _spline_weights(f: Array) -> Array:
    """Cubic B-spline weights, of squares that sum to 1, float64[4, f]."""
    rest = 1.0 - f
    b = np.stack((rest**3, (3.0 * f - 6.0) * f * f + 4.0, ((3.0 - 3.0 * f) * f + 3.0) * f + 1.0, f**3))
    return np.asarray(b / np.sqrt((b * b).sum(axis=0)))


def octave_weights(
    lags: NDArray[np.int64], emp: Array, apart: Array, link: Link, octaves: tuple[int, ...]
) -> tuple[dict[int, float], dict[int, float]]:
    """Weights of octaves, whose sum is 1, as far as they are sure, and their standard errors."""
    spread = np.minimum(np.sqrt(np.diff(lags, prepend=lags[0] - 1)), 3.0)
    cor, cor_apart = link.correlation(emp), link.correlation(apart)
    kernel = kernels(lags, octaves)
    kept = list(range(len(octaves)))
    while True:
        weights = _least_squares(kernel[:, kept], cor, spread)
        left_out = np.stack([_least_squares(kernel[:, kept], row, spread) for row in cor_apart])
        errors = np.sqrt((BLOCKS - 1) / BLOCKS * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
        sure = weights / np.maximum(errors, 1e-12)
        worst = int(np.argmin(sure))
        if sure[worst] >= SURE or len(kept) == 1:
            names = [octaves[i] for i in kept]
            return dict(zip(names, weights.tolist(), strict=True)), dict(zip(names, errors.tolist(), strict=True))
        del kept[worst]


def _least_squares(kernel: Array, cor: Array, spread: Array) -> Array:
    heavy = 100.0  # the sum is 1
    left = np.vstack((kernel * spread[:, None], np.full((1, kernel.shape[1]), heavy)))
    weights, _ = optimize.nnls(left, np.append(cor * spread, heavy))
    total = float(weights.sum())
    return np.asarray(weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights)))


@dataclass(frozen=True, eq=False)
class Link:
    """H: correlations of z to covariances of M, both ascending."""

    cor: Array
    cov: Array

    @classmethod
    def of(cls, margin: Margin) -> Link:
        """Of a margin, by the Hermite series of its quantile function."""
        share = (np.arange(20_000) + 0.5) / 20_000
        z = special.ndtri(share)
        factor = margin.quantile(share)
        before, hermite = np.zeros_like(z), np.ones_like(z)
        cor = np.concatenate((np.linspace(-1.0, 0.95, 196), 1.0 - np.geomspace(0.045, 1e-4, 30), [1.0]))
        cov, power = np.zeros_like(cor), np.ones_like(cor)
        for n in range(1, HERMITES + 1):
            before, hermite = hermite, (z * hermite - np.sqrt(n - 1.0) * before) / np.sqrt(n)
            power = power * cor
            cov += (factor * hermite).mean() ** 2 * power
        cov[-1] = margin.variance  # the series is never complete
        return cls(cor, np.maximum.accumulate(cov))

    def covariance(self, cor: Array) -> Array:
        """Covariances of M at correlations of z."""
        return np.asarray(np.interp(cor, self.cor, self.cov))

    def correlation(self, cov: Array) -> Array:
        """Correlations of z at covariances of M; those that chance made larger than any, or smaller, are cut."""
        return np.asarray(np.interp(cov, self.cov, self.cor))


def mean_variance(link: Link, octaves: Mapping[int, float], cells: int) -> float:
    """Variance of the factor's mean over as many cells."""
    lags = some_lags(cells)
    return over_cells(link.covariance(kernels(lags, tuple(octaves)) @ np.array(list(octaves.values()))), lags, cells)


def some_lags(cells: int) -> NDArray[np.int64]:
    """Lags below a number of cells, dense at first, between which covariances are lines."""
    return np.unique(np.rint(np.concatenate(([0], np.geomspace(1, max(cells, 1), 400)))).astype(np.int64))


def over_cells(covariance: Array, lags: NDArray[np.int64], cells: int) -> float:
    """Variance of a mean over cells, from covariances at `some_lags`."""
    every = np.interp(np.arange(cells), lags, covariance) * (1.0 - np.arange(cells) / cells)
    return float((2.0 * every.sum() - every[0]) / cells)
