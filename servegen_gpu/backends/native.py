"""The native backend: the law in `kernels/`, compiled for the CPU; threads over blocks, strips of lanes, radix sort.

Counts and rotations of cells, and the bookkeeping of surveys, are the NumPy backend's; what is done per request is in
C. Axes: cells, runs, requests.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.blocks import thread_count
from servegen_gpu.backends.cell_state import CellState, Runs, begin
from servegen_gpu.backends.contract import ORDINAL, SEVERAL, Columns
from servegen_gpu.backends.native_library import MAX_FIELDS, PAD, Library, Out, address, job, load_library, runs
from servegen_gpu.backends.reference import NumpyBackend
from servegen_gpu.backends.run_gaps import SummedGaps
from servegen_gpu.clients.pool import MODALITIES, scalar_field_count
from servegen_gpu.law.dependence import KINDS, ties
from servegen_gpu.packing import PackedWorkload
from servegen_gpu.plan import Slab, cells_of
from servegen_gpu.rules import CountRule
from servegen_gpu.trace import Ragged


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the library has drawn of a slab.

    Attributes
    ----------
    handle : c_void_p
    count : int
    state : CellState
    offset_us : int
        From the begin of the packed span to when its times count from.
    stop : int32[1]
        Ends the library's work when it is not 0.
    """

    handle: ctypes.c_void_p
    count: int
    state: CellState
    offset_us: int
    stop: NDArray[np.int32]


class NativeBackend(NumpyBackend):
    """Samples slabs with compiled kernels.

    Parameters
    ----------
    library : Library, optional
    """

    name = "native"
    joined_slab_requests = 1 << 26
    """Scratch does not grow with a slab, so that a trace in memory is best made in one."""

    def __init__(self, library: Library | None = None) -> None:
        self.library = library or load_library(build=True)
        super().__init__(NativeGaps(self.library))
        self.library.hold(1)
        weakref.finalize(self, self.library.hold, -1)

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, the columns of the slab before among them."""
        fields = scalar_field_count(category)
        return 88 + 12 * fields + (80 if category == "multimodal" else 0)

    def sample_slab(self, packed: PackedWorkload, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        with self._drawn("sg_draw", packed, slab) as drawn:
            try:
                return self._written(packed, drawn)
            finally:
                self.library.free(drawn.handle)

    def sample_talks(self, packed: PackedWorkload, slab: Slab) -> Columns:
        """Arrival, client and ordinal of the slab's sessions of several turns, in any order."""
        with self._drawn("sg_talks", packed, slab) as drawn:
            us, ordinal = np.empty(drawn.count, np.int64), np.empty(drawn.count, np.uint32)
            cell = np.empty(drawn.count, np.int32)
            self.library.call("sg_talk_rows", drawn.handle, us, cell, ordinal, stop=drawn.stop)
        client = packed.client_id[drawn.state.cells.client[cell]].astype(np.int32)
        return {"arrival_us": us + drawn.offset_us, "client": client, ORDINAL: ordinal}

    @contextmanager
    def _drawn(self, function: str, packed: PackedWorkload, slab: Slab) -> Iterator[Drawn]:
        """What a function draws of a slab; arrays that the library points into live as long."""
        state, runs = self._state(packed, slab)
        first = (packed.first_window + int(slab.windows[0])) * packed.window_us
        last = (packed.first_window + int(slab.windows[-1]) + 1) * packed.window_us
        base, stop = max(first, slab.from_us), np.zeros(1, np.int32)
        task = job(_job(packed, state) | _slab(packed, state, base, min(slab.to_us, last) - base) | {"stop": stop})
        handle, known = ctypes.c_void_p(), None if runs is None else ctypes.byref(_runs(runs))
        count = self.library.call(function, ctypes.byref(task), known, ctypes.byref(handle), stop=stop)
        yield Drawn(handle, count, state, base - packed.start_us, stop)

    def _state(self, packed: PackedWorkload, slab: Slab) -> tuple[CellState, Runs | None]:
        """The slab's cells, and which of their runs are to be drawn; None for all requests."""
        if slab.surveyed:
            known, reached = self.reaching_runs(packed, slab)
            return known.state, known.runs.take(reached)
        return begin(packed, cells_of(packed, slab.windows)), None

    def _written(self, packed: PackedWorkload, drawn: Drawn) -> Columns:
        """The columns of what was drawn."""
        handle, n, stop = drawn.handle, drawn.count, drawn.stop
        columns: dict[str, Any] = {"arrival_us": np.empty(n, np.int64), "client": np.empty(n, np.int32)}
        items = packed.category == "multimodal"
        fields = [name for name in packed.fields[: packed.scalar_fields] if not name.endswith("_count")]
        scalars = {name: np.empty(n, np.int32) for name in fields}
        inputs = np.empty(n if items else 0, np.int32)
        offsets = [self._offsets(handle, m, n) for m in range(len(MODALITIES) if items else 0)]
        ordinal = np.empty(n if packed.addressed else 0, np.uint32)
        several = np.empty(len(ordinal), np.bool_)
        out = Out(
            arrival_us=address(columns["arrival_us"]),
            client=address(columns["client"]),
            inputs=address(inputs),
            field=(ctypes.c_void_p * MAX_FIELDS)(*(address(column) for column in scalars.values())),
            ordinal=address(ordinal),
            several=address(several),
            offsets=(ctypes.c_void_p * len(MODALITIES))(*(address(column) for column in offsets)),
            offset_us=drawn.offset_us,
        )
        self.library.call("sg_columns", handle, ctypes.byref(out), stop=stop)
        if packed.addressed:
            columns |= {ORDINAL: ordinal, SEVERAL: several}
        if packed.category == "reason":
            scalars["reason_tokens"] = scalars.pop("reason_ratio")
        if not items:
            return columns | scalars
        columns |= {"input_tokens": inputs} | {name: scalars[name] for name in ("output_tokens", "text_tokens")}
        for m, modality in enumerate(MODALITIES):
            count = self.library.call("sg_item_count", handle, ctypes.c_int64(m))
            values = np.empty(count, np.int32)
            self.library.call("sg_items", handle, ctypes.c_int64(m), offsets[m], values)
            columns[f"{modality}_tokens"] = Ragged(offsets[m], values)
        return columns

    def _offsets(self, handle: Any, m: int, n: int) -> NDArray[np.int64]:
        """Room for the offsets of a modality; pages of zeros, which cost nothing, where it has no items."""
        has_items = self.library.call("sg_has_items", handle, ctypes.c_int64(m))
        return np.empty(n + 1, np.int64) if has_items else np.zeros(n + 1, np.int64)


