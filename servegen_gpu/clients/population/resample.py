"""Any number of clients drawn from a pool, with its skew."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import MAX_CLIENTS, ClientPool
from servegen_gpu.clients.population.strata import uniforms
from servegen_gpu.clients.stated.diurnal import settled
from servegen_gpu.errors import OptionError
from servegen_gpu.law.elementary import exp, normal_quantile

STRATA = 16
MAX_JITTER = 3.0


def resample(pool: ClientPool, clients: int, seed: int = 0, jitter: float = 0.0) -> ClientPool:
    """Draw clients from a pool, with replacement, so that rates are as unequal as in the pool.

    Client j of n, the largest being client 0, sends what the pool's clients between the parts j / n and (j + 1) / n,
    in descending order of requests, send together. What it is like, it has from a client of the pool: one of those
    in the same sixteenth of the requests, drawn by how much each of them sends there.

    Parameters
    ----------
    pool : ClientPool
        Released, fitted or your own.
    clients : int
        How many: fewer or more than the pool has.
    seed : int
        From 0 to 2**64 - 1: decides who is drawn.
    jitter : float
        Standard deviation of the natural logarithm of a factor on each client's rate, 0 to 3.

    Returns
    -------
    ClientPool
        Ids 0, 1, 2, …; the same number of requests as `pool`. Its profiles are those of `pool`.
    """
    whole = isinstance(clients, int | np.integer) and not isinstance(clients, bool)
    if not whole or not 1 <= clients <= MAX_CLIENTS:
        raise OptionError(f"from 1 to {MAX_CLIENTS:,} clients", repr(clients), "change clients")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise OptionError("a seed from 0 to 2**64 - 1", repr(seed), "change seed")
    real = isinstance(jitter, int | float | np.integer | np.floating) and not isinstance(jitter, bool)
    if not real or not 0 <= jitter <= MAX_JITTER:
        raise OptionError(f"a jitter from 0 to {MAX_JITTER:g}", repr(jitter), "change jitter")

    mean = np.array([math.fsum(row.tolist()) / len(row) for row in pool.rate_rps])
    rate = pool.rate_factor * mean[pool.profile]
    order = np.lexsort((pool.client_ids, -rate))
    order = order[rate[order] > 0]
    if not len(order):
        raise OptionError("a pool with requests", "silence throughout", "give another pool")
    ids = np.arange(int(clients), dtype=np.int64)
    wanted = _between(rate[order], int(clients))
    source = order[_like(rate[order], wanted, uniforms(int(seed), 0, ids))]
    if jitter:
        z = normal_quantile(np, uniforms(int(seed), 1, ids) * (1 - 2.0**-30) + 2.0**-31)
        jittered = settled(wanted * exp(np, jitter * z))
        wanted = jittered * (math.fsum(wanted.tolist()) / math.fsum(jittered.tolist()))
    return replace(
        pool,
        client_ids=ids,
        profile=pool.profile[source],
        rate_factor=wanted / mean[pool.profile[source]],
    )


def _between(rate: NDArray[np.float64], clients: int) -> NDArray[np.float64]:
    """What clients between the parts j / n and (j + 1) / n send together, float64[n]; `rate` is descending."""
    sent = np.concatenate(([0.0], np.cumsum(rate)))
    at = np.arange(clients + 1) * (len(rate) / clients)
    return np.asarray(np.diff(np.interp(at, np.arange(len(rate) + 1), sent)))


def _like(rate: NDArray[np.float64], wanted: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which client of the pool, by rank, each new one is like."""
    sent = np.cumsum(rate)
    middle = (np.cumsum(wanted) - wanted / 2) / sent[-1]
    stratum = np.clip((middle * STRATA).astype(np.int64), 0, STRATA - 1)
    place = (stratum + uniform) / STRATA * sent[-1]
    return np.asarray(np.minimum(np.searchsorted(sent, place, side="right"), len(rate) - 1), np.int64)
