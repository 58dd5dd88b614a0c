"""How conversations go on, as tensors: the models of a pool, ready to be sampled.

Axes: profiles, models, bins (of all tables of inter-turn times), windows (of the packed workload).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import need, need_within
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S
from servegen_gpu.clients.stated.turns import GROWTHS
from servegen_gpu.law.address import MAX_TURNS
from servegen_gpu.request.tables import PackedTables, Tables, pack_tables, unpack_tables

SORTED, HISTORY, EDIT = range(len(GROWTHS))


@dataclass(frozen=True, eq=False)
class PackedTurns:
    """Conversations, ready to be sampled.

    Attributes
    ----------
    model : int64[profiles]
        -1 where all requests stand alone.
    counts : PackedTables
        A table a model: turns of a conversation.
    gaps : PackedTables
        A table a model, whose values are bins.
    gap_us, gap_width_us : int64[bins]
        Where a bin of inter-turn times begins, and how wide it is.
    new : PackedTables
    new_table : int64[models]
        Table of `new` for the new tokens of later turns; -1 for the client's own lengths.
    growth : uint8[models]
        `SORTED`, `HISTORY` or `EDIT`: how inputs go on.
    session_us : int64[models]
        Longest time from a conversation's first turn to its last.
    requests : float64[windows]
        Expected requests of the conversations that begin in a window, those after the window among them.
    """

    model: NDArray[np.int64]
    counts: PackedTables
    gaps: PackedTables
    gap_us: NDArray[np.int64]
    gap_width_us: NDArray[np.int64]
    new: PackedTables
    new_table: NDArray[np.int64]
    growth: NDArray[np.uint8]
    session_us: NDArray[np.int64]
    requests: NDArray[np.float64]

    def check(self, used: NDArray[np.int64], profiles: int, windows: int) -> None:
        """Refuse what no models pack to; `used` are the profiles that send conversations. Raises a `ValueError`."""
        models, bins = len(self.growth), len(self.gap_us)
        need(self.model.shape == (profiles,), "turns.model of shape", self.model.shape)
        need_within(self.model, -1, models - 1, "turns.model")
        need_within(self.model[used], 0, models - 1, "turns.model")
        for name in ("new_table", "session_us"):
            need(getattr(self, name).shape == (models,), f"turns.{name} of shape", getattr(self, name).shape)
        need(self.growth.ndim == 1 and self.gap_us.shape == self.gap_width_us.shape == (bins,), "turns", "of shapes")
        need_within(self.growth, 0, len(GROWTHS) - 1, "growth")
        need(self.requests.shape == (windows,), "turns.requests of shape", self.requests.shape)
        need_within(self.requests, 0, 2.0**52, "turns.requests")
        counts, gaps, new = (unpack_tables(tables) for tables in (self.counts, self.gaps, self.new))
        need(len(counts) == len(gaps) == models, "turns with tables for models", f"{len(counts)}, {len(gaps)}")
        need_within(counts.values, 1, MAX_TURNS - 1, "turns")
        need_within(gaps.values, 0, bins - 1, "gaps")
        need_within(self.new_table, -1, len(new) - 1, "new_table")
        longest_us = MAX_SESSION_S * 1e6
        need_within(self.gap_us, 0, longest_us, "gap_us")
        need_within(self.gap_width_us, 0, longest_us, "gap_width_us")
        need_within(self.session_us, 0, longest_us, "session_us")

    def most_new_tokens(self) -> NDArray[np.int64]:
        """Most new tokens of a later turn of every profile, int64[profiles]; 0 where no model states them."""
        of_model = np.append(unpack_tables(self.new).largest, 0)[self.new_table]  # -1 is the last
        return np.append(of_model, 0).astype(np.int64)[self.model]


def used_models(pool: ClientPool) -> list[int]:
    """Rows of the models that clients of the pool have."""
    used = np.unique(pool.turn_model[pool.profile])
    return [int(row) for row in used if row >= 0]


def longest_session_us(pool: ClientPool) -> int:
    """How long any client's conversations may take; 0 without any."""
    return max((pool.turn_models[row].tables.session_us for row in used_models(pool)), default=0)


def shares(pool: ClientPool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a request of every profile divides into, float64[profiles] each: requests alone, and conversations begun."""
    share = np.array([model.share for model in pool.turn_models] + [0.0])[pool.turn_model]  # -1 is the last
    turns = np.array([model.mean_turns for model in pool.turn_models] + [1.0])[pool.turn_model]
    return 1.0 - share, share / turns


def most_new_tokens(pool: ClientPool) -> NDArray[np.int64]:
    """Most new tokens of a later turn of every profile, int64[profiles]; 0 where no model states them."""
    tables = [model.tables.new for model in pool.turn_models]
    most = np.array([0 if table is None else table.values[-1] for table in tables] + [0], np.int64)
    return most[pool.turn_model]  # -1 is the last


def pack_turns(pool: ClientPool, requests: NDArray[np.float64]) -> PackedTurns:
    """Pack the models of a pool."""
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
        gaps=pack_tables(Tables.join(gaps)),
        gap_us=np.concatenate([model.gap_us for model in tables]),
        gap_width_us=np.concatenate([model.gap_width_us for model in tables]),
        new=pack_tables(_joined([model.new for model in tables if model.new is not None])),
        new_table=np.where(with_new, np.cumsum(with_new) - 1, -1),
        growth=np.array([GROWTHS.index(model.growth) for model in pool.turn_models], np.uint8),
        session_us=np.array([model.session_us for model in tables], np.int64),
        requests=requests,
    )


def _joined(parts: Sequence[Tables]) -> Tables:
    if parts:
        return Tables.join(parts)
    return Tables(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.uint32))
