"""Lines that hold several requests: the turns of a session, the requests of a moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.validating.pieces import Piece
from servegen_gpu.validating.report import REFUSED, Findings
from servegen_gpu.validating.rows import note


def unnested(piece: Piece, key: str, wanted: Collection[str], findings: Findings) -> Piece:
    """The requests in a key of some lines, each with its line.

    Parameters
    ----------
    piece : Piece
    key : str
        Of the list.
    wanted : collection of str
        Keys of requests. What a request does not have is that of its line, so far as the line has it.
    findings : Findings
        Told of lines without such a list.
    """
    column = piece.columns.get(key)
    flat = _flat(column)
    if flat is None:
        rows = _as_objects(piece, key)
        right = [isinstance(row, list) and all(isinstance(each, dict) for each in row) for row in rows]
        kept = [row if ok else [] for row, ok in zip(rows, right, strict=True)]
        counts = np.array([len(row) for row in kept], np.int64)
        inner = {name: [each.get(name) for row in kept for each in row] for name in wanted}
        there = {name: any(value is not None for value in values) for name, values in inner.items()}
    else:
        counts, items = flat
        there = {name: items.type.get_field_index(name) >= 0 for name in wanted}
        inner = {name: items.field(name) for name in wanted if there[name]}
    note(findings, piece, counts == 0, key, "no list of requests", f'write "{key}": [{{…}}, …]', REFUSED)
    row = np.repeat(np.arange(len(piece)), counts)
    columns: dict[str, Any] = {}
    for name in wanted:
        if there[name]:
            columns[name] = inner[name]
        elif name in piece.columns and name != key:
            outer = piece.columns[name]
            columns[name] = [outer[at] for at in row.tolist()] if isinstance(outer, list) else outer.take(row)
    return Piece(columns, piece.lines[row])


def _flat(column: Any) -> tuple[NDArray[np.int64], Any] | None:
    """How many requests each line has, and all of them as a pyarrow.StructArray; None if a line has something else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, pa.ChunkedArray) or not pa.types.is_list(column.type):
        return None
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    items = whole.flatten()
    if not pa.types.is_struct(items.type) or items.null_count:
        return None
    return np.asarray(pc.fill_null(pc.list_value_length(whole), 0), np.int64), items


def _as_objects(piece: Piece, key: str) -> list[Any]:
    column = piece.columns.get(key)
    if column is None:
        return [None] * len(piece)
    return column if isinstance(column, list) else list(column.to_pylist())
