"""Slabs of many requests a cell, without a sort of the slab: the order of the kernels of kernels/tasks.h.

Cells are cut into tasks, each drawn by a warp; times are counted into buckets; items go to their bucket in any order,
and a block puts each bucket in order. `SlabSampler` has the simple way, which makes the same rows and takes any slab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from servegen_gpu.backends.cuda.job import BLOCK, POOL, SHARED_BYTES, TASK
from servegen_gpu.backends.cuda.tables import Device, Job
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.rules import CountRule

OPEN = np.iinfo(np.int64).max
"""As in kernels/slab.h."""

BUCKET_ITEMS = 3000
"""Items that a bucket is meant to hold at most, on average."""

LEAST_ITEMS = 64
"""On average, or else a block would have too little to do with its bucket."""

FIELD_BITS = 21
"""Of each of three fields in an item: as in kernels/tasks.h."""

LEAST_FULL = 4
"""One in so many places of tasks must hold a request."""


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

    def sample(self, packed: PackedWorkload, job: Job) -> dict[str, Any] | None:
        """Columns of a slab on the device, or None if the simple way has to make them.

        Parameters
        ----------
        packed : PackedWorkload
        job : Job
            With the slab's cells.
        """
        layout = self._layout(job["room"])
        if layout["tasks"] * TASK > LEAST_FULL * max(int(job["room"].sum()), TASK):
            return None
        job = job | {"kept": job["kept"].copy()}  # the simple way may yet begin from it
        layouts = [self._first_round(packed, job, layout)]
        if len(more := self.device.xp.flatnonzero(job["kept"] == OPEN)):
            layouts.append(self._second_round(job, more))
        job["position_begin"] = self._begins(job["kept"])
        places = sum(layout["tasks"] for layout in layouts) * TASK
        buckets = self._buckets(job, layouts, places) if places < 2**32 else None
        return self._columns(packed, job, layouts, buckets) if buckets else None

    # Arrivals

    def _layout(self, count: Any) -> Job:
        """Tasks of runs of `count` requests."""
        begin = self._begins(-(-count // TASK))
        tasks = int(begin[len(count)])
        layout = {"task_begin": begin, "run_count": count, "runs": len(count), "tasks": tasks}
        layout["task_run"] = self.device.xp.empty(tasks, np.int32)
        self._launch("task", layout, tasks)
        return layout

    def _draw(self, job: Job, layout: Job) -> Job:
        """The layout with the sums of gaps inside every task; logarithms instead where a cell's unit is not known."""
        xp, tasks = self.device.xp, layout["tasks"]
        layout |= {"ticks": xp.empty(tasks * TASK, np.int64), "task_ticks": xp.empty(tasks, np.int64)}
        self._warps("draw", job | layout, -(-tasks // POOL))
        return layout

    def _first_round(self, packed: PackedWorkload, job: Job, layout: Job) -> Job:
        """All requests of counted cells, and as many of renewal cells as they are likely to need."""
        xp, cells = self.device.xp, layout["runs"]
        peak = xp.zeros(cells, np.uint64)
        self._draw(job | {"peak": peak}, layout)
        if set(packed.count_rule.tolist()) != {CountRule.RENEWAL}:
            self._launch("unit", job | {"peak": peak}, cells)
            self._warps("sums", job | layout, layout["tasks"])
        layout["task_sum"] = xp.cumsum(layout["task_ticks"])
        self._launch("reach", job | layout, layout["tasks"])
        return layout

    def _second_round(self, job: Job, cells: Any) -> Job:
        """What renewal cells take beyond the first round until they pass the end of their windows."""
        runs = {"run_cell": cells, "run_first": job["drawn"][cells], "run_before": job["last"][cells]}
        count = self.device.xp.empty(len(cells), np.int64)
        self._warps("more", job | runs | {"runs": len(cells), "more": count}, len(cells))
        layout = self._draw(job, self._layout(count) | runs)
        layout["task_sum"] = self.device.xp.cumsum(layout["task_ticks"])
        return layout

    # Buckets

    def _buckets(self, job: Job, layouts: list[Job], places: int) -> Buckets | None:
        """Times of all requests, counted in buckets that are fine enough for the largest; None if none are."""
        xp, span_us = self.device.xp, max(job["span_us"], 1)
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
            rows, most = int(begin[-1]), int(count.max())
            if most <= SIZES[-1].items:
                for layout in layouts:
                    del layout["ticks"]
                return Buckets(shift, begin, rows, most)
            if shift == 0:
                break
            shift = max(shift - 2, 0)
        return None

    def _columns(
        self, packed: PackedWorkload, job: Job, layouts: list[Job], buckets: Buckets
    ) -> dict[str, Any]:
        """Fields, and all rows in order."""
        xp, count = self.device.xp, len(buckets.begin) - 1
        items = xp.empty((buckets.rows, 4), np.uint32)
        told = {"bucket_shift": buckets.shift, "bucket_begin": buckets.begin, "items_out": items}
        told["bucket_next"] = buckets.begin[:-1].astype(np.uint32)
        for layout in layouts:
            self._warps("scatter", job | layout | told, layout["tasks"])
            layout.clear()
        columns: dict[str, Any] = {"arrival_us": xp.empty(buckets.rows, np.int64), "client": xp.empty(buckets.rows, np.int32)}
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
