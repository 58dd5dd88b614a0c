"""Columns of requests by name, and what is done with all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import gather
from servegen_gpu.errors import OptionError
from servegen_gpu.request.schema import of

MAX_LIST_ITEMS = 2**31 - 1
"""Items that one chunk of an Arrow list column can hold: its offsets are int32."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """A column of lists.

    Attributes
    ----------
    offsets : int64[n + 1]
        From 0 to m, never falling: row i is ``values[offsets[i]:offsets[i + 1]]``.
    values : int32[m] or int64[m]
        The items of all rows, end to end: tokens are int32, ids of blocks int64.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int32] | NDArray[np.int64]

    def __post_init__(self) -> None:
        ends = (int(self.offsets[0]), int(self.offsets[-1])) if len(self.offsets) else ()
        if ends != (0, len(self.values)):
            raise OptionError(f"offsets from 0 to {len(self.values)}", f"ends {ends}", "build them as a cumulative sum")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            lo, hi, step = row.indices(len(self))
            if step != 1:
                raise OptionError("consecutive rows", f"a step of {step}", "take rows one by one")
            return self.rows(lo, hi)
        at = range(len(self))[row]
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    def __repr__(self) -> str:
        return f"<Ragged {len(self):,} lists, {len(self.values):,} items>"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of items in each row, int64[n]."""
        return np.diff(self.offsets)

    def sums(self) -> NDArray[np.int64]:
        """Sum of the items of each row, int64[n]."""
        running = np.zeros(len(self.values) + 1, np.int64)
        np.cumsum(self.values, dtype=np.int64, out=running[1:])
        return np.diff(running[self.offsets])

    def rows(self, lo: int, hi: int) -> Ragged:
        """Rows `lo` to `hi` (exclusive); the items are a view."""
        lo, hi, _ = slice(lo, hi).indices(len(self))
        offsets = self.offsets[lo : max(lo, hi) + 1]
        return Ragged(offsets - offsets[0], self.values[offsets[0] : offsets[-1]])

    def take(self, index: NDArray[np.integer]) -> Ragged:
        """The rows at `index`, in that order, in memory of their own."""
        begins, lengths = self.offsets[:-1][index], self.lengths[index]
        offsets = np.zeros(len(index) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        items = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)
        return Ragged(offsets, self.values[items])

    @staticmethod
    def concat(parts: Sequence[Ragged]) -> Ragged:
        """All rows of `parts`, in order, in memory of their own."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Ragged(offsets, np.concatenate([part.values for part in parts]))


Column = NDArray[Any] | Ragged

Columns = dict[str, NDArray[Any] | Ragged]


def take(columns: Mapping[str, Column], index: NDArray[np.integer]) -> dict[str, Any]:
    """The rows at `index`, in that order."""
    return {name: c.take(index) if isinstance(c, Ragged) else gather(c, index) for name, c in columns.items()}


def rows_between(columns: Mapping[str, Column], lo: int, hi: int) -> dict[str, Any]:
    """Rows `lo` to `hi` (exclusive), as views."""
    return {name: c.rows(lo, hi) if isinstance(c, Ragged) else c[lo:hi] for name, c in columns.items()}


def concat(parts: Sequence[Mapping[str, Column]]) -> dict[str, Any]:
    """All rows of all parts, which have the same columns; those of the first decide their order."""
    joined: dict[str, Any] = {}
    for name, column in parts[0].items():
        own: list[Any] = [part[name] for part in parts]
        joined[name] = Ragged.concat(own) if isinstance(column, Ragged) else np.concatenate(own)
    return joined


def size_bytes(columns: Mapping[str, Column]) -> int:
    """Bytes of all columns."""
    return sum(c.offsets.nbytes + c.values.nbytes if isinstance(c, Ragged) else c.nbytes for c in columns.values())


def empty_columns(category: str, conversations: bool = False) -> Columns:
    """Columns of no rows."""

    def none() -> NDArray[np.int32]:
        return np.empty(0, np.int32)

    columns: Columns = {"arrival_us": np.empty(0, np.int64), "client": none()}
    for name in of(category).columns:
        columns[name] = Ragged(np.zeros(1, np.int64), none()) if of(category).is_list(name) else none()
    if conversations:
        columns |= {"conversation": np.empty(0, np.int64), "turn": none(), "new_tokens": none()}
    return columns
