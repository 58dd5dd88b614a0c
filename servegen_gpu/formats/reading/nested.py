"""Rows of formats with more than one request a row, or whose values come from several columns, as flat rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.times import Dates, ticks
from servegen_gpu.formats.reading.values import is_text, trimmed

if TYPE_CHECKING:
    import pyarrow as pa


def date_and_time(rows: Rows) -> Rows:
    """Vidur's older layout: a day, and a time of the day or seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    date, time = (rows.table.column(name) for name in ("Date", "Time"))
    if is_text(time) and ":" in (time[0].as_py() or ""):
        both = pc.binary_join_element_wise(trimmed(pc.cast(date, pa.string())), trimmed(time), " ")
    else:
        day_ns = ticks(rows, "Date", Dates(zoned=False)).whole
        both = pa.array(day_ns + ticks(rows, "Time", None).nanoseconds("s")).view(pa.timestamp("ns"))
    return rows.with_table(rows.table.append_column("time", both))


def words(rows: Rows) -> Rows:
    """A text, whose words are its tokens, beside other columns."""
    return rows.with_table(rows.table.append_column("input_tokens", _words(rows.table.column("text"))))


def aibrix(rows: Rows) -> Rows:
    """AIBrix: all requests of a time in a row."""
    parent, flat = _items(rows, "requests")
    return _flat(
        rows,
        parent,
        time=rows.table.column("timestamp").take(parent),
        input_tokens=_field(rows, flat, "requests", "prompt_length", "Prompt Length"),
        output_tokens=_field(rows, flat, "requests", "output_length", "Output Length"),
        session=_field(rows, flat, "requests", "session_id", "Session ID", optional=True),
    )


def llmservingsim(rows: Rows) -> Rows:
    """LLMServingSim: the calls of a session in a row, each after the tools of those before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parent, flat = _items(rows, "sub_requests")
    tools = _field(rows, flat, "sub_requests", "tool_duration_ns", optional=True)
    waited = np.asarray(pc.fill_null(pc.cast(tools, pa.int64()), 0), np.int64)
    before = np.cumsum(waited) - waited
    row = np.asarray(parent)
    first = np.concatenate(([True], row[1:] != row[:-1])) if len(row) else np.zeros(0, np.bool_)
    since = before - np.repeat(before[first], np.diff(np.append(np.flatnonzero(first), len(row))))
    begin = pc.cast(rows.table.column("arrival_time_ns").take(parent), pa.int64()).combine_chunks()
    return _flat(
        rows,
        parent,
        time=pc.add(begin, pa.array(since)),
        input_tokens=_field(rows, flat, "sub_requests", "input_toks"),
        output_tokens=_field(rows, flat, "sub_requests", "output_toks"),
        session=rows.table.column("session_id").take(parent),
    )


def multi_turn(rows: Rows) -> Rows:
    """AIPerf's sessions: the turns of each in a row."""
    parent, flat = _items(rows, "turns")
    return _flat(
        rows,
        parent,
        time=_field(rows, flat, "turns", "timestamp", optional=True),
        delay=_field(rows, flat, "turns", "delay", optional=True),
        input_tokens=_words(_field(rows, flat, "turns", "text")),
        output_tokens=_field(rows, flat, "turns", "output_length", "max_tokens"),
        session=_sessions(rows).take(parent),
    )


def _sessions(rows: Rows) -> pa.Array:
    """Ids of sessions; of lines without one, the line itself if it has several turns, else none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    turns = np.asarray(pc.fill_null(pc.list_value_length(rows.table.column("turns")), 0))
    lines = pa.array([f"line {rows.line(at)}" if count > 1 else None for at, count in enumerate(turns.tolist())])
    lines = pc.cast(lines, pa.string())
    if "session_id" not in rows.table.column_names:
        return lines
    return pc.coalesce(pc.cast(rows.table.column("session_id"), pa.string()), lines)


def _items(rows: Rows, column: str) -> tuple[pa.Array, pa.Array]:
    """Which row each item of a column of lists of objects is of, and the items."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = rows.table.column(column).combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    if not pa.types.is_list(whole.type) or not pa.types.is_struct(whole.type.value_type):
        rows.refuse(0, column, "a list of objects", "fix the file, or name its format")
    return pc.list_parent_indices(whole), pc.list_flatten(whole)


def _field(rows: Rows, flat: pa.Array, column: str, *names: str, optional: bool = False) -> pa.Array:
    """A field of all items by the first of its names that is there."""
    import pyarrow as pa

    there = [field.name for field in flat.type]
    for name in names:
        if name in there:
            return flat.field(name) if flat.null_count == 0 else pa.array(flat.field(name))
    if optional:
        return pa.nulls(len(flat))
    got = f"{', '.join(there)[:200]} in {rows.source}"
    raise OptionError(f"{names[0]!r} in every item of {column!r}", got, "fix the file")


def _words(text: Any) -> Any:
    import pyarrow.compute as pc

    return pc.count_substring_regex(text, r"\S+")


def _flat(rows: Rows, parent: pa.Array, **columns: Any) -> Rows:
    import pyarrow as pa

    return rows.with_table(pa.table(columns), lambda row: int(parent[row].as_py()))
