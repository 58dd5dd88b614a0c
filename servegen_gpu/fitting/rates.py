"""Rates by window of many clients at once, shrunk to each client's mean as far as they vary by chance alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.errors import OptionError

Array = NDArray[np.float64]

LEAST_WEIGHT = 0.2
"""Below this share of variance that is not chance, a constant rate says as much as rates by window."""
LEAST_PART = 0.05
"""Of a window: what is left behind the last whole one, to be a window of its own."""
SURE = 3.0
"""Standard errors by which counts must vary more than by chance, for rates to vary."""


@dataclass(frozen=True, eq=False)
class WindowRates:
    """Rates of clients by window; only windows with requests are stored.

    Attributes
    ----------
    client, window : int64[cells]
        Of each cell that has requests; ascending by client, then window.
    requests : int64[cells]
        What was counted in it.
    own_rps : float64[cells]
        Requests per second. What the log does not cover of the last window has the client's mean: a log often ends with
        a request, which says little of the rate after it.
    rps : float64[cells]
        The same, shrunk to the client's mean.
    mean_rps : float64[clients]
    weight : float64[clients]
        B, the share of the variance of counts that is not chance: a window's rate is mean + B (own - mean). 0 where the
        rate is constant.
    dispersion : float64[clients]
        Index of dispersion of the counts (variance / mean); NaN with fewer than two windows.
    window_s : float
    exposure : float64[windows]
        Part of each window that the log covers: all, but for the last one (`exposure_of`).
    """

    client: NDArray[np.int64]
    window: NDArray[np.int64]
    requests: NDArray[np.int64]
    own_rps: Array
    rps: Array
    mean_rps: Array
    weight: Array
    dispersion: Array
    window_s: float
    exposure: Array

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.exposure)

    def dense(self) -> Array:
        """All rates, float64[clients, windows]."""
        silent = 1.0 - self.weight[:, None] * np.minimum(self.exposure, 1.0)
        rps: Array = self.mean_rps[:, None] * silent
        rps[self.client, self.window] = self.rps
        return rps

    def even_us(
        self, arrival_us: NDArray[np.int64], client: NDArray[np.int64], rps: Array | None = None
    ) -> NDArray[np.int64]:
        """Times in which each client's rate is its mean, int64[requests]: windows are as long as their rates are high.

        Gaps in these times do not take a rate that changes, or a silence, for burstiness. Arrivals are from 0 on;
        `rps` may state other rates than these, float64[clients, windows].
        """
        rates = self.dense() if rps is None else rps
        length_us = rates / np.maximum(self.mean_rps, 1e-300)[:, None] * (self.window_s * 1e6)
        begin_us = np.cumsum(length_us, axis=1) - length_us
        window = windows_of(arrival_us, 0, self.window_s, self.windows)
        part = arrival_us / (self.window_s * 1e6) - window
        return np.rint(begin_us[client, window] + part * length_us[client, window]).astype(np.int64)


def windows_of(arrival_us: NDArray[np.int64], begin_us: int, window_s: float, windows: int) -> NDArray[np.int64]:
    """Number of the window of each request, int64[requests]; one at the very end belongs to the last window."""
    window: NDArray[np.int64] = np.minimum((arrival_us - begin_us) // round(window_s * 1e6), windows - 1)
    return window


def exposure_of(span_s: float, window_s: float) -> Array:
    """Part of each window that a log covers, float64[windows]: all, but for the last one.

    What is left of the log behind the last whole window belongs to that one if it is hardly anything.
    """
    windows = max(int(np.ceil(span_s / window_s - LEAST_PART)), 1)
    exposure = np.ones(windows)
    exposure[-1] = span_s / window_s - (windows - 1)
    return exposure


def window_rates(
    arrival_us: NDArray[np.int64],
    client: NDArray[np.int64] | None = None,
    *,
    span_s: float,
    begin_us: int = 0,
    clients: int | None = None,
    window_s: float = 600.0,
    chance: ArrayLike = 1.0,
) -> WindowRates:
    """Count requests by client and window, and shrink rates to the client's mean.

    The weight of a window's own rate is B = max(0, 1 - chance / dispersion). Below `LEAST_WEIGHT`, and where counts
    vary hardly more than by chance, it is 0: then the rate is constant.

    Parameters
    ----------
    arrival_us : int64[requests]
        From `begin_us` to `span_s` later, in any order.
    client : int64[requests], optional
        Number of the client of each; by default there is one.
    span_s : float
        Length of the log.
    clients : int, optional
        How many there are; by default as many as are named.
    chance : float or float64[clients]
        Index of dispersion of counts that a constant rate has: 1 / shape of a renewal process, 1 of a Poisson process;
        with an environment, what it adds (`EnvironmentFit.dispersion`).

    Raises
    ------
    OptionError
        If there is no time, or a request outside it.
    """
    window_us = round(window_s * 1e6)
    if not (span_s > 0 and window_us > 0):
        raise OptionError("a span and windows above 0 s", f"{span_s:g} and {window_s:g} s", "change them")
    client = np.zeros(len(arrival_us), np.int64) if client is None else client.astype(np.int64, copy=False)
    clients = (int(client.max(initial=-1)) + 1) if clients is None else clients
    exposure = exposure_of(span_s, window_s)
    windows = len(exposure)
    window = windows_of(arrival_us, begin_us, window_s, windows)
    if len(arrival_us) and (window.min() < 0 or arrival_us.max() - begin_us > span_s * 1e6 + 1):
        at = (int(arrival_us.max()) - begin_us) / 1e6
        raise OptionError(f"requests within {span_s:g} s", f"one at {at:g} s", "state the length of the log")
    cell, requests = _counted(client * windows + window, clients * windows)
    at_client, at_window = np.divmod(cell, windows)

    mean = np.bincount(at_client, weights=requests, minlength=clients) / exposure.sum()
    squares = np.bincount(at_client, weights=requests * (requests / exposure[at_window]), minlength=clients)
    dispersion = np.full(clients, np.nan)
    if windows > 1:
        there = mean > 0
        dispersion[there] = (squares[there] / mean[there] - mean[there] * exposure.sum()) / (windows - 1)
    weight = weight_of(dispersion, np.broadcast_to(np.asarray(chance, np.float64), (clients,)), mean, exposure)
    unseen = np.maximum(1.0 - exposure, 0.0)[at_window]
    own = (requests / np.maximum(exposure, 1.0)[at_window] + unseen * mean[at_client]) / window_s
    mean_rps = mean / window_s
    rps = mean_rps[at_client] + weight[at_client] * (own - mean_rps[at_client])
    return WindowRates(at_client, at_window, requests, own, rps, mean_rps, weight, dispersion, window_s, exposure)


def _counted(cell: NDArray[np.int64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers that occur, ascending, and how often each does."""
    if cells <= 4 * len(cell) + 4096:
        counts = np.bincount(cell, minlength=cells)
        occupied = np.flatnonzero(counts)
        return occupied, counts[occupied]
    return np.unique(cell, return_counts=True)


def weight_of(dispersion: Array, chance: Array, mean: Array, exposure: Array) -> Array:
    """The share of the variance of counts that is not chance, float64[clients]; 0 where it is not sure.

    Parameters
    ----------
    dispersion, chance, mean : float64[clients]
        Index of dispersion of the counts of windows, what it is by chance, and the mean count.
    exposure : float64[windows]
        Part of each window that the log covers.
    """
    windows = len(exposure)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = 1.0 - chance / dispersion
        # by chance alone a dispersion varies as χ² does, and more where counts are few
        spread = np.sqrt(2.0 / max(windows - 1, 1) + (1.0 / exposure).mean() / (mean * windows))
        sure = dispersion > chance * (1.0 + SURE * spread)
    return np.where(sure & (weight >= LEAST_WEIGHT), weight, 0.0)
