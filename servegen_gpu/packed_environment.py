"""Environments of a pool as tensors: what a packed workload needs to make them real for a replica.

Axes: profiles, rows (environments), octaves, knots (of all margins together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import need, need_within
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.stated.environment import Margin
from servegen_gpu.law.environment import BY_CLIENT, BY_GROUP, BY_NUMBER, MAX_OCTAVE

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

    def check(self, profiles: int, window_us: int) -> None:
        """Refuse what no environments pack to; raises a `ValueError`."""
        rows, knots = len(self.cell_us), self.knots
        for name in ("cell_us", "number", "each", "common", "zero"):
            need(getattr(self, name).shape == (rows,), f"environment.{name} of shape", getattr(self, name).shape)
        need(self.row.shape == (profiles,), "environment.row of shape", self.row.shape)
        need_within(self.row, -1, rows - 1, "environment.row")
        need(self.weights.ndim == 2 and len(self.weights) == rows, "weights of shape", self.weights.shape)
        need(0 < self.weights.shape[1] <= MAX_OCTAVE + 1, "weights of octaves", self.weights.shape)
        need_within(self.weights, 0, 1, "weights")
        need_within(self.weights.sum(axis=1), 0.999999, 1.000001, "weights with a sum of")
        need_within(self.cell_us, 1000, 1e15, "cell_us")
        fits = (self.cell_us % window_us == 0) | (window_us % self.cell_us == 0)
        need(fits.all(), "cell_us that does not fit windows of", window_us)
        need_within(self.number, 0, 2**31 - 1, "number")
        need_within(self.each, 0, max(EACH.values()), "each")
        need_within(self.common, 0, 1, "common")
        need_within(self.zero, 0, 1, "zero")
        need(knots.shape == (rows + 1,) and self.at.ndim == 1, "knots of shape", knots.shape)
        need(self.at.shape == self.values.shape, "values of shape", self.values.shape)
        need(knots[0] == 0 and knots[-1] == len(self.at) and (knots[1:] > knots[:-1]).all(), "knots", knots[-1])
        for r in range(rows):
            own = slice(int(knots[r]), int(knots[r + 1]))
            made = Margin(self.at[own], self.values[own], float(self.zero[r]))
            need(np.array_equal(made.values, self.values[own]), "values", "of a margin without a mean of 1")


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
