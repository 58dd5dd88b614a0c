"""Turns that wait for their time: in memory while they are few, in files while they are many.

Time is cut into *buckets*. Rows that come in go into the buckets of their arrivals; what is due goes out in the order
(arrival, conversation, turn). When the rows in memory pass their budget, the buckets furthest away go to files in a
temporary directory, each of which is read once and deleted.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OutputError
from servegen_gpu.request.columns import Columns, Ragged, concat, rows_between, size_bytes, take


class Carry:
    """Rows by the time of their arrival; a context manager that leaves no file behind.

    Parameters
    ----------
    bucket_us : int
    memory_bytes : int
        How much may be held in memory.
    """

    def __init__(self, bucket_us: int, memory_bytes: int) -> None:
        self._bucket_us, self._memory_bytes = bucket_us, memory_bytes
        self._held: dict[int, list[Columns]] = {}
        self._held_bytes = 0
        self._names: dict[str, bool] = {}  # of columns, in order; whether each holds lists
        self._files: dict[int, Path] = {}
        self._directory: Path | None = None

    def __enter__(self) -> Carry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def add(self, rows: Columns) -> None:
        """Take rows in, in any order; none of them may be due already."""
        self._names = self._names or {name: isinstance(column, Ragged) for name, column in rows.items()}
        bucket = np.asarray(rows["arrival_us"]) // self._bucket_us
        order = np.argsort(bucket, kind="stable")
        numbers, begins = np.unique(bucket[order], return_index=True)
        for number, a, b in zip(numbers.tolist(), begins, np.append(begins[1:], len(order)), strict=False):
            self._put(number, take(rows, order[a:b]))  # in memory of their own: the rest may go
        if self._held_bytes > self._memory_bytes:
            try:
                self._spill()
            except OSError as error:
                raise OutputError(
                    "room in temporary files for turns that wait",
                    f"{error.strerror or error}: {self._directory or tempfile.gettempdir()}",
                    "allow more memory, or name a larger disk in TMPDIR",
                ) from error

    def due(self, until_us: int | None) -> Columns | None:
        """Take out the rows that arrive before a time, or all of them, in order; None if there are none."""
        last = None if until_us is None else until_us // self._bucket_us
        numbers = sorted(n for n in {*self._held, *self._files} if last is None or n <= last)
        parts = [part for n in numbers for part in self._pop(n)]
        if not parts:
            return None
        rows = concat(parts) if len(parts) > 1 else parts[0]
        arrival_us = np.asarray(rows["arrival_us"])
        order = np.lexsort((np.asarray(rows["turn"]), np.asarray(rows["conversation"]), arrival_us))
        rows = take(rows, order)
        if until_us is None or last is None:
            return rows
        edge = int(np.searchsorted(np.asarray(rows["arrival_us"]), until_us))
        if edge < len(arrival_us):
            self._put(last, take(rows, np.arange(edge, len(arrival_us))))
        return rows_between(rows, 0, edge) if edge else None

    def _put(self, bucket: int, rows: Columns) -> None:
        self._held.setdefault(bucket, []).append(rows)
        self._held_bytes += size_bytes(rows)

    def _pop(self, bucket: int) -> list[Columns]:
        parts = self._held.pop(bucket, [])
        self._held_bytes -= sum(map(size_bytes, parts))
        path = self._files.pop(bucket, None)
        return parts if path is None else [*self._read(path), *parts]

    def _spill(self) -> None:
        """Move the buckets furthest away to files until half of the budget is free; the nearest one stays."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="servegen_gpu-"))
        for bucket in sorted(self._held)[:0:-1]:
            if self._held_bytes <= self._memory_bytes // 2:
                return
            parts = self._held.pop(bucket)
            path = self._files.setdefault(bucket, self._directory / f"{bucket}.bin")
            rows = concat(parts) if len(parts) > 1 else parts[0]
            with path.open("ab") as file:
                for array in _arrays(rows):
                    np.save(file, array, allow_pickle=False)
            self._held_bytes -= sum(map(size_bytes, parts))

    def _read(self, path: Path) -> list[Columns]:
        parts: list[Columns] = []
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                columns: Columns = {}
                for name, lists in self._names.items():
                    arrays: list[NDArray[Any]] = [np.load(file, allow_pickle=False) for _ in range(1 + lists)]
                    columns[name] = Ragged(*arrays) if lists else arrays[0]
                parts.append(columns)
        path.unlink()
        return parts


def _arrays(rows: Columns) -> list[NDArray[Any]]:
    arrays: list[NDArray[Any]] = []
    for column in rows.values():
        arrays += [column.offsets, column.values] if isinstance(column, Ragged) else [column]
    return arrays
