"""Intervals of what replicas say: means, quantiles, shares of the variance, and means with control variates.

A *unit* is what is independent of its like: a replica, or, where parameters vary, a draw of them with all its replicas.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST_LEFT = 8
"""Units that must be left for each control variate and the mean, so that coefficients mean anything."""


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval; infinite where there is none."""

    value: float
    low: float
    high: float


def t_quantile(level: float, freedom: float) -> float:
    """Quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def mean_interval(units: NDArray[np.float64], confidence: float) -> Interval:
    """Mean of independent units, with Student's interval; infinite for a single one, and where the mean is."""
    n = len(units)
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(units.mean())
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(0.5 + confidence / 2, n - 1) * float(units.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def quantile_interval(sample: NDArray[np.float64], p: float, confidence: float) -> Interval:
    """Quantile of a distribution, between two order statistics: whatever the distribution is.

    With l and u such that a binomial number of n tries at p is below l, or at least u, with probability (1 -
    `confidence`)/2 at most, the interval from the l-th to the u-th smallest of n holds the quantile (David, Nagaraja,
    "Order Statistics", 2003, section 7.1). Where the sample is too small for an end, it is infinite: see
    `sample_needed`.
    """
    from scipy.special import bdtr

    n = len(sample)
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    ordered, tail = np.sort(sample), (1 - confidence) / 2
    below = bdtr(np.arange(n + 1.0), n, p)  # P(B <= k), k = 0 to n
    lower = int(np.searchsorted(below, tail, side="right"))  # largest l with P(B <= l - 1) <= tail
    upper = int(np.searchsorted(below, 1 - tail)) + 1  # smallest u with P(B <= u - 1) >= 1 - tail
    return Interval(
        _quantile(ordered, p),
        float(ordered[lower - 1]) if lower else -math.inf,
        float(ordered[upper - 1]) if upper <= n else math.inf,
    )


def _quantile(sample: NDArray[np.float64], p: float) -> float:
    """Linear between order statistics, but where some are infinite: there is no middle between 1 and infinity."""
    return float(np.quantile(sample, p, method="linear" if np.isfinite(sample).all() else "inverted_cdf"))


def sample_needed(p: float, confidence: float) -> int:
    """How many replicas a finite interval of a quantile takes."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(p, 1 - p)))


def clustered_quantile_interval(sample: NDArray[np.float64], p: float, confidence: float) -> Interval:
    """Quantile of all values of units that have several each, float64[units, values].

    Values of a unit hang together, so the share of values up to the quantile has the error of a mean over units; its
    ends are taken to quantiles (Woodruff, J. Am. Stat. Assoc. 47, 1952).
    """
    if not sample.size:
        return Interval(math.nan, math.nan, math.nan)
    found = _quantile(sample, p)
    share = mean_interval((sample <= found).mean(axis=1), confidence)
    half = max((share.high - share.low) / 2, 0.0)
    low, high = p - half, p + half
    return Interval(
        found,
        float(np.quantile(sample, low, method="lower")) if low > 0 else -math.inf,
        float(np.quantile(sample, high, method="higher")) if high < 1 else math.inf,
    )


def parameter_share(sample: NDArray[np.float64], confidence: float) -> Interval:
    """Which share of the variance of a replica is that of its parameters, from float64[draws, replicas].

    A one-way analysis of variance with random effects: the variance of draws is what their means spread beyond what
    replicas alone would make them. The interval is that of F (Searle, "Linear Models", 1971, section 9.9), exact
    for normal effects, cut to 0 and 1; NaN for fewer than two draws or two replicas, and without any variance.
    """
    from scipy.special import fdtri

    draws, replicas = sample.shape
    nothing = Interval(math.nan, math.nan, math.nan)
    if draws < 2 or replicas < 2:
        return nothing
    between, within = draws - 1, draws * (replicas - 1)
    means = sample.mean(axis=1)
    of_draws = replicas * float(means.var(ddof=1))
    of_replicas = float(((sample - means[:, None]) ** 2).sum()) / within
    if of_draws + of_replicas == 0:
        return nothing
    ratio = of_draws / of_replicas if of_replicas else math.inf
    upper = 0.5 + confidence / 2
    ratios = (ratio, ratio / float(fdtri(between, within, upper)), ratio * float(fdtri(within, between, upper)))
    value, low, high = (1.0 if math.isinf(f) else max((f - 1) / (f - 1 + replicas), 0.0) for f in ratios)
    return Interval(value, low, high)


class Controlled(NamedTuple):
    """A mean with control variates, and which part of the variance of the plain mean they took away."""

    mean: Interval
    reduction: float


def controlled_mean(units: NDArray[np.float64], controls: NDArray[np.float64], confidence: float) -> Controlled | None:
    """Mean of units, less what it owes to controls whose mean is known to be 0: the regression estimator.

    With the interval of Lavenberg and Welch (Management Science 27, 1981): Student's, of the regression's value where
    all controls are 0. It is exact for normal values. Otherwise its bias is of the order of 1/units: small beside the
    interval, but where figures bend with a control of few units whose distribution has a long tail.

    Parameters
    ----------
    units : float64[units]
    controls : float64[units, controls]

    Returns
    -------
    Controlled or None
        None if there are too few units, or no control that varies.
    """
    n = len(units)
    if n < 2 * FEWEST_LEFT:
        return None
    spread = controls.std(axis=0) if controls.size else np.zeros(controls.shape[1])
    some = controls[:, spread > 0] / spread[spread > 0]
    centred = some - some.mean(axis=0)
    rank = int(np.linalg.matrix_rank(centred, tol=1e-6 * math.sqrt(n))) if some.size else 0
    variance = float(units.var(ddof=1)) if n > 1 else 0.0
    if not rank or variance == 0 or n < FEWEST_LEFT * (rank + 1):
        return None
    inverse = np.linalg.pinv(centred.T @ centred, rcond=1e-12)
    coefficients = inverse @ (centred.T @ (units - units.mean()))
    off = some.mean(axis=0)
    mean = float(units.mean() - off @ coefficients)
    rest = units - units.mean() - centred @ coefficients
    freedom = n - 1 - rank
    error = float(rest @ rest) / freedom * (1 / n + float(off @ inverse @ off))
    half = t_quantile(0.5 + confidence / 2, freedom) * math.sqrt(error)
    return Controlled(Interval(mean, mean - half, mean + half), 1 - error / (variance / n))


def share_interval(hits: int, n: int, confidence: float) -> Interval:
    """A share of units, with the interval of Clopper and Pearson (Biometrika 26, 1934), which is never too short."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Interval(hits / n, low, high)
