"""Pools with longer lengths, or with heavier tails of them.

Axes: tables, bins (of all tables of a pool).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.request.schema import Kind
from servegen_gpu.request.tables import Tables
from servegen_gpu.studies.changed import changed

if TYPE_CHECKING:
    from servegen_gpu.clients.stated.turns import TurnModel

LONGEST = 2**31 - 1
STEPS = 60


def relengthened(pool: ClientPool, scale: float, tail: float) -> ClientPool:
    """A pool whose requests are `scale` times as long, with tails that are heavier (`tail` above 1) or lighter.

    A length L becomes ``scale * min(c * L**tail, M)``, rounded to whole tokens, at least 1 where it was. M is the
    longest length of the field in the pool, so that a tail stays within what the model takes; c keeps the mean of each
    distribution of lengths, up to the rounding: within a token. So `tail` multiplies the standard deviation of the
    logarithm: a log-normal's sigma times `tail`, a Pareto's alpha divided by it. It applies to all fields in tokens,
    those of items among them, and to new tokens of later turns. Numbers of items, shares of reasoning, system prompts
    and context limits stay, and lengths are kept to the limits when they are drawn.
    """
    if scale == tail == 1:
        return pool
    lengths = _lengths_of(pool)
    tables, table = pool.tables, pool.table
    longer = _longer(lengths, scale, tail)
    if lengths.shared:  # tables that others than lengths are drawn from stay, too
        table = table.copy()
        tokens = table[..., lengths.lanes]
        table[..., lengths.lanes] = np.where(tokens < 0, -1, tokens + len(tables))
        longer = Tables.join([tables, longer])
    models = tuple(_with_longer_turns(model, scale, tail) for model in pool.turn_models)
    return changed(pool, tables=longer, table=table, turn_models=models)


@dataclass(frozen=True, eq=False)
class _Lengths:
    """What is the same for all factors.

    Attributes
    ----------
    tables : Tables
    lanes : list of int
        Fields in tokens.
    tokens : bool[tables]
        Which tables these fields are drawn from.
    shared : bool
        Whether other fields are drawn from some of them.
    longest : float64[tables]
        Longest length of the field.
    share, log_value : float64[bins]
        Probabilities, and logarithms of values; of 0, below all others.
    """

    tables: Tables
    lanes: list[int]
    tokens: NDArray[np.bool_]
    shared: bool
    longest: NDArray[np.float64]
    share: NDArray[np.float64]
    log_value: NDArray[np.float64]


@lru_cache(maxsize=4)
def _lengths_of(pool: ClientPool) -> _Lengths:
    tables = pool.tables
    lanes = [field.lane for field in pool.schema.fields if field.kind in (Kind.ONCE, Kind.ITEM)]
    used = np.zeros((len(pool.fields), len(tables) + 1), np.bool_)  # -1 is the last
    for lane in range(len(pool.fields)):
        used[lane, pool.table[..., lane]] = True
    used = used[:, :-1]
    longest = np.zeros(len(tables))
    for lane in lanes:
        top = tables.largest[used[lane]].max(initial=0)
        longest[used[lane]] = np.maximum(longest[used[lane]], top)
    others = [lane for lane in range(len(pool.fields)) if lane not in lanes]
    tokens = np.asarray(used[lanes].any(axis=0))
    return _of(tables, lanes, tokens, bool((tokens & used[others].any(axis=0)).any()), longest)


def _of(
    tables: Tables, lanes: list[int], tokens: NDArray[np.bool_], shared: bool, longest: NDArray[np.float64]
) -> _Lengths:
    with np.errstate(divide="ignore"):
        log_value = np.maximum(np.log(tables.values.astype(np.float64)), -1e6)
    return _Lengths(
        tables, lanes, tokens, shared, longest, np.ldexp(tables.widths().astype(np.float64), -32), log_value
    )


def _longer(lengths: _Lengths, scale: float, tail: float) -> Tables:
    """All tables, with other values in those of lengths; bins whose values are equal become one."""
    tables, starts = lengths.tables, lengths.tables.offsets[:-1]
    sizes = np.diff(tables.offsets)
    value = tables.values.astype(np.float64)
    if tail != 1:
        raised = np.exp(lengths.log_value * tail)
        most = np.repeat(lengths.longest, sizes)
        raised *= np.repeat(_keeping_means(lengths, raised, most), sizes)
        value = np.where(value > 0, np.minimum(raised, most), 0.0)
    rounded = np.clip(np.rint(value * scale), np.minimum(tables.values, 1), LONGEST).astype(np.int32)
    values = np.where(np.repeat(lengths.tokens, sizes), rounded, tables.values)
    last = np.append(values[1:] != values[:-1], True)
    last[tables.offsets[1:] - 1] = True
    kept = np.add.reduceat(last, starts, dtype=np.int64)
    return Tables(np.concatenate(([0], np.cumsum(kept))), values[last], tables.thresholds[last])


def _keeping_means(lengths: _Lengths, raised: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factor c of every table with which the mean of min(c x, M) is the table's own, float64[tables].

    The mean is concave in c, so Newton's steps from below never pass the root, and there are as many as pieces at most.
    """
    starts, sizes = lengths.tables.offsets[:-1], np.diff(lengths.tables.offsets)
    mean, limit = lengths.tables.means, lengths.longest
    weighted = lengths.share * raised
    free = np.add.reduceat(weighted, starts)
    c = np.divide(mean, free, out=np.ones(len(free)), where=free > 0)
    for _ in range(STEPS):
        over = np.repeat(c, sizes) * raised > most
        if not over.any():
            break
        at_limit = np.add.reduceat(np.where(over, lengths.share, 0.0), starts) * limit
        free = np.add.reduceat(np.where(over, 0.0, weighted), starts)
        step = np.divide(mean - at_limit, free, out=c.copy(), where=free > 0)
        if (step <= c * (1 + 1e-9)).all():
            break
        c = np.maximum(c, step)
    return c


def _with_longer_turns(model: TurnModel, scale: float, tail: float) -> TurnModel:
    """The model with other new tokens of later turns, where it states them; its other tables hold for it too."""
    if (new := model.tables.new) is None:
        return model
    whole = np.ones(1, np.bool_)
    longer = _longer(_of(new, [0], whole, False, new.largest.astype(np.float64)), scale, tail)
    other = copy.copy(model)
    other.__dict__["tables"] = replace(model.tables, new=longer)
    return other
