"""The stage after the backend where clients hold conversations: slabs of sessions in, slabs of requests out.

Slabs follow one another in time, so as soon as the first session of the next one is known, all that arrives before it
is complete: sessions of the slab, and turns that have waited. Order is (arrival, conversation, turn); the id of a
conversation begins with the client and ends with the ordinal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import SEVERAL, Backend
from servegen_gpu.blocks import gather
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.conversations.draw import Talks, all_turns, find_talks, standing_alone, talks_at
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, is_after_start, slice_edges_us, slices_of
from servegen_gpu.request.columns import Columns, Ragged, rows_between, take

BUCKET_TURNS = 1 << 18
"""Turns that a bucket of the carry should hold at most."""
BYTES_PER_SESSION = 96
"""That this stage adds to what a backend needs for a request."""


def with_turns(
    backend: Backend,
    packed: PackedWorkload,
    key: Key,
    slabs: Iterable[Slab],
    shard: tuple[int, int],
    memory_bytes: int,
) -> Iterator[Columns]:
    """Requests of a trace, slab by slab.

    Parameters
    ----------
    backend : Backend
        Samples sessions.
    packed : PackedWorkload
        With conversations.
    key : tuple of int
    slabs : iterable of Slab
        Of the whole packed span, in order of time; none is partly before the window in which the trace begins.
    shard : tuple of int
        (k, n): only what arrives in every n-th slice of time, beginning with slice k.
    memory_bytes : int
        What turns may take while they wait; beyond, they wait in files.

    Yields
    ------
    Columns
        Times count from the begin of the trace.
    """
    assert packed.turns is not None
    mine = None if shard == (0, 1) else _spans_us(packed, shard)
    with Carry(_bucket_us(packed), memory_bytes) as carry:
        slabs = iter(slabs)
        for slab in slabs:
            if is_after_start(packed, int(slab.windows[-1])):
                slabs = chain([slab], slabs)
                break
            _keep(packed, key, carry, _talks_before(backend, packed, key, slab))
        rows = _from_start(packed, key, backend.sample_slabs(packed, key, slabs), carry)
        yield from (part for part in (_from_begin(packed, columns, mine) for columns in rows) if len(part["turn"]))


def _talks_before(backend: Backend, packed: PackedWorkload, key: Key, slab: Slab) -> Talks:
    """Conversations that begin in a slab before the trace, of which nobody wants the sessions of one turn."""
    starts = backend.sample_starts(packed, key, slab)
    return talks_at(packed, starts, np.flatnonzero(find_talks(packed, key, starts)))


def _from_start(packed: PackedWorkload, key: Key, slabs: Iterable[Columns], carry: Carry) -> Iterator[Columns]:
    """All requests since the window in which the trace begins; times count from the begin of the packed span."""
    waiting: tuple[Columns, NDArray[np.int64]] | None = None
    for sessions in slabs:
        arrival_us = np.asarray(sessions["arrival_us"])
        if not len(arrival_us):
            continue
        due = carry.due(int(arrival_us[0]))
        if waiting is not None:
            yield _together(*waiting, due)
        elif due is not None:
            yield due
        several = np.asarray(sessions[SEVERAL]) if SEVERAL in sessions else find_talks(packed, key, sessions)
        _keep(packed, key, carry, talks_at(packed, sessions, np.flatnonzero(several)))
        waiting = standing_alone(packed, sessions), np.flatnonzero(~several)
    due = carry.due(None)
    if waiting is not None:
        yield _together(*waiting, due)
    elif due is not None:
        yield due


def _keep(packed: PackedWorkload, key: Key, carry: Carry, talks: Talks) -> None:
    """Draw all turns and let them wait, those of the trace's own span."""
    assert packed.turns is not None
    if not len(talks.client):
        return
    rows = all_turns(packed, key, talks)
    at = np.asarray(rows["arrival_us"])
    inside = (at >= packed.turns.warmup_us) & (at < packed.end_us - packed.start_us)
    carry.add(rows if inside.all() else take(rows, np.flatnonzero(inside)))


def _together(sessions: Columns, alone: NDArray[np.int64], turns: Columns | None) -> Columns:
    return take(sessions, alone) if turns is None else merged(sessions, alone, turns)


def _from_begin(packed: PackedWorkload, rows: Columns, mine: NDArray[np.int64] | None) -> Columns:
    """Times from the begin of the trace; only what is in it, and ours."""
    assert packed.turns is not None
    arrival_us = np.asarray(rows["arrival_us"]) - packed.turns.warmup_us
    rows = rows_between(rows | {"arrival_us": arrival_us}, int(np.searchsorted(arrival_us, 0)), len(arrival_us))
    if mine is None:
        return rows
    # spans begin at even places: an arrival inside of one is after an odd number of edges
    place = np.searchsorted(mine, np.asarray(rows["arrival_us"]), side="right")
    return take(rows, np.flatnonzero(place % 2 == 1))


def merged(sessions: Columns, alone: NDArray[np.int64], turns: Columns) -> Columns:
    """The sessions that stand alone and turns in the order (arrival, conversation, turn), which both are in already."""
    arrival_us, conversation = (gather(np.asarray(sessions[name]), alone) for name in ("arrival_us", "conversation"))
    due_us, of = np.asarray(turns["arrival_us"]), np.asarray(turns["conversation"])
    low = np.searchsorted(arrival_us, due_us)
    high = np.searchsorted(arrival_us, due_us, side="right")
    while (open_ := np.flatnonzero(low < high)).size:  # among equal arrivals, by conversation
        middle = (low[open_] + high[open_]) >> 1
        after = conversation[middle] < of[open_]
        low[open_] = np.where(after, middle + 1, low[open_])
        high[open_] = np.where(after, high[open_], middle)
    place = low + np.arange(len(low))
    source = np.insert(alone, low, len(sessions["turn"]) + np.arange(len(low)))  # turns behind the sessions
    rows: Columns = {}
    for name, column in sessions.items():
        due: Any = turns[name]
        if isinstance(column, Ragged):
            rows[name] = Ragged.concat([column, due]).take(source)
        else:
            rows[name] = gathered = gather(column, source)  # which clips what lies behind
            gathered[place] = due
    return rows


def _bucket_us(packed: PackedWorkload) -> int:
    """A window, or the part of it in which at most `BUCKET_TURNS` are expected."""
    assert packed.turns is not None
    later = packed.expected * (packed.turns.requests_per_session - 1)
    parts = 1 << max(0, int(later.max(initial=0.0) // BUCKET_TURNS)).bit_length()
    return max(packed.window_us // parts, 1)


def _spans_us(packed: PackedWorkload, shard: tuple[int, int]) -> NDArray[np.int64]:
    """Begins and ends of a shard's slices in time, by turns, from the begin of the trace."""
    spans: list[NDArray[np.int64]] = []
    before = 0
    for w, expected in enumerate(packed.expected):
        parts = slices_of(float(expected))
        edges = slice_edges_us(packed, w, parts) - packed.trace_start_us
        chosen = np.flatnonzero((before + np.arange(parts)) % shard[1] == shard[0])
        spans.append(np.stack((edges[chosen], edges[chosen + 1]), axis=1).ravel())
        before += parts
    joined = np.concatenate(spans)
    # where one span ends another may begin: both edges go
    apart = np.ones(len(joined), np.bool_)
    same = np.flatnonzero(joined[1:-1:2] == joined[2::2])
    apart[2 * same + 1] = apart[2 * same + 2] = False
    return joined[apart]
