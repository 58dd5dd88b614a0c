"""From a pool, a rate and a span to a packed workload (`servegen_gpu.packed`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clock import US, ClockTables
from servegen_gpu.errors import OptionError, RateError
from servegen_gpu.law.address import ALONE, CONVERSATIONS, MAX_ITEMS, MAX_WINDOW
from servegen_gpu.law.elementary import log
from servegen_gpu.packed import PackedWorkload, pack_clocks
from servegen_gpu.packed_environment import pack_environment
from servegen_gpu.packed_turns import longest_session_us, most_new_tokens, pack_turns, shares, used_models
from servegen_gpu.rates import Rate, known_before, targets
from servegen_gpu.request.families import DRAWS, EXPONENTIAL, log_mean_gaps
from servegen_gpu.request.schema import INPUT, MAX_TOKENS
from servegen_gpu.request.tables import pack_tables
from servegen_gpu.rules import CountRule, count_rules, mixings

MAX_EXPECTED = 2.0**31 - 2**24


def pack(
    pool: ClientPool,
    rate: Rate,
    *,
    start_s: float,
    end_s: float,
    counts: str = "auto",
    dependence: str = "auto",
    rank_correlation: Any = None,
    occupancy: str = "profile",
    empty: str = "error",
    warmup_s: float | None = None,
) -> tuple[PackedWorkload, float]:
    """Pack a pool, a rate and a span.

    Parameters
    ----------
    pool : ClientPool
    rate : Rate
    start_s, end_s : float
        The span on the pool's time axis; past the end of the data, whole days repeat.
    counts : {"auto", "exact", "renewal", "servegen"}
        ``auto`` keeps the counts of measured clients and draws those of intensities.
    dependence : {"auto", "independent", "comonotone", "copula"}
        ``auto`` is every client's own.
    rank_correlation : mapping or float64[scalar fields, scalar fields], optional
        Of the copula, for all clients, in any form of `spearman_matrix`.
    occupancy : {"profile", "window"}
        Whether bursts fill the part of the window that the profile says, or all of it.
    empty : {"error", "skip"}
        What to do about windows with a target but no active client.
    warmup_s : float, optional
        How long before the trace conversations begin to be looked for; as long as any may last by default.

    Returns
    -------
    packed : PackedWorkload
    shortfall : float
        Requests that the target asks for in windows where nobody is active (``empty="skip"``).
    """
    start_us, end_us, warmup_us = round(start_s * 1e6), round(end_s * 1e6), _warmup_us(pool, warmup_s)
    axis, shortfall = _axis(pool, rate, start_us - warmup_us, start_us, end_us, empty)
    used_rows, row = np.unique(axis.rows, return_inverse=True)
    profiles = _profiles(pool, used_rows, counts, occupancy)
    dependence, mixing, mixing_of = mixings(dependence, rank_correlation, pool)
    common = profiles | {
        "category": pool.category,
        "window_us": pool.window_s * US,
        "end_us": end_us,
        "dependence": dependence,
        "mixing": mixing,
        "mixing_of": mixing_of,
        "environment": pack_environment(pool),
    }

    def stream(number: int, of: ClientPool, begin_us: int, **more: Any) -> PackedWorkload:
        """The stream that has the rates of `of`, from an instant on."""
        first = begin_us // (pool.window_s * US)
        skip = int(first - axis.windows[0])
        rows, scale, clock = axis.rows[skip:], axis.scale[skip:], axis.clock.since(skip)
        length_s = np.full(len(rows), float(pool.window_s))
        if counts == "servegen":
            clock, length_s = _cut_clock(axis.windows[skip:], pool.window_s * US, begin_us, end_us)
        rate_rps = of.rate_rps[:, used_rows]
        _check_largest(of, rate_rps, row[skip:], scale * length_s)
        sends = np.asarray(rate_rps.any(axis=1))[pool.profile]
        return PackedWorkload(
            start_us=begin_us,
            first_window=int(first),
            client_id=pool.client_ids[sends].astype(np.uint64),
            profile=pool.profile[sends].astype(np.int64),
            rate_factor=pool.rate_factor[sends],
            group=np.zeros(int(sends.sum()), np.int64),
            rate_rps=rate_rps,
            row=row[skip:].astype(np.int64),
            window_scale=scale[None, :],
            window_length_s=length_s,
            expected=scale * of.own_rps[rows] * length_s,
            clock=pack_clocks([clock]),
            stream=number,
            **common,
            **more,
        )

    alone, conversations = streams_of(pool)
    if conversations is None:
        return stream(ALONE, alone, start_us), shortfall
    requests = (pool.own_rps - alone.own_rps)[axis.rows] * axis.scale * pool.window_s
    turns = pack_turns(pool, requests)
    beside = stream(CONVERSATIONS, conversations, start_us - warmup_us, turns=turns)
    return stream(ALONE, alone, start_us, conversations=beside), shortfall


@dataclass(frozen=True, eq=False)
class _Axis:
    """The windows of a span.

    Attributes
    ----------
    windows, rows : int64[windows]
        Absolute numbers, ascending by one, and rows of the pool.
    scale : float64[windows]
        Multiplies the clients' own rates to meet the target.
    clock : ClockTables
    """

    windows: NDArray[np.int64]
    rows: NDArray[np.int64]
    scale: NDArray[np.float64]
    clock: ClockTables


def _axis(pool: ClientPool, rate: Rate, begin_us: int, start_us: int, end_us: int, empty: str) -> tuple[_Axis, float]:
    """Windows from `begin_us` on, and the requests that are asked for where nobody is active since `start_us`."""
    window_us = pool.window_s * US
    first, stop = begin_us // window_us, -(-end_us // window_us)
    warm = int(start_us // window_us - first)
    if stop > MAX_WINDOW:
        raise OptionError(
            f"a span that ends within {MAX_WINDOW:,} windows of {pool.window_s} s",
            f"an end in window {stop:,}",
            "start earlier or generate less",
        )
    windows = np.arange(first, stop)
    rows = pool.row(windows)
    own_rps = pool.total_rps[rows]
    if warm:
        rate = known_before(rate, own_rps[warm:], int(first) * pool.window_s, pool.start_s, start_us)
    target = targets(rate, own_rps, int(first), pool.window_s)
    silent = (target.rps > 0) & (own_rps <= 0)
    if silent[warm:].any() and empty == "error":
        raise _nobody_active(pool, windows[warm:][silent[warm:]])
    scale = np.divide(target.rps, own_rps, out=np.zeros(len(windows)), where=own_rps > 0)
    if rate.kind in ("own", "scaled"):
        scale = np.where(own_rps > 0, rate.value, 0.0)  # exactly, so that no client depends on another
    shortfall = float(target.rps[warm:][silent[warm:]].sum() * pool.window_s)
    return _Axis(windows, rows, scale, target.clock), shortfall


def _profiles(pool: ClientPool, used_rows: NDArray[np.int64], counts: str, occupancy: str) -> dict[str, Any]:
    """Tensors over profiles in the rows that are used, but for their rates; and their tables."""
    family = pool.family[:, used_rows]
    active = pool.rate_rps[:, used_rows] > 0
    shape = np.where(active & (family != EXPONENTIAL), pool.shape[:, used_rows], 1.0)
    family = DRAWS[family]
    table_of = pool.table[:, used_rows]
    used_tables, table = np.unique(np.where(active[..., None], table_of, -1), return_inverse=True)
    table = table.reshape(table_of.shape)
    if len(used_tables) and used_tables[0] < 0:
        used_tables, table = used_tables[1:], table - 1
    if pool.schema.items:
        _check_items(pool, table_of, active)
    context_tokens = np.zeros(len(active), np.int32)
    context_tokens[pool.profile] = pool.context_tokens[pool.profile]
    rule, ones = count_rules(counts, pool.measured), np.ones(shape.shape)
    return {
        "shape": shape,
        "occupancy": np.where(active, pool.occupancy[:, used_rows], 1.0) if occupancy == "profile" else ones,
        "log_mean_gap": log_mean_gaps(log, family, shape) if (rule == CountRule.RENEWAL).any() else 0.0 * ones,
        "family": family,
        "table": table.astype(np.int64),
        "count_rule": rule,
        "context_tokens": context_tokens,
        "tables": pack_tables(pool.tables.select(used_tables)),
    }


def streams_of(pool: ClientPool) -> tuple[ClientPool, ClientPool | None]:
    """The pool with the rates of requests that stand alone, and with those of first turns of conversations, if any."""
    if not used_models(pool):
        return pool, None
    return tuple(replace(pool, rate_rps=pool.rate_rps * part[:, None]) for part in shares(pool))  # type: ignore[return-value]


def _warmup_us(pool: ClientPool, warmup_s: float | None) -> int:
    longest = longest_session_us(pool)
    return longest if warmup_s is None else min(round(warmup_s * 1e6), longest)


def _nobody_active(pool: ClientPool, windows: NDArray[np.int64]) -> RateError:
    named = ", ".join(f"{w * pool.window_s}" for w in windows[:5])
    more = f" and {len(windows) - 5:,} more" if len(windows) > 5 else ""
    return RateError(
        "an active client in every window with a target rate",
        f"nobody active in the windows starting at {named}{more} s",
        "choose another start, or pass empty='skip' (--empty skip) to leave them empty",
    )


def _check_largest(
    pool: ClientPool, rate_rps: NDArray[np.float64], row: NDArray[np.intp], scale: NDArray[np.float64]
) -> None:
    """Ordinals have 32 bits, and counts are drawn in 32.32 fixed point; `row` and `scale` are those of windows."""
    busiest = np.zeros(len(rate_rps))
    np.maximum.at(busiest, pool.profile, pool.rate_factor)
    expected = float(((busiest[:, None] * rate_rps).max(axis=0)[row] * scale).max(initial=0.0))
    if expected > MAX_EXPECTED:
        raise RateError(
            f"at most {MAX_EXPECTED:,.0f} requests of one client in a window",
            f"up to {expected:,.0f}",
            "lower the rate, or split clients with pool.clone(n)",
        )


def _check_items(pool: ClientPool, table: NDArray[np.int32], active: NDArray[np.bool_]) -> None:
    """Items have addresses for `MAX_ITEMS` of a modality, and the tokens of a request must fit an int32."""
    largest = pool.tables.values[pool.tables.offsets[1:] - 1].astype(np.int64)[table]  # [profiles, rows, fields]
    text = np.maximum(largest[..., INPUT], most_new_tokens(pool)[:, None])
    items = pool.schema.items
    tokens = text + sum(largest[..., m.count.lane] * largest[..., m.item.lane] for m in items)
    for field, values, limit in (
        *((m.count.name, largest[..., m.count.lane], MAX_ITEMS) for m in items),
        ("tokens of one request", tokens, MAX_TOKENS),
    ):
        if (values > limit)[active].any():
            p = np.argwhere((values > limit) & active)[0][0]
            raise OptionError(
                f"at most {limit:,} {field}",
                f"up to {values[active].max():,} of client {pool.client_ids[pool.profile == p][:1].tolist()}",
                "shorten the table, or leave out the client",
            )


def _cut_clock(
    windows: NDArray[np.int64], window_us: int, start_us: int, end_us: int
) -> tuple[ClockTables, NDArray[np.float64]]:
    """Clock of the ``servegen`` rule: constant rates, and windows that end where the span ends."""
    window_start_us = windows * window_us
    begin = np.maximum(window_start_us, start_us)
    length_us = np.minimum(window_start_us + window_us, end_us) - begin
    count = 1 + len(begin)  # table 0 stays the constant window
    clock = ClockTables(
        offsets=np.arange(count + 1, dtype=np.int64),
        last=np.full(count, 2**32 - 1, np.uint32),
        first=np.zeros(count, np.uint32),
        start_us=np.concatenate(([0], begin - window_start_us)).astype(np.uint32),
        slope=np.concatenate(([window_us], length_us)).astype(np.uint64),
        table=np.where(length_us == window_us, 0, np.arange(1, count)).astype(np.int32),
    )
    return clock, length_us / 1e6
