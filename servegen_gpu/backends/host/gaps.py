"""Log-gaps of many requests at once: the law's variates in blocks, rejection by compaction.

Axes: cells, requests (of one call; any selection, each with its cell and its ordinal).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.addresses import Addresses, Index
from servegen_gpu.blocks import for_blocks
from servegen_gpu.law.address import MAX_ATTEMPTS, Key, Purpose
from servegen_gpu.law.variates import GapConstants, equilibrium_constants, gap_constants, try_log_gap
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells
from servegen_gpu.request.families import FIRST_DRAWS


@dataclass(frozen=True, eq=False)
class Laws:
    """Gap laws that cells share: those of the profiles in the rows of a slab, or of each cell where that is fewer.

    Attributes
    ----------
    family : uint8[laws]
        Code of the draw.
    shape : float64[laws]
    """

    family: NDArray[np.uint8]
    shape: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellLaw(Addresses):
    """What drawing gaps needs of every cell, beside its address.

    Attributes
    ----------
    family : uint8[cells]
        Code of the draw.
    shape : float64[cells]
    constants : GapConstants
        float64[cells] each.
    laws : Laws
    of : int64[cells]
        Which of the laws each cell has.
    """

    family: NDArray[np.uint8]
    shape: NDArray[np.float64]
    constants: GapConstants
    laws: Laws
    of: NDArray[np.int64]

    def take(self, index: NDArray[np.integer]) -> CellLaw:
        """The law of some cells."""
        some = {name: getattr(self, name)[index] for name in ("client", "window", "family", "shape", "of")}
        return CellLaw(key=self.key, constants=self.constants.take(index), laws=self.laws, **some)


def cells_in(cell: NDArray[np.int32], a: int, b: int) -> Index:
    """Index of per-cell constants for requests a … b − 1: a block inside one cell uses them without repeating them."""
    return slice(cell[a], cell[a] + 1) if cell[a] == cell[b - 1] else cell[a:b]


def cell_law(packed: PackedWorkload, key: Key, cells: Cells) -> CellLaw:
    """Gather the law of every cell from the profiles."""
    used = np.zeros(packed.shape.shape[1], np.bool_)
    used[cells.row] = True
    rows = np.flatnonzero(used)
    if len(packed.shape) * len(rows) < len(cells):  # clients share profiles
        laws = Laws(packed.family[:, rows].ravel(), packed.shape[:, rows].ravel())
        of = cells.profile * len(rows) + (np.cumsum(used) - 1)[cells.row]
    else:
        at = (cells.profile, cells.row)
        laws, of = Laws(packed.family[at], packed.shape[at]), np.arange(len(cells))
    return CellLaw(
        key=key,
        client=packed.client_id[cells.client],
        window=cells.number,
        family=laws.family[of],
        shape=laws.shape[of],
        constants=gap_constants(np, laws.family, laws.shape).take(of),
        laws=laws,
        of=of,
    )


def log_gaps(law: CellLaw, cell: NDArray[np.int32], ordinal: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Logarithms of gaps at scale 1.

    Parameters
    ----------
    law : CellLaw
    cell : int32[requests]
        Non-decreasing.
    ordinal : uint32[requests]

    Returns
    -------
    float64[requests]
    """
    out = np.empty(len(cell))
    task = _Task(law, law.family, law.constants, cell, ordinal, out)

    def first_attempt(a: int, b: int) -> NDArray[np.int64]:
        at = cells_in(cell, a, b)
        draws = law.family[at]
        if (draws != draws[0]).any():
            return task.attempt(np.arange(a, b), 0)
        words = law.words(Purpose.GAP, at, ordinal[a:b])
        out[a:b], accepted = try_log_gap(np, int(draws[0]), words, law.constants.take(at))
        return np.empty(0, np.int64) if accepted is None else a + np.flatnonzero(~accepted)

    task.retry(for_blocks(len(cell), first_attempt))
    return out


def log_first_gaps(law: CellLaw) -> NDArray[np.float64]:
    """Logarithms of the first gaps of stationary renewal processes at scale 1, float64[cells]; ordinal 0."""
    constants, power = equilibrium_constants(np, law.laws.family, law.laws.shape)
    cell, ordinal = np.arange(len(law.shape), dtype=np.int32), np.zeros(len(law.shape), np.uint32)
    task = _Task(law, FIRST_DRAWS[law.family], constants.take(law.of), cell, ordinal, np.empty(len(cell)))
    task.retry(for_blocks(len(cell), lambda a, b: task.attempt(np.arange(a, b), 0)))
    task.out[:] *= power[law.of]
    return task.out


@dataclass(frozen=True, eq=False)
class _Task:
    """Gaps that are to be drawn into `out`, float64[requests], by the draws uint8[cells] with their constants."""

    addresses: Addresses
    draws: NDArray[np.uint8]
    constants: GapConstants
    cell: NDArray[np.int32]
    ordinal: NDArray[np.uint32]
    out: NDArray[np.float64]

    def attempt(self, chosen: NDArray[np.int64], attempt: int) -> NDArray[np.int64]:
        """One attempt at the chosen requests, draw by draw; returns those that were rejected."""
        draws, left = self.draws[self.cell[chosen]], [np.empty(0, np.int64)]
        for draw in np.unique(draws):
            some = chosen[draws == draw]
            at = self.cell[some]
            words = self.addresses.words(Purpose.GAP, at, self.ordinal[some], item=attempt)
            self.out[some], accepted = try_log_gap(np, int(draw), words, self.constants.take(at))
            if accepted is not None:
                left.append(some[~accepted])
        return np.concatenate(left)

    def retry(self, rejected: list[NDArray[np.int64]]) -> None:
        """Try again until all are accepted; rejects of all blocks are pooled, so that late attempts stay efficient."""
        for attempt in range(1, MAX_ATTEMPTS):
            left = np.concatenate(rejected) if rejected else np.empty(0, np.int64)
            if not len(left):
                return

            def again(a: int, b: int, attempt: int = attempt, left: NDArray[np.int64] = left) -> NDArray[np.int64]:
                return self.attempt(left[a:b], attempt)

            rejected = for_blocks(len(left), again)
        raise AssertionError("a gap was rejected 256 times: probability below 1e-330")
