"""Arrivals of cells in operational time.

Two shapes of one job. *Whole* cells are drawn once: gaps, sums, times. Cells of a window too large for memory are
*surveyed* first, which keeps of every run of `CHUNK` requests only the sum before it; any run can then be drawn again
from its addresses.

Notation as in ``law/position.py``: S_j, G, V, f. Axes: cells, runs (consecutive requests of one cell), requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.blocks import for_blocks
from servegen_gpu.backends.numpy_gaps import CellLaw, cell_law, cells_in, log_first_gaps, log_gaps
from servegen_gpu.law.address import Purpose, draw
from servegen_gpu.law.elementary import log
from servegen_gpu.law.position import RENEWAL_BITS, from_start, on_circle, tick_bits
from servegen_gpu.law.variates import gap_ticks
from servegen_gpu.packing import PackedWorkload
from servegen_gpu.plan import Cells
from servegen_gpu.rules import CountRule

CHUNK = 256
"""Requests between two remembered sums of a survey."""

WINDOW_TICKS = 1 << RENEWAL_BITS


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of consecutive requests.

    Attributes
    ----------
    cell : int64[runs]
    first : int64[runs]
        Ordinal of the first request.
    count : int64[runs]
        Positive.
    before : int64[runs]
        Ticks of all gaps of the cell before the run.
    """

    cell: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    before: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Runs:
        """The runs at `index`."""
        return Runs(self.cell[index], self.first[index], self.count[index], self.before[index])

    def starts(self) -> NDArray[np.int64]:
        """Where each run begins among the requests of all runs."""
        return np.cumsum(self.count) - self.count

    def requests(self) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Cell int32[requests] and ordinal uint32[requests] of every request, run after run."""
        cell = np.repeat(self.cell.astype(np.int32), self.count)
        ordinal = np.arange(len(cell), dtype=np.uint32)
        ordinal += np.repeat((self.first - self.starts()).astype(np.uint32), self.count)  # modulo 2**32
        return cell, ordinal


@dataclass(frozen=True, eq=False)
class CellState:
    """What is known of every cell; drawing fills in what it finds (arrays of cells).

    Attributes
    ----------
    cells : Cells
    law : CellLaw
    rule : uint8
        `CountRule`.
    count : int64
        Gaps of the cell; unknown, and 0, for a renewal cell.
    rotation : int64
        V.
    occupancy : float64
        f.
    log_unit, ticks_per_unit : float64
        What a gap is measured in: the cell's largest gap (once found), or the window for a renewal cell.
    ticks_in_all : int64
        G (once found).
    first_ticks : int64
        Time to the first arrival of a renewal cell.
    """

    cells: Cells
    law: CellLaw
    rule: NDArray[np.uint8]
    count: NDArray[np.int64]
    rotation: NDArray[np.int64]
    occupancy: NDArray[np.float64]
    log_unit: NDArray[np.float64]
    ticks_per_unit: NDArray[np.float64]
    ticks_in_all: NDArray[np.int64]
    first_ticks: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Requests cell by cell, ordinals ascending: the order that breaks ties.

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

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Arrivals:
        """The requests at `index`."""
        return Arrivals(self.cell[index], self.ordinal[index], self.x[index])


def begin(packed: PackedWorkload, cells: Cells) -> CellState:
    """Draw what is drawn once per cell: counts, rotations, first arrivals. Cells that stay empty are left out."""
    n = len(cells)
    rule = packed.count_rule[cells.profile]
    count, rotation = np.empty(n, np.int64), np.empty(n, np.int64)
    client, window = packed.client_id[cells.client], cells.window.astype(np.uint64)

    def block(a: int, b: int) -> None:
        words = draw(np, packed.key, Purpose.COUNT, ordinal=0, client=client[a:b], window=window[a:b])
        # unbiased rounding, floor(r T + U); the servegen rule rounds up
        rounding = np.where(rule[a:b] == CountRule.SERVEGEN, 2**32 - 1, words[0].astype(np.int64))
        count[a:b] = (cells.expected_q32[a:b] + rounding) >> 32
        rotation[a:b] = words[1].astype(np.int64)

    for_blocks(n, block)
    renewal = rule == CountRule.RENEWAL
    kept = np.flatnonzero((count > 0) | renewal)
    cells, rule, renewal = cells.take(kept), rule[kept], renewal[kept]
    count = np.where(renewal, 0, count[kept])
    law = cell_law(packed, cells)
    expected = cells.expected_q32.astype(np.float64) * 2.0**-32
    at = (cells.profile, cells.row)
    state = CellState(
        cells=cells,
        law=law,
        rule=rule,
        count=count,
        rotation=rotation[kept],
        occupancy=packed.occupancy[at],
        log_unit=packed.log_mean_gap[at] + log(np, expected),
        ticks_per_unit=np.ldexp(1.0, np.where(renewal, RENEWAL_BITS, tick_bits(np, np.maximum(count, 1)))),
        ticks_in_all=np.where(renewal, WINDOW_TICKS, 0),
        first_ticks=np.full(len(kept), WINDOW_TICKS),
    )
    chosen = np.flatnonzero(renewal)
    if len(chosen):
        first = log_first_gaps(law.take(chosen))
        state.first_ticks[chosen] = gap_ticks(np, first, state.log_unit[chosen], float(WINDOW_TICKS))
    return state


class Gaps(Protocol):
    """Drawing the gaps of runs: what the rest of this module is told from outside."""

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        ...

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        ...

    def renewals(self, state: CellState, runs: Runs) -> Renewals:
        """How far runs of renewal cells come, each of which begins inside its window."""
        ...


@dataclass(frozen=True, eq=False)
class Renewals:
    """How far runs of renewal cells come.

    Attributes
    ----------
    inside : int64[runs]
        Requests before the window's end.
    last : int64[runs]
        Ticks of the cell up to the end of the run.
    chunks : Runs
        The requests inside, `CHUNK` at a time at most.
    after : int64[chunks]
        Ticks of the cell up to the end of the chunk.
    """

    inside: NDArray[np.int64]
    last: NDArray[np.int64]
    chunks: Runs
    after: NDArray[np.int64]


class SummedGaps(Protocol):
    """Gaps whose sums are all on the host."""

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]."""
        ...

    def renewals(self, state: CellState, runs: Runs) -> Renewals:
        """How far runs of renewal cells come, each of which begins inside its window."""
        sums = self.sums(state, runs)
        inside, last = reached(runs, sums)
        return Renewals(inside, last, *cut(runs, inside, lambda at: sums[at]))


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
            _ticks(state, log_gaps(state.law, cell, ordinal), cell), runs.starts()
        )
        return totals

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]; beyond 2**63 they wrap around."""
        cell, ordinal = runs.requests()
        return _sums(_ticks(state, log_gaps(state.law, cell, ordinal), cell), runs)


def whole(state: CellState, limit: int) -> Arrivals:
    """All requests of the cells; at most about `limit` candidate gaps of renewal cells are drawn at a time."""
    parts = []
    counted = np.flatnonzero(state.count > 0)
    if len(counted):
        zero = np.zeros(len(counted), np.int64)
        runs = Runs(counted, zero, state.count[counted], zero)
        cell, ordinal = runs.requests()
        gaps = log_gaps(state.law, cell, ordinal)
        state.log_unit[counted] = np.maximum.reduceat(gaps, runs.starts())
        sums = _sums(_ticks(state, gaps, cell), runs)
        state.ticks_in_all[counted] = sums[np.cumsum(runs.count) - 1]
        parts.append(_place(state, cell, ordinal, sums))
    parts += _whole_renewals(state, limit)
    if len(parts) == 1:
        return parts[0]
    return _in_order(parts, len(state.cells))


def _whole_renewals(state: CellState, limit: int) -> list[Arrivals]:
    """All requests of the renewal cells, in parts."""
    first = _first_renewals(state)
    if not len(first):
        return []
    parts = [_place(state, *first.requests(), state.first_ticks[first.cell])]

    def look(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sums = NumpyGaps().sums(state, runs)
        inside, last = reached(runs, sums)
        some = inside > 0
        kept = np.arange(len(sums)) - np.repeat(runs.starts(), runs.count) < np.repeat(inside, runs.count)
        within = Runs(runs.cell[some], runs.first[some], inside[some], runs.before[some])
        parts.append(_place(state, *within.requests(), sums[kept]))
        return inside, last

    _rounds(state, first, limit, look)
    return parts


@dataclass(frozen=True, eq=False)
class Survey:
    """The requests of a large window, known well enough to draw any part of them again.

    Attributes
    ----------
    state : CellState
    runs : Runs
        All requests, `CHUNK` at a time at most, cell by cell.
    after : int64[runs]
        Ticks of all gaps of the cell up to the end of the run.
    """

    state: CellState
    runs: Runs
    after: NDArray[np.int64]


def survey(state: CellState, limit: int, gaps: Gaps) -> Survey:
    """Draw all requests of the cells, at most about `limit` at a time, and keep a sum for every `CHUNK` of them."""
    counted = np.flatnonzero(state.count > 0)
    chunks = -(-state.count[counted] // CHUNK)
    cell = np.repeat(counted, chunks)
    first = CHUNK * (np.arange(len(cell)) - np.repeat(np.cumsum(chunks) - chunks, chunks))
    runs = Runs(cell, first, np.minimum(CHUNK, state.count[cell] - first), np.zeros(len(cell), np.int64))

    state.log_unit[counted] = -np.inf
    for piece in pieces(runs, limit):
        part = runs.take(piece)
        np.maximum.at(state.log_unit, part.cell, gaps.peaks(state, part))
    ticks = np.empty(len(runs), np.int64)
    for piece in pieces(runs, limit):
        ticks[piece] = gaps.totals(state, runs.take(piece))
    ends = np.cumsum(ticks)  # wraps around, and differences undo it
    before_cell = np.concatenate(([0], ends))[np.cumsum(chunks) - chunks]
    after = ends - np.repeat(before_cell, chunks)
    state.ticks_in_all[counted] = after[np.cumsum(chunks) - 1]

    found, found_after = [Runs(cell, first, runs.count, after - ticks)], [after]
    begun = _first_renewals(state)
    found.append(begun)
    found_after.append(state.first_ticks[begun.cell])

    def look(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        seen = gaps.renewals(state, runs)
        found.append(seen.chunks)
        found_after.append(seen.after)
        return seen.inside, seen.last

    _rounds(state, begun, limit, look)
    together = Runs(*(np.concatenate([getattr(part, name) for part in found]) for name in Runs.__dataclass_fields__))
    order = np.lexsort((together.first, together.cell))
    return Survey(state, together.take(order), np.concatenate(found_after)[order])


def redraw(known: Survey, chosen: NDArray[np.bool_]) -> Arrivals:
    """The requests of the chosen runs of a survey."""
    state, runs = known.state, known.runs.take(chosen)
    cell, ordinal = runs.requests()
    ticks = _ticks(state, log_gaps(state.law, cell, ordinal), cell)
    first = np.flatnonzero((ordinal == 0) & (state.rule[cell] == CountRule.RENEWAL))
    ticks[first] = state.first_ticks[cell[first]]
    return _place(state, cell, ordinal, _sums(ticks, runs))


def spans_of_runs(known: Survey) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Earliest and latest operational time of every run, as arcs: a rotated run can pass the window's end once.

    Yields pairs of int64[runs]; a pair with ``first > last`` is no arc.
    """
    state, cell = known.state, known.runs.cell
    circular = state.rule[cell] == CountRule.EXACT
    rotation = np.where(circular, state.rotation[cell], 0)
    scale = np.where(circular, state.occupancy[cell], 1.0) * 2.0**32 / state.ticks_in_all[cell]
    # one instant of slack on either side covers the rounding of this product
    low = rotation + np.floor(known.runs.before * scale).astype(np.int64) - 1
    high = rotation + np.ceil(known.after * scale).astype(np.int64) + 1
    top = 2**32 - 1
    yield np.clip(low, 0, None), np.minimum(high, top)
    yield np.maximum(low, 2**32) - 2**32, np.where(high > top, np.minimum(high - 2**32, top), -1)


