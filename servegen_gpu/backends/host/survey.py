"""Cells of a window too large for memory: surveyed once, and any part of them drawn again from its addresses.

A survey keeps of every chunk of requests of a cell only the sum before them. Notation as in ``law/position.py``: S_j,
G, V, f. Axes: cells, runs (consecutive requests of one cell), requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.arrivals import (
    TimedRequests,
    first_renewals,
    microseconds,
    place,
    rounds,
    sums_of,
    ticks_of,
)
from servegen_gpu.backends.host.cell_state import CellState, Runs, begin, pieces
from servegen_gpu.backends.host.gaps import log_gaps
from servegen_gpu.backends.host.run_gaps import Gaps, chunk_of
from servegen_gpu.backends.per_workload import PerWorkload
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, cells_of, clock_tables
from servegen_gpu.rules import CountRule


@dataclass(frozen=True, eq=False)
class Survey:
    """The requests of a large window, known well enough to draw any part of them again.

    Attributes
    ----------
    state : CellState
    runs : Runs
        All requests, a chunk at a time at most, cell by cell.
    after : int64[runs]
        Ticks of all gaps of the cell up to the end of the run.
    """

    state: CellState
    runs: Runs
    after: NDArray[np.int64]


def survey(state: CellState, limit: int, gaps: Gaps) -> Survey:
    """Draw all requests of the cells, at most about `limit` at a time, and keep a sum for every chunk of them."""
    chunk = chunk_of(state, limit)
    counted = np.flatnonzero(state.count > 0)
    chunks = -(-state.count[counted] // chunk)
    cell = np.repeat(counted, chunks)
    first = chunk * (np.arange(len(cell)) - np.repeat(np.cumsum(chunks) - chunks, chunks))
    runs = Runs(cell, first, np.minimum(chunk, state.count[cell] - first), np.zeros(len(cell), np.int64))

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
    begun = first_renewals(state)
    if not len(begun):
        return Survey(state, found[0], after)
    found.append(begun)
    found_after.append(state.first_ticks[begun.cell])

    def look(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        seen = gaps.renewals(state, runs, chunk)
        found.append(seen.chunks)
        found_after.append(seen.after)
        return seen.inside, seen.last

    rounds(state, begun, limit, look)
    together = Runs(*(np.concatenate([getattr(part, name) for part in found]) for name in Runs.__dataclass_fields__))
    order = np.lexsort((together.first, together.cell))
    return Survey(state, together.take(order), np.concatenate(found_after)[order])


def redraw(known: Survey, chosen: NDArray[np.bool_]) -> TimedRequests:
    """The requests of the chosen runs of a survey."""
    state, runs = known.state, known.runs.take(chosen)
    cell, ordinal = runs.requests()
    ticks = ticks_of(state, log_gaps(state.law, cell, ordinal), cell)
    first = np.flatnonzero((ordinal == 0) & (state.rule[cell] == CountRule.RENEWAL))
    ticks[first] = state.first_ticks[cell[first]]
    return place(state, cell, ordinal, sums_of(ticks, runs))


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


class Surveyor:
    """Finds which runs of a large window reach into a slab; remembers the last survey of each workload."""

    def __init__(self) -> None:
        self._known: PerWorkload[tuple[Key, int, Survey]] = PerWorkload()

    def reaching_runs(
        self, packed: PackedWorkload, key: Key, slab: Slab, gaps: Gaps
    ) -> tuple[Survey, NDArray[np.bool_]]:
        """The survey of a surveyed slab's window, and which of its runs may have requests inside the slab.

        Parameters
        ----------
        packed : PackedWorkload
        key : tuple of int
        slab : Slab
            Of one window, `Slab.surveyed`.
        gaps : Gaps
            Where they are drawn, the same values everywhere.

        Returns
        -------
        known : Survey
        chosen : bool[runs]
        """
        window = int(slab.windows[0])
        last = self._known.find(packed)
        if last is None or last[:2] != (key, window):
            self._known.forget(packed)  # free the last survey before the next is made
            last = key, window, survey(begin(packed, key, cells_of(packed, slab.windows)), alive_at_once(slab), gaps)
            self._known.keep(packed, last)
        return last[2], _reaching(packed, last[2], slab)

    def forget(self) -> None:
        """Let go of all surveys."""
        self._known.forget()


def alive_at_once(slab: Slab) -> int:
    """How many requests may be drawn at a time."""
    return max(int(slab.expected), 1 << 16)


def _reaching(packed: PackedWorkload, known: Survey, slab: Slab) -> NDArray[np.bool_]:
    """Which runs of a survey may have requests inside the slab."""
    window = int(slab.windows[0])
    origin = (packed.first_window + window) * packed.window_us
    clock_table = clock_tables(packed, known.state.cells)[known.runs.cell]
    chosen = np.zeros(len(known.runs), np.bool_)
    for first, last in spans_of_runs(known):
        some = np.flatnonzero(first <= last)
        table = clock_table[some]
        from_us = origin + microseconds(packed, first[some].astype(np.uint32), table)
        to_us = origin + microseconds(packed, last[some].astype(np.uint32), table)
        chosen[some[(from_us < slab.to_us) & (to_us >= slab.from_us)]] = True
    return chosen
