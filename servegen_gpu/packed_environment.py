"""Environments of a pool as tensors: what a packed workload needs to make them real for a replica.

Axes: profiles, rows (environments), octaves, knots (of all margins together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.law.environment import BY_CLIENT, BY_GROUP, BY_NUMBER

EACH = {"pool": BY_NUMBER, "group": BY_GROUP, "client": BY_CLIENT}


@dataclass(frozen=True, eq=False)
class PackedEnvironment:
    """Environments, ready to be made real with a key.

    Attributes
    ----------
    row : int64[profiles]
        Which environment moves a profile's clients; -1 for none.
    cell_us : int64[rows]
    number : int64[rows]
    each : uint8[rows]
        `BY_NUMBER`, `BY_GROUP` or `BY_CLIENT`: who has a process of its own.
    common : float64[rows]
        Share of the variance in common with all of the same number.
    weights : float64[rows, octaves]
        From octave 0 on; 0 where there is none.
    zero : float64[rows]
    knots : int64[rows + 1]
        Margin r owns ``at[knots[r]:knots[r + 1]]``.
    at, values : float64[knots]
    """

    row: NDArray[np.int64]
    cell_us: NDArray[np.int64]
    number: NDArray[np.int64]
    each: NDArray[np.uint8]
    common: NDArray[np.float64]
    weights: NDArray[np.float64]
    zero: NDArray[np.float64]
    knots: NDArray[np.int64]
    at: NDArray[np.float64]
    values: NDArray[np.float64]

    def octaves(self, row: int) -> dict[int, float]:
        """Weights of an environment by octave."""
        return {k: float(w) for k, w in enumerate(self.weights[row]) if w > 0}


def pack_environment(pool: ClientPool) -> PackedEnvironment | None:
    """Pack the environments of a pool; None if they move nobody."""
    row = np.full(len(pool.rate_rps), -1, np.int64)
    row[pool.profile] = pool.environment[pool.profile]
    if not (row >= 0).any():
        return None
    rows = pool.environments
    weights = np.zeros((len(rows), 1 + max(max(each.octaves) for each in rows)))
    for r, each in enumerate(rows):
        weights[r, list(each.octaves)] = list(each.octaves.values())
    return PackedEnvironment(
        row=row,
        cell_us=np.array([each.cell_us for each in rows], np.int64),
        number=np.array([each.number for each in rows], np.int64),
        each=np.array([EACH[each.each] for each in rows], np.uint8),
        common=np.array([each.common for each in rows]),
        weights=weights,
        zero=np.array([each.margin.zero for each in rows]),
        knots=np.cumsum([0] + [len(each.margin.at) for each in rows]),
        at=np.concatenate([each.margin.at for each in rows]),
        values=np.concatenate([each.margin.values for each in rows]),
    )
