"""The JAX backend: `law/` under `jax.jit`, with masks and static shapes, on whatever device JAX uses.

Nothing here sets a global option: 64-bit types are on only inside a call. JAX takes three quarters of a GPU's memory at
first use unless ``XLA_PYTHON_CLIENT_PREALLOCATE=false`` is set before it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL, Backend
from servegen_gpu.backends.host.arrivals import NumpyGaps
from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, CellState, Runs, pieces
from servegen_gpu.backends.host.fields import ITEM_PURPOSES
from servegen_gpu.backends.host.survey import Surveyor
from servegen_gpu.backends.per_workload import PerWorkload
from servegen_gpu.backends.xla.arrivals import DeviceState, DrawnRuns, Requests, begin, draw_runs, join, nothing
from servegen_gpu.backends.xla.exact import x64
from servegen_gpu.backends.xla.rows import finish, items
from servegen_gpu.backends.xla.tables import (
    MIN_CELLS,
    MIN_REQUESTS,
    DeviceCells,
    DeviceTables,
    bucket,
    device_cells,
    device_runs,
    device_tables,
    padded,
)
from servegen_gpu.backends.xla.window import WindowSample, sample_window, window_cells
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key
from servegen_gpu.law.context import cut_output
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, cells_of
from servegen_gpu.request.columns import Columns, Ragged, empty_columns
from servegen_gpu.request.schema import INPUT, OUTPUT, of
from servegen_gpu.rules import CountRule

__all__ = ["JaxBackend", "WindowSample", "device_tables", "sample_window", "window_cells", "x64"]


KEPT: PerWorkload[DeviceTables] = PerWorkload()
"""Tables of workloads on the device; all backends of this process share them."""


class JaxBackend(Backend):
    """Samples slabs with JAX.

    Every function is compiled once for each bucket of sizes (powers of two of requests and of cells). Parts of a window
    larger than memory are found by a survey with NumPy, on the CPU, and drawn here.
    """

    name = "jax"

    def __init__(self) -> None:
        self._surveyor = Surveyor()

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, measured on a CPU where half of the lanes are empty."""
        schema = of(category)
        return 260 + 20 * len(schema.scalars) + (120 if schema.items else 0)

    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        try:
            return self._sample(packed, key, slab)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            asked = f"{slab.expected:,.0f} requests in a slab on {jax.default_backend()}"
            raise OptionError(f"device memory for {asked}", str(error).splitlines()[0], "lower memory=") from error

    def _sample(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        with x64():
            tables = _tables(packed, key)
            cells, found = self._part(tables, packed, key, slab) if slab.surveyed else _whole(tables, packed, slab)
            if found is not None:
                return _columns(tables, packed, slab, cells, found)
            ordinal = {ORDINAL: np.empty(0, np.uint32)} if packed.addressed else {}
            return empty_columns(packed.category) | ordinal

    def _part(
        self, tables: DeviceTables, packed: PackedWorkload, key: Key, slab: Slab
    ) -> tuple[DeviceCells, Requests | None]:
        """Requests of a part of a large window."""
        known, chosen = self._surveyor.reaching_runs(packed, key, slab, NumpyGaps())
        cells = device_cells(packed, known.state.cells, int(slab.windows[0]))
        runs = known.runs.take(chosen)
        if not len(runs):
            return cells, None
        state = _state_of(cells.for_arrivals(), known.state)
        on_device = device_runs(runs, bucket(len(runs), MIN_CELLS))
        lanes = bucket(int(runs.count.sum()), MIN_REQUESTS)
        drawn = draw_runs(tables.for_arrivals(), state, on_device, capacity=lanes, surveyed=True)
        return cells, drawn.requests


def _tables(packed: PackedWorkload, key: Key) -> DeviceTables:
    """The tables of a workload, uploaded where they are not kept, with the key."""
    tables = KEPT.find(packed)
    if tables is None:
        tables = device_tables(packed, key)
        KEPT.keep(packed, tables)
    return tables.with_key(key)


def _state_of(cells: DeviceCells, known: CellState) -> DeviceState:
    """The state of a survey on the device."""
    size = len(cells.client)
    names = ("count", "rotation", "ticks_in_all", "first_ticks", "log_unit", "ticks_per_unit")
    arrays = {name: padded(getattr(known, name), size, 1) for name in names}
    constants = jax.tree.map(lambda values: padded(values, size, 1), known.law.constants)
    on_device: dict[str, Any] = jax.device_put(arrays | {"constants": constants})
    return DeviceState(cells=cells, **on_device)


def _whole(tables: DeviceTables, packed: PackedWorkload, slab: Slab) -> tuple[DeviceCells, Requests | None]:
    """All requests of the slab's windows."""
    on_host = cells_of(packed, slab.windows)
    cells = device_cells(packed, on_host, int(slab.windows[0]))
    state = begin(tables.for_arrivals(), cells.for_arrivals())
    count, first_ticks = np.asarray(state.count)[: len(on_host)], np.asarray(state.first_ticks)[: len(on_host)]
    renewal = packed.count_rule[on_host.profile] == CountRule.RENEWAL
    expected = np.ceil(on_host.expected_q32 * 2.0**-32)
    room = np.where(first_ticks < WINDOW_TICKS, (1.2 * expected).astype(np.int64) + 5, 0)
    room = np.where(renewal, room, count)
    some = np.flatnonzero(room)
    if not len(some):
        return cells, None
    zero = np.zeros(len(some), np.int64)
    limit = 2 * max(int(slab.expected), 1 << 16)
    parts = list(_rounds(tables.for_arrivals(), state, renewal, Runs(some, zero, room[some], zero), limit))
    return cells, _together(parts)


def _rounds(
    tables: DeviceTables, state: DeviceState, renewal: NDArray[np.bool_], runs: Runs, limit: int
) -> Iterator[tuple[DrawnRuns, Runs]]:
    """Draw runs until every renewal cell has passed the end of its window; at most about `limit` requests at a time.

    Yields what was drawn and its runs on the device.
    """
    size = len(state.cells.client)
    largest = bucket(min(int(runs.count.sum()), limit), MIN_REQUESTS)
    capacities = [max(largest >> bits, MIN_REQUESTS) for bits in (0, 4, 8)]  # three shapes, whatever comes
    while len(runs):
        capacity = capacities.pop(0) if len(capacities) > 1 else capacities[0]
        again: list[Runs] = []
        for piece in pieces(runs, capacity):
            part = runs.take(piece)
            lanes = bucket(max(capacity, int(part.count.sum())), MIN_REQUESTS)  # one exact cell may exceed the limit
            on_device = device_runs(part, size)
            drawn = draw_runs(tables, state, on_device, capacity=lanes)
            yield drawn, on_device
            on = np.flatnonzero(renewal[part.cell] & (np.asarray(drawn.taken)[: len(part)] == part.count))
            # a quarter more each time: few rounds even for a cell whose gaps are mostly far below their mean
            done = part.first[on] + part.count[on]
            step = np.minimum(done // 4 + 4, capacities[0])
            again.append(Runs(part.cell[on], done, step, np.asarray(drawn.last)[on]))
        runs = Runs(*(np.concatenate([getattr(part, name) for part in again]) for name in Runs.__dataclass_fields__))


def _together(parts: list[tuple[DrawnRuns, Runs]]) -> Requests:
    """Parts as one, cell by cell and ordinals ascending."""
    taken = [np.asarray(drawn.taken).astype(np.int64) for drawn, _ in parts]
    total = bucket(sum(int(of.sum()) for of in taken), MIN_REQUESTS)
    if len(parts) == 1 and total == len(parts[0][0].run):
        return parts[0][0].requests
    every = np.concatenate(taken)
    cell = np.concatenate([np.asarray(runs.cell) for _, runs in parts])
    first = np.concatenate([np.asarray(runs.first) for _, runs in parts])
    order = np.lexsort((first, cell))
    begins = np.empty(len(every), np.int64)
    begins[order] = np.cumsum(every[order]) - every[order]
    joined = nothing(total)
    ends = np.cumsum([len(of) for of in taken])
    for (drawn, runs), a, b in zip(parts, ends - len(taken[0]), ends, strict=True):
        joined = join(joined, drawn, runs, jax.device_put(begins[a:b]))
    return joined


def _columns(tables: DeviceTables, packed: PackedWorkload, slab: Slab, cells: DeviceCells, found: Requests) -> Columns:
    """The slab's columns in memory of their own."""
    first_us = (packed.first_window + int(slab.windows[0])) * packed.window_us
    edges = jax.device_put((np.int64(slab.from_us - first_us), np.int64(slab.to_us - first_us)))
    rows = finish(tables, cells, found, *edges)
    n = int(rows["rows"])

    def column(values: Any) -> NDArray[Any]:
        return np.asarray(values)[:n].copy()

    columns: dict[str, Any] = {"arrival_us": column(rows["time_us"]), "client": column(rows["client"])}
    columns["arrival_us"] += first_us - packed.start_us
    if packed.addressed:
        columns[ORDINAL] = column(rows["ordinal"])
    schema = packed.schema
    asked: dict[str, Any] = {f.column: column(rows[f.column]) for f in schema.scalars if f.column}
    if not schema.items:
        return columns | schema.in_order(asked)
    lookup, address = replace(tables, fields=None), {name: rows[name] for name in ("cell", "ordinal")}
    inputs = asked[schema.fields[INPUT].name]
    for modality in schema.items:
        count = column(rows[modality.count.name])
        draws = int(((count.astype(np.int64) + 3) >> 2).sum())
        which = (np.uint64(ITEM_PURPOSES[modality.modality]), np.int32(modality.item.lane))
        on_device = jax.device_put((padded(count, len(rows["cell"])), *which))
        values, sums = items(lookup, cells, address, *on_device, capacity=bucket(draws, MIN_REQUESTS))
        offsets = np.concatenate(([0], np.cumsum(count, dtype=np.int64)))
        asked[modality.item.column] = Ragged(offsets, np.asarray(values)[: offsets[-1]].copy())
        inputs = inputs + column(sums)
    if cells.context is not None:
        output, context = schema.fields[OUTPUT].name, np.asarray(cells.context)[column(rows["cell"])]
        asked[output] = cut_output(np, asked[output], inputs, context)
    return columns | schema.in_order(asked | {schema.total: inputs})
