"""Slabs of many requests a cell, without a sort of the slab: the order of the kernels of kernels/tasks.h.

Cells are cut into tasks, each drawn by a warp; times are counted into buckets; items go to their bucket in any order,
and a block puts each bucket in order. `SlabSampler` has the simple way, which makes the same rows and takes any slab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from servegen_gpu.backends.cuda.job import BLOCK, CELL_LAW_BYTES, POOL, SHARED_BYTES, TASK, TASK_BYTES
from servegen_gpu.backends.cuda.tables import CELLS, Device, Job
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.rules import CountRule

BUCKET_ITEMS = 3000
"""Items that a bucket is meant to hold at most, on average."""

LEAST_ITEMS = 64
"""On average, or else a block would have too little to do with its bucket."""

FIELD_BITS = 21
"""Of each of three fields in an item: as in kernels/tasks.h."""

LEAST_FULL = 4
"""One in so many places of tasks must hold a request."""

MOST_PLACES = 2**32
"""Of a slab: kernels count them in 32 bits."""


@dataclass(frozen=True)
class Arranging:
    """How large a bucket may be for a block that puts it in order.

    Attributes
    ----------
    items : int
    slots : int
        Parts of a bucket's time, in which its items are counted.
    """

    items: int
    slots: int

    @property
    def shared_bytes(self) -> int:
        """Of the block's own memory."""
        return 16 * self.items + 4 * (self.slots + 1 + BLOCK["arrange"] // 32)


SIZES = (Arranging(4096, 2048), Arranging(12_288, 4096))
"""Most buckets fit the first, of which three blocks share a multiprocessor; the second takes one of compute capability
8.0 or more almost for itself."""


@dataclass(frozen=True)
class Buckets:
    """Buckets of time: how wide, and where the items of each begin.

    Attributes
    ----------
    shift : int
        A time shifted by it is the number of its bucket.
    begin : int64[buckets + 1]
        On the device.
    rows : int
        Items in all.
    most : int
        Of one bucket.
    """

    shift: int
    begin: Any
    rows: int
    most: int


def suits(packed: PackedWorkload, span_us: int) -> bool:
    """Whether the requests of a workload fit items, and times their 32 bits."""
    fit = packed.scalar_fields == 2 or packed.tables.values.max(initial=0) < 2**FIELD_BITS
    return fit and not packed.schema.items and not packed.addressed and span_us < 2**32 - 1


class TaskSampler:
    """Samples slabs of many requests a cell.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    def sample(self, packed: PackedWorkload, job: Job, windows: int, expected: float) -> dict[str, Any] | None:
        """Columns of a slab on the device, or None if the simple way has to make them.

        Parameters
        ----------
        packed : PackedWorkload
        job : Job
        windows : int
            Of the slab.
        expected : float
            Requests of the slab.
        """
        arrivals = self.arrivals(packed, job, windows, expected)
        if arrivals is None:
            return None
        job, layouts = arrivals
        job["position_begin"] = self._begins(job["kept"])
        buckets = self._buckets(job, layouts)
        return self._columns(packed, job, layouts, buckets) if buckets else None

    # Arrivals

    def arrivals(self, packed: PackedWorkload, job: Job, windows: int, expected: float) -> tuple[Job, list[Job]] | None:
        """The slab's cells, and its requests as tasks with sums of ticks; None if too few share a cell.

        ``kept`` says how many requests of a cell there are. A layout has for every task its `kernels/slab.h` structure
        in ``task``, ticks of the cell before it in ``task_before``, and in ``ticks`` the sums inside it.
        """
        cells = windows * len(packed.client_id)
        if TASK * cells > LEAST_FULL * expected or LEAST_FULL * expected > MOST_PLACES:
            return None
        job = job | self._cells(cells)
        self._launch("begin", job, cells)
        layout = self._layout(cells, job["room"])
        if layout["tasks"] * TASK > LEAST_FULL * expected:
            return None
        job["peak"] = self.device.xp.zeros(cells, np.uint64)
        return job, [self._drawn(job, layout, packed), *self._rest(job, packed)]

    def _cells(self, cells: int) -> Job:
        """Room for all clients in all windows, whether they send or not."""
        xp = self.device.xp
        arrays = {name: xp.empty(cells, kind) for name, kind in CELLS.items()}
        return arrays | {"cells": cells, "cell_laws": xp.empty(cells * CELL_LAW_BYTES // 8, np.uint64)}

    def _layout(self, cells: int, count: Any) -> Job:
        """Tasks of cells that draw `count` requests."""
        begin = self._begins((count + (TASK - 1)) // TASK)
        tasks = int(begin[cells])
        layout = {"task_begin": begin, "run_count": count, "tasks": tasks}
        layout["task"] = self.device.xp.empty(tasks * TASK_BYTES // 8, np.uint64)
        return layout

    def _drawn(self, job: Job, layout: Job, packed: PackedWorkload) -> Job:
        """The layout with the sums of gaps inside every task and before it."""
        xp, tasks = self.device.xp, layout["tasks"]
        self._launch("task", job | layout, tasks)
        layout |= {"ticks": xp.empty(tasks * TASK, np.int64), "task_ticks": xp.empty(tasks, np.int64)}
        self._warps("draw", job | layout, -(-tasks // POOL))
        if "run_first" not in layout and set(packed.count_rule.tolist()) != {CountRule.RENEWAL}:
            self._launch("unit", job, job["cells"])
            self._warps("sums", job | layout, tasks)
        sums = {"task_sum": xp.cumsum(layout["task_ticks"])}
        layout["task_before"] = xp.empty(tasks, np.int64)
        self._launch("reach", job | layout | sums, tasks)
        return layout

    def _rest(self, job: Job, packed: PackedWorkload) -> list[Job]:
        """What renewal cells take beyond the first round until they pass the end of their windows."""
        if CountRule.RENEWAL not in packed.count_rule:
            return []
        more = self.device.xp.empty(job["cells"], np.int64)
        self._warps("more", job | {"more": more}, job["cells"])
        layout = self._layout(job["cells"], more) | {"run_first": job["drawn"], "run_before": job["last"]}
        return [self._drawn(job, layout, packed)] if layout["tasks"] else []

    # Buckets

    def _buckets(self, job: Job, layouts: list[Job]) -> Buckets | None:
        """Times of all requests, counted in buckets that are fine enough for the largest; None if none are."""
        xp, span_us = self.device.xp, max(job["span_us"], 1)
        places = sum(layout["tasks"] for layout in layouts) * TASK
        for layout in layouts:
            layout["time"] = xp.empty(layout["tasks"] * TASK, np.uint32)
        shift = max((BUCKET_ITEMS * span_us // max(places, 1)).bit_length() - 1, 0)
        shift = min(shift, 32 - job["client_bits"], 31)  # an item has a word for time and client
        while (span_us - 1 >> shift) * LEAST_ITEMS <= places:
            count = xp.zeros((span_us - 1 >> shift) + 1, np.uint32)
            for layout in layouts:
                told = job | layout | {"bucket_shift": shift, "bucket_next": count}
                self._warps("time", told, layout["tasks"])
            begin = self._begins(count)
            found = xp.concatenate((begin[-1:], count.max(keepdims=True).astype(np.int64)))
            rows, most = self.device.to_host(found).tolist()
            if most <= SIZES[-1].items:
                for layout in layouts:
                    del layout["ticks"]
                return Buckets(shift, begin, rows, most)
            if shift == 0:
                break
            shift = max(shift - 2, 0)
        return None

    def _columns(self, packed: PackedWorkload, job: Job, layouts: list[Job], buckets: Buckets) -> dict[str, Any]:
        """Fields, and all rows in order."""
        xp, count = self.device.xp, len(buckets.begin) - 1
        items = xp.empty((buckets.rows, 4), np.uint32)
        told = {"bucket_shift": buckets.shift, "bucket_begin": buckets.begin, "items_out": items}
        told["bucket_next"] = buckets.begin[:-1].astype(np.uint32)
        for layout in layouts:
            self._warps("scatter", job | layout | told, layout["tasks"])
            layout.clear()
        columns: dict[str, Any] = {
            "arrival_us": xp.empty(buckets.rows, np.int64),
            "client": xp.empty(buckets.rows, np.int32),
        }
        names = packed.fields[: packed.scalar_fields]
        drawn = {name: xp.empty(buckets.rows, np.int32) for name in names}
        out = columns | {f"field{f}": column for f, column in enumerate(drawn.values())}
        least = 0
        for size in SIZES:
            if least < buckets.most:
                bits = min(buckets.shift, size.slots.bit_length() - 1)
                how = {"bucket_least": least, "bucket_most": size.items, "bucket_slots": size.slots}
                how["slot_shift"] = buckets.shift - bits
                self._launch("arrange", job | told | out | how, count * BLOCK["arrange"], size.shared_bytes)
            least = size.items
        if packed.schema.ratio:
            drawn[packed.schema.ratio.column] = drawn[packed.schema.ratio.name]
        return columns | packed.schema.in_order(drawn)

    # Between kernels

    def _begins(self, count: Any) -> Any:
        """Where each of `count` begins, int64[n + 1], the end last."""
        begin = self.device.xp.zeros(len(count) + 1, np.int64)
        self.device.xp.cumsum(count, dtype=np.int64, out=begin[1:])
        return begin

    def _warps(self, kernel: str, job: Job, warps: int) -> None:
        """Start a kernel whose warps take turns where there are more than a device runs at once."""
        self._launch(kernel, job, min(32 * warps, self.device.most_threads), SHARED_BYTES.get(kernel, 0))

    def _launch(self, kernel: str, job: Job, threads: int, shared_bytes: int = 0) -> None:
        if threads:
            self.device.launch(kernel, job, threads, shared_bytes)
