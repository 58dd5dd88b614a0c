"""Figures of when requests come, and of how many tokens come with them.

Windows slide: those of 1, 10, 60 and 600 s begin every 1, 10, 6 and 30 s, and every second where the largest is looked
for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from servegen_gpu.comparing import measures as m
from servegen_gpu.comparing.measures import Floats, Largest, Measure, Summed
from servegen_gpu.comparing.seen import Seen

STEP_S = {1: 1, 10: 10, 60: 6, 600: 30}
PEAK_S = (1, 10, 60)
LAGS = range(1, 7)
RATE_S = (3, 10)
SIDES = {"input": "input_tokens", "output": "output_tokens"}


def arrival_measures(seen: Seen) -> Iterator[tuple[str, Measure]]:
    """Figures by name: those for which cells are fine and the trace is long enough."""
    grid, cell_s = seen.cells, seen.cell_s
    requests = grid["requests"]
    cells = len(requests)
    sides = {side: grid[name] for side, name in SIDES.items() if name in grid}
    columns = {"": requests} | {f"{side}_": column for side, column in sides.items()}

    def fits(window_s: int, times: int = 1) -> bool:
        return window_s % cell_s == 0 and times * window_s <= cells * cell_s

    yield "rate_rps", Summed(lambda: np.stack((np.full(cells, float(cell_s)), requests)), m.ratio)
    yield "gap_cv", Summed(lambda: np.stack([grid[name] for name in ("gaps", "gap_s", "gap_s2")]), m.variation)
    for prefix, column in columns.items():
        for window_s, step_s in STEP_S.items():
            if fits(window_s, 2):
                sizes = window_s // cell_s, max(step_s // cell_s, 1)
                yield f"{prefix}idc_{window_s}s", Summed(partial(_dispersed, column, requests, *sizes), m.dispersion)
    if fits(10, LAGS[-1] + 2):
        for lag in LAGS:
            yield f"acf_{lag}", Summed(partial(_lagged, requests, 10 // cell_s, lag), m.autocorrelation)
    if fits(1):
        yield "empty_1s", Summed(lambda: np.stack((np.ones(cells), requests == 0)), m.ratio)
    for prefix, column in columns.items():
        for window_s in PEAK_S:
            if fits(window_s):
                yield f"{prefix}peak_{window_s}s", Largest(partial(m.in_blocks, column, window_s // cell_s))
    for side, column in sides.items():
        for window_s in RATE_S:
            if fits(window_s, 2):
                ranked = partial(_with_rate, requests, column, window_s // cell_s)
                yield f"rate_{side}_{window_s}s", Summed(ranked, m.correlation)


def _dispersed(column: Floats, requests: Floats, window: int, step: int) -> Floats:
    """What `dispersion` sums, by window."""
    x = m.in_blocks(column, window, step)
    rows = [np.ones(len(x)), x, x * x]
    if column is not requests:
        rows.append(m.in_blocks(requests, window, step))
    return m.spread_out(np.stack(rows), step, len(column))


def _lagged(requests: Floats, window: int, lag: int) -> Floats:
    """What `autocorrelation` sums, by window."""
    x = m.in_blocks(requests, window, window)
    x = x - x.mean()
    later = np.append(x[lag:], np.zeros(lag))
    paired = np.arange(len(x)) < len(x) - lag
    return m.spread_out(np.stack((np.ones(len(x)), x, x * x, paired, x * later)), window, len(requests))


def _with_rate(requests: Floats, column: Floats, window: int) -> Floats:
    """Ranks of the requests and of the mean lengths of windows that have some, as `correlation` sums them."""
    n, total = (m.in_blocks(grid, window, window) for grid in (requests, column))
    some = n > 0
    features = np.zeros((6, len(n)))
    features[:, some] = m.products(m.midranks(n[some]), m.midranks(total[some] / n[some]))
    return m.spread_out(features, window, len(requests))
