"""Lines that hold several requests: the turns of a session, the requests of a moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

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
    rows = _as_objects(piece, key)
    right = [isinstance(row, list) and len(row) > 0 and all(isinstance(each, dict) for each in row) for row in rows]
    wrong = ~np.array(right, np.bool_)
    note(findings, piece, wrong, key, "no list of requests", f'write "{key}": [{{…}}, …] with one at least', REFUSED)
    kept = [row if ok else [] for row, ok in zip(rows, right, strict=True)]
    counts = np.array([len(row) for row in kept], np.int64)
    columns: dict[str, Any] = {}
    for name in wanted:
        inner = [each.get(name) for row in kept for each in row]
        if all(value is None for value in inner) and name in piece.columns and name != key:
            outer = _as_objects(piece, name)
            inner = [outer[row] for row in np.repeat(np.arange(len(piece)), counts).tolist()]
        columns[name] = inner
    return Piece(columns, np.repeat(piece.lines, counts))


def _as_objects(piece: Piece, key: str) -> list[Any]:
    column = piece.columns.get(key)
    if column is None:
        return [None] * len(piece)
    return column if isinstance(column, list) else list(column.to_pylist())
