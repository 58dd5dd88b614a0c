"""Ids of clients and sessions: whole numbers stay as they are, anything else is numbered in order of appearance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.rows import SHOWN, Rows
from servegen_gpu.formats.reading.values import missing, plain, whole_ids

MAX_NAMES = 1 << 24
"""Different ids that are text: a table of them is kept in memory."""
MAX_NAME = 1_000


class NotWhole(Exception):
    """Ids taken for whole numbers that turn out to be text: they have to be read once more."""


class Numbering:
    """Numbers of ids.

    Attributes
    ----------
    names : dict of str to int
        Numbers by their text; empty where ids are numbers already.
    as_text : bool
        Whether ids are taken as text.
    """

    def __init__(self, largest: int, alone: bool, own: bool) -> None:
        self.largest, self.alone, self.own = largest, alone, own
        self.as_text = False
        self.begin()

    def begin(self) -> None:
        """Forget what was numbered, before the file is read from its beginning."""
        self.names: dict[str, int] = {}
        self.alone_before = 0

    def number(self, rows: Rows, column: str) -> NDArray[np.int64]:
        """Numbers of the ids of some rows, int64[n].

        A missing id is one of its own below 0 for each row if `alone`, else an id like others.
        """
        gone = missing(rows.table.column(column)) if self.alone else np.zeros(len(rows), np.bool_)
        numbers = np.empty(len(rows), np.int64)
        some = rows.with_table(rows.table.filter(~gone)) if gone.any() else rows
        numbers[~gone] = self._numbers(some, column)
        alone = int(gone.sum())
        numbers[gone] = -1 - self.alone_before - np.arange(alone)
        self.alone_before += alone
        return numbers

    def _numbers(self, rows: Rows, column: str) -> NDArray[np.int64]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(rows):
            return np.empty(0, np.int64)
        if not self.as_text:
            found = whole_ids(rows, column, -(2**63) if self.own and self.alone else 0)
            if found is not None and found.max(initial=0) <= self.largest:
                return found
            self.as_text = True
            raise NotWhole
        values = plain(rows.table.column(column))
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            rows.refuse(
                0, column, "an id as a number or text", f"the column holds {str(values.type)[:SHOWN]}: name another"
            )
        text = pc.fill_null(pc.cast(values, pa.string()), "")
        coded = text.dictionary_encode()
        places = np.empty(len(coded.dictionary), np.int64)
        for at, name in enumerate(coded.dictionary.to_pylist()):
            places[at] = self.names.setdefault(name, len(self.names))
            if len(name) > MAX_NAME:
                row = int(np.argmax(np.asarray(coded.indices) == at))
                rows.refuse(row, column, f"an id of at most {MAX_NAME:,} characters", "name another column")
        if len(self.names) > MAX_NAMES:
            got = f"more in {rows.source}, column {column!r}"
            raise OptionError(f"at most {MAX_NAMES:,} different ids that are no numbers", got, "leave the column out")
        return np.asarray(places[np.asarray(coded.indices)])
