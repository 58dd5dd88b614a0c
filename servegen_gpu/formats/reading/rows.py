"""Rows of a foreign file, and where in the file each of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from servegen_gpu.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 60
"""Characters of a value in messages."""
MOST_COLUMNS = 10_000
"""Of a file, or fields of an object."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows in a piece.

    Attributes
    ----------
    table : pyarrow.Table
        Columns as they are in the file.
    line : callable
        Number of the line (in files without lines: of the row) of each row of the table, both counted as usual: lines
        from 1, rows of the table from 0. It may be slow and is for messages.
    source : str
        Name of the file, for messages.
    unit : {"line", "row"}
        What `line` counts.
    """

    table: pa.Table
    line: Callable[[int], int]
    source: str
    unit: str = "line"

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def where(self, row: int) -> str:
        """Name of a row in messages, such as ``"t.csv, line 17"``."""
        return f"{self.source}, {self.unit} {self.line(row)}"

    def refuse(self, row: int, column: str, expected: str, fix: str, value: Any = None) -> NoReturn:
        """Refuse a value: that of the table, or another one that stands there."""
        shown = repr(self.table.column(column)[row].as_py() if value is None else value)[:SHOWN]
        raise OptionError(expected, f"{shown} in {self.where(row)}, column {column!r}", fix)

    def with_table(self, table: pa.Table, row_of: Callable[[int], int] = int) -> Rows:
        """Other columns for the same file; `row_of` is the row of this table from which each of the others came."""
        line = self.line  # alone: the columns of this table need not stay in memory
        return replace(self, table=table, line=lambda row: line(row_of(row)))
