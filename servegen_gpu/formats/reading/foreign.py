"""A foreign trace: read, checked, counted from its first request, sorted, and said in a note what was done to it.

Small files and tables are read in one piece. Larger ones are read twice: for their times alone, and then slab by slab,
in memory that does not grow with them; unless they are out of order, or need all rows of a session at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.formats.checked import checked
from servegen_gpu.formats.reading import sessions
from servegen_gpu.formats.reading.about import about, with_duration
from servegen_gpu.formats.reading.clock import Clock, to_us
from servegen_gpu.formats.reading.finish import Finisher, ordered
from servegen_gpu.formats.reading.numbering import NotWhole
from servegen_gpu.formats.reading.parsed import Parsed, Parser
from servegen_gpu.formats.reading.plan import Plan, plan
from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.sources import Source, open_source
from servegen_gpu.formats.reading.survey import Survey
from servegen_gpu.formats.reading.times import NS_PER, Ticks
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

UNITS = (*NS_PER, "iso")
MISSING = ("error", "drop")
MAX_REQUESTS = 2**31
MOST_FIRST = 8
"""Parts that are looked at before the first one is given."""


class Foreign:
    """A trace that others wrote, opened for reading.

    Attributes
    ----------
    plan : Plan
        Its format, and which column means what.
    note : str
        What was assumed, repaired and dropped; there once `trace` or `slabs` has returned.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        drop: bool = False,
        stated: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.source, self.plan, self.note = source, plan, ""
        self._stated, self._before = stated, notes
        self._parser = Parser(plan, drop, source.decimal_comma)
        self._finisher = self._new_finisher()

    def _new_finisher(self) -> Finisher:
        layout = self.plan.layout
        rule = self._stated["provenance"].get("hash_ids") if self._stated is not None else None
        if isinstance(rule, dict) and isinstance(size := rule.get("block_tokens"), int):
            layout = replace(layout, block_tokens=size)
        delayed = "delay" in self.plan.columns or layout.flat is not None
        return Finisher(layout, self.source.name, layout.says if delayed else "")

    def names(self, of: str) -> list[str]:
        """Ids of ``"client"`` or ``"session"`` that are text, by their number; empty where ids are numbers.

        Complete once the last slab is read.
        """
        numbering = self._parser.numbering.get(of)
        return list(numbering.names) if numbering else []

    def trace(self) -> Trace:
        """All requests, in memory."""
        self._finisher = self._new_finisher()
        while True:
            self._parser.begin()
            try:
                parts = [self._parser.parse(rows) for rows in self._batches()]
                break
            except NotWhole:
                continue
        parsed = Parsed.concat([part for part in parts if len(part)] or parts[:1]) if parts else None
        del parts
        survey = Survey()
        if parsed is not None:
            survey.add(parsed.times if not parsed.timeless.any() else parsed.times.take(~parsed.timeless))
        self._check_some(survey)
        assert parsed is not None
        clock = self._clock(survey)
        since_ns = clock.nanoseconds(parsed.times)
        if parsed.delays is not None:
            since_ns = self._with_delays(parsed, since_ns, clock.unit)
        return self._finished(clock, to_us(since_ns), parsed.columns)

    def slabs(self) -> Iterator[Trace]:
        """All requests in order of time, slab by slab where they can be."""
        if self.source.small or self._finisher.adds_history or {"delay", "parent"} & set(self.plan.columns):
            return iter([self.trace()])
        survey = Survey()
        self._parser.begin()
        self._finisher = self._new_finisher()
        for rows in self._batches(self._parser.reads_for_times()):
            survey.add(self._times(rows))
        self._check_some(survey)
        if not survey.falls:
            alone, parts = self._alone(survey.count), self._parts()
            clock = self._clock(survey)
            counts = self._parser.counts
            self._parser.begin()
            first = self._first(parts)
            self._parser.counts = counts  # of all rows, not of the first ones
            self._finisher.begin(Parsed.concat(first).columns, alone)
            if not self._finisher.adds_history:
                return self._stream(clock, survey.count, chain(first, parts))
        return iter([self.trace()])

    def _batches(self, reads: tuple[str, ...] | None = None) -> Iterator[Rows]:
        rows = 0
        for batch in self.source.batches(self.plan.reads if reads is None else reads):
            rows += len(batch)
            if rows > MAX_REQUESTS:
                raise OptionError(f"at most {MAX_REQUESTS:,} requests", f"more in {self.source.name}", "split it")
            if len(batch):
                yield batch

    def _parts(self) -> Iterator[Parsed]:
        for rows in self._batches():
            if len(parsed := self._parser.parse(rows)):
                yield parsed

    def _first(self, parts: Iterator[Parsed]) -> list[Parsed]:
        """As many parts as it takes to see a session with a second turn, if the format leaves open what that means."""
        first = [next(parts)]
        while len(first) < MOST_FIRST and self._finisher.leaves_open(Parsed.concat(first).columns):
            if (following := next(parts, None)) is None:
                break
            first.append(following)
        return first

    def _times(self, rows: Rows) -> Ticks:
        while True:
            counts = self._parser.counts.copy()
            try:
                return self._parser.parse(rows, only_times=True).times
            except NotWhole:
                self._parser.counts = counts  # of these rows, once more

    def _check_some(self, survey: Survey) -> None:
        if not survey.count:
            dropped = ", after those without a value were dropped" if self._parser.counts else ""
            raise OptionError("rows of requests", f"none in {self.source.name}{dropped}", "give another file")

    def _alone(self, count: int) -> bool:
        """Whether no request of what was read has a session."""
        numbering = self._parser.numbering.get("session")
        return numbering is not None and not numbering.own and numbering.alone_before == count

    def _clock(self, survey: Survey) -> Clock:
        return Clock(self.plan, self._parser.dates, survey, self._stated, self.source.name)

    def _about(self, clock: Clock, count: int, last_us: int) -> dict[str, Any]:
        parts = (self.plan, self._parser, self._finisher, clock)
        provenance = about(self.source.name, *parts, count, self._stated, self._before)
        self.note = provenance["note"]
        return with_duration(provenance, clock.first_us, last_us, count)

    def _finished(self, clock: Clock, arrival_us: NDArray[np.int64], columns: dict[str, Any]) -> Trace:
        falls = int((arrival_us[1:] < arrival_us[:-1]).sum())
        if falls:
            order = np.argsort(arrival_us, kind="stable")
            arrival_us = arrival_us[order]
            columns = {name: c.take(order) if isinstance(c, Ragged) else c[order] for name, c in columns.items()}
            self._parser.counts["requests earlier than the one before, sorted"] = falls
        self._finisher.begin(columns, self._alone(len(arrival_us)))
        columns = self._finisher.columns(columns | {"arrival_us": arrival_us})
        trace = Trace.trusted(ordered(columns), self._about(clock, len(arrival_us), int(arrival_us[-1])))
        return next(checked([trace], self.source.name, own=False))

    def _stream(self, clock: Clock, count: int, parts: Iterator[Parsed]) -> Iterator[Trace]:
        """Slabs of requests in order; the note is there at once."""
        provenance = self._about(clock, count, clock.last_us)

        def slabs() -> Iterator[Trace]:
            row = 0
            for part in parts:
                arrival_us = clock.microseconds(part.times)
                columns = self._finisher.columns(part.columns | {"arrival_us": arrival_us})
                yield Trace.trusted(ordered(columns), provenance, row)
                row += len(arrival_us)
                del part, columns  # not kept while the next one is read
            if row != count:
                got = f"{count:,} requests at first and then {row:,} in {self.source.name}"
                raise OptionError("a file that stays as it is", got, "read it when nobody writes to it")

        return checked(slabs(), self.source.name, own=False)

    def _with_delays(self, parsed: Parsed, since_ns: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
        """Times of requests that state how long after the one before they come."""
        assert parsed.delays is not None
        session = parsed.columns.get("session", -1 - np.arange(len(parsed)))
        delay_ns = parsed.delays.nanoseconds(unit)
        if (wrong := np.flatnonzero((delay_ns < 0) | parsed.delays.unfit(unit))).size:
            got = f"another one in request {wrong[0] + 1:,} of {self.source.name}"
            raise OptionError("delays from 0 on", got, "fix the value")
        time_ns, told = sessions.with_delays(np.asarray(session), since_ns, ~parsed.timeless, delay_ns)
        if not told.all():
            got = f"none in request {int(np.argmin(told)) + 1:,} of {self.source.name}"
            raise OptionError("a time in the first request of every session", got, "give it one, or a session")
        return time_ns


def open_trace(
    given: Any,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    missing: str = "error",
    stated: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Foreign:
    """Open a trace that others wrote.

    Parameters
    ----------
    given : path, or table of pandas, polars or Arrow
        CSV, JSON lines, a JSON array, or Parquet; text plain or in gzip or zstd.
    format : str, optional
        A name of `servegen_gpu.formats.reading.plan.FORMATS`; left out, or ``"auto"``, columns and values tell.
    columns : mapping of str to str, optional
        Columns of the file by what they mean: ``time``, ``input``, ``output``, ``client``, ``session``, ``reason``,
        ``hash_ids``. What is left out is looked for by usual names.
    unit : {"s", "ms", "us", "ns", "iso"}, optional
        Of times; left out, names and values tell.
    missing : {"error", "drop"}
        Refuse rows without a time or length, or leave them out.
    stated : mapping, optional
        Of a file that this package exported: what lies beside it. Its times are not counted anew.
    notes : sequence of str
        What is to be said first.

    Raises
    ------
    OptionError
        If something cannot be read or told; it names file, line, column and value.
    """
    if unit is not None and unit not in UNITS:
        raise unknown("a unit", unit, UNITS, "change unit")
    if missing not in MISSING:
        raise OptionError("missing as error or drop", repr(missing)[:60], "change missing")
    source = open_source(given)
    return Foreign(source, plan(source, format, columns, unit), missing == "drop", stated, notes)
