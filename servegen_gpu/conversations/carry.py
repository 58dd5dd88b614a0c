"""Turns that wait for their time: in memory while they are few, in files while they are many.

Time is cut into *buckets*. Rows that come in go into the buckets of their arrivals; what is due goes out in the order
(arrival, conversation, turn). When the rows in memory pass their budget, the buckets furthest away go to files in a
temporary directory, each of which is read once and deleted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from servegen_gpu.disk import scratch_directory
from servegen_gpu.errors import OutputError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.turn_rows import (
    TurnRows,
    arrays_of,
    arrivals,
    bytes_of,
    copied,
    first_rows,
    in_order,
    joined,
    rows_at,
)


class Carry:
    """Rows by the time of their arrival; a context manager that leaves no file behind.

    Parameters
    ----------
    bucket_us : int
    memory_bytes : int
        How much may be held in memory.
    ordered : callable
        Puts the rows of several parts in order.
    """

    def __init__(
        self, bucket_us: int, memory_bytes: int, ordered: Callable[[list[TurnRows]], TurnRows] = in_order
    ) -> None:
        self._bucket_us, self._memory_bytes, self._ordered = bucket_us, memory_bytes, ordered
        self._held: dict[int, list[TurnRows]] = {}
        self._held_bytes = 0
        self._names: dict[str, bool] = {}  # of columns, in order; whether each holds lists; none where rows are records
        self._files: dict[int, Path] = {}
        self._sizes: dict[Path, int] = {}  # of these files, in bytes
        self._directory: Path | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Carry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, rows: TurnRows) -> None:
        """Take rows in, in any order; none of them may be due already."""
        arrival_us = arrivals(rows)
        if not len(arrival_us):
            return
        if isinstance(rows, dict):
            self._names = self._names or {name: isinstance(column, Ragged) for name, column in rows.items()}
        if (arrival_us[1:] < arrival_us[:-1]).any():
            order = np.argsort(arrival_us, kind="stable")
            rows, arrival_us = rows_at(rows, order), arrival_us[order]
        numbers = np.arange(arrival_us[0] // self._bucket_us, arrival_us[-1] // self._bucket_us + 2)
        edges = np.searchsorted(arrival_us, numbers * self._bucket_us)
        for k in np.flatnonzero(np.diff(edges)):
            self._put(int(numbers[k]), copied(rows, edges[k], edges[k + 1]))  # of their own: the rest may go
        if self._held_bytes > self._memory_bytes:
            try:
                self._spill()
            except OSError as error:
                raise OutputError(
                    "room in temporary files for turns that wait",
                    f"{error.strerror or error}: {self._directory or tempfile.gettempdir()}",
                    "allow more memory, or name a larger disk in TMPDIR",
                ) from error

    def due(self, until_us: int | None) -> TurnRows | None:
        """Take out the rows that arrive before a time, or all of them, in order; None if there are none."""
        last = None if until_us is None else until_us // self._bucket_us
        numbers = sorted(n for n in {*self._held, *self._files} if last is None or n <= last)
        parts = [part for n in numbers for part in self._pop(n)]
        if not parts:
            return None
        rows = self._ordered(parts)
        del parts
        if until_us is None or last is None:
            return rows
        arrival_us = arrivals(rows)
        edge = int(np.searchsorted(arrival_us, until_us))
        if edge < len(arrival_us):
            self._put(last, copied(rows, edge, len(arrival_us)))
        return first_rows(rows, edge) if edge else None

    def _put(self, bucket: int, rows: TurnRows) -> None:
        self._held.setdefault(bucket, []).append(rows)
        self._held_bytes += bytes_of(rows)

    def _pop(self, bucket: int) -> list[TurnRows]:
        parts = self._held.pop(bucket, [])
        self._held_bytes -= sum(map(bytes_of, parts))
        path = self._files.pop(bucket, None)
        return parts if path is None else [*self._read(path), *parts]

    def _spill(self) -> None:
        """Move the buckets furthest away to files until half of the budget is free; the nearest one stays."""
        if self._directory is None:
            self._directory = self._stack.enter_context(scratch_directory())
        for bucket in sorted(self._held)[:0:-1]:
            if self._held_bytes <= self._memory_bytes // 2:
                return
            parts = self._held.pop(bucket)
            path = self._files.setdefault(bucket, self._directory / f"{bucket}.bin")
            with path.open("ab") as file:
                for array in arrays_of(joined(parts)):
                    np.save(file, array, allow_pickle=False)
                self._sizes[path] = file.tell()
            self._held_bytes -= sum(map(bytes_of, parts))

    def _read(self, path: Path) -> list[TurnRows]:
        try:
            size = path.stat().st_size
            if size != self._sizes[path]:
                raise ValueError(f"{size:,} bytes")
            parts = self._parts(path, size)
            path.unlink()
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(
                "temporary files as they were written",
                f"{path}, which had {self._sizes[path]:,} bytes: {error}",
                "let nothing else change files in TMPDIR, and run it again",
            ) from error
        return parts

    def _parts(self, path: Path, size: int) -> list[TurnRows]:
        parts: list[TurnRows] = []
        with path.open("rb") as file:
            while file.tell() < size:
                if not self._names:
                    parts.append(np.load(file, allow_pickle=False))
                    continue
                columns = {}
                for name, lists in self._names.items():
                    arrays = [np.load(file, allow_pickle=False) for _ in range(1 + lists)]
                    columns[name] = Ragged(*arrays) if lists else arrays[0]
                parts.append(columns)
        return parts