def _ticks(state: CellState, log_gap: NDArray[np.float64], cell: NDArray[np.int32]) -> NDArray[np.int64]:
    """Log-gaps as ticks, in the same memory."""
    out = log_gap.view(np.int64)

    def block(a: int, b: int) -> None:
        at = cells_in(cell, a, b)
        out[a:b] = gap_ticks(np, log_gap[a:b], state.log_unit[at], state.ticks_per_unit[at])

    for_blocks(len(cell), block)
    return out


def _sums(ticks: NDArray[np.int64], runs: Runs) -> NDArray[np.int64]:
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


def _place(state: CellState, cell: NDArray[np.int32], ordinal: NDArray[np.uint32], sums: NDArray[np.int64]) -> Arrivals:
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
    arrivals = Arrivals(cell, ordinal, x)
    return arrivals if inside is None else arrivals.take(inside)


def _first_renewals(state: CellState) -> Runs:
    """The first request of every renewal cell that has one inside its window."""
    alive = np.flatnonzero((state.rule == CountRule.RENEWAL) & (state.first_ticks < WINDOW_TICKS))
    zero = np.zeros(len(alive), np.int64)
    return Runs(alive, zero, np.ones(len(alive), np.int64), zero)


def _rounds(
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


def reached(runs: Runs, sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Requests of every run before its window's end, and the ticks at its end, int64[runs] both."""
    starts = runs.starts()
    passed = np.append(np.flatnonzero(sums.view(np.uint64) >= WINDOW_TICKS), len(sums))
    inside = np.minimum(passed[np.searchsorted(passed, starts)] - starts, runs.count)
    return inside, sums[starts + runs.count - 1]


def _in_order(parts: list[Arrivals], cells: int) -> Arrivals:
    """Parts joined cell by cell, ordinals ascending; every cell's ordinals are 0 … n − 1."""
    count = np.zeros(cells, np.int64)
    for part in parts:
        count += np.bincount(part.cell, minlength=cells)
    starts = np.cumsum(count) - count
    n = int(count.sum())
    joined = Arrivals(np.empty(n, np.int32), np.empty(n, np.uint32), np.empty(n, np.uint32))
    for part in parts:
        to = starts[part.cell] + part.ordinal
        joined.cell[to], joined.ordinal[to], joined.x[to] = part.cell, part.ordinal, part.x
    return joined


def pieces(runs: Runs, limit: int) -> Iterator[slice]:
    """Consecutive runs of about `limit` requests together."""
    ends = np.cumsum(runs.count)
    a = 0
    while a < len(runs):
        done = int(ends[a - 1]) if a else 0
        b = max(a + 1, int(np.searchsorted(ends, done + limit, side="right")))
        yield slice(a, b)
        a = b


def cut(
    runs: Runs, inside: NDArray[np.int64], sums_at: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> tuple[Runs, NDArray[np.int64]]:
    """The first `inside` requests of runs in chunks, and the ticks at the end of each, which `sums_at` finds."""
    chunks = -(-inside // CHUNK)
    run = np.repeat(np.arange(len(runs)), chunks)
    offset = CHUNK * (np.arange(len(run)) - np.repeat(np.cumsum(chunks) - chunks, chunks))
    count = np.minimum(CHUNK, inside[run] - offset)
    after = sums_at(runs.starts()[run] + offset + count - 1)
    before = runs.before[run]
    further = np.flatnonzero(offset)
    before[further] = after[further - 1]
    return Runs(runs.cell[run], runs.first[run] + offset, count, before), after
