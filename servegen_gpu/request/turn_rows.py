"""Turns as records, as compiled backends make them: one array instead of a column each, so that a row moves at once.

Multimodal turns have lists and stay columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.columns import Columns, Ragged, concat, rows_between, size_bytes, take
from servegen_gpu.request.schema import TURN_FIELDS, of

TurnRows = Columns | NDArray[np.void]
"""Both give a column by its name."""


def turn_row(category: str) -> np.dtype[np.void]:
    """SgTurnRow in kernels/job.h: its fields are the columns of a category without items, by lane; some may be left."""
    fields = [field.column for field in of(category).scalars]
    left = [f"left{lane}" for lane in range(len(fields), TURN_FIELDS)]
    wide, narrow = ("arrival_us", "conversation"), ("client", "turn", "new_tokens", *fields, *left)
    return np.dtype([*((n, np.int64) for n in wide), *((n, np.int32) for n in narrow)], align=True)


def columns_of(rows: TurnRows, like: Columns) -> Columns:
    """Rows as the columns of a trace, those of `like` in its order."""
    return {name: rows[name] if isinstance(rows, dict) else np.ascontiguousarray(rows[name]) for name in like}


def arrivals(rows: TurnRows) -> NDArray[np.int64]:
    """When rows arrive, int64[n], as one piece of memory."""
    return np.ascontiguousarray(rows["arrival_us"])


def joined(parts: list[TurnRows]) -> TurnRows:
    """All rows of all parts, which are of one kind."""
    if len(parts) == 1:
        return parts[0]
    return concat(parts) if isinstance(parts[0], dict) else np.concatenate(parts)  # type: ignore[arg-type]


def rows_at(rows: TurnRows, index: NDArray[np.integer]) -> TurnRows:
    """The rows at `index`, in that order."""
    return take(rows, index) if isinstance(rows, dict) else rows[index]


def first_rows(rows: TurnRows, count: int) -> TurnRows:
    """As views."""
    return rows_between(rows, 0, count) if isinstance(rows, dict) else rows[:count]


def copied(rows: TurnRows, begin: int, end: int) -> TurnRows:
    """Some rows in memory of their own."""
    return take(rows, np.arange(begin, end)) if isinstance(rows, dict) else rows[begin:end].copy()


def bytes_of(rows: TurnRows) -> int:
    """Bytes of all columns."""
    return size_bytes(rows) if isinstance(rows, dict) else rows.nbytes


def arrays_of(rows: TurnRows) -> list[NDArray[Any]]:
    """The arrays that rows consist of, for files."""
    if not isinstance(rows, dict):
        return [rows]
    arrays: list[NDArray[Any]] = []
    for column in rows.values():
        arrays += [column.offsets, column.values] if isinstance(column, Ragged) else [column]
    return arrays


def in_order(parts: list[TurnRows]) -> TurnRows:
    """All rows by arrival, conversation and turn."""
    rows = joined(parts)
    return rows_at(rows, np.lexsort((rows["turn"], rows["conversation"], rows["arrival_us"])))  # type: ignore[arg-type]
