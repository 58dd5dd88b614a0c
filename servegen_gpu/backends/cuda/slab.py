"""A slab on a device: the order of kernels, and what array operations do between them.

Nothing here imports CuPy: a `Device` brings the array namespace and starts kernels, so that the whole of it runs on
the host as well (tests/test_cuda_host.py). Kernels and axes are those of kernels/slab.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL
from servegen_gpu.backends.cuda.job import TILE
from servegen_gpu.backends.cuda.sort import sort_bits
from servegen_gpu.backends.cuda.tables import CELLS, Device, Job, of_workload
from servegen_gpu.backends.cuda.tasks import TaskSampler, suits
from servegen_gpu.backends.host.cell_state import CellState, Runs
from servegen_gpu.backends.host.fields import ITEM_PURPOSES
from servegen_gpu.backends.host.survey import Survey
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, number_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import INPUT, OUTPUT
from servegen_gpu.rules import CountRule

OPEN = OUTSIDE = np.iinfo(np.int64).max
"""As in kernels/slab.h."""

WORD_BITS = 62
"""Bits of a word that time and position may take: what is dropped has a word above all of them."""


@dataclass(frozen=True)
class RunSums:
    """A run layout on the device, and the sums of ticks of its requests."""

    layout: Job
    sums: Any


class SlabSampler:
    """Samples slabs on a device, which keeps the workload from slab to slab and from key to key.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self.device, self.tasks = device, TaskSampler(device)

    def whole(self, packed: PackedWorkload, key: Key, slab: Slab) -> dict[str, Any]:
        """Columns of a slab of whole windows, on the device."""
        xp, job = self.device.xp, self.job(packed, key, slab)
        if suits(packed, job["span_us"]):
            columns = self.tasks.sample(packed, job, len(slab.windows), slab.expected)
            if columns is not None:
                return columns
        job |= self._cells(job, len(slab.windows) * len(packed.client_id))
        cells = len(job["cell_client"])
        if not cells:
            return self._columns(packed, job, xp.empty(0, np.int64), {}, None)
        rules = set(packed.count_rule.tolist())
        rounds = [self._first_round(job, cells, rules)]
        while len(more := xp.flatnonzero(job["kept"] == OPEN)):
            rounds.append(self._next_round(job, more))
        begin = self._begins(job["kept"])
        count = int(begin[cells])
        word = xp.full(count, OUTSIDE, np.int64)
        place = {"position_begin": begin, "word": word} | self._bits(job["span_us"], count)
        while rounds:
            drawn = rounds.pop()
            self._launch("word", job | drawn.layout | place | {"sums": drawn.sums}, drawn.layout["requests"])
            del drawn
        return self._columns(packed, job, word, self._layout(begin, count), place["position_bits"])

    def part(
        self, packed: PackedWorkload, key: Key, slab: Slab, known: Survey, chosen: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Columns of a part of a surveyed window, on the device: the chosen runs of its survey drawn again."""
        job = self.job(packed, key, slab) | self._known_cells(packed, known.state)
        layout = self._upload_runs(known.runs.take(chosen))
        count = int(layout["requests"])
        drawn = self._draw(job | {"units_known": 1}, layout)
        word = self.device.xp.full(count, OUTSIDE, np.int64)
        place = {"word": word} | self._bits(job["span_us"], count)
        self._launch("word", job | layout | place | {"sums": drawn.sums}, count)
        del drawn
        return self._columns(packed, job, word, layout, place["position_bits"])

    # Arrivals

    def _cells(self, job: Job, grid: int) -> Job:
        """The cells of the windows, with what is drawn once per cell."""
        xp = self.device.xp
        active = xp.empty(grid, np.uint8)
        self._launch("expect", job | {"active": active}, grid)
        chosen = xp.flatnonzero(active)
        cells: Job = {name: xp.empty(len(chosen), kind) for name, kind in CELLS.items()}
        self._launch("begin", job | cells | {"grid_cell": chosen}, len(chosen))
        return cells

    def _first_round(self, job: Job, cells: int, rules: set[int]) -> RunSums:
        """All requests of counted cells, and as many of renewal cells as they are likely to need."""
        xp = self.device.xp
        begin = self._begins(job["room"])
        layout = self._layout(begin, int(begin[cells]))
        peak = xp.zeros(cells, np.uint64)
        drawn = self._draw(job | {"peak": peak}, layout, cells if rules != {CountRule.RENEWAL} else 0)
        self._launch("end", job | layout | {"sums": drawn.sums}, cells)
        if CountRule.RENEWAL in rules:
            self._launch("cross", job | layout | {"sums": drawn.sums}, layout["requests"])
        return drawn

    def _next_round(self, job: Job, cells: Any) -> RunSums:
        """A quarter more of each renewal cell that has not passed the end of its window."""
        first = job["drawn"][cells]
        begin = self._begins((first >> 2) + 4)
        layout = self._layout(begin, int(begin[len(cells)]))
        layout |= {"run_cell": cells, "run_first": first, "run_before": job["last"][cells]}
        drawn = self._draw(job, layout)
        self._launch("end", job | layout | {"sums": drawn.sums}, len(cells))
        self._launch("cross", job | layout | {"sums": drawn.sums}, layout["requests"])
        return drawn

    def _draw(self, job: Job, layout: Job, counted: int = 0) -> RunSums:
        """Gaps, ticks and their sums; the unit of counted cells is found where each cell is one run."""
        xp, n = self.device.xp, layout["requests"]
        ticks = xp.empty(n, np.int64)
        own = job | layout | {"ticks": ticks}
        self._launch("gap", own, n)
        if counted:
            self._launch("unit", own, counted)
            self._launch("tick", own, n)
        return RunSums(layout, xp.cumsum(ticks) if n else ticks)

    # Surveys: what servegen_gpu.backends.host.run_gaps.Gaps asks for

    def peaks(self, packed: PackedWorkload, state: CellState, runs: Runs) -> Any:
        """Logarithm of the largest gap of every run, as ordered integers on the device."""
        layout = self._upload_runs(runs)
        peak = self.device.xp.zeros(len(runs), np.uint64)
        ticks = self.device.xp.empty(layout["requests"], np.int64)
        job = self._survey_job(packed, state) | layout | {"peak": peak, "ticks": ticks}
        self._launch("gap", job, layout["requests"])
        return peak

    def totals(self, packed: PackedWorkload, state: CellState, runs: Runs) -> Any:
        """Ticks of every run, int64[runs] on the device."""
        job, drawn = self._known_sums(packed, state, runs)
        total = self.device.xp.empty(len(runs), np.int64)
        self._launch("total", job | {"sums": drawn.sums, "total": total}, len(runs))
        return total

    def renewals(self, packed: PackedWorkload, state: CellState, runs: Runs) -> tuple[Any, Any]:
        """Ordinal that ends each cell inside its window or `OPEN`, and ticks of the cell up to the end of each gap.

        int64[cells] and int64[requests], on the device; at most one run a cell.
        """
        xp, (job, drawn) = self.device.xp, self._known_sums(packed, state, runs)
        passed = xp.full(len(state.cells), OPEN, np.int64)
        sums = xp.empty(len(drawn.sums), np.int64)
        self._launch("cross", job | {"sums": drawn.sums, "kept": passed}, len(sums))
        self._launch("sum", job | {"sums": drawn.sums, "run_sums": sums}, len(sums))
        return passed, sums

    def sums(self, packed: PackedWorkload, state: CellState, runs: Runs) -> Any:
        """Ticks of all gaps up to the end of each, whatever its run: int64[requests] on the device, wrapping around."""
        return self._known_sums(packed, state, runs)[1].sums

    def _known_sums(self, packed: PackedWorkload, state: CellState, runs: Runs) -> tuple[Job, RunSums]:
        job, layout = self._survey_job(packed, state), self._upload_runs(runs)
        return job | layout, self._draw(job | {"units_known": 1}, layout)

    # Columns

    def _columns(
        self, packed: PackedWorkload, job: Job, word: Any, layout: Job, position_bits: int | None
    ) -> dict[str, Any]:
        """From words to the slab's columns: lengths client by client, sort, and one gather of whole records."""
        xp, schema = self.device.xp, packed.schema
        names = packed.fields[: packed.scalar_fields]
        located = bool(schema.items) or packed.addressed
        width = 4 if 1 + len(names) + located <= 4 else 8
        record = xp.empty(len(word) * width, np.uint32)
        job = job | {"record": record, "record_words": width, "position_bits": position_bits or 0}
        # a null pointer would say that there is no ordinal
        marker = {"row_ordinal": xp.empty(1, np.uint32)} if located else {}
        self._launch("record", job | layout | marker | {"word": word}, len(word))
        order = {}
        if position_bits:
            word = self.device.sort(word, *sort_bits(job["span_us"], position_bits))
        elif len(word):
            order["order"] = xp.argsort(word, kind="stable")
            word = word[order["order"]]
        rows = int(xp.searchsorted(word, xp.full(1, OUTSIDE, np.int64))[0]) if len(word) else 0

        columns: dict[str, Any] = {"arrival_us": xp.empty(rows, np.int64), "client": xp.empty(rows, np.int32)}
        drawn = {name: xp.empty(rows, np.int32) for name in names}
        out = columns | {f"field{f}": column for f, column in enumerate(drawn.values())}
        if located:
            out |= {"row_cell": xp.empty(rows, np.int32), "row_ordinal": xp.empty(rows, np.uint32)}
        self._launch("row", job | order | out | {"word": word}, rows)
        del record, word, order
        job = job | {"record": 0} | {name: out[name] for name in ("row_cell", "row_ordinal") if schema.items}
        if schema.ratio:
            drawn[schema.ratio.column] = drawn[schema.ratio.name]
        if packed.addressed:
            columns[ORDINAL] = out["row_ordinal"]
        return columns | schema.in_order(drawn | self._lists(packed, job, drawn) if schema.items else drawn)

    def _lists(self, packed: PackedWorkload, job: Job, drawn: dict[str, Any]) -> dict[str, Any]:
        """Items, drawn in the order of rows from their addresses, and all tokens of the input."""
        xp, schema = self.device.xp, packed.schema
        first, output = (schema.fields[lane].name for lane in (INPUT, OUTPUT))
        inputs = drawn[first].copy()
        lists: dict[str, Any] = {schema.total: inputs}
        for items in schema.items:
            offsets, rows = self._begins(drawn.pop(items.count.name)), len(inputs)
            values = xp.empty(int(offsets[rows]), np.int32)
            what = {"purpose": int(ITEM_PURPOSES[items.modality]), "item_field": items.item.lane}
            if len(values):
                self._launch("item", job | what | {"item_begin": offsets, "item": values, "inputs": inputs}, rows)
            lists[items.item.column] = Ragged(offsets, values)
        if packed.limited:
            self._launch("limit", job | {"inputs": inputs, f"field{OUTPUT}": drawn[output]}, len(inputs))
        return lists

    # Index arithmetic between kernels

    def _begins(self, count: Any) -> Any:
        """Where each of `count` begins, int64[n + 1], the end last."""
        begin = self.device.xp.zeros(len(count) + 1, np.int64)
        if len(count):
            begin[1:] = self.device.xp.cumsum(count, dtype=np.int64)
        return begin

    def _layout(self, begin: Any, requests: int) -> Job:
        """Runs that begin at `begin`, and the first run of every tile."""
        tiles = tiles_of(requests)
        layout = {"run_begin": begin, "runs": len(begin) - 1, "requests": requests}
        layout["tile_run"] = self.device.xp.empty(tiles + 1, np.int32)
        if requests:
            self._launch("tile", layout, tiles + 1)
        return layout

    def _upload_runs(self, runs: Runs) -> Job:
        """Runs that are known on the host."""
        xp = self.device.xp
        begin = np.zeros(len(runs) + 1, np.int64)
        np.cumsum(runs.count, out=begin[1:])
        known = {"run_cell": runs.cell, "run_first": runs.first, "run_before": runs.before}
        uploaded = {name: xp.asarray(array.astype(np.int64, copy=False)) for name, array in known.items()}
        return self._layout(xp.asarray(begin), int(begin[-1])) | uploaded

    @staticmethod
    def _bits(span_us: int, count: int) -> Job:
        """Low bits of a word that hold a position; 0 where time and position do not fit one word."""
        return {"position_bits": position_bits(span_us, count)}

    def _launch(self, kernel: str, job: Job, n: int) -> None:
        if n:
            self.device.launch(kernel, job, n)

    # Workload and windows

    def job(self, packed: PackedWorkload, key: Key, slab: Slab) -> Job:
        """What all kernels of a slab are told."""
        xp, windows = self.device.xp, slab.windows
        rows, row_of = np.unique(packed.row[windows], return_inverse=True)
        number = packed.first_window + windows
        begin_us = number.astype(np.int64) * packed.window_us
        first, last = int(begin_us[0]), int(begin_us[-1]) + packed.window_us
        # times count from the slab's first window or its begin, whichever is later: small numbers leave bits
        base = max(first, slab.from_us)
        of_windows = {
            "window_row": row_of.astype(np.int64),
            "window_number": number_of(number, packed.stream).astype(np.uint32),
            "window_scale": packed.window_scale[:, windows] * packed.window_length_s[windows],
            "window_clock": packed.clock.table[:, windows],
            "window_origin_us": np.tile(begin_us - base, len(packed.clock.table)),
        }
        numbers = {"windows": len(windows), "span_us": max(min(slab.to_us, last) - base, 0)}
        numbers |= {"offset_us": base - packed.start_us}
        uploaded = {name: xp.asarray(np.ascontiguousarray(array)) for name, array in of_windows.items()}
        return of_workload(self.device, packed, key, tuple(rows.tolist())) | uploaded | numbers

    def _survey_job(self, packed: PackedWorkload, state: CellState) -> Job:
        """What drawing the gaps of a survey needs: every cell is in one window."""
        window = state.cells.window_index[:1]
        rows = tuple(packed.row[window].tolist())
        return of_workload(self.device, packed, state.law.key, rows) | self._known_cells(packed, state)

    def _known_cells(self, packed: PackedWorkload, state: CellState) -> Job:
        """Cells of one window that the host knows."""
        cells, law = state.cells, state.law
        arrays: dict[str, NDArray[Any]] = {
            "cell_client": law.client,
            "cell_number": law.window,
            "cell_window": packed.group[cells.client],  # of one window
            "cell_law": cells.profile,  # of one row
            "cell_rule": state.rule,
        }
        arrays |= {f"cell_{name}": values for name, values in vars(law.constants).items()}
        names = ("log_unit", "ticks_per_unit", "rotation", "first_ticks", "ticks_in_all")
        arrays |= {name: getattr(state, name) for name in names}
        asarray = self.device.xp.asarray
        return {name: asarray(np.ascontiguousarray(array, CELLS[name])) for name, array in arrays.items()}


def tiles_of(requests: int) -> int:
    """Tiles that cover `requests`."""
    return -(-requests // TILE)


def position_bits(span_us: int, count: int) -> int:
    """Bits for positions below `count` beside times below `span_us`; 0 where both do not fit one word."""
    bits = max(1, (count - 1).bit_length())
    return bits if max(span_us - 1, 0).bit_length() + bits <= WORD_BITS else 0
