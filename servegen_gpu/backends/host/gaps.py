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
from servegen_gpu.law.variates import (
    GammaConstants,
    equilibrium_constants,
    gamma_constants,
    log_weibull,
    try_log_gamma,
)
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells


@dataclass(frozen=True, eq=False)
class Laws:
    """Gap laws that cells share: those of the profiles in the rows of a slab, or of each cell where that is fewer.

    Attributes
    ----------
    is_gamma : bool[laws]
    shape : float64[laws]
    """

    is_gamma: NDArray[np.bool_]
    shape: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellLaw(Addresses):
    """What drawing gaps needs of every cell, beside its address.

    Attributes
    ----------
    is_gamma : bool[cells]
    shape, inverse_shape : float64[cells]
    gamma : GammaConstants
        float64[cells] each.
    laws : Laws
    of : int64[cells]
        Which of the laws each cell has.
    """

    is_gamma: NDArray[np.bool_]
    shape: NDArray[np.float64]
    inverse_shape: NDArray[np.float64]
    gamma: GammaConstants
    laws: Laws
    of: NDArray[np.int64]

    def take(self, index: NDArray[np.integer]) -> CellLaw:
        """The law of some cells."""
        names = ("client", "window", "is_gamma", "shape", "inverse_shape", "of")
        some = {name: getattr(self, name)[index] for name in names}
        return CellLaw(key=self.key, gamma=self.gamma.take(index), laws=self.laws, **some)


def cells_in(cell: NDArray[np.int32], a: int, b: int) -> Index:
    """Index of per-cell constants for requests a … b − 1: a block inside one cell uses them without repeating them."""
    return slice(cell[a], cell[a] + 1) if cell[a] == cell[b - 1] else cell[a:b]


def cell_law(packed: PackedWorkload, key: Key, cells: Cells) -> CellLaw:
    """Gather the law of every cell from the profiles."""
    used = np.zeros(packed.shape.shape[1], np.bool_)
    used[cells.row] = True
    rows = np.flatnonzero(used)
    if len(packed.shape) * len(rows) < len(cells):  # clients share profiles
        laws = Laws(packed.is_gamma[:, rows].ravel(), packed.shape[:, rows].ravel())
        of = cells.profile * len(rows) + (np.cumsum(used) - 1)[cells.row]
    else:
        at = (cells.profile, cells.row)
        laws, of = Laws(packed.is_gamma[at], packed.shape[at]), np.arange(len(cells))
    return CellLaw(
        key=key,
        client=packed.client_id[cells.client],
        window=cells.number,
        is_gamma=laws.is_gamma[of],
        shape=laws.shape[of],
        inverse_shape=(1.0 / laws.shape)[of],
        gamma=gamma_constants(np, laws.shape).take(of),
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

    def first_attempt(a: int, b: int) -> NDArray[np.int64]:
        at = cells_in(cell, a, b)
        is_gamma = law.is_gamma[at]
        if is_gamma.all():
            words = law.words(Purpose.GAP, at, ordinal[a:b])
            out[a:b], accepted = try_log_gamma(np, words, law.gamma.take(at))
            return a + np.flatnonzero(~accepted)
        if not is_gamma.any():
            words = law.words(Purpose.GAP, at, ordinal[a:b])
            out[a:b] = log_weibull(np, words, law.inverse_shape[at])
            return np.empty(0, np.int64)
        weibull, gamma = a + np.flatnonzero(~is_gamma), a + np.flatnonzero(is_gamma)
        words = law.words(Purpose.GAP, cell[weibull], ordinal[weibull])
        out[weibull] = log_weibull(np, words, law.inverse_shape[cell[weibull]])
        return _attempt(law, law.gamma, cell, ordinal, gamma, 0, out)

    _retry(law, law.gamma, cell, ordinal, for_blocks(len(cell), first_attempt), out)
    return out


def log_first_gaps(law: CellLaw) -> NDArray[np.float64]:
    """Logarithms of the first gaps of stationary renewal processes at scale 1, float64[cells]; ordinal 0."""
    constants, power = equilibrium_constants(np, law.laws.is_gamma, law.laws.shape)
    constants, power = constants.take(law.of), power[law.of]
    cell = np.arange(len(law.shape), dtype=np.int32)
    ordinal = np.zeros(len(cell), np.uint32)
    out = np.empty(len(cell))
    rejected = for_blocks(len(cell), lambda a, b: _attempt(law, constants, cell, ordinal, np.arange(a, b), 0, out))
    _retry(law, constants, cell, ordinal, rejected, out)
    out *= power
    return out


def _attempt(
    law: CellLaw,
    constants: GammaConstants,
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    chosen: NDArray[np.int64],
    attempt: int,
    out: NDArray[np.float64],
) -> NDArray[np.int64]:
    """One attempt at the chosen requests; writes what was accepted and returns the rest."""
    at = cell[chosen]
    words = law.words(Purpose.GAP, at, ordinal[chosen], item=attempt)
    log_gap, accepted = try_log_gamma(np, words, constants.take(at))
    out[chosen[accepted]] = log_gap[accepted]
    left: NDArray[np.int64] = chosen[~accepted]
    return left


def _retry(
    law: CellLaw,
    constants: GammaConstants,
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    rejected: list[NDArray[np.int64]],
    out: NDArray[np.float64],
) -> None:
    """Try again until all are accepted; rejects of all blocks are pooled, so that late attempts stay efficient."""
    for attempt in range(1, MAX_ATTEMPTS):
        left = np.concatenate(rejected) if rejected else np.empty(0, np.int64)
        if not len(left):
            return

        def again(a: int, b: int, attempt: int = attempt, left: NDArray[np.int64] = left) -> NDArray[np.int64]:
            return _attempt(law, constants, cell, ordinal, left[a:b], attempt, out)

        rejected = for_blocks(len(left), again)
    raise AssertionError("a gap was rejected 256 times: probability below 1e-330")
