"""Rates that change slowly, as over a day: lines through counts of neighbouring windows, as many as predict best.

What its neighbours do not tell of a window comes and goes at random: it is for an environment, for chance, or for the
window's own rate.

Axes: series (clients, or all of them as one), windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.fitting.rates import WindowRates, weight_of

Array = NDArray[np.float64]

HALF_WIDTHS = (1, 2, 3, 4, 6, 9, 12, 18, 27, 40, 60)
"""Of neighbourhoods, in windows."""
SILENT_WINDOWS, SILENT_FROM = 3, 30
"""So many windows in a row without a request are a pause, not chance, if others have so many requests on average."""
LEAST_RATE = 1e-3
"""Of a line, as a share of the mean."""


def slow_rates(rates: WindowRates, exposure: Array, chance: Array) -> Array:
    """Rates that are drawn to slow ones, where these tell more than the mean, float64[clients, windows].

    Parameters
    ----------
    rates : WindowRates
    exposure : float64[windows]
        As for `best_half_width`.
    chance : float64[clients]
        As for `window_rates`.
    """
    rps = rates.dense()
    counts = np.zeros(rps.shape)
    counts[rates.client, rates.window] = rates.requests
    half = best_half_width(counts, exposure)
    kept = exposure > 0
    for one in np.unique(half[half > 0]):
        mine = np.flatnonzero(half == one)
        slow = smoothed(counts[mine], exposure, int(one))
        expected = np.maximum(slow * exposure, 1e-9)[:, kept]
        dispersion = ((counts[mine][:, kept] - expected) ** 2 / expected).mean(axis=1)
        weight = weight_of(dispersion, chance[mine], expected.mean(axis=1), exposure[kept])[:, None]
        own = counts[mine] / np.maximum(exposure, 1.0) + np.maximum(1.0 - exposure, 0.0) * slow
        rps[mine] = (slow + weight * (own - slow)) / rates.window_s
    if not kept.all():
        before = rps.sum(axis=1, keepdims=True)
        rps = np.where(kept, rps, 0.0)
        rps *= before / np.maximum(rps.sum(axis=1, keepdims=True), 1e-300)
    return rps


def best_half_width(counts: Array, exposure: Array) -> NDArray[np.int64]:
    """The half width whose lines predict each window best from those around it, int64[series]; 0 if the mean does.

    Parameters
    ----------
    counts : float64[series, windows]
    exposure : float64[windows]
        The part of each window that counts; see `without_pauses`.
    """
    windows = int((exposure > 0).sum())
    best = np.zeros(len(counts), np.int64)
    if windows < 3:
        return best
    total = counts.sum(axis=1, keepdims=True)
    others = (total - counts) / (exposure.sum() - exposure)
    # of many half widths, one is a little better by chance
    least = _error(counts, others, exposure) * (1 - windows**-0.5)
    for half in (h for h in HALF_WIDTHS if 2 * h <= windows):
        error = _error(counts, smoothed(counts, exposure, half, without_own=True), exposure)
        best[error < least] = half
        least = np.minimum(error, least)
    return best


def without_pauses(counts: Array, exposure: Array) -> Array:
    """What counts of each window, float64[windows]: nothing of long pauses, in which nobody sends.

    Parameters
    ----------
    counts, exposure : float64[windows]
        Requests of each, and the part of it that the log covers.
    """
    some = counts > 0
    if counts.sum() < SILENT_FROM * some.sum():
        return exposure
    edges = np.flatnonzero(np.diff(np.concatenate(([True], some, [True])).astype(np.int8)))
    kept = exposure.copy()
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin >= SILENT_WINDOWS:
            kept[begin:end] = 0.0
    return kept


def smoothed(counts: Array, exposure: Array, half: int, *, without_own: bool = False) -> Array:
    """Lines through the windows around each, at its place: requests per window, float64[series, windows].

    Parameters
    ----------
    counts : float64[series, windows]
    exposure : float64[windows]
    half : int
        Half width of the neighbourhood, in windows.
    without_own : bool
        Leave the window itself out, to see how well the others tell it.
    """
    windows = len(exposure)
    at = np.arange(windows)
    first, end = np.maximum(at - half, 0), np.minimum(at + half + 1, windows)

    def around(x: Array) -> Array:
        upto = np.concatenate((np.zeros((*x.shape[:-1], 1)), np.cumsum(x, axis=-1)), axis=-1)
        return np.asarray(upto[..., end] - upto[..., first])

    middle = at - (windows - 1) / 2  # sums stay small
    s0, s1, s2 = around(exposure), around(exposure * middle), around(exposure * middle**2)
    s2 = s2 - 2 * middle * s1 + middle**2 * s0
    s1 = s1 - middle * s0
    t0, t1 = around(counts), around(counts * middle)
    t1 = t1 - middle * t0
    if without_own:
        s0, t0 = s0 - exposure, t0 - counts
    determinant = s0 * s2 - s1 * s1
    steep = determinant > 1e-6 * s0 * s2
    line = np.where(steep, s2 * t0 - s1 * t1, t0) / np.where(steep, determinant, np.maximum(s0, 1e-9))
    mean = counts.sum(axis=-1, keepdims=True) / exposure.sum()
    return np.asarray(np.where(exposure > 0, np.maximum(line, LEAST_RATE * mean), 0.0))


def _error(counts: Array, told: Array, exposure: Array) -> Array:
    """Squared errors in terms of what is expected, as those of counts are, float64[series]."""
    mean = counts.sum(axis=1, keepdims=True) / exposure.sum()
    expected = np.maximum(told, LEAST_RATE * mean)
    rate = counts / np.maximum(exposure, 1e-9)
    return np.asarray((exposure * (rate - expected) ** 2 / np.maximum(expected, 1e-12)).sum(axis=1))
