"""What is known of a slab's cells, and runs of their requests: what all backends on the host talk about.

Notation as in ``law/position.py``: S_j, G, V, f. Axes: cells, runs (consecutive requests of one cell), requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.gaps import CellLaw, cell_law, log_first_gaps
from servegen_gpu.blocks import for_blocks
from servegen_gpu.law.address import Key, Purpose, draw
from servegen_gpu.law.elementary import log
from servegen_gpu.law.position import RENEWAL_BITS, tick_bits
from servegen_gpu.law.variates import gap_ticks
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells
from servegen_gpu.rules import CountRule

WINDOW_TICKS = 1 << RENEWAL_BITS


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of consecutive requests.

    Attributes
    ----------
    cell : int64[runs]
    first : int64[runs]
        Ordinal of the first request.
    count : int64[runs]
        Positive.
    before : int64[runs]
        Ticks of all gaps of the cell before the run.
    """

    cell: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    before: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Runs:
        """The runs at `index`."""
        return Runs(self.cell[index], self.first[index], self.count[index], self.before[index])

    def starts(self) -> NDArray[np.int64]:
        """Where each run begins among the requests of all runs."""
        return np.cumsum(self.count) - self.count

    def requests(self) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Cell int32[requests] and ordinal uint32[requests] of every request, run after run."""
        cell = np.repeat(self.cell.astype(np.int32), self.count)
        ordinal = np.arange(len(cell), dtype=np.uint32)
        ordinal += np.repeat((self.first - self.starts()).astype(np.uint32), self.count)  # modulo 2**32
        return cell, ordinal


@dataclass(frozen=True, eq=False)
class CellState:
    """What is known of every cell; drawing fills in what it finds (arrays of cells).

    Attributes
    ----------
    cells : Cells
    law : CellLaw
    rule : uint8
        `CountRule`.
    count : int64
        Gaps of the cell; unknown, and 0, for a renewal cell.
    rotation : int64
        V.
    occupancy : float64
        f.
    log_unit, ticks_per_unit : float64
        What a gap is measured in: the cell's largest gap (once found), or the window for a renewal cell.
    ticks_in_all : int64
        G (once found).
    first_ticks : int64
        Time to the first arrival of a renewal cell.
    """

    cells: Cells
    law: CellLaw
    rule: NDArray[np.uint8]
    count: NDArray[np.int64]
    rotation: NDArray[np.int64]
    occupancy: NDArray[np.float64]
    log_unit: NDArray[np.float64]
    ticks_per_unit: NDArray[np.float64]
    ticks_in_all: NDArray[np.int64]
    first_ticks: NDArray[np.int64]


def begin(packed: PackedWorkload, key: Key, cells: Cells) -> CellState:
    """Draw what is drawn once per cell: counts, rotations, first arrivals. Cells that stay empty are left out."""
    renewal = packed.count_rule[cells.profile] == CountRule.RENEWAL
    count, rotation = np.zeros((2, len(cells)), np.int64)
    first_ticks = np.full(len(cells), WINDOW_TICKS)
    if not renewal.all():
        count, rotation = _counts(packed, key, cells, packed.count_rule[cells.profile])
        count[renewal] = rotation[renewal] = 0
    if len(chosen := np.flatnonzero(renewal)):
        some = cells if len(chosen) == len(cells) else cells.take(chosen)
        first = log_first_gaps(cell_law(packed, key, some))
        first_ticks[chosen] = gap_ticks(np, first, _log_mean_gap(packed, some), float(WINDOW_TICKS))
    kept = np.flatnonzero(np.where(renewal, first_ticks < WINDOW_TICKS, count > 0))
    return state_of(packed, key, cells.take(kept), count[kept], rotation[kept], first_ticks[kept])


def state_of(
    packed: PackedWorkload,
    key: Key,
    cells: Cells,
    count: NDArray[np.int64],
    rotation: NDArray[np.int64],
    first_ticks: NDArray[np.int64],
) -> CellState:
    """What is known of cells, from what was drawn once for each (attributes of `CellState`)."""
    rule = packed.count_rule[cells.profile]
    renewal = rule == CountRule.RENEWAL
    return CellState(
        cells=cells,
        law=cell_law(packed, key, cells),
        rule=rule,
        count=count,
        rotation=rotation,
        occupancy=packed.occupancy[cells.profile, cells.row],
        log_unit=_log_mean_gap(packed, cells),
        ticks_per_unit=np.ldexp(1.0, np.where(renewal, RENEWAL_BITS, tick_bits(np, np.maximum(count, 1)))),
        ticks_in_all=np.where(renewal, WINDOW_TICKS, 0),
        first_ticks=first_ticks,
    )


def _log_mean_gap(packed: PackedWorkload, cells: Cells) -> NDArray[np.float64]:
    """Logarithm of the window in units of the gap family at scale 1, float64[cells]."""
    expected = cells.expected_q32.astype(np.float64) * 2.0**-32
    found: NDArray[np.float64] = packed.log_mean_gap[cells.profile, cells.row] + log(np, expected)
    return found


def _counts(
    packed: PackedWorkload, key: Key, cells: Cells, rule: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts and rotations, int64[cells] each; those of renewal cells mean nothing."""
    count, rotation = np.empty(len(cells), np.int64), np.empty(len(cells), np.int64)
    client, window = packed.client_id[cells.client], cells.number

    def block(a: int, b: int) -> None:
        words = draw(np, key, Purpose.COUNT, ordinal=0, client=client[a:b], window=window[a:b])
        # unbiased rounding, floor(r T + U); the servegen rule rounds up
        rounding = np.where(rule[a:b] == CountRule.SERVEGEN, 2**32 - 1, words[0].astype(np.int64))
        count[a:b] = (cells.expected_q32[a:b] + rounding) >> 32
        rotation[a:b] = words[1].astype(np.int64)

    for_blocks(len(cells), block)
    return count, rotation


def pieces(runs: Runs, limit: int) -> Iterator[slice]:
    """Consecutive runs of about `limit` requests together."""
    ends = np.cumsum(runs.count)
    a = 0
    while a < len(runs):
        done = int(ends[a - 1]) if a else 0
        b = max(a + 1, int(np.searchsorted(ends, done + limit, side="right")))
        yield slice(a, b)
        a = b
