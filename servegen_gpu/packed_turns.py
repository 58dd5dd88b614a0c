"""Models of conversations in a packed workload.

Axes: profiles, models, bins (of all tables of inter-turn times), windows (of the packed workload).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import for_blocks
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, RateError
from servegen_gpu.request.tables import PackedTables, Tables, pack_tables

CLIENT_BITS, WINDOW_BITS, ORDINAL_BITS = 26, 16, 21
"""Of the id of a conversation, from the top."""
MAX_SESSIONS = 2.0**ORDINAL_BITS - 2.0**16
"""Most that may be expected of a client in a window: random counts may be somewhat larger."""


@dataclass(frozen=True, eq=False)
class PackedTurns:
    """Conversations, ready to be sampled.

    Attributes
    ----------
    model : int64[profiles]
        -1 where requests stand alone.
    counts : PackedTables
        A table a model: turns of a session.
    last_single : int64[profiles]
        Last word that means a session of one turn: -1 if none does, 2**32 - 1 where requests stand alone.
    gaps : PackedTables
        A table a model, whose values are bins.
    gap_us, gap_width_us : int64[bins]
        Where a bin of inter-turn times begins, and how wide it is.
    new : PackedTables
    new_table : int64[models]
        Table of `new` for the new tokens of later turns; -1 for the client's own lengths.
    history : bool[models]
        Whether inputs hold what was said before, or are draws in ascending order.
    session_us : int64[models]
        Longest time from a conversation's first turn to its last.
    requests_per_session : float64[windows]
        Requests of the sessions that begin in a window, those after the window among them.
    warmup_us : int
        The packed span begins this long before the trace, for conversations that began earlier.
    """

    model: NDArray[np.int64]
    counts: PackedTables
    last_single: NDArray[np.int64]
    gaps: PackedTables
    gap_us: NDArray[np.int64]
    gap_width_us: NDArray[np.int64]
    new: PackedTables
    new_table: NDArray[np.int64]
    history: NDArray[np.bool_]
    session_us: NDArray[np.int64]
    requests_per_session: NDArray[np.float64]
    warmup_us: int


def used_models(pool: ClientPool) -> list[int]:
    """Rows of the models that clients of the pool have."""
    used = np.unique(pool.turn_model[pool.profile])
    return [int(row) for row in used if row >= 0]


def longest_session_us(pool: ClientPool) -> int:
    """How long any client's conversations may take; 0 without any."""
    return max((pool.turn_models[row].tables.session_us for row in used_models(pool)), default=0)


def mean_turns(pool: ClientPool) -> NDArray[np.float64]:
    """Requests per session of every profile, float64[profiles]."""
    means = np.array([model.mean_turns for model in pool.turn_models] + [1.0])
    return means[pool.turn_model]  # -1 is the last


def most_new_tokens(pool: ClientPool) -> NDArray[np.int64]:
    """Most new tokens of a later turn of every profile, int64[profiles]; 0 where no model states them."""
    tables = [model.tables.new for model in pool.turn_models]
    most = np.array([0 if table is None else table.values[-1] for table in tables] + [0], np.int64)
    return most[pool.turn_model]  # -1 is the last


def pack_turns(
    pool: ClientPool, requests_per_session: NDArray[np.float64], warmup_us: int, stop_window: int
) -> PackedTurns:
    """Pack the models of a pool; `stop_window` is the number of the window after the last."""
    before = -(-warmup_us // (pool.window_s * 1_000_000))
    if stop_window > 2**WINDOW_BITS - before:
        raise OptionError(
            f"conversations in the first {2**WINDOW_BITS - before:,} windows of {pool.window_s} s",
            f"an end in window {stop_window:,}",
            "start earlier or generate less",
        )
    if pool.client_ids[-1] >= 2**CLIENT_BITS:
        raise OptionError(
            f"ids of clients with conversations below {2**CLIENT_BITS:,}",
            f"client {pool.client_ids[-1]:,}",
            "renumber them with servegen_gpu.join([pool])",
        )
    tables = [model.tables for model in pool.turn_models]
    bins = np.cumsum([0] + [len(model.gap_us) for model in tables])
    gaps = [
        Tables(model.gap.offsets, (model.gap.values + base).astype(np.int32), model.gap.thresholds)
        for model, base in zip(tables, bins, strict=False)
    ]
    with_new = [model.new is not None for model in tables]
    return PackedTurns(
        model=np.asarray(pool.turn_model, np.int64),
        counts=pack_tables(Tables.join([model.count for model in tables])),
        last_single=np.array([_last_single(model.count) for model in tables] + [2**32 - 1])[pool.turn_model],
        gaps=pack_tables(Tables.join(gaps)),
        gap_us=np.concatenate([model.gap_us for model in tables]),
        gap_width_us=np.concatenate([model.gap_width_us for model in tables]),
        new=pack_tables(_joined([model.new for model in tables if model.new is not None])),
        new_table=np.where(with_new, np.cumsum(with_new) - 1, -1),
        history=np.array([model.growth == "history" for model in pool.turn_models]),
        session_us=np.array([model.session_us for model in tables], np.int64),
        requests_per_session=requests_per_session,
        warmup_us=warmup_us,
    )


def _last_single(count: Tables) -> int:
    return int(count.thresholds[0]) if count.values[0] == 1 else -1


def _joined(parts: Sequence[Tables]) -> Tables:
    if parts:
        return Tables.join(parts)
    return Tables(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.uint32))


def conversation_id(
    client: NDArray[np.integer], window: NDArray[np.int64], ordinal: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Ids of conversations, int64[n]: client, window and ordinal of the first turn, side by side in 63 bits.

    Raises
    ------
    RateError
        If an ordinal needs more than its bits.
    """
    if len(ordinal) and (most := int(ordinal.max())) >= 1 << ORDINAL_BITS:
        raise RateError(
            f"fewer than {1 << ORDINAL_BITS:,} conversations of one client in a window",
            f"{most + 1:,}",
            "lower the rate, or split clients with pool.clone(n)",
        )
    out = np.empty(len(ordinal), np.int64)

    def block(a: int, b: int) -> None:
        np.left_shift(client[a:b].astype(np.int64), WINDOW_BITS, out=out[a:b])
        out[a:b] |= window[a:b] & ((1 << WINDOW_BITS) - 1)
        out[a:b] <<= ORDINAL_BITS
        out[a:b] |= ordinal[a:b]

    for_blocks(len(out), block)
    return out
