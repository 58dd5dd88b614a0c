"""The NumPy backend: the law in cache-sized blocks on threads. The reference, and the fallback of last resort."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL
from servegen_gpu.backends.host.arrivals import Arrivals, NumpyGaps, whole
from servegen_gpu.backends.host.cell_state import CellState, begin
from servegen_gpu.backends.host.fields import later_fields, lookup, scalar_fields
from servegen_gpu.backends.host.run_gaps import Gaps
from servegen_gpu.backends.host.survey import Survey, redraw, spans_of_runs, survey
from servegen_gpu.blocks import for_blocks, gather
from servegen_gpu.law.position import clock_us
from servegen_gpu.merge import merge_order
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, cells_of
from servegen_gpu.request.columns import Columns
from servegen_gpu.request.schema import scalar_field_count


class NumpyBackend:
    """Samples slabs with NumPy; remembers the survey of the last large window, which its slabs share."""

    name = "numpy"

    def __init__(self, gaps: Gaps | None = None) -> None:
        self._gaps = gaps or NumpyGaps()
        self._surveyed: tuple[PackedWorkload, int, Survey] | None = None

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, measured with `bench/bench_memory.py`."""
        fields = scalar_field_count(category)
        return 90 + 12 * fields + (80 if category == "multimodal" else 0)

    def sample_slab(self, packed: PackedWorkload, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        if slab.surveyed:
            known, chosen = self.reaching_runs(packed, slab)
            state, arrivals = known.state, redraw(known, chosen)
        else:
            state = begin(packed, cells_of(packed, slab.windows))
            arrivals = whole(state, _limit(slab))
        return _columns(packed, state, arrivals, slab)

    def reaching_runs(self, packed: PackedWorkload, slab: Slab) -> tuple[Survey, NDArray[np.bool_]]:
        """The survey of a surveyed slab's window, and which of its runs may have requests inside the slab."""
        known = self._survey(packed, slab)
        return known, _reaching(packed, known, slab)

    def _survey(self, packed: PackedWorkload, slab: Slab) -> Survey:
        window = int(slab.windows[0])
        last = self._surveyed
        if last is None or last[0] is not packed or last[1] != window:
            self._surveyed = None  # free the last window's before the next is made
            known = survey(begin(packed, cells_of(packed, slab.windows)), _limit(slab), self._gaps)
            self._surveyed = (packed, window, known)
            return known
        return last[2]


def _limit(slab: Slab) -> int:
    """Requests that may be alive at once."""
    return max(int(slab.expected), 1 << 16)


def _reaching(packed: PackedWorkload, known: Survey, slab: Slab) -> NDArray[np.bool_]:
    """Which runs of a survey may have requests inside the slab."""
    window = int(slab.windows[0])
    origin = (packed.first_window + window) * packed.window_us
    chosen = np.zeros(len(known.runs), np.bool_)
    for first, last in spans_of_runs(known):
        some = np.flatnonzero(first <= last)
        table = np.full(len(some), packed.clock.table[window])
        from_us = origin + _clock(packed, first[some].astype(np.uint32), table)
        to_us = origin + _clock(packed, last[some].astype(np.uint32), table)
        chosen[some[(from_us < slab.to_us) & (to_us >= slab.from_us)]] = True
    return chosen


def _clock(packed: PackedWorkload, x: NDArray[np.uint32], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Microseconds inside the window at operational times."""
    clock = packed.clock
    if not table.any():  # the constant window
        return ((x.astype(np.uint64) * np.uint64(packed.window_us)) >> np.uint64(32)).astype(np.int64)
    s = lookup(x, table, clock.segments)
    time: NDArray[np.uint64] = clock_us(np, x.astype(np.uint64), clock.first[s], clock.start_us[s], clock.slope[s])
    return time.astype(np.int64)


def _columns(packed: PackedWorkload, state: CellState, arrivals: Arrivals, slab: Slab) -> Columns:
    """From arrivals in operational time to the slab's columns."""
    cells = state.cells
    # times count from the slab's first window or its begin, whichever is later: small numbers sort in one word
    first = (packed.first_window + int(slab.windows[0])) * packed.window_us
    base = max(first, slab.from_us)
    origin = cells.window * packed.window_us - base
    clock_table = packed.clock.table[cells.window_index]
    time = np.empty(len(arrivals), np.int64)

    def place(a: int, b: int) -> None:
        at = arrivals.cell[a:b]
        time[a:b] = _clock(packed, arrivals.x[a:b], clock_table[at]) + origin[at]

    for_blocks(len(arrivals), place)
    last = (packed.first_window + int(slab.windows[-1]) + 1) * packed.window_us
    if slab.from_us > first or slab.to_us < last:
        inside = np.flatnonzero((time >= slab.from_us - base) & (time < slab.to_us - base))
        arrivals, time = arrivals.take(inside), time[inside]

    cell, ordinal = arrivals.cell, arrivals.ordinal
    drawn = scalar_fields(packed, cells, state.law, cell, ordinal)
    sorted_us, order = merge_order(time, min(slab.to_us, last) - base)
    sorted_us += base - packed.start_us
    drawn = {name: gather(column, order) for name, column in drawn.items()}
    cell = gather(cell, order)
    client = gather(packed.client_id[cells.client].astype(np.int32), cell)
    columns: dict[str, Any] = {"arrival_us": sorted_us, "client": client}
    if packed.addressed or packed.category == "multimodal":
        ordinal = gather(ordinal, order)
    if packed.addressed:
        columns[ORDINAL] = ordinal
    # items are drawn after the sort, from addresses: lists need not be moved
    return columns | later_fields(packed, cells, state.law, cell, ordinal, drawn)
