"""Rates that change slowly, as over a day: local lines through counts of windows, as wide as predicts best.

What a neighbourhood of windows does not tell of the one in its middle comes and goes at random: it is for an
environment, or for chance, and not for the rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.fitting.rates import WindowRates, exposure_of, weight_of

Array = NDArray[np.float64]

HALF_WIDTHS = (1, 2, 3, 4, 6, 9, 12, 18, 27, 40, 60)
"""Of neighbourhoods, in windows."""
SILENT_WINDOWS, SILENT_FROM = 3, 30
"""So many windows in a row without a request are a pause, not chance, if others have so many on average."""
LEAST_RATE = 1e-3
"""Of a line, as a share of the mean."""


@dataclass(frozen=True, eq=False)
class Slow:
    """How the rate of a log changes slowly.

    Attributes
    ----------
    half : int
        Half width of the neighbourhoods, in windows.
    exposure : float64[windows]
        The part of each window that counts.
    rps : float64[windows]
    """

    half: int
    exposure: Array
    rps: Array

    @classmethod
    def of(cls, total: WindowRates, span_s: float) -> Slow | None:
        """That of all requests together, which are one client of `total`; None if it is constant."""
        counts = np.bincount(total.window, total.requests, minlength=total.windows).astype(np.int64)
        exposure = without_pauses(counts, exposure_of(total.windows, span_s, total.window_s))
        half = best_half_width(counts, exposure)
        if half is None and exposure.all():
            return None
        rate = counts / np.maximum(exposure, 1e-9) / total.window_s
        return cls(half or len(counts), exposure, smoothed(rate[None], exposure, half or len(counts))[0])

    def dense(self, rates: WindowRates, chance: Array) -> Array:
        """Rates of clients that are drawn to slow ones of their own, and not to their mean, float64[clients, windows].

        Parameters
        ----------
        rates : WindowRates
        chance : float64[clients]
            As for `window_rates`.
        """
        rps = rates.dense()
        moving = np.flatnonzero(rates.weight > 0)
        if not len(moving):
            return rps
        counts = np.zeros(rps.shape)
        counts[rates.client, rates.window] = rates.requests
        counts = counts[moving]
        own = counts / np.maximum(self.exposure, 1e-9)
        slow = smoothed(own, self.exposure, self.half)
        expected = np.maximum(slow * self.exposure, 1e-9)
        kept = self.exposure > 0
        dispersion = ((counts - expected) ** 2 / expected)[:, kept].mean(axis=1)
        weight = weight_of(dispersion, chance[moving], expected.mean(axis=1), self.exposure[kept])[:, None]
        rps[moving] = np.where(kept, slow + weight * (own - slow), 0.0) / rates.window_s
        return rps


def best_half_width(counts: NDArray[np.integer], exposure: Array) -> int | None:
    """The half width whose lines predict each window best from the others around it; None if their mean does.

    Parameters
    ----------
    counts : int[windows]
    exposure : float64[windows]
        The part of each window that counts; see `without_pauses`.
    """
    rate = counts / np.maximum(exposure, 1e-9)
    windows = int((exposure > 0).sum())
    if windows < 3 or not counts.any():
        return None
    others = (counts.sum() - counts) / (exposure.sum() - exposure)
    # of many half widths, one is a little better by chance
    least, best = _error(rate, others, exposure) * (1 - windows**-0.5), None
    for half in (h for h in HALF_WIDTHS if 2 * h <= windows):
        error = _error(rate, smoothed(rate[None], exposure, half, without_own=True)[0], exposure)
        if error < least:
            least, best = error, half
    return best


def without_pauses(counts: NDArray[np.integer], exposure: Array) -> Array:
    """What counts of each window, float64[windows]: nothing of long pauses, in which nobody sends."""
    some = counts > 0
    if counts.sum() < SILENT_FROM * some.sum():
        return exposure
    edges = np.flatnonzero(np.diff(np.concatenate(([True], some, [True])).astype(np.int8)))
    kept = exposure.copy()
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - begin >= SILENT_WINDOWS:
            kept[begin:end] = 0.0
    return kept


def smoothed(rate: Array, exposure: Array, half: int, *, without_own: bool = False) -> Array:
    """Lines through the windows around each, at its place, float64[series, windows]; 0 where no window counts.

    Parameters
    ----------
    rate : float64[series, windows]
    exposure : float64[windows]
    half : int
        Half width of the neighbourhood, in windows.
    without_own : bool
        Leave the window itself out, to see how well the others tell it.
    """
    from scipy.ndimage import correlate1d

    at = np.arange(-half, half + 1)
    kernel = (1 - (np.abs(at) / (half + 1)) ** 3) ** 3
    if without_own:
        kernel[half] = 0.0

    def sums(x: Array, power: int) -> Array:
        found: Array = correlate1d(np.asarray(x, np.float64), kernel * at**power, axis=-1, mode="constant")
        return found

    s0, s1, s2 = (sums(exposure, power) for power in range(3))
    t0, t1 = (sums(rate * exposure, power) for power in range(2))
    determinant = s0 * s2 - s1 * s1
    line = (s2 * t0 - s1 * t1) / np.where(determinant > 1e-9 * s0 * s2, determinant, 1.0)
    found = np.where(determinant > 1e-9 * s0 * s2, line, t0 / np.maximum(s0, 1e-300))
    mean = (rate * exposure).sum(axis=-1, keepdims=True) / exposure.sum()
    return np.asarray(np.where(exposure > 0, np.maximum(found, LEAST_RATE * mean), 0.0))


def _error(rate: Array, told: Array, exposure: Array) -> float:
    expected = np.maximum(told, LEAST_RATE * (rate * exposure).sum() / exposure.sum())
    return float((exposure * (rate - expected) ** 2 / expected).sum())
