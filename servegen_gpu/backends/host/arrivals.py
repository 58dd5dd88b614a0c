"""Arrivals of whole cells in operational time: gaps, sums, times.

Notation as in ``law/position.py``: S_j, G, V, f. Axes: cells, runs (consecutive requests of one cell), requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, CellState, Runs
from servegen_gpu.backends.host.fields import lookup
from servegen_gpu.backends.host.gaps import cells_in, log_gaps
from servegen_gpu.backends.host.run_gaps import SummedGaps, reached
from servegen_gpu.blocks import for_blocks
from servegen_gpu.law.position import RENEWAL_BITS, clock_us, from_start, on_circle
from servegen_gpu.law.variates import gap_ticks
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.rules import CountRule


@dataclass(frozen=True, eq=False)
class TimedRequests:
    """Requests and their operational times, cell by cell, ordinals ascending: the order that breaks ties.

    Attributes
    ----------
    cell : int32[requests]
    ordinal : uint32[requests]
    x : uint32[requests]
        Operational time.
    """

    cell: NDArray[np.int32]
    ordinal: NDArray[np.uint32]
    x: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> TimedRequests:
        """The requests at `index`."""
        return TimedRequests(self.cell[index], self.ordinal[index], self.x[index])


class NumpyGaps(SummedGaps):
    """Gaps of runs with NumPy."""

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        peaks: NDArray[np.float64] = np.maximum.reduceat(log_gaps(state.law, *runs.requests()), runs.starts())
        return peaks

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        cell, ordinal = runs.requests()
        totals: NDArray[np.int64] = np.add.reduceat(
            ticks_of(state, log_gaps(state.law, cell, ordinal), cell), runs.starts()
        )
        return totals

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]; beyond 2**63 they wrap around."""
        cell, ordinal = runs.requests()
        return sums_of(ticks_of(state, log_gaps(state.law, cell, ordinal), cell), runs)


def whole(state: CellState, limit: int) -> TimedRequests:
    """All requests of the cells; at most about `limit` candidate gaps of renewal cells are drawn at a time."""
    parts = []
    counted = np.flatnonzero(state.count > 0)
    if len(counted):
        zero = np.zeros(len(counted), np.int64)
        runs = Runs(counted, zero, state.count[counted], zero)
        cell, ordinal = runs.requests()
        gaps = log_gaps(state.law, cell, ordinal)
        state.log_unit[counted] = np.maximum.reduceat(gaps, runs.starts())
        sums = sums_of(ticks_of(state, gaps, cell), runs)
        state.ticks_in_all[counted] = sums[np.cumsum(runs.count) - 1]
        parts.append(place(state, cell, ordinal, sums))
    parts += _whole_renewals(state, limit)
    if len(parts) == 1:
        return parts[0]
    return _in_order(parts, len(state.cells))


