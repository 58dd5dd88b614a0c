"""One client of a pool, seen window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.families import FAMILY_NAMES

if TYPE_CHECKING:
    from servegen_gpu.clients.pool import ClientPool


@dataclass(frozen=True, eq=False)
class Client:
    """One client, seen window by window.

    Attributes
    ----------
    id : int
    start_s : int64[windows]
        Where each window begins.
    rate_rps, cv, shape, occupancy : float64[windows]
    family : tuple of str
        Gap family by window, empty where the client is silent.
    """

    id: int
    start_s: NDArray[np.int64]
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    shape: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    family: tuple[str, ...]

    def __repr__(self) -> str:
        active = f"active in {np.count_nonzero(self.rate_rps):,} of {len(self.rate_rps):,} windows"
        return f"<Client {self.id}: {self.rate_rps.mean():.4g} req/s on average, {active}>"


def client_at(pool: ClientPool, at: int) -> Client:
    """The client in place `at` of a pool, from 0 on."""
    p = pool.profile[at]
    return Client(
        id=int(pool.client_ids[at]),
        start_s=(pool.first_window + np.arange(pool.windows)) * pool.window_s,
        rate_rps=pool.rate_rps[p] * pool.rate_factor[at],
        cv=pool.cv[p],
        shape=pool.shape[p],
        occupancy=pool.occupancy[p],
        family=tuple(FAMILY_NAMES[code] for code in pool.family[p]),
    )
