"""The NumPy backend: the law in cache-sized blocks on threads. The reference, and the fallback of last resort."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.backends.contract import ORDINAL, Backend
from servegen_gpu.backends.host.arrivals import NumpyGaps, TimedRequests, microseconds, whole
from servegen_gpu.backends.host.cell_state import CellState, begin
from servegen_gpu.backends.host.fields import later_fields, scalar_fields
from servegen_gpu.backends.host.survey import Surveyor, alive_at_once, redraw
from servegen_gpu.blocks import for_blocks, gather
from servegen_gpu.law.address import Key
from servegen_gpu.merge import merge_order
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, cells_of, clock_tables
from servegen_gpu.request.columns import Columns
from servegen_gpu.request.schema import of


class NumpyBackend(Backend):
    """Samples slabs with NumPy."""

    name = "numpy"
    shared = True

    def __init__(self) -> None:
        self._surveyor = Surveyor()

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, measured with `bench/bench_memory.py`."""
        schema = of(category)
        return 90 + 12 * len(schema.scalars) + (80 if schema.items else 0)

    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        if slab.surveyed:
            known, chosen = self._surveyor.reaching_runs(packed, key, slab, NumpyGaps())
            state, timed = known.state, redraw(known, chosen)
        else:
            state = begin(packed, key, cells_of(packed, slab.windows))
            timed = whole(state, alive_at_once(slab))
        return _columns(packed, state, timed, slab)


def _columns(packed: PackedWorkload, state: CellState, timed: TimedRequests, slab: Slab) -> Columns:
    """From operational times to the slab's columns."""
    cells = state.cells
    # times count from the slab's first window or its begin, whichever is later: small numbers sort in one word
    first = (packed.first_window + int(slab.windows[0])) * packed.window_us
    base = max(first, slab.from_us)
    origin = cells.window * packed.window_us - base
    clock_table = clock_tables(packed, cells)
    time = np.empty(len(timed), np.int64)

    def place(a: int, b: int) -> None:
        at = timed.cell[a:b]
        time[a:b] = microseconds(packed, timed.x[a:b], clock_table[at]) + origin[at]

    for_blocks(len(timed), place)
    last = (packed.first_window + int(slab.windows[-1]) + 1) * packed.window_us
    if slab.from_us > first or slab.to_us < last:
        inside = np.flatnonzero((time >= slab.from_us - base) & (time < slab.to_us - base))
        timed, time = timed.take(inside), time[inside]

    cell, ordinal = timed.cell, timed.ordinal
    drawn = scalar_fields(packed, cells, state.law, cell, ordinal)
    sorted_us, order = merge_order(time, min(slab.to_us, last) - base)
    sorted_us += base - packed.start_us
    drawn = {name: gather(column, order) for name, column in drawn.items()}
    cell = gather(cell, order)
    client = gather(packed.client_id[cells.client].astype(np.int32), cell)
    columns: dict[str, Any] = {"arrival_us": sorted_us, "client": client}
    if packed.addressed or packed.schema.items:
        ordinal = gather(ordinal, order)
    if packed.addressed:
        columns[ORDINAL] = ordinal
    # items are drawn after the sort, from addresses: lists need not be moved
    return columns | later_fields(packed, cells, state.law, cell, ordinal, drawn)
