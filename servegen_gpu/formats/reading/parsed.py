"""Rows of a source as numbers: times, tokens, ids; what is missing is refused, or its rows are dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading import values
from servegen_gpu.formats.reading.layout import OWN_LISTS
from servegen_gpu.formats.reading.numbering import Numbering
from servegen_gpu.formats.reading.plan import Plan
from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.times import Dates, Ticks, kind_of, ticks
from servegen_gpu.request.columns import concat, take
from servegen_gpu.request.schema import MAX_TOKENS

NEEDED = ("input_tokens", "output_tokens")
OPTIONAL = (
    *("time", "delay", "client", "session", "parent", "turn", "hash_ids", "prefix", "reason_ratio"),
    *("reason_tokens", "new_tokens", "text_tokens", *OWN_LISTS),
)
"""dict[str, Any] that not every row needs; any other one has tokens."""
MAX_CLIENT = 2**31 - 1
MAX_ID = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Parsed:
    """Some requests.

    Attributes
    ----------
    times : Ticks
        0 where `timeless`.
    columns : dict of str to array or Ragged
        By their names in a trace; ``session``, ``parent`` int64 and ``delay`` are still to be worked on.
    timeless : bool[n]
        Requests that state a delay instead of a time.
    delays : Ticks, optional
    """

    times: Ticks
    columns: dict[str, Any]
    timeless: NDArray[np.bool_]
    delays: Ticks | None = None

    def __len__(self) -> int:
        return len(self.times)

    def take(self, order: NDArray[np.int64]) -> Parsed:
        """The requests at `order`."""
        delays = self.delays.take(order) if self.delays is not None else None
        return Parsed(self.times.take(order), take(self.columns, order), self.timeless[order], delays)

    @staticmethod
    def concat(parts: list[Parsed]) -> Parsed:
        """All requests of all parts."""
        if len(parts) == 1:
            return parts[0]
        delays = [part.delays for part in parts if part.delays is not None]
        return Parsed(
            Ticks.concat([part.times for part in parts]),
            concat([part.columns for part in parts]),
            np.concatenate([part.timeless for part in parts]),
            Ticks.concat(delays) if delays else None,
        )


@dataclass
class Parser:
    """Makes numbers of rows, and counts what it repairs.

    Attributes
    ----------
    plan : Plan
    drop : bool
        Drop rows with missing values, instead of refusing them.
    decimal_comma : bool
    dates : Dates or None
        Whether times are dates; the first row tells.
    numbering : dict of str to Numbering
        Of ``client`` and ``session``, where there is such a column.
    counts : dict of str to int
        Rows dropped and values repaired, by what was done.
    """

    plan: Plan
    drop: bool
    decimal_comma: bool
    dates: Dates | None = None
    begun: bool = False
    numbering: dict[str, Numbering] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role, largest in (("client", MAX_CLIENT), ("session", MAX_ID)):
            if role in self.plan.columns:
                self.numbering[role] = Numbering(
                    largest, alone=role == "session", own=self.plan.layout.name == "servegen-gpu"
                )

    def begin(self) -> None:
        """Before the source is read from its beginning."""
        self.counts = {}
        for numbering in self.numbering.values():
            numbering.begin()

    def reads_for_times(self) -> tuple[str, ...]:
        """Columns of the file that `parse` needs for times alone."""
        if self.plan.layout.flat or self.drop:
            return self.plan.reads
        return tuple(self.plan.columns[role] for role in ("time", "client", "session") if role in self.plan.columns)

    def parse(self, rows: Rows, *, only_times: bool = False) -> Parsed:
        """The numbers of some rows; `only_times` leaves tokens and lists out, for a first look at a file."""
        if self.plan.layout.flat:
            rows = self._flat(rows)
        columns = self.plan.columns
        delayed = "delay" in columns
        tokens = [name for name in columns if name in NEEDED or name not in OPTIONAL]
        rows = self._complete(rows, [] if only_times and not self.drop else tokens, delayed)

        timeless = np.full(len(rows), "time" not in columns)
        if delayed and "time" in columns:
            timeless = values.missing(rows.table.column(columns["time"]))
        found: dict[str, Any] = {}
        for role, numbering in self.numbering.items():
            found[role] = numbering.number(rows, columns[role])
        if "client" in found and (nobody := int(values.missing(rows.table.column(columns["client"])).sum())):
            self._count("requests without a client taken as one client's", nobody)
        if not only_times:
            for name in tokens:
                found[name] = values.tokens(rows, columns[name], decimal_comma=self.decimal_comma)
            self._add_optional(rows, found)
        times = self._ticks(rows, "time", timeless)
        gone = values.missing(rows.table.column(columns["delay"])) if delayed else None
        return Parsed(times, found, timeless, None if gone is None else self._ticks(rows, "delay", gone))

    def _flat(self, rows: Rows) -> Rows:
        """Requests of rows that have several."""
        import pyarrow as pa

        assert self.plan.layout.flat is not None
        try:
            return self.plan.layout.flat(rows)
        except pa.ArrowException as error:
            got = f"{str(error)[:200]} in {rows.source}"
            raise OptionError(f"numbers and lists as {self.plan.layout.name} has them", got, "fix the file") from None

    def _complete(self, rows: Rows, needed: list[str], delayed: bool) -> Rows:
        """Rows without those that lack a value, which are refused or dropped."""
        gone = np.zeros(len(rows), np.bool_)
        for role in [*(() if delayed else ("time",)), *needed]:
            column = self.plan.columns[role]
            here = values.missing(rows.table.column(column))
            if here.any() and not self.drop:
                fix = "fill it in, or leave such rows out: --missing drop (missing='drop')"
                rows.refuse(int(np.argmax(here)), column, "a value in every row", fix)
            gone |= here
        if not gone.any():
            return rows
        self._count("rows without a value dropped", int(gone.sum()))
        kept = np.flatnonzero(~gone)
        return rows.with_table(rows.table.take(kept), lambda row: int(kept[row]))

    def _ticks(self, rows: Rows, role: str, gone: NDArray[np.bool_]) -> Ticks:
        """Times or delays; 0 where there are none."""
        some = np.flatnonzero(~gone)
        if len(some) < len(rows):
            part = rows.with_table(rows.table.take(some), lambda row: int(some[row]))
            known = self._ticks(part, role, np.zeros(len(some), np.bool_)) if len(some) else None
            whole, billionths = np.zeros((2, len(rows)), np.int64)
            if known is not None:
                whole[some], billionths[some] = known.whole, known.billionths
            return Ticks(whole, billionths)
        column = self.plan.columns[role]
        if role == "time" and not self.begun and len(rows):
            self.dates, self.begun = kind_of(rows, column), True
        dates = self.dates if role == "time" else None
        return ticks(rows, column, dates, decimal_comma=self.decimal_comma)

    def _add_optional(self, rows: Rows, found: dict[str, Any]) -> None:
        """dict[str, Any] that may lack values, or are more than one number."""
        columns = self.plan.columns
        for name in ("reason_tokens", "new_tokens", "text_tokens", "turn", "prefix"):
            if name in columns:
                found[name] = self._filled(rows, columns[name], name)
        for name in OWN_LISTS:
            if name in columns:
                found[name] = values.lists(rows, columns[name], np.int32)
        if "hash_ids" in columns:
            found["hash_ids"] = values.lists(rows, columns["hash_ids"], np.int64)
        if "parent" in columns:
            gone = values.missing(rows.table.column(columns["parent"]))
            found["parent"] = np.full(len(rows), -1, np.int64)
            some = rows.with_table(rows.table.filter(~gone))
            parents = values.numbers(some, columns["parent"], "an id of a chat", decimal_comma=False)
            if (far := np.flatnonzero(~(np.abs(parents) < 2.0**53))).size:
                some.refuse(int(far[0]), columns["parent"], "an id of a chat below 2**53", "change it")
            found["parent"][~gone] = parents
        if "reason_ratio" in columns:
            found["reason_tokens"] = self._reason(rows, columns["reason_ratio"], found["output_tokens"])
        if "prefix" in found:  # BLIS: the input leaves a shared prefix out
            whole = found["input_tokens"].astype(np.int64) + found.pop("prefix")
            if (wrong := np.flatnonzero(whole > MAX_TOKENS)).size:
                rows.refuse(int(wrong[0]), columns["prefix"], f"an input of at most {MAX_TOKENS:,}", "shorten it")
            found["input_tokens"] = whole.astype(np.int32)
        if "reason_tokens" in found and (wrong := np.flatnonzero(found["reason_tokens"] > found["output_tokens"])).size:
            row = int(wrong[0])
            expected = f"reasoning tokens within the {found['output_tokens'][row]:,} output tokens"
            rows.refuse(row, columns.get("reason_tokens", "reason_ratio"), expected, "add them to the output tokens")

    def _filled(self, rows: Rows, column: str, name: str) -> NDArray[np.int32]:
        """Tokens, 0 where there are none."""
        gone = values.missing(rows.table.column(column))
        if not gone.any():
            return values.tokens(rows, column, decimal_comma=self.decimal_comma)
        self._count(f"missing {name} taken as 0", int(gone.sum()))
        some = np.flatnonzero(~gone)
        found = np.zeros(len(rows), np.int32)
        part = rows.with_table(rows.table.take(some), lambda row: int(some[row]))
        if len(some):
            found[some] = values.tokens(part, column, decimal_comma=self.decimal_comma)
        return found

    def _reason(self, rows: Rows, column: str, output: NDArray[np.int32]) -> NDArray[np.int32]:
        gone = values.missing(rows.table.column(column))
        some = np.flatnonzero(~gone)
        ratio = np.zeros(len(rows))
        part = rows.with_table(rows.table.take(some), lambda row: int(some[row]))
        if len(some):
            ratio[some] = values.numbers(part, column, "a share of the output", decimal_comma=self.decimal_comma)
        if (wrong := np.flatnonzero((ratio < 0) | (ratio > 1))).size:
            rows.refuse(int(wrong[0]), column, "a share of the output from 0 to 1", "fix the value")
        return np.rint(ratio * output).astype(np.int32)

    def _count(self, what: str, number: int) -> None:
        self.counts[what] = self.counts.get(what, 0) + number