class NativeGaps(SummedGaps):
    """Gaps of runs with compiled kernels."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        peaks = np.empty(len(runs))
        self._call("sg_survey", state, runs, peaks, None)
        return peaks

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        totals = np.empty(len(runs), np.int64)
        self._call("sg_survey", state, runs, None, totals)
        return totals

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]; they stay at 2**62."""
        count = int(runs.count.sum())
        sums = np.empty(count + PAD, np.int64)
        self._call("sg_sums", state, runs, sums)
        return sums[:count]

    def _call(self, name: str, state: CellState, runs: Runs, *out: Any) -> None:
        stop = np.zeros(1, np.int32)
        task = job(_cells(state) | {"stop": stop})  # the rest of a job is about times and fields
        self._library.call(name, ctypes.byref(task), ctypes.byref(_runs(runs)), *out, stop=stop)


def _runs(chosen: Runs) -> Any:
    names = ("cell", "first", "count", "before")
    return runs({name: getattr(chosen, name) for name in names} | {"runs": len(chosen)})


def _cells(state: CellState) -> dict[str, Any]:
    """What drawing gaps needs of the cells."""
    law = state.law
    expected = state.cells.expected_q32 * 2.0**-32
    # what a renewal cell is first given room for: hardly ever less than it needs
    room = np.minimum(1.02 * expected + 2 * np.sqrt(expected * law.inverse_shape), 4 * expected) + 4
    return {
        "key0": law.key[0],
        "key1": law.key[1],
        "cells": len(state.cells),
        "client": law.client,
        "window": law.window,
        "is_gamma": law.is_gamma,
        "rule": state.rule,
        "inverse_shape": law.inverse_shape,
        "d": law.gamma.d,
        "c": law.gamma.c,
        "log_d": law.gamma.log_d,
        "boost": law.gamma.boost,
        "count": state.count,
        "capacity": np.where(state.rule == CountRule.RENEWAL, room, 0).astype(np.int64),
        "rotation": state.rotation,
        "occupancy": state.occupancy,
        "ticks_per_unit": state.ticks_per_unit,
        "first_ticks": state.first_ticks,
        "log_unit": state.log_unit,
        "ticks_in_all": state.ticks_in_all,
        "threads": thread_count(),
    }


def _job(packed: PackedWorkload, state: CellState) -> dict[str, Any]:
    """What drawing requests needs of the workload and its cells."""
    cells, tables, clock = state.cells, packed.tables, packed.clock
    items = packed.category == "multimodal"
    known = _cells(state)
    if packed.dependence == "copula":
        tied = sum(1 << (MAX_FIELDS * f + j) for f, earlier in enumerate(ties(packed.mixing)) for j in earlier)
        known |= {"mixing": packed.mixing, "mixing_of": packed.mixing_of[cells.profile], "ties": tied}
    if packed.limited:
        known["context"] = packed.context_tokens[cells.profile]
    if packed.turns:
        known["last_single"] = packed.turns.last_single[cells.profile]
    return known | {
        "client_column": packed.client_id[cells.client].astype(np.int32),
        "clock_table": clock.table[cells.window_index],
        "table": packed.table[cells.profile, cells.row],
        "thresholds": tables.thresholds,
        "values": tables.values,
        "guide": tables.guide,
        "guide_bits": tables.guide_bits,
        "clock_thresholds": clock.segments.thresholds,
        "clock_guide": clock.segments.guide,
        "clock_guide_bits": clock.segments.guide_bits,
        "clock_first": clock.first,
        "clock_start_us": clock.start_us,
        "clock_slope": clock.slope,
        "window_us": packed.window_us,
        "fields": len(packed.fields),
        "scalar_fields": packed.scalar_fields,
        "dependence": KINDS.index(packed.dependence),
        "ratio_field": packed.fields.index("reason_ratio") if packed.category == "reason" else 0,
        "modalities": len(MODALITIES) if items else 0,
        "count_field": packed.fields.index(f"{MODALITIES[0]}_count") if items else 0,
        "item_field": packed.fields.index(f"{MODALITIES[0]}_tokens") if items else 0,
        "ordinals": int(packed.addressed),
    }


def _slab(packed: PackedWorkload, state: CellState, base_us: int, span_us: int) -> dict[str, Any]:
    """Times count from `base_us` on the absolute axis."""
    return {"origin_us": state.cells.window * packed.window_us - base_us, "span_us": span_us}
