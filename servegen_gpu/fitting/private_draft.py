"""A pool on its way to privacy: its profiles, and the requests behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import AXES, ClientPool
from servegen_gpu.request.tables import WORDS, Tables

IN_TIME = tuple(name for name, axes in AXES.items() if axes == ("profiles", "windows"))
OF_PROFILE = tuple(name for name, axes in AXES.items() if axes == ("profiles",))
"""Names of the tensors of a pool."""


@dataclass(frozen=True, eq=False)
class Counted:
    """Tables by the requests of their bins.

    Attributes
    ----------
    offsets : int64[tables + 1]
    values, counts : int64[bins]
    free : bool[tables]
        Tables of the pool that tell of nobody: of a few parameters, or without a request.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    free: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.free)

    def totals(self) -> NDArray[np.int64]:
        """Requests of each table, int64[tables]."""
        return np.diff(np.concatenate(([0], np.cumsum(self.counts)))[self.offsets])

    def select(self, tables: NDArray[np.int64]) -> Counted:
        """Some of the tables, in the given order."""
        sizes = self.offsets[tables + 1] - self.offsets[tables]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        bins = np.arange(offsets[-1]) + np.repeat(self.offsets[tables] - offsets[:-1], sizes)
        return Counted(offsets, self.values[bins], self.counts[bins], self.free[tables])

    def with_tables(self, more: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Counted:
        """With more tables behind these."""
        sizes = [len(values) for values, _ in more]
        return Counted(
            np.concatenate((self.offsets, self.offsets[-1] + np.cumsum(sizes, dtype=np.int64))),
            np.concatenate([self.values, *(values for values, _ in more)]),
            np.concatenate([self.counts, *(counts for _, counts in more)]),
            np.append(self.free, np.zeros(len(more), np.bool_)),
        )

    def joint(self, part: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Values and counts of all tables together, of each the given part of its requests, float64[tables]."""
        tables = np.flatnonzero(part)
        some = self.select(tables)
        values, at = np.unique(some.values, return_inverse=True)
        counts = np.bincount(at, np.repeat(part[tables], np.diff(some.offsets)) * some.counts)
        counts = np.rint(counts).astype(np.int64)
        kept = counts > 0
        return (values[kept], counts[kept]) if kept.any() else (values, counts)


@dataclass(frozen=True, eq=False)
class Draft:
    """Profiles of a pool, and requests behind them.

    Attributes
    ----------
    profile : int32[clients]
    rows : dict of str to array
        Tensors of the pool with the axis of profiles, but for `table`.
    table : int64[profiles, windows, fields]
        Row of `counted`.
    counted : Counted
    tables : Tables
        Of the pool as it was: the first of `counted`.
    requests : int64[profiles, windows]
    """

    profile: NDArray[np.int32]
    rows: dict[str, NDArray[Any]]
    table: NDArray[np.int64]
    counted: Counted
    tables: Tables
    requests: NDArray[np.int64]

    @classmethod
    def of(cls, pool: ClientPool, bins: NDArray[np.integer], requests: NDArray[np.integer]) -> Draft:
        """Of a pool and the requests behind its bins (below 0 where nobody is) and windows."""
        tables, bins = pool.tables, np.asarray(bins, np.int64)
        sizes = np.diff(tables.offsets)
        free = (np.minimum.reduceat(bins, tables.offsets[:-1]) < 0) | (
            np.maximum.reduceat(bins, tables.offsets[:-1]) <= 0
        )
        behind: NDArray[np.int64] = np.asarray(requests, np.int64)
        drawn = sum(by_table(pool.table, behind, lane, len(tables)) for lane in range(len(pool.fields)))
        of_parameters = np.rint(tables.widths() / WORDS * np.repeat(drawn, sizes)).astype(np.int64)
        counts = np.where(np.repeat(free, sizes), of_parameters, bins)
        counted = Counted(tables.offsets, tables.values.astype(np.int64), counts, free)
        rows = {name: getattr(pool, name) for name in (*IN_TIME, *OF_PROFILE)}
        return cls(pool.profile, rows, pool.table.astype(np.int64), counted, tables, behind)


def by_table(table: NDArray[np.integer], requests: NDArray[Any], lane: int, tables: int) -> NDArray[np.float64]:
    """Requests that draw a field from each table, float64[tables]; windows without a table draw none."""
    rows = table[..., lane]
    some = rows >= 0
    return np.bincount(rows[some], requests[some].astype(np.float64), minlength=tables).astype(np.float64)
