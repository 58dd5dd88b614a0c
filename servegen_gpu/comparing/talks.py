"""Figures of conversations, from those that are kept: see `seen`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing import measures as m
from servegen_gpu.comparing.measures import Measure, Quantile, Summed
from servegen_gpu.comparing.seen import Seen


def talk_measures(seen: Seen) -> Iterator[tuple[str, Measure]]:
    """Figures by name; none without a column of conversations. All of a conversation counts where it begins."""
    rows = seen.talks
    if not rows:
        return
    order = np.argsort(rows["conversation"], kind="stable")
    at_us = rows["arrival_us"][order]
    first = np.append(True, np.diff(rows["conversation"][order]) != 0)
    begins = np.flatnonzero(first)
    turns = np.diff(np.append(begins, len(order)))
    place = partial(m.at_cells, len(seen.cells["requests"]))
    cell = seen.cell_of(at_us[begins])
    several = turns > 1
    yield "talk_share", Summed(partial(place, cell, np.stack((turns, turns * several))), m.ratio)
    if not several.any():
        return
    yield "talk_turns", Summed(partial(place, cell[several], np.stack((several[several], turns[several]))), m.ratio)
    later = np.flatnonzero(~first)
    cell = np.repeat(cell, turns)[later]
    gap_s = (at_us[later] - at_us[later - 1]) / 1e6
    for name, p in (("turn_gap_p50_s", 0.5), ("turn_gap_p90_s", 0.9)):
        below = np.stack((np.ones(len(gap_s)), gap_s <= np.quantile(gap_s, p)))
        yield name, Quantile(np.sort(gap_s), p, partial(place, cell, below))
    if "input_tokens" in rows:
        tokens = rows["input_tokens"][order].astype(np.int64)
        growth = np.stack((np.ones(len(later)), tokens[later] - tokens[later - 1]))
        yield "turn_growth", Summed(partial(place, cell, growth), m.ratio)


def turn_gaps_ms(seen: Seen) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times between turns in milliseconds, int64[n], and when they end, microseconds, int64[n]."""
    rows = seen.talks
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(rows["conversation"], kind="stable")
    at_us = rows["arrival_us"][order]
    later = np.flatnonzero(np.diff(rows["conversation"][order]) == 0) + 1
    return (at_us[later] - at_us[later - 1]) // 1000, at_us[later]
