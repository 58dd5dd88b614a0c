"""Shares of the variance of a metric (Sobol', Math. Model. Comput. Exp. 1, 1993).

The *first-order index* of a parameter is the share of the variance that goes when the parameter alone becomes known;
its *total index* the share that is left when all others are known. What the second has beyond the first comes from
interactions. Estimated by SciPy, with the formulas of Saltelli et al. (Comput. Phys. Commun. 181, 2010), from scrambled
points; so an index may come out somewhat below 0 or above 1.

Axes: points (n of a matrix A; n of a matrix B; for every parameter, n of A with that parameter from B), parameters,
metrics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.studies.bootstrap import percentile_interval, resamples

FIGURES = ("first", "first_low", "first_high", "total", "total_low", "total_high")


def points(parameters: int, n: int, seed: int) -> NDArray[np.float64]:
    """Places in the ranges of the parameters, float64[points, parameters]; n is a power of 2."""
    from scipy.stats import qmc

    both = qmc.Sobol(2 * parameters, scramble=True, seed=seed).random_base2(n.bit_length() - 1)
    a, b = both[:, :parameters], both[:, parameters:]
    mixed = np.tile(a, (parameters, 1, 1))
    parameter = np.arange(parameters)
    mixed[parameter, :, parameter] = b.T
    return np.concatenate((a, b, mixed.reshape(-1, parameters)))


def figures(y: NDArray[np.float64], parameters: int, seed: int, confidence: float) -> dict[str, NDArray[np.float64]]:
    """Indices, dict of str to float64[metrics, parameters]; NaN of metrics that do not vary or lack a value.

    Parameters
    ----------
    y : float64[points, metrics]
    parameters, seed : int
        As for `points`.
    confidence : float
        Of the intervals: from resamples of the rows of both matrices.
    """
    from scipy.stats import sobol_indices

    n = len(y) // (parameters + 2)
    metrics = y.shape[-1]
    found = {name: np.full((metrics, parameters), np.nan) for name in FIGURES}
    some = np.flatnonzero(np.isfinite(y).all(axis=0) & (y[: 2 * n].max(axis=0) > y[: 2 * n].min(axis=0)))
    centered = y[:, some] - y[: 2 * n, some].mean(axis=0)
    of = centered.T.reshape(len(some), parameters + 2, n)  # [metrics, matrices, n]
    a, b, mixed = of[:, 0], of[:, 1], of[:, 2:]
    chosen = resamples(n, seed)
    for metric, row in enumerate(some):
        ab = mixed[metric][:, None]
        said = sobol_indices(func={"f_A": a[None, metric], "f_B": b[None, metric], "f_AB": ab}, n=n)
        # the same formulas on resamples, whose sums are products of matrices
        sums = chosen @ np.column_stack((a[metric] + b[metric], a[metric] ** 2 + b[metric] ** 2)) / (2 * n)
        variance = sums[:, 1] - sums[:, 0] ** 2
        first = (b[metric] * (mixed[metric] - a[metric])) @ chosen.T / n / variance
        total = (a[metric] - mixed[metric]) ** 2 @ chosen.T / (2 * n) / variance
        of_metric = (
            *(said.first_order, *percentile_interval(first, confidence)),
            *(said.total_order, *percentile_interval(total, confidence)),
        )
        for name, each in zip(FIGURES, of_metric, strict=True):
            found[name][row] = np.ravel(each)
    return found
