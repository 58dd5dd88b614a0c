"""The native backend: the law in `kernels/`, compiled for the CPU; threads over blocks, strips of lanes, radix sort.

Counts and rotations of cells, and the bookkeeping of surveys, are done in NumPy; what is done per request is in C.
Axes: cells, runs, requests.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL, Backend
from servegen_gpu.backends.host.cell_state import CellState, Runs
from servegen_gpu.backends.host.run_gaps import SummedGaps
from servegen_gpu.backends.host.survey import Surveyor
from servegen_gpu.backends.host.turns import all_turns, rows_inside, sample_turns, window_of
from servegen_gpu.backends.native.cells import Laws, begin, laws_of
from servegen_gpu.backends.native.library import (
    MAX_FIELDS,
    PAD,
    Library,
    Loads,
    NoRoomForId,
    Out,
    address,
    job,
    load_library,
    runs,
)
from servegen_gpu.backends.native.turns import drawn_course, ordered, sessions_of, turns_of
from servegen_gpu.backends.per_workload import PerWorkload
from servegen_gpu.blocks import keep_freed_memory, thread_count
from servegen_gpu.law.address import Key
from servegen_gpu.law.dependence import KINDS, ties
from servegen_gpu.law.session_ids import session_ids
from servegen_gpu.law.variates import dispersion
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, clock_tables
from servegen_gpu.request.columns import Columns, Ragged
from servegen_gpu.request.schema import INPUT, MODALITIES, OUTPUT, of
from servegen_gpu.request.turn_rows import TurnRows, in_order, turn_row
from servegen_gpu.rules import CountRule

TURNS_AT_ONCE = ctypes.c_int64(1 << 20)


@dataclass(frozen=True, eq=False)
class LibraryDraw:
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


class NativeBackend(Backend):
    """Samples slabs with compiled kernels.

    Parameters
    ----------
    library : Library, optional
    """

    name = "native"
    shared = True
    joined_slab_requests = 1 << 26
    """Scratch does not grow with a slab, so that a trace in memory is best made in one."""

    interleaves = frozenset({"language", "reason"})

    def __init__(self, library: Library | None = None) -> None:
        self.library = library or load_library(build=True)
        self._surveyor, self._gaps = Surveyor(), NativeGaps(self.library)
        self._laws: PerWorkload[Laws] = PerWorkload()
        keep_freed_memory()
        self.library.hold(1)
        weakref.finalize(self, self.library.hold, -1)

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, the columns of the slab before among them."""
        schema = of(category)
        return 64 + 12 * len(schema.scalars) + (80 if schema.items else 0)

    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        with self._drawn("sg_draw", packed, key, slab) as drawn:
            try:
                return self._written(packed, drawn)
            finally:
                self.library.free(drawn.handle)

    def sample_beside(self, packed: PackedWorkload, key: Key, slab: Slab, due: TurnRows | None) -> Columns:
        """The slab's requests, which stand alone, with turns in their places."""
        assert not isinstance(due, dict)
        try:
            with self._drawn("sg_draw", packed, key, slab) as drawn:
                try:
                    return self._written(packed, drawn, np.empty(0, turn_row(packed.category)) if due is None else due)
                finally:
                    self.library.free(drawn.handle)
        except NoRoomForId:
            rows = self.sample_slab(packed, key, slab)
            client, ordinal, arrival_us = (np.asarray(rows[name]) for name in ("client", ORDINAL, "arrival_us"))
            session_ids(packed.stream, client, window_of(packed, arrival_us), ordinal)  # says which
            raise

    def bins(self, packed: PackedWorkload, columns: Collection[str]) -> bool:
        """Whether the columns are requests, or fields that no item of a request changes."""
        schema = packed.schema
        known = {f.column for f in schema.scalars if f.column} | {"requests"}
        if schema.items:
            known -= {"output_tokens"} if packed.limited else set()
        return known.issuperset(columns)

    def add_loads(
        self, packed: PackedWorkload, key: Key, slab: Slab, width_us: int, loads: Mapping[str, NDArray[np.int64]]
    ) -> None:
        """Add the slab's requests and tokens to bins of time."""
        state, chosen = self._state(packed, key, slab)
        task, offset_us, stop = _task(packed, slab, state)
        fields = (ctypes.c_void_p * MAX_FIELDS)()
        wanted = {f.lane: loads[f.column] for f in packed.schema.scalars if f.column in loads}
        for lane, sums in wanted.items():
            fields[lane] = address(sums)
        into = Loads(
            offset_us=offset_us,
            width_us=width_us,
            bins=len(next(iter(loads.values()))) - 1,
            requests=address(loads["requests"]) if "requests" in loads else None,
            field=fields,
        )
        lanes = np.array(_with_what_they_need(packed, set(wanted)), np.int32)
        known = None if chosen is None else ctypes.byref(_runs(chosen))
        arguments = ctypes.byref(task), known, ctypes.byref(into), lanes, ctypes.c_int64(len(lanes))
        self.library.call("sg_loads", *arguments, stop=stop)

    def first_turns_at_once(self, max_requests: int) -> int:
        """How many conversations a slab may begin: only the times of first turns are kept of all of them."""
        return max_requests

    def sample_turns(
        self, packed: PackedWorkload, key: Key, slab: Slab, span_us: tuple[int, int]
    ) -> Iterator[TurnRows]:
        """Turns inside a span of the conversations that begin in a slab; records, or columns of multimodal ones."""
        items = bool(packed.schema.items)
        try:
            with self._drawn("sg_follow", packed, key, slab, span_us) as drawn:
                try:
                    while count := self.library.call("sg_next_turns", drawn.handle, TURNS_AT_ONCE, stop=drawn.stop):
                        if items:
                            course = drawn_course(self.library, drawn.handle, count, drawn.state.cells, drawn.offset_us)
                            yield rows_inside(all_turns(packed, key, course), span_us)
                            continue
                        rows = np.empty(count, turn_row(packed.category))
                        self.library.call("sg_turn_rows", drawn.handle, rows, stop=drawn.stop)
                        yield rows
                finally:
                    self.library.free_turns(drawn.handle)
        except NoRoomForId:
            yield from sample_turns(self, packed, key, slab, span_us)  # says which

    def ordered(self, parts: list[TurnRows]) -> TurnRows:
        """Turns by arrival, conversation and turn."""
        if isinstance(parts[0], dict):
            return in_order(parts)
        return ordered(self.library, parts)  # type: ignore[arg-type]

    @contextmanager
    def _drawn(
        self, function: str, packed: PackedWorkload, key: Key, slab: Slab, span_us: tuple[int, int] | None = None
    ) -> Iterator[LibraryDraw]:
        """What a function draws of a slab; arrays that the library points into live as long."""
        state, runs = self._state(packed, key, slab)
        task, offset_us, stop = _task(packed, slab, state)
        handle, known = ctypes.c_void_p(), None if runs is None else ctypes.byref(_runs(runs))
        more: tuple[Any, ...] = ()
        if span_us is not None:
            turns, names = turns_of(packed, state.cells, span_us, offset_us), sessions_of(state.cells)
            more = (ctypes.byref(turns), ctypes.byref(names), ctypes.c_int64(not packed.schema.items))
        count = self.library.call(function, ctypes.byref(task), known, *more, ctypes.byref(handle), stop=stop)
        yield LibraryDraw(handle, count, state, offset_us, stop)

    def _state(self, packed: PackedWorkload, key: Key, slab: Slab) -> tuple[CellState, Runs | None]:
        """The slab's cells, and which of their runs are to be drawn; None for all requests."""
        if slab.surveyed:
            known, reached = self._surveyor.reaching_runs(packed, key, slab, self._gaps)
            return known.state, known.runs.take(reached)
        laws = self._laws.find(packed)
        if laws is None:
            self._laws.keep(packed, laws := laws_of(packed))
        return begin(self.library, laws, packed, key, slab.windows), None

    def _written(self, packed: PackedWorkload, drawn: LibraryDraw, due: NDArray[np.void] | None = None) -> Columns:
        """The columns of what was drawn; with `due`, those of a trace with conversations."""
        handle, stop, empty = drawn.handle, drawn.stop, self.library.empty
        n = drawn.count + (0 if due is None else len(due))
        columns: dict[str, Any] = {"arrival_us": empty(n, np.int64), "client": empty(n, np.int32)}
        schema = packed.schema
        asked: dict[str, Any] = {}
        fields = (ctypes.c_void_p * MAX_FIELDS)()
        for field in (field for field in schema.scalars if field.column):
            asked[field.column] = empty(n, np.int32)
            fields[field.lane] = address(asked[field.column])
        if schema.items:
            asked[schema.total] = empty(n, np.int32)
        offsets = [self._offsets(handle, m, n) for m in range(len(schema.items))]
        ordinal = empty(n if packed.addressed and due is None else 0, np.uint32)
        talking: dict[str, Any] = {}
        if due is not None:
            talking = {"conversation": empty(n, np.int64)}
            talking |= {name: empty(n, np.int32) for name in ("turn", "new_tokens")}
            due, names = np.ascontiguousarray(due), sessions_of(drawn.state.cells)
        out = Out(
            arrival_us=address(columns["arrival_us"]),
            client=address(columns["client"]),
            inputs=address(asked[schema.total]),
            field=fields,
            ordinal=address(ordinal) if packed.addressed and due is None else None,
            offsets=(ctypes.c_void_p * len(MODALITIES))(*(address(column) for column in offsets)),
            offset_us=drawn.offset_us,
            **({} if due is None else _beside(names, talking, due)),
        )
        self.library.call("sg_columns", handle, ctypes.byref(out), stop=stop)
        if packed.addressed and due is None:
            columns[ORDINAL] = ordinal
        for m, items in enumerate(schema.items):
            count = self.library.call("sg_item_count", handle, ctypes.c_int64(m))
            values = empty(count, np.int32)
            self.library.call("sg_items", handle, ctypes.c_int64(m), offsets[m], values)
            asked[items.item.column] = Ragged(offsets[m], values)
        return columns | schema.in_order(asked) | talking

    def _offsets(self, handle: Any, m: int, n: int) -> NDArray[np.int64]:
        """Room for the offsets of a modality; pages of zeros, which cost nothing, where it has no items."""
        has_items = self.library.call("sg_has_items", handle, ctypes.c_int64(m))
        return self.library.empty(n + 1, np.int64) if has_items else np.zeros(n + 1, np.int64)


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
    likely = 1.02 * expected + 2 * np.sqrt(expected * dispersion(np, law.family, law.shape))
    room = np.minimum(likely, 4 * expected) + 4
    return {
        "key0": law.key[0],
        "key1": law.key[1],
        "cells": len(state.cells),
        "client": law.client,
        "window": law.window,
        "family": law.family,
        "rule": state.rule,
        **vars(law.constants),
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
    schema = packed.schema
    known = _cells(state)
    if packed.dependence == "copula":
        tied = sum(1 << (MAX_FIELDS * f + j) for f, earlier in enumerate(ties(packed.mixing)) for j in earlier)
        known |= {"mixing": packed.mixing, "mixing_of": packed.mixing_of[cells.profile], "ties": tied}
    if packed.limited:
        known["context"] = packed.context_tokens[cells.profile]
    return known | {
        "client_column": packed.client_id[cells.client].astype(np.int32),
        "clock_table": clock_tables(packed, cells),
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
        "ratio_field": schema.ratio.lane if schema.ratio else 0,
        "modalities": len(schema.items),
        "count_field": schema.items[0].count.lane if schema.items else 0,
        "item_field": schema.items[0].item.lane if schema.items else 0,
        "ordinals": int(packed.addressed),
    }


def _beside(names: Any, columns: dict[str, NDArray[Any]], due: NDArray[np.void]) -> dict[str, Any]:
    """What an SgOut has for requests beside conversations."""
    return {name: address(column) for name, column in columns.items()} | {
        "sessions": ctypes.addressof(names),
        "due": address(due),
        "due_count": len(due),
    }


def _task(packed: PackedWorkload, slab: Slab, state: CellState) -> tuple[Any, int, NDArray[np.int32]]:
    """The job of a slab, from when on its times count (since the begin of the packed span), and its flag to stop."""
    first = (packed.first_window + int(slab.windows[0])) * packed.window_us
    last = (packed.first_window + int(slab.windows[-1]) + 1) * packed.window_us
    base, stop = max(first, slab.from_us), np.zeros(1, np.int32)
    times = {"origin_us": state.cells.window * packed.window_us - base, "span_us": min(slab.to_us, last) - base}
    return job(_job(packed, state) | times | {"stop": stop}), base - packed.start_us, stop


def _with_what_they_need(packed: PackedWorkload, lanes: set[int]) -> list[int]:
    """Fields that are drawn for some of them, ascending: a share needs its output, and limits both sides."""
    schema = packed.schema
    if schema.ratio and schema.ratio.lane in lanes:
        lanes = lanes | {OUTPUT}
    if packed.limited and not schema.items and lanes & {INPUT, OUTPUT}:
        lanes = lanes | {INPUT, OUTPUT}
    return sorted(lanes)
