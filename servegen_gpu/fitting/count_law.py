"""How many requests a stationary renewal process with Gamma gaps has in a cell of time.

With N the count in a time in which m requests are expected, k the shape and P(a, x) the lower incomplete Gamma ratio,

    P(N ≥ n) = (1/k) ∫₀^{km} [P((n-1)k, x) - P(nk, x)] dx,

because the first request comes after what is left of a length-biased gap. k = 1 is Poisson.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

SETTLED = 30.0
"""km from which on the variance is its asymptote."""
LEAST = 1e-100
MOST_EXACT = 128


def count_probabilities(count: NDArray[np.int64], mean: Array, shape: float = 1.0) -> Array:
    """Probability of counts, float64[counts, means]; at least `LEAST`.

    Parameters
    ----------
    count : int64[counts]
    mean : float64[means]
        Expected counts; may be 0.
    shape : float
        Of the gaps.
    """
    n, m = count[:, None].astype(np.float64), mean[None]
    if shape == 1.0:
        found = np.exp(special.xlogy(n, m) - m - special.gammaln(n + 1.0))
    else:
        found = _at_least(n, m, shape) - _at_least(n + 1.0, m, shape)
    return np.maximum(found, LEAST)


def count_variance(mean: Array, shape: float = 1.0) -> Array:
    """Variance of the count where `mean` requests are expected, float64[means]."""
    mean = np.asarray(mean, np.float64)
    if shape == 1.0:
        return mean.copy()
    variance = mean / shape + (shape * shape - 1.0) / (6.0 * shape * shape)
    small = np.flatnonzero(shape * mean < SETTLED)
    if small.size:
        top = float(mean[small].max())
        knots = np.unique(mean[small])
        if len(knots) > MOST_EXACT:  # between others that are dense enough: the curve is smooth
            knots = np.concatenate(([0.0], np.geomspace(min(1e-3, top / 2), top, MOST_EXACT)))
        n = np.arange(1.0, np.ceil(top + 12.0 * np.sqrt(top / shape + 1.0) + 12.0 / shape) + 1.0)
        at_knots = (2.0 * n - 1.0) @ _at_least(n[:, None], knots[None], shape) - knots**2
        variance[small] = np.interp(mean[small], knots, at_knots)
    return variance


def count_covariance(mean: float, lags: NDArray[np.int64], shape: float = 1.0) -> Array:
    """Covariance of the counts of two cells `lags` apart, `mean` requests expected in each, float64[lags]."""
    if shape == 1.0:
        return np.where(lags == 0, mean, 0.0)
    near = np.minimum(lags, int(np.ceil(SETTLED / (shape * mean))) + 2)
    through = count_variance(np.arange(int(near.max()) + 2.0) * mean, shape)
    found: Array = 0.5 * (through[near + 1] - 2.0 * through[near] + through[np.abs(near - 1)])
    return np.where(shape * mean * lags < SETTLED, found, 0.0)


def _at_least(n: Array, mean: Array, shape: float) -> Array:
    """P(N ≥ n), of broadcast arguments."""
    x = shape * mean

    def integral(a: Array) -> Array:
        a = np.maximum(a, 1e-12)
        return np.asarray(x * special.gammainc(a, x) - a * special.gammainc(a + 1.0, x))

    before = np.where(n > 1, integral((n - 1.0) * shape), x)
    return np.where(n < 1, 1.0, (before - integral(np.maximum(n, 1.0) * shape)) / shape)
