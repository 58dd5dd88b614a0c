"""Which environment moves which clients of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import AXES, ClientPool
from servegen_gpu.clients.stated.environment import Environment


def with_environment(
    pool: ClientPool, source: Environment | str | os.PathLike[str] | None, clients: Iterable[int] | None
) -> ClientPool:
    """See `ClientPool.with_environment`."""
    from servegen_gpu.clients.stated.environment_toml import environment

    found = None if source is None else environment(source)
    if found is not None:
        found.check_windows(pool.window_s)
    if clients is None:
        row = np.full(len(pool.rate_rps), -1 if found is None else 0, np.int32)
        return replace(pool, environments=() if found is None else (found,), environment=row)
    chosen = np.isin(pool.client_ids, pool.select(clients).client_ids)
    moved = np.unique(pool.profile[chosen])
    new = np.full(len(pool.rate_rps), -1)
    new[moved] = len(pool.rate_rps) + np.arange(len(moved))
    doubled: dict[str, Any] = {
        name: _with_rows(pool, name, moved) for name, axes in AXES.items() if axes[0] == "profiles"
    }
    doubled["environment"][len(pool.rate_rps) :] = -1 if found is None else len(pool.environments)
    return replace(
        pool,
        profile=np.where(chosen, new[pool.profile], pool.profile).astype(np.int32),
        environments=pool.environments if found is None else (*pool.environments, found),
        **doubled,
    )


def _with_rows(pool: ClientPool, name: str, rows: NDArray[np.integer]) -> NDArray[Any]:
    """An array over profiles, with some of its rows again at its end."""
    array: NDArray[Any] = getattr(pool, name)
    return np.concatenate((array, array[rows]))


def renumbered(parts: Sequence[tuple[Environment, ...]]) -> tuple[Environment, ...]:
    """Environments of several pools: numbers of a pool come after those of the pools before."""
    found: list[Environment] = []
    for part in parts:
        base = 1 + max((each.number for each in found), default=-1)
        found += [replace(each, number=each.number + base) for each in part]
    return tuple(found)
