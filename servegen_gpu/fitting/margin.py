"""The distribution of an environment's factor, from counts of which it is the hidden rate.

A count of a cell is drawn with the mean b·M, b being what is expected and M the factor. The likeliest distribution of
M among all (Kiefer and Wolfowitz, 1956) is found by expectation maximisation on a grid of levels. It starts from the
Gamma distribution with the right variance and not from a flat one, which would keep mass in the tails for thousands of
steps, and is accelerated (SQUAREM: Varadhan and Roland, Scand. J. Statist. 35, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from servegen_gpu.clients.stated.environment import Margin
from servegen_gpu.fitting.count_law import count_probabilities

Array = NDArray[np.float64]

LEVELS = 80
BASE_STEP = 0.02
"""Expected counts that differ by less than this share are taken as one."""
FLAT = 0.05
"""Share of the start that is flat: no level has weight 0, from which none would come back."""
MOST_STEPS = 400
ENOUGH_GAIN = 1e-4
"""Log-likelihood that an accelerated step has to gain, for another."""
VARIANCE_WITHIN = 0.1
EXACT_COUNTS = 1_000.0
"""Expected requests of a cell, from which on counts are as good as rates."""
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True, eq=False)
class MarginFit:
    """A distribution of the factor.

    Attributes
    ----------
    margin : Margin
        With the variance that was asked for.
    how : str
        ``"levels"`` (any distribution), ``"counts"`` (of the counts themselves) or ``"zero-inflated gamma"``.
    variance : float
        What it had before it was brought to the variance that was asked for.
    steps : int
        Of expectation maximisation.
    """

    margin: Margin
    how: str
    variance: float
    steps: int


def fit_margin(count: NDArray[np.int64], base: Array, variance: float, shape: float = 1.0) -> MarginFit:
    """The distribution of the factor on the rates of cells.

    Parameters
    ----------
    count : int64[cells]
    base : float64[cells]
        Expected counts, above 0.
    variance : float
        Of the factor, by moments, above 0. What the likelihood finds must be within a tenth of it, and is brought to
        it; else Gamma factors with that variance are taken, with the likeliest share of empty cells.
    shape : float
        Of the gaps between requests at a constant rate.
    """
    if shape * float(base.mean()) > EXACT_COUNTS:
        found = _of_counts(count, base)
        return MarginFit(with_variance(found, variance), "counts", found.variance, 0)
    pairs, times = _pairs(count, base)
    top = (count / base)[base > base.mean() / 4].max()
    levels = _levels(variance, float(top))
    likelihood = _likelihood(pairs, levels, shape)
    weights, steps = maximise(likelihood, times, _start(levels, variance))
    kept = weights > LEAST_WEIGHT
    found = Margin.of_levels(levels[kept], weights[kept])
    if abs(found.variance / variance - 1.0) <= VARIANCE_WITHIN:
        return MarginFit(with_variance(found, variance), "levels", found.variance, steps)
    gamma = _likeliest_gamma(pairs, times, variance, shape)
    return MarginFit(gamma, "zero-inflated gamma" if gamma.zero else "gamma", found.variance, steps)


def maximise(likelihood: Array, times: Array, weights: Array, most_steps: int = MOST_STEPS) -> tuple[Array, int]:
    """Weights of levels that make counts likeliest, and how many steps of expectation maximisation it took.

    Parameters
    ----------
    likelihood : float64[counts, levels]
    times : float64[counts]
        How often each count occurs.
    weights : float64[levels]
        To start from.
    most_steps : int
        Of three steps of expectation maximisation each.
    """
    share = times / times.sum()

    def step(w: Array) -> tuple[Array, float]:
        mixed = likelihood @ w
        return w * ((share / mixed) @ likelihood), float(times @ np.log(mixed))

    last = -np.inf
    for number in range(most_steps):
        once, value = step(weights)
        twice, _ = step(once)
        if value - last < ENOUGH_GAIN and number:
            return twice, 3 * number
        last = value
        first, second = once - weights, (twice - once) - (once - weights)
        length = np.sqrt((first @ first) / max(float(second @ second), 1e-300))
        ahead = twice
        while length > 1.0:
            far = np.maximum(weights + 2.0 * length * first + length * length * second, 1e-12 * twice)
            far /= far.sum()
            settled, value = step(far)
            if value >= last:
                ahead = settled
                break
            length /= 4.0
        weights = ahead
    return weights, 3 * most_steps


def _pairs(count: NDArray[np.int64], base: Array) -> tuple[tuple[NDArray[np.int64], Array], Array]:
    """Different pairs of a count and an expected count, and how often each occurs."""
    level = np.rint(np.log(base) / BASE_STEP).astype(np.int64)
    low = int(level.min())
    width = int(count.max()) + 1
    key, times = np.unique((level - low) * width + count, return_counts=True)
    of_level = np.bincount(level - low, weights=base) / np.maximum(np.bincount(level - low), 1)
    return (key % width, of_level[key // width]), times.astype(np.float64)


def _levels(variance: float, top: float) -> Array:
    sd = np.sqrt(variance)
    low, high = max(0.02, min(0.5, 1.0 - 5.0 * sd)), max(1.0 + 6.0 * sd, 1.1 * top)
    return np.concatenate(([0.0], np.geomspace(low, high, LEVELS)))


def _likelihood(pairs: tuple[NDArray[np.int64], Array], levels: Array, shape: float) -> Array:
    count, base = pairs
    found = np.empty((len(count), len(levels)))
    for b in np.unique(base):  # a hundred or so
        rows = base == b
        found[rows] = count_probabilities(count[rows], levels * b, shape)
    return found


def _start(levels: Array, variance: float) -> Array:
    edges = np.concatenate(([0.0, levels[1] / 2], np.sqrt(levels[1:-1] * levels[2:]), [np.inf]))
    gamma = np.diff(special.gammainc(1.0 / variance, edges / variance))
    start: Array = (1.0 - FLAT) * gamma / gamma.sum() + FLAT / len(levels)
    return start


def _of_counts(count: NDArray[np.int64], base: Array) -> Margin:
    share = np.linspace(0.0, 1.0, 1025)
    return Margin(share, np.quantile(count / base, share), float((count == 0).mean()))


def with_variance(margin: Margin, variance: float) -> Margin:
    """The margin to a power, which keeps empty cells and order, so that it has a variance."""
    low, high = 0.25, 4.0
    for _ in range(50):
        power = float(np.sqrt(low * high))
        bent = Margin(margin.at, margin.values**power, margin.zero)
        low, high = (power, high) if bent.variance < variance else (low, power)
    return bent


def _likeliest_gamma(pairs: tuple[NDArray[np.int64], Array], times: Array, variance: float, shape: float) -> Margin:
    """Gamma factors of a variance, with the likeliest share of empty cells."""
    most = variance / (1.0 + variance)
    candidates = [Margin.gamma(variance, most * part) for part in np.linspace(0.0, 0.95, 20)]
    edges = np.concatenate((np.linspace(0.0, 0.99, 200), 1.0 - 0.01 * 0.5 ** np.arange(1, 8), [1.0]))
    middles, weights = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    values = [
        float(times @ np.log(_likelihood(pairs, margin.quantile(middles), shape) @ weights)) for margin in candidates
    ]
    return candidates[int(np.argmax(values))]
