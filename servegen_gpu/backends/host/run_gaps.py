"""Gaps of runs, summed: what a survey is told by a backend, wherever that draws them.

Axes: runs (consecutive requests of one cell), chunks (of runs), requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, CellState, Runs

CHUNK = 256
"""Requests between two remembered sums of a survey, at least."""
MOST_SUMS = 1 << 17
"""Sums that a survey remembers, about: more requests have longer chunks."""


class Gaps(Protocol):
    """Drawing the gaps of runs: what the rest of this module is told from outside."""

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        ...

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        ...

    def renewals(self, state: CellState, runs: Runs, chunk: int) -> Renewals:
        """How far runs of renewal cells come, each of which begins inside its window."""
        ...


@dataclass(frozen=True, eq=False)
class Renewals:
    """How far runs of renewal cells come.

    Attributes
    ----------
    inside : int64[runs]
        Requests before the window's end.
    last : int64[runs]
        Ticks of the cell up to the end of the run.
    chunks : Runs
        The requests inside, a chunk at a time at most.
    after : int64[chunks]
        Ticks of the cell up to the end of the chunk.
    """

    inside: NDArray[np.int64]
    last: NDArray[np.int64]
    chunks: Runs
    after: NDArray[np.int64]


class SummedGaps(Protocol):
    """Gaps whose sums are all on the host."""

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]."""
        ...

    def renewals(self, state: CellState, runs: Runs, chunk: int) -> Renewals:
        """How far runs of renewal cells come, each of which begins inside its window."""
        sums = self.sums(state, runs)
        inside, last = reached(runs, sums)
        return Renewals(inside, last, *cut(runs, inside, chunk, lambda at: sums[at]))


def chunk_of(state: CellState, limit: int) -> int:
    """Requests between two remembered sums: longer where there are many, so that sums take little memory.

    A part of the window draws up to two chunks of every cell in vain, so these stay below `limit` requests.
    """
    expected = float(state.cells.expected_q32.astype(np.float64).sum()) * 2.0**-32
    chunk = CHUNK
    while chunk * MOST_SUMS < expected and 4 * chunk * len(state.cells) <= limit:
        chunk *= 2
    return chunk


def reached(runs: Runs, sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Requests of every run before its window's end, and the ticks at its end, int64[runs] both."""
    starts = runs.starts()
    passed = np.append(np.flatnonzero(sums.view(np.uint64) >= WINDOW_TICKS), len(sums))
    inside = np.minimum(passed[np.searchsorted(passed, starts)] - starts, runs.count)
    return inside, sums[starts + runs.count - 1]


def cut(
    runs: Runs, inside: NDArray[np.int64], chunk: int, sums_at: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> tuple[Runs, NDArray[np.int64]]:
    """The first `inside` requests of runs in chunks, and the ticks at the end of each, which `sums_at` finds."""
    chunks = -(-inside // chunk)
    run = np.repeat(np.arange(len(runs)), chunks)
    offset = chunk * (np.arange(len(run)) - np.repeat(np.cumsum(chunks) - chunks, chunks))
    count = np.minimum(chunk, inside[run] - offset)
    after = sums_at(runs.starts()[run] + offset + count - 1)
    before = runs.before[run]
    further = np.flatnonzero(offset)
    before[further] = after[further - 1]
    return Runs(runs.cell[run], runs.first[run] + offset, count, before), after