def _whole_renewals(state: CellState, limit: int) -> list[TimedRequests]:
    """All requests of the renewal cells, in parts."""
    first = first_renewals(state)
    if not len(first):
        return []
    parts = [place(state, *first.requests(), state.first_ticks[first.cell])]

    def look(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sums = NumpyGaps().sums(state, runs)
        inside, last = reached(runs, sums)
        some = inside > 0
        kept = np.arange(len(sums)) - np.repeat(runs.starts(), runs.count) < np.repeat(inside, runs.count)
        within = Runs(runs.cell[some], runs.first[some], inside[some], runs.before[some])
        parts.append(place(state, *within.requests(), sums[kept]))
        return inside, last

    rounds(state, first, limit, look)
    return parts


def ticks_of(state: CellState, log_gap: NDArray[np.float64], cell: NDArray[np.int32]) -> NDArray[np.int64]:
    """Log-gaps as ticks, in the same memory."""
    out = log_gap.view(np.int64)

    def block(a: int, b: int) -> None:
        at = cells_in(cell, a, b)
        out[a:b] = gap_ticks(np, log_gap[a:b], state.log_unit[at], state.ticks_per_unit[at])

    for_blocks(len(cell), block)
    return out


def sums_of(ticks: NDArray[np.int64], runs: Runs) -> NDArray[np.int64]:
    """Running sums inside each cell, in the same memory; int64 wraps around between cells, and differences undo it."""
    np.cumsum(ticks, out=ticks)
    starts = runs.starts()
    before_run = np.where(starts > 0, ticks[starts - 1], 0)
    offset = runs.before - before_run
    if len(runs) == 1:
        ticks += offset
    else:
        ticks += np.repeat(offset, runs.count)
    return ticks


def place(
    state: CellState, cell: NDArray[np.int32], ordinal: NDArray[np.uint32], sums: NDArray[np.int64]
) -> TimedRequests:
    """Operational times from sums of ticks."""
    x = np.empty(len(cell), np.uint32)
    rules = set(np.unique(state.rule).tolist())
    inside = np.ones(len(cell), np.bool_) if CountRule.SERVEGEN in rules else None

    def block(a: int, b: int) -> None:
        at = cells_in(cell, a, b)
        rule = state.rule[at]
        if CountRule.EXACT in rules:
            x[a:b] = on_circle(np, sums[a:b], state.ticks_in_all[at], state.occupancy[at], state.rotation[at])
        if CountRule.RENEWAL in rules:
            np.copyto(x[a:b], sums[a:b] >> (RENEWAL_BITS - 32), where=rule == CountRule.RENEWAL, casting="unsafe")
        if inside is not None:
            start, within = from_start(np, sums[a:b], state.ticks_in_all[at])
            np.copyto(x[a:b], start, where=rule == CountRule.SERVEGEN, casting="unsafe")
            inside[a:b] = within | (rule != CountRule.SERVEGEN)

    for_blocks(len(cell), block)
    timed = TimedRequests(cell, ordinal, x)
    return timed if inside is None else timed.take(inside)


def microseconds(packed: PackedWorkload, x: NDArray[np.uint32], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Microseconds inside the window at operational times; `table` is the clock table of each."""
    clock = packed.clock
    if not table.any():  # the constant window
        return ((x.astype(np.uint64) * np.uint64(packed.window_us)) >> np.uint64(32)).astype(np.int64)
    s = lookup(x, table, clock.segments)
    time: NDArray[np.uint64] = clock_us(np, x.astype(np.uint64), clock.first[s], clock.start_us[s], clock.slope[s])
    return time.astype(np.int64)


def first_renewals(state: CellState) -> Runs:
    """The first request of every renewal cell that has one inside its window."""
    alive = np.flatnonzero((state.rule == CountRule.RENEWAL) & (state.first_ticks < WINDOW_TICKS))
    zero = np.zeros(len(alive), np.int64)
    return Runs(alive, zero, np.ones(len(alive), np.int64), zero)


def rounds(
    state: CellState,
    first: Runs,
    limit: int,
    look: Callable[[Runs], tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> None:
    """Draw renewal cells until each has passed the end of its window.

    `look` draws runs, and says how many requests of each are inside the window and what the ticks are at its end.
    """
    alive, drawn, before = first.cell, first.count, state.first_ticks[first.cell]
    expected = np.ceil(state.cells.expected_q32[alive] * 2.0**-32)
    step = (1.2 * expected).astype(np.int64) + 4
    while len(alive):
        ends = np.cumsum(step)
        now = slice(0, max(1, int(np.searchsorted(ends, limit, side="right"))))
        runs = Runs(alive[now], drawn[now], np.minimum(step[now], limit), before[now])
        inside, last = look(runs)
        on = inside == runs.count
        waiting = slice(now.stop, None)
        alive = np.concatenate((runs.cell[on], alive[waiting]))
        drawn = np.concatenate(((runs.first + runs.count)[on], drawn[waiting]))
        before = np.concatenate((last[on], before[waiting]))
        # a quarter more each time: few rounds even for a cell whose gaps are mostly far below their mean
        step = np.concatenate(((runs.first + runs.count)[on] // 4 + 4, step[waiting]))


def _in_order(parts: list[TimedRequests], cells: int) -> TimedRequests:
    """Parts joined cell by cell, ordinals ascending; every cell's ordinals are 0 … n − 1."""
    count = np.zeros(cells, np.int64)
    for part in parts:
        count += np.bincount(part.cell, minlength=cells)
    starts = np.cumsum(count) - count
    n = int(count.sum())
    joined = TimedRequests(np.empty(n, np.int32), np.empty(n, np.uint32), np.empty(n, np.uint32))
    for part in parts:
        to = starts[part.cell] + part.ordinal
        joined.cell[to], joined.ordinal[to], joined.x[to] = part.cell, part.ordinal, part.x
    return joined
