"""Several pools as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import DAY_S, MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.clients.surroundings import renumbered
from servegen_gpu.errors import OptionError
from servegen_gpu.request.tables import Tables

MAX_CELLS = 1 << 26
IN_TIME = ("rate_rps", "cv", "family", "shape", "occupancy", "table")


def join(pools: Sequence[ClientPool], name: str | None = None) -> ClientPool:
    """One pool with the clients of all.

    Ids are renumbered 0, 1, 2, …: the clients of the first pool in their order, then those of the second, and so on.
    So a client draws other random numbers than it did in its own pool, and the same pool may be joined twice.
    Environments of different pools stay independent of each other: they get numbers of their own.

    Parameters
    ----------
    pools : sequence of ClientPool
        Of one category and window length, beginning at one time. Pools that repeat after different whole numbers of
        days (or of windows) are repeated until all come out even.
    name : str, optional
        Of the joint workload; the names with ``+`` between them by default.

    Raises
    ------
    OptionError
        If the pools do not fit each other.
    """
    pools = list(pools)
    if not pools:
        raise OptionError("at least one pool to join", "none", "give some")
    for what, fix in (
        ("category", "make traces of their own"),
        ("window_s", "make the pools with the same window_s"),
        ("start_s", "cut them to the same begin with pool.span(start, end)"),
    ):
        if len(found := sorted({getattr(pool, what) for pool in pools})) > 1:
            raise OptionError(f"pools of the same {what}", " and ".join(map(str, found)), fix)
    total = sum(len(pool) for pool in pools)
    if total > MAX_CLIENT_ID:
        raise OptionError(f"at most {MAX_CLIENT_ID:,} clients", f"{total:,}", "join fewer")
    windows = _common_windows(pools)
    rows = [pool.first_window + np.arange(windows) for pool in pools]
    rows = [
        np.arange(windows) if pool.windows == windows else pool.row(row) for pool, row in zip(pools, rows, strict=True)
    ]

    profiles = np.cumsum([0] + [len(pool.rate_rps) for pool in pools])
    in_time = {
        field: np.concatenate([getattr(pool, field)[:, row] for pool, row in zip(pools, rows, strict=True)])
        for field in IN_TIME[:-1]
    }
    whole_rps = None
    if any(pool.whole_rps is not None for pool in pools):
        whole_rps = order_free_sum(np.stack([p.total_rps[row] for p, row in zip(pools, rows, strict=True)]))
    cut = [pool.table[:, row] for pool, row in zip(pools, rows, strict=True)]
    in_time["table"] = _rows(cut, [len(pool.tables) for pool in pools])
    return ClientPool(
        name="+".join(pool.name for pool in pools) if name is None else name,
        category=pools[0].category,
        window_s=pools[0].window_s,
        first_window=pools[0].first_window,
        client_ids=np.arange(total, dtype=np.int64),
        profile=np.concatenate([p.profile + base for p, base in zip(pools, profiles, strict=False)]).astype(np.int32),
        rate_factor=np.concatenate([pool.rate_factor for pool in pools]),
        tables=Tables.join([pool.tables for pool in pools]),
        measured=np.concatenate([pool.measured for pool in pools]),
        correlations=np.concatenate([pool.correlations for pool in pools]),
        correlation=_rows([pool.correlation for pool in pools], [len(pool.correlations) for pool in pools]),
        context_tokens=np.concatenate([pool.context_tokens for pool in pools]),
        system_tokens=np.concatenate([pool.system_tokens for pool in pools]),
        environments=renumbered([pool.environments for pool in pools]),
        environment=_rows([pool.environment for pool in pools], [len(pool.environments) for pool in pools]),
        turn_models=tuple(model for pool in pools for model in pool.turn_models),
        whole_rps=whole_rps,
        turn_model=_rows([pool.turn_model for pool in pools], [len(pool.turn_models) for pool in pools]),
        **in_time,
    )


def _rows(parts: Sequence[NDArray[np.int32]], sizes: Sequence[int]) -> NDArray[np.int32]:
    """Rows of what pools have `sizes` of, counted through; -1 stays."""
    before = np.cumsum([0, *sizes])
    shifted = [np.where(rows < 0, -1, rows + base) for rows, base in zip(parts, before, strict=False)]
    return np.concatenate(shifted).astype(np.int32)


def _common_windows(pools: Sequence[ClientPool]) -> int:
    """How many windows the joint pool has: those of all, or as many as bring all periods to an even end."""
    if len(lengths := {pool.windows for pool in pools}) == 1:
        return lengths.pop()
    windows = math.lcm(*(pool.period_windows for pool in pools))
    per_day = DAY_S // pools[0].window_s
    repeats_whole = DAY_S % pools[0].window_s or windows < per_day or windows % per_day == 0
    if not repeats_whole or windows * sum(len(pool.rate_rps) for pool in pools) > MAX_CELLS:
        spans = " and ".join(sorted({f"{pool.period_windows * pool.window_s:,} s" for pool in pools}))
        raise OptionError(
            "pools whose periods come out even in whole days",
            f"periods of {spans}",
            "cut them to the same length with pool.span(start, end)",
        )
    return windows
