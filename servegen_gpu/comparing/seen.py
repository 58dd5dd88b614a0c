"""What is kept of a trace to compare it: one pass over its slabs, in memory that does not grow with them.

Counts and tokens of every second, histograms, and some rows: all of them up to 2**18, else every second, fourth,
eighth … stretch of 1,024 consecutive rows. Conversations are kept whole, by their ids: all of them up to 2**18 rows,
else a half, a quarter … of them. Nothing is random, and no cut into slabs matters.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import PAIR_SIDE, Counts, gap_bin, pair_bin
from servegen_gpu.errors import OptionError
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import Slabs, grown, slabs_of, windows_of

CELLS_S = (1, 10, 60, 600, 3600)
"""Lengths of cells: the next one where a trace would have more than `MOST_CELLS`."""
MOST_CELLS = 1 << 22
STRETCH = 1 << 10
MOST_ROWS = 1 << 18
MOST_STAMPS = 1 << 16
MOST_BLOCKS = 1 << 21
RATIO_STEPS = 1 << 12
"""Steps in which shares of reasoning are counted."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
TOKENS = ("input_tokens", "output_tokens", "reason_tokens")


class Seen:
    """What is kept of a trace.

    Attributes
    ----------
    rows : int
    end_us : int
        End of the trace as its provenance states it, or its last arrival.
    cell_s : int
        Length of a cell.
    cells : dict of str to float64[cells]
        By cell: ``requests``, tokens by column, ``gaps`` (how many end there), sums ``gap_s`` and ``gap_s2``, requests
        ``with`` an output and with items of a column, how many ``items`` of it, and the sum of ``reason_share``.
    lengths : dict of str to Counts
        By column; lists have their items, and their numbers under ``"… per request"``; ``reason_share`` in steps.
    gaps : Counts
        By bin of `gap_bin`.
    pairs : int64[PAIR_SIDE**2]
        Inputs and outputs by `pair_bin`.
    clients : Counts
    """

    def __init__(self) -> None:
        self.rows = self.end_us = self._last_us = 0
        self.cell_s = CELLS_S[0]
        self.name = "trace"
        self._grids: dict[str, NDArray[np.float64]] = {}
        self.lengths: dict[str, Counts] = {}
        self.gaps = Counts()
        self.pairs: NDArray[np.int64] | None = None
        self.clients: Counts | None = None
        self._stride, self._kept = 1, _Rows()
        self._mask, self._talks = 0, _Rows()
        self._items: dict[str, _Rows] = {}
        self._stamps: list[NDArray[np.int64]] = []
        self._blocks: list[tuple[Ragged, NDArray[np.int64]]] = []
        self.block_count = 0

    def add(self, slab: Trace) -> None:
        """See the next slab."""
        stated_s = duration_of(slab.provenance)
        self.end_us = max(self.end_us, 0 if stated_s is None else round(stated_s * 1e6))
        self.name = str(slab.provenance.get("workload", self.name))
        if not len(slab):
            return
        arrival_us = slab["arrival_us"]
        if self.rows and arrival_us[0] < self._last_us:
            got = f"{arrival_us[0]:,} us behind {self._last_us:,} us"
            raise OptionError("slabs in order of time", got, "sort the trace by arrival_us")
        tokens = {name: slab[name] for name in TOKENS if name in slab}
        self._add_cells(arrival_us, tokens | self._add_lengths(slab, tokens))
        if "client" in slab:
            self.clients = self.clients or Counts()
            self.clients.add(slab["client"])
        clients = {"client": slab["client"]} if "client" in slab else {}
        self._keep_rows({"arrival_us": arrival_us} | tokens | clients)
        for name in slab:
            if name.endswith("_tokens") and isinstance(slab[name], Ragged):
                self._keep_items(name, arrival_us, slab[name])
        if "conversation" in slab:
            self._keep_talks(slab)
        if "hash_ids" in slab and self.block_count < MOST_BLOCKS:
            self._keep_blocks(slab["hash_ids"], arrival_us)
        if (missing := MOST_STAMPS - self.rows) > 0:
            self._stamps.append(arrival_us[:missing].copy())
        self.rows += len(slab)
        self._last_us = int(arrival_us[-1])
        self.end_us = max(self.end_us, self._last_us)

    def _add_cells(self, arrival_us: NDArray[np.int64], sums: dict[str, NDArray[Any]]) -> None:
        end_us = max(int(arrival_us[-1]), self.end_us - 1)  # a trace may state that it lasts far longer
        while end_us // (self.cell_s * 1_000_000) >= MOST_CELLS:
            self._coarsen()
        cell = windows_of(arrival_us, self.cell_s * 1_000_000)
        first, size = int(cell[0]), int(cell[-1]) + 1
        cell = cell - first

        def count(name: str, at: NDArray[np.int64], weights: NDArray[Any] | None = None) -> None:
            grid = self._grids[name] = grown(self._grids.get(name, np.zeros(0)), size)
            grid[first:size] += np.bincount(at, weights, size - first)

        count("requests", cell)
        for name, column in sums.items():
            count(name, cell, column)
        behind = slice(None) if self.rows else slice(1, None)
        gap_us = np.diff(arrival_us, prepend=self._last_us)[behind]
        self.gaps.add(gap_bin(gap_us))
        gap_s = gap_us / 1e6
        count("gaps", cell[behind])
        count("gap_s", cell[behind], gap_s)
        count("gap_s2", cell[behind], gap_s**2)

    def _coarsen(self) -> None:
        """Go on with longer cells."""
        at = CELLS_S.index(self.cell_s) + 1
        if at == len(CELLS_S):
            years = MOST_CELLS * self.cell_s / 31_557_600
            raise OptionError(f"a trace of at most {years:.0f} years", "a longer one", "check the unit of its times")
        factor, self.cell_s = CELLS_S[at] // self.cell_s, CELLS_S[at]
        for name, grid in self._grids.items():
            self._grids[name] = np.add.reduceat(grid, np.arange(0, len(grid), factor))

    def _add_lengths(self, slab: Trace, tokens: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Count lengths; returns what is to be summed by cell besides tokens, [rows] each."""
        sums: dict[str, NDArray[Any]] = {}
        for name in slab:
            if not name.endswith("_tokens"):
                continue
            column = slab[name]
            if isinstance(column, Ragged):
                items = column.lengths
                sums |= {name: column.sums(), f"with {name}": items > 0, f"items {name}": items}
                self.lengths.setdefault(f"{name} per request", Counts()).add(items)
                column = column.values
            self.lengths.setdefault(name, Counts()).add(column)
        if {"reason_tokens", "output_tokens"} <= set(tokens):
            share = reason_share(tokens)
            sums |= {"with output": share >= 0, "reason_share": np.maximum(share, 0) / RATIO_STEPS}
            self.lengths.setdefault("reason_share", Counts()).add(share[share >= 0])
        if {"input_tokens", "output_tokens"} <= set(tokens):
            found = np.bincount(pair_bin(tokens["input_tokens"], tokens["output_tokens"]), minlength=PAIR_SIDE**2)
            self.pairs = found if self.pairs is None else self.pairs + found
        return sums

    def _keep_rows(self, columns: dict[str, NDArray[Any]]) -> None:
        row = np.arange(self.rows, self.rows + len(columns["arrival_us"]))
        self._kept.add({"row": row} | columns, self._in_stretch(row))
        while self._kept.rows > MOST_ROWS:
            self._stride *= 2
            for rows in (self._kept, *self._items.values()):
                rows.filter(lambda part: self._in_stretch(part["row"]))

    def _keep_items(self, name: str, arrival_us: NDArray[np.int64], column: Ragged) -> None:
        row = np.arange(self.rows, self.rows + len(column))
        counted = {"row": row, "arrival_us": arrival_us, "value": column.lengths}
        items = {what: np.repeat(counted[what], column.lengths) for what in ("row", "arrival_us")}
        for what, part in ((f"{name} per request", counted), (name, items | {"value": column.values})):
            self._items.setdefault(what, _Rows()).add(part, self._in_stretch(part["row"]))

    def _in_stretch(self, row: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(row // STRETCH % self._stride == 0)

    def _keep_blocks(self, ids: Ragged, arrival_us: NDArray[np.int64]) -> None:
        rows = int(np.searchsorted(ids.offsets, MOST_BLOCKS - self.block_count))
        part = ids.rows(0, min(rows, len(ids)))
        self._blocks.append((Ragged(part.offsets, part.values.copy()), arrival_us[: len(part)].copy()))
        self.block_count += len(part.values)

    def _keep_talks(self, slab: Trace) -> None:
        named = {name: slab[name] for name in ("conversation", "arrival_us", "input_tokens") if name in slab}
        self._talks.add(named, self._chosen(named["conversation"]))
        while self._talks.rows > MOST_ROWS and self._mask < 1 << 20:
            self._mask = 2 * self._mask + 1
            self._talks.filter(lambda part: self._chosen(part["conversation"]))

    def _chosen(self, conversation: NDArray[np.int64]) -> NDArray[np.bool_]:
        mixed = (conversation.astype(np.int64).view(np.uint64) * GOLDEN) >> np.uint64(40)
        return np.asarray(mixed & np.uint64(self._mask) == 0)

    @property
    def seconds(self) -> float:
        """Length of the trace."""
        return self.end_us / 1e6

    @property
    def sampled(self) -> bool:
        """Whether some rows were left out of those that are kept."""
        return self._stride > 1

    @property
    def talks_sampled(self) -> bool:
        """Whether some conversations were left out of those that are kept."""
        return self._mask > 0

    @property
    def cells(self) -> dict[str, NDArray[np.float64]]:
        """Sums by whole cell; a part of one at the end is left out, unless there is no other."""
        whole = max(self.end_us // (self.cell_s * 1_000_000), 1)
        return {name: grown(grid, whole)[:whole] for name, grid in self._grids.items()}

    def cell_of(self, arrival_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The whole cell in which each request arrives, int64[n]; the last one has those behind it, too."""
        whole = max(self.end_us // (self.cell_s * 1_000_000), 1)
        return np.minimum(arrival_us // (self.cell_s * 1_000_000), whole - 1)

    @property
    def kept(self) -> dict[str, NDArray[Any]]:
        """Rows: ``row``, their number, and columns."""
        return self._kept.joined()

    def items(self, name: str) -> dict[str, NDArray[Any]]:
        """``value`` and ``arrival_us`` of the items of kept rows, or of their numbers; by the names of `lengths`."""
        return self._items[name].joined() if name in self._items else {}

    @property
    def talks(self) -> dict[str, NDArray[Any]]:
        """Rows of conversations: ``conversation``, ``arrival_us``, ``input_tokens``; empty without conversations."""
        return self._talks.joined()

    @property
    def stamps(self) -> NDArray[np.int64]:
        """The first arrivals, int64[up to 2**16]."""
        return np.concatenate(self._stamps)

    @cached_property
    def blocks(self) -> tuple[Ragged, NDArray[np.int64]]:
        """Ids of blocks of the first requests, up to about 2**21 blocks, and when each request arrives, int64[rows]."""
        if not self._blocks:
            return Ragged(np.zeros(1, np.int64), np.zeros(0, np.int64)), np.zeros(0, np.int64)
        ids, at_us = zip(*self._blocks, strict=True)
        return Ragged.concat(ids), np.concatenate(at_us)


class _Rows:
    """Rows of some columns, in parts."""

    def __init__(self) -> None:
        self.parts: list[dict[str, NDArray[Any]]] = []
        self.rows = 0

    def add(self, columns: dict[str, NDArray[Any]], keep: NDArray[np.bool_]) -> None:
        """Add the rows of a mask; in memory of their own, because a slab does not live on."""
        part = {name: column[keep] for name, column in columns.items()}
        self.parts.append(part)
        self.rows += int(np.count_nonzero(keep))

    def filter(self, rule: Any) -> None:
        """Keep the rows for which a function of a part gives a mask."""
        parts, self.parts, self.rows = self.parts, [], 0
        for part in parts:
            self.add(part, rule(part))

    def joined(self) -> dict[str, NDArray[Any]]:
        """All rows; parts are joined for good."""
        if len(self.parts) > 1:
            names = [name for name in self.parts[0] if all(name in part for part in self.parts)]
            self.parts = [{name: np.concatenate([part[name] for part in self.parts]) for name in names}]
        return self.parts[0] if self.parts else {}


def reason_share(tokens: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Share of reasoning in the output, in steps, int64[n]; -1 without an output."""
    output = tokens["output_tokens"]
    steps = np.rint(tokens["reason_tokens"] * RATIO_STEPS / np.maximum(output, 1)).astype(np.int64)
    return np.where(output > 0, steps, -1)


def seen_of(trace: Slabs) -> Seen:
    """What is kept of a trace, whole or as slabs in order of time.

    Raises
    ------
    OptionError
        If it has no request, or columns are missing.
    """
    seen = Seen()
    for slab in slabs_of(trace):
        if "arrival_us" not in slab:
            raise OptionError("a trace with the column arrival_us", f"columns {', '.join(slab)}", "add it")
        seen.add(slab)
        del slab  # not kept while the next one is made
    if not seen.rows:
        raise OptionError("a trace with requests", "an empty one", "give another trace")
    return seen
