"""ServeGen's published algorithm, written plainly, one client in one window at a time, with NumPy's own generators.

A window of length T at rate r: n = ceil(r T) gaps of the client's family, rescaled to sum to T; requests at the partial
sums strictly before T; all scalar fields of a request by inverse CDF from one uniform; items of a request each on
their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from servegen_gpu.request.families import EXPONENTIAL, GAMMA

Cell = dict[str, np.ndarray]


def gaps_of(rng: np.random.Generator, family: int, shape: float, n: int) -> np.ndarray:
    if family == EXPONENTIAL:
        return rng.exponential(size=n)
    return rng.gamma(shape, size=n) if family == GAMMA else rng.weibull(shape, size=n)


def times_of(rng: np.random.Generator, family: int, shape: float, mean: float, length_s: float = 600.0) -> np.ndarray:
    """Arrivals in a window where `mean` requests are asked for."""
    gaps = gaps_of(rng, family, shape, math.ceil(mean))
    time = np.cumsum(gaps / gaps.sum() * length_s)
    time = time[time < length_s]
    return time[: math.ceil(mean) - 1]  # a rounding error may keep the last one, which ends with the window


def inverse_cdf(histogram: dict[Any, float], u: np.ndarray) -> np.ndarray:
    values = np.array(list(histogram))
    at = np.searchsorted(np.cumsum(list(histogram.values())), u, side="right")
    return values[np.minimum(at, len(values) - 1)]


def fields_of(rng: np.random.Generator, histograms: dict[str, dict[Any, float]], n: int) -> Cell:
    """Fields of `n` requests; items of all of them end to end."""
    u = rng.random(n)
    scalar = {name: h for name, h in histograms.items() if not is_item(name)}
    cell = {name: inverse_cdf(histogram, u) for name, histogram in scalar.items()}
    for name in histograms:
        if is_item(name):
            items = int(cell[name.replace("_tokens", "_count")].sum())
            cell[name] = inverse_cdf(histograms[name], rng.random(items))
    return cell


def is_item(name: str) -> bool:
    return name in ("image_tokens", "audio_tokens", "video_tokens")


def two_tables(a: np.ndarray, b: np.ndarray) -> float:
    """P-value of two samples of few values."""
    values, place = np.unique(np.concatenate((a, b)), return_inverse=True)
    if len(values) < 2:
        return 1.0  # none, or all alike
    observed = np.stack([np.bincount(x, minlength=len(values)) for x in (place[: len(a)], place[len(a) :])])
    return float(stats.chi2_contingency(observed[:, observed.sum(axis=0) >= 20]).pvalue)


def ks(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov at the resolution of a millisecond."""
    return float(stats.ks_2samp(np.round(a, 3), np.round(b, 3)).pvalue)
