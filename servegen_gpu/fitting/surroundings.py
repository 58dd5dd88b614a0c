"""Rates of a log by window, and the environment that moves all of its clients together.

Both compete for the same variation: what an environment makes at random is not the rate of a window. So the environment
is found first, and rates are drawn to their mean by the share of variance that it explains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.fitting.environment import EnvironmentFit, cell_counts, choose_cell, fit_environment
from servegen_gpu.fitting.margin import with_variance
from servegen_gpu.fitting.rates import WindowRates, exposure_of, window_rates, windows_of
from servegen_gpu.fitting.smooth import best_half_width, slow_rates, smoothed, without_pauses

MANY_WINDOWS = 12
"""From so many windows on, changes that are slower than a window are rates, and not a matter of chance."""
COMMON = 0.3
"""Share of the variance beyond chance that clients have in common, below which their own bursts explain it."""
LEAST_PAIRS = 0.05
"""Share of pairs of requests that must be of different clients, to tell what these have in common."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What was found.

    Attributes
    ----------
    environment : EnvironmentFit or None
    rates : WindowRates
        Of the profiles.
    rps : float64[profiles, windows]
        Rates to state.
    weight : float
        Share of their own that windows keep, of all clients together.
    common : float
        Share of the variance beyond chance that clients have in common.
    notes : tuple of str
    """

    environment: EnvironmentFit | None
    rates: WindowRates
    rps: NDArray[np.float64]
    weight: float
    common: float
    notes: tuple[str, ...]


def surroundings(
    every_us: NDArray[np.int64],
    arrival_us: NDArray[np.int64],
    client: NDArray[np.int64],
    profile: NDArray[np.int64],
    profiles: int,
    *,
    span_s: float,
    tick_us: int,
    window_s: int,
    shape: NDArray[np.float64],
    wanted: bool,
) -> Surroundings:
    """Find the environment, then the rates.

    Parameters
    ----------
    every_us : int64[requests]
        Arrivals of all requests, from 0 on: what follows others in conversations shows the environment, too.
    arrival_us, client, profile : int64[beginnings]
        Of requests that begin something; clients that differ are taken to burst one by one until shown otherwise.
    profiles : int
    span_s : float
    tick_us : int
    window_s : int
    shape : float64[profiles]
        1 / CV² of the gaps.
    wanted : bool
        Whether an environment is looked for.
    """
    notes: list[str] = []
    found, common = None, 1.0
    every = window_rates(every_us, span_s=span_s, window_s=window_s)
    counts = np.bincount(every.window, every.requests, every.windows).astype(np.float64)
    exposure = without_pauses(counts, every.exposure)
    many = span_s >= MANY_WINDOWS * window_s
    if wanted:
        half = int(best_half_width(counts[None], exposure)[0]) if many else 0
        flat = not half and bool(exposure.all())
        slow = None if flat else smoothed(counts[None], exposure, half or len(counts))[0] / window_s
        found, common, why = _environment(every_us, arrival_us, client, slow, half, span_s, tick_us, window_s)
        notes += [why] if why else []

    def chance(mean: NDArray[np.float64], own: NDArray[np.float64] | float) -> NDArray[np.float64]:
        if found is None:
            return np.broadcast_to(1.0 / np.asarray(own), mean.shape)
        return np.asarray(found.dispersion(window_s, mean)) - 1.0 + 1.0 / np.asarray(own)

    windows = span_s / window_s
    total = window_rates(
        arrival_us, span_s=span_s, window_s=window_s, chance=chance(np.array([len(arrival_us) / windows]), 1.0)
    )
    mean = np.bincount(profile, minlength=profiles) / windows
    by_chance = chance(mean, shape)
    rates = window_rates(arrival_us, profile, span_s=span_s, clients=profiles, window_s=window_s, chance=by_chance)
    rps = slow_rates(rates, exposure, by_chance) if many else rates.dense()
    return Surroundings(found, rates, rps, float(total.weight[0]), common, tuple(notes))


def _environment(
    every_us: NDArray[np.int64],
    arrival_us: NDArray[np.int64],
    client: NDArray[np.int64],
    slow: NDArray[np.float64] | None,
    half: int,
    span_s: float,
    tick_us: int,
    window_s: int,
) -> tuple[EnvironmentFit | None, float, str]:
    """The environment, the share of its variance that clients have in common, and what to say."""
    cell_s = choose_cell(len(every_us), span_s, tick_us, window_s)
    if cell_s is None:
        return None, 1.0, "too few requests for an environment: they are taken as independent of each other"
    counts = cell_counts(every_us, 0, span_s, cell_s)
    base, longest_s = None, None
    if slow is not None:
        window = np.minimum((np.arange(len(counts)) * cell_s // window_s).astype(np.int64), len(slow) - 1)
        base = np.maximum(slow, 1e-3 * slow.mean())[window] * cell_s
        longest_s = window_s * max(half / 4, 0.5) if half else None
    found = fit_environment(counts, base, cell_s, longest_s=longest_s)
    if found is None:
        return None, 1.0, "no environment: counts vary no more than chance and rates by window make them"
    common = _common(arrival_us, client, span_s, cell_s, window_s)
    if common < COMMON:
        return None, common, f"no environment: clients burst one by one, and have {max(common, 0):.0%} of it in common"
    if common < 1.0:
        margin = with_variance(found.environment.margin, found.variance * common)
        found = replace(found, environment=replace(found.environment, margin=margin), variance=margin.variance)
    return found, common, ""


def _common(
    arrival_us: NDArray[np.int64], client: NDArray[np.int64], span_s: float, cell_s: float, window_s: int
) -> float:
    """Share of the variance of counts of cells, beyond chance and inside windows, that all clients have in common.

    What moves all clients shows between different ones; their own bursts show in their own counts alone.
    """
    if not client.any():
        return 1.0
    cells = int(span_s / cell_s)
    windows = len(exposure_of(span_s, window_s))
    cell = np.minimum(arrival_us // round(cell_s * 1e6), cells - 1)
    window = windows_of(arrival_us, 0, window_s, windows)
    size = np.bincount(np.minimum((np.arange(cells) * cell_s // window_s).astype(np.int64), windows - 1))

    def beyond_chance(who: NDArray[np.int64]) -> tuple[float, float]:
        _, n = np.unique(who * cells + cell, return_counts=True)
        each, of_window = np.unique(who * windows + window, return_counts=True)
        squares = (of_window.astype(np.float64) ** 2 / np.maximum(size[each % windows], 1)).sum()
        return float((n.astype(np.float64) ** 2).sum() - squares - len(who)), float(squares)

    together, all_squares = beyond_chance(np.zeros(len(client), np.int64))
    apart, own_squares = beyond_chance(client)
    pairs = 1.0 - own_squares / all_squares
    if together <= 0:
        return 1.0
    return min((together - apart) / pairs / together, 1.0) if pairs > LEAST_PAIRS else 0.0
