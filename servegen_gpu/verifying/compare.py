"""Where two streams of rows differ first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from servegen_gpu.formats.recorded import TraceFile
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.trace import Trace

MOST_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """Where a trace is not what it should be.

    Attributes
    ----------
    file : path
    row : int or None
        Of the file, from 0 on; None if all of it is meant.
    what : str
        A column, or what else differs.
    found, expected : str
    """

    file: str | os.PathLike[str]
    row: int | None
    what: str
    found: str
    expected: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row:,}"
        return f"{self.file}{row}: {self.what} {self.found} instead of {self.expected}"


def compared(
    path: str | os.PathLike[str],
    found: Iterable[tuple[TraceFile, Trace]],
    expected: Iterable[Trace],
    may_end: bool = False,
) -> tuple[int, Difference | None]:
    """How many rows are the same, and the first difference.

    Parameters
    ----------
    path : path
        Of the whole trace.
    found : iterable of TraceFile and Trace
        Slabs of files, numbered by their rows in the file.
    expected : iterable of Trace
    may_end : bool
        More may be expected than is found, behind the last row of a file.
    """
    rows, last = 0, None
    theirs = _pieces(expected)
    wanted = next(theirs, None)
    for file, slab in found:
        at, last = 0, (file, slab.first_row + len(slab))
        while at < len(slab):
            if wanted is None:
                return rows, Difference(file.path, slab.first_row + at, "rows", "go on", "the end of the trace")
            n = min(len(slab) - at, len(wanted))
            if difference := _first(file, slab.rows(at, at + n), wanted.rows(0, n)):
                assert difference.row is not None
                return rows + difference.row - slab.first_row - at, difference
            rows, at = rows + n, at + n
            wanted = wanted.rows(n, len(wanted)) if n < len(wanted) else next(theirs, None)
        del slab  # not kept while the next one is read
    if wanted is None or (may_end and last is not None and last[1] == last[0].rows):
        return rows, None
    where, row = (path, None) if last is None else (last[0].path, last[1])
    return rows, Difference(where, row, "rows", "end", f"one more at {wanted['arrival_us'][0] / 1e6:.6f} s")


def _pieces(slabs: Iterable[Trace]) -> Iterator[Trace]:
    """Slabs that have rows."""
    for slab in slabs:
        if len(slab):
            yield slab


def _first(file: TraceFile, found: Trace, expected: Trace) -> Difference | None:
    """The first difference of two slabs of as many rows."""
    for name in dict.fromkeys((*expected, *found)):
        if name not in found or name not in expected:
            has = ("no", "one") if name not in found else ("there", "none")
            return Difference(file.path, found.first_row, f"column {name}:", *has)
    rows = {name: _first_row(found[name], expected[name]) for name in expected}
    differing = [(row, at, name) for at, (name, row) in enumerate(rows.items()) if row is not None]
    if not differing:
        return None
    row, _, name = min(differing)
    values = (_shown(column, row) for column in (found[name], expected[name]))
    return Difference(file.path, found.first_row + row, name, *values)


def _first_row(found: Column, expected: Column) -> int | None:
    """The first row in which two columns differ."""
    if isinstance(found, Ragged) != isinstance(expected, Ragged):
        return 0
    if isinstance(found, Ragged) and isinstance(expected, Ragged):
        if (row := _first_of(found.lengths, expected.lengths)) is None:
            row = len(found)
        ends = found.offsets[row]  # lists have the same lengths before
        item = _first_of(found.values[:ends], expected.values[:ends])
        if item is not None:
            return int(np.searchsorted(found.offsets, item, side="right")) - 1
        return row if row < len(found) else None
    return _first_of(found, expected)


def _first_of(found: Any, expected: Any) -> int | None:
    if np.array_equal(found, expected):
        return None
    return int(np.argmax(found != expected))


def _shown(column: Column, row: int) -> str:
    text = str(column[row].tolist())
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
