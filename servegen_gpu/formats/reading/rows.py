"""Rows of a foreign file, and where in the file each of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


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
        return f"{self.source}, {self.unit} {self.line(row):,}"
