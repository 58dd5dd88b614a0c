"""A foreign trace: read, checked, counted from its first request, sorted, and said in a note what was done to it.

Small files and tables are read in one piece. Larger ones are read twice: for their times alone, and then slab by slab,
in memory that does not grow with them; unless they are out of order, or need all rows of a session at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading import sessions
from servegen_gpu.formats.reading.finish import Finisher, ordered
from servegen_gpu.formats.reading.numbering import NotWhole
from servegen_gpu.formats.reading.parsed import Parsed, Parser
from servegen_gpu.formats.reading.plan import Plan, plan
from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.sources import Source, open_source
from servegen_gpu.formats.reading.survey import Survey
from servegen_gpu.formats.reading.times import LARGEST, NS_PER, Ticks
from servegen_gpu.formats.reading.units import EPOCHS, WORDS, unit_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import category_of
from servegen_gpu.trace import Trace

UNITS = (*NS_PER, "iso")
MISSING = ("error", "drop")
MAX_REQUESTS = 2**31
MAX_SPAN_NS = 2**53 * 1000
"""285 years: microseconds are exact as float64, which scaling relies on."""


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
        about: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.source, self.plan, self.note = source, plan, ""
        self._stated, self._before = about, notes
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
        unit = self._unit(survey)
        since_ns = self._since(parsed.times, unit, survey)
        if parsed.delays is not None:
            since_ns = self._with_delays(parsed, since_ns, unit)
        return self._finished(survey, unit, (since_ns + 500) // 1000, parsed.columns)

    def slabs(self) -> Iterator[Trace]:
        """All requests in order of time, slab by slab where they can be."""
        if self.source.small or self._finisher.adds_history or {"delay", "parent"} & set(self.plan.columns):
            return iter([self.trace()])
        survey = Survey()
        self._parser.begin()
        for rows in self._batches(self._parser.reads_for_times()):
            survey.add(self._times(rows))
        self._check_some(survey)
        parts = self._parts()
        if not survey.falls:
            alone = self._alone(survey.count)
            unit = self._unit(survey)
            counts = self._parser.counts
            self._parser.begin()
            first = next(parts)
            self._parser.counts = counts  # of all rows, not of the first ones
            self._finisher.begin(first.columns, alone)
            if not self._finisher.adds_history:
                last = Ticks(*(np.array([part]) for part in survey.last))
                last_us = int(self._since(last, unit, survey)[0] + 500) // 1000
                return self._stream(survey, unit, self._about(survey, unit, last_us), chain([first], parts))
            self._finisher = self._new_finisher()
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

    def _times(self, rows: Rows) -> Ticks:
        while True:
            try:
                return self._parser.parse(rows, only_times=True).times
            except NotWhole:
                continue

    def _check_some(self, survey: Survey) -> None:
        if not survey.count:
            dropped = ", after those without a value were dropped" if self._parser.counts else ""
            raise OptionError("rows of requests", f"none in {self.source.name}{dropped}", "give another file")

    def _alone(self, count: int) -> bool:
        """Whether no request of what was read has a session."""
        numbering = self._parser.numbering.get("session")
        return numbering is not None and not numbering.own and numbering.alone_before == count

    def _finished(self, survey: Survey, unit: str, arrival_us: NDArray[np.int64], columns: dict[str, Any]) -> Trace:
        falls = int((arrival_us[1:] < arrival_us[:-1]).sum())
        if falls:
            order = np.argsort(arrival_us, kind="stable")
            arrival_us = arrival_us[order]
            columns = {name: c.take(order) if isinstance(c, Ragged) else c[order] for name, c in columns.items()}
            self._parser.counts["requests earlier than the one before, sorted"] = falls
        self._finisher.begin(columns, self._alone(len(arrival_us)))
        columns = self._finisher.columns(columns | {"arrival_us": arrival_us})
        return Trace.trusted(ordered(columns), self._about(survey, unit, int(arrival_us[-1]), len(arrival_us)))

    def _stream(self, survey: Survey, unit: str, about: dict[str, Any], parts: Iterator[Parsed]) -> Iterator[Trace]:
        row = 0
        for part in parts:
            arrival_us = (self._since(part.times, unit, survey) + 500) // 1000
            yield Trace.trusted(ordered(self._finisher.columns(part.columns | {"arrival_us": arrival_us})), about, row)
            row += len(arrival_us)
            del part  # not kept while the next one is read
        if row != survey.count:
            got = f"{survey.count:,} requests at first and then {row:,} in {self.source.name}"
            raise OptionError("a file that stays as it is", got, "read it when nobody writes to it")

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

    def _unit(self, survey: Survey) -> str:
        """Unit of times as numbers; "ns" for dates."""
        stated = self.plan.unit
        dates = self._parser.dates is not None
        if stated is not None and dates != (stated == "iso"):
            got = f"{'dates' if dates else 'numbers'} in {self.source.name}, column {self.plan.columns['time']!r}"
            raise OptionError(
                "dates by ISO 8601" if stated == "iso" else f"times in {WORDS[stated]}", got, "change unit"
            )
        if dates:
            self._how = "dates"
            return "ns"
        layout = self.plan.layout
        if stated is None and (layout.unit is None or not layout.sure):
            unit, self._how = unit_of(survey.spread(), layout.unit, self.source.name)
            return unit
        unit = stated or layout.unit or "s"
        self._how = WORDS[unit]
        return unit

    def _since(self, times: Ticks, unit: str, survey: Survey) -> NDArray[np.int64]:
        """Nanoseconds since the first request, or since 0 where a format counts from there."""
        ends = Ticks(*(np.array(both) for both in zip(survey.first, survey.last, strict=True)))
        first, last = ends.nanoseconds(unit).tolist()
        begin = self._begin_ns()
        if begin is not None and first >= begin:
            first = begin
        if ends.unfit(unit).any() or last - first >= MAX_SPAN_NS:
            span_s = (ends.floats()[1] - ends.floats()[0]) * NS_PER[unit] / 1e9
            got = f"{span_s:.3g} s in {self.source.name}"
            raise OptionError(f"times within {MAX_SPAN_NS / 1e9:.3g} s", got, "check the unit")
        return np.asarray(times.nanoseconds(unit) - first)

    def _about(self, survey: Survey, unit: str, last_us: int, count: int | None = None) -> dict[str, Any]:
        """Provenance; the note is in it."""
        count = survey.count if count is None else count
        ends = Ticks(*(np.array([part]) for part in survey.first))
        whole, part = survey.first
        if self._parser.dates is not None:
            origin = f"{np.datetime64(whole, 'ns')}{'Z' if self._parser.dates.zoned else ''}"
        elif EPOCHS["s"] * 10**9 <= (since_1970 := int(ends.nanoseconds(unit)[0])) < LARGEST:
            origin = f"{np.datetime64(since_1970, 'ns')}Z"
        else:
            origin = f"{whole if not part else f'{whole + part / 1e9:.15g}'} {unit}"
        name = _unicode(Path(self.source.name).name)
        about: dict[str, Any] = {
            "source": name,
            "format": self.plan.layout.name,
            "columns": self.plan.columns,
            "unit": "iso" if self._parser.dates else unit,
            "origin": origin if self._begin_ns() is None else f"0 {unit}",
            "counts": dict(self._parser.counts),
        }
        self.note = _unicode(self._said(count, about["origin"]))
        own: dict[str, Any] = {"workload": name.split(".")[0], "category": category_of(self.plan.columns, True)}
        if self._stated is not None:
            own = dict(self._stated["provenance"])
        first_us = int(self._since(ends, unit, survey)[0] + 500) // 1000
        if last_us > first_us:
            own.setdefault("duration_s", round(last_us + (last_us - first_us) / (count - 1)) / 1e6)
        rule, block = own.pop("hash_ids", None), self._finisher.block
        if block and "hash_ids" in self.plan.columns and not self._finisher.adds_history:
            same = isinstance(rule, dict) and rule.get("block_tokens") == block
            own["hash_ids"] = rule if same else {"block_tokens": block}
        return (about if self._stated is None else {"read": about}) | own | {"note": self.note}

    def _begin_ns(self) -> int | None:
        """Where times are counted from, if that is not the first request."""
        layout = self.plan.layout
        if self._parser.dates is None:
            return 0 if self._stated is not None or not layout.rebase else None
        if self._stated is None or not layout.begin:
            return None
        for begin in (str(self._stated["provenance"].get("origin")).removesuffix("Z"), layout.begin):
            try:
                return int(np.datetime64(begin, "ns").astype(np.int64))
            except ValueError:
                continue
        return None

    def _said(self, count: int, origin: str) -> str:
        columns = ", ".join(f"{role} from {name!r}" for role, name in self.plan.columns.items() if role != name)
        notes = [f"{Path(self.source.name).name}: {count:,} requests read as {self.plan.layout.name}", *self._before]
        if self.plan.layout.name == "table":
            guessed = f" (by usual names: {', '.join(self.plan.guessed)})" if self.plan.guessed else ""
            notes.append(f"columns: {columns}{guessed}")
        notes.append(f"times in {self._how}, counted from {origin}" if self._begin_ns() is None else "")
        notes += self._finisher.said()
        notes += [f"{number:,} {what}" for what, number in self._parser.counts.items()]
        for role in self._parser.numbering:
            if self._parser.numbering[role].as_text:
                notes.append(f"ids of {role}s numbered in order of appearance")
        if self.plan.ignored:
            more = f" and {len(self.plan.ignored) - 8:,} more" * (len(self.plan.ignored) > 8)
            notes.append(f"not read: {', '.join(self.plan.ignored[:8])}{more}")
        return "; ".join(filter(None, notes))


def _unicode(text: str) -> str:
    """Text that can be encoded: names of files and of JSON fields may be no Unicode."""
    return text.encode(errors="backslashreplace").decode()


def open_trace(
    given: Any,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    missing: str = "error",
    about: Mapping[str, Any] | None = None,
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
    about : mapping, optional
        Of a file that this package exported: what lies beside it. Its times are not counted anew.
    notes : sequence of str
        What is to be said first.

    Raises
    ------
    OptionError
        If something cannot be read or told; it names file, line, column and value.
    """
    if unit is not None and unit not in UNITS:
        raise OptionError(f"unit as one of {', '.join(UNITS)}", repr(unit)[:60], "change unit")
    if missing not in MISSING:
        raise OptionError("missing as error or drop", repr(missing)[:60], "change missing")
    source = open_source(given)
    return Foreign(source, plan(source, format, columns, unit), missing == "drop", about, notes)
