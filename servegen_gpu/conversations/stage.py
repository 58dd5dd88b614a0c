"""The stage after the backend where clients hold conversations: two streams in, slabs of requests out.

Requests that stand alone come slab by slab, as without conversations. First turns are sampled ahead of them, from as
long before the trace as a conversation may last; their turns wait until their time has come. Order is (arrival,
requests that stand alone before turns, conversation, turn).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL, Backend
from servegen_gpu.backends.host.turns import window_of
from servegen_gpu.blocks import for_blocks
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.law.address import Key
from servegen_gpu.law.session_ids import session_ids
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, longest_us, plan
from servegen_gpu.request.columns import Columns, Ragged, empty_columns
from servegen_gpu.request.turn_rows import TurnRows, columns_of

BUCKET_TURNS = 1 << 18
"""Turns that a bucket of the carry should hold at most."""
CARRY_SHARE = 8
"""An eighth of the memory is for turns that wait."""


def bytes_per_request(backend: Backend, category: str) -> int:
    """Peak bytes that a slab needs per expected request, with the turns among its requests and those that wait."""
    more = 32 if category in backend.interleaves else 96  # more columns, or all of them once more
    return (backend.bytes_per_request(category) + more) * CARRY_SHARE // (CARRY_SHARE - 1)


def with_turns(
    backend: Backend,
    packed: PackedWorkload,
    key: Key,
    slabs: Iterator[Slab],
    span_us: tuple[int, int],
    max_requests: int,
    memory_bytes: int,
) -> Iterator[Columns]:
    """Requests of a trace, slab by slab.

    Parameters
    ----------
    backend : Backend
    packed : PackedWorkload
        Requests that stand alone, with the stream of conversations beside them.
    key : tuple of int
    slabs : iterator of Slab
        Of a span, in order of time.
    span_us : tuple of int
        The span on the absolute time axis.
    max_requests : int
        How many requests may be alive at once.
    memory_bytes : int
        What turns may take while they wait; beyond, they wait in files.

    Yields
    ------
    Columns
        Times count from the begin of the packed span.
    """
    with Carry(_bucket_us(packed), memory_bytes, backend.ordered) as carry:
        turns = Turns(backend, packed, key, span_us, max_requests, carry)
        each = _beside if packed.category in backend.interleaves else _merged_slabs
        yield from each(backend, packed, key, slabs, turns)
        yield from turns.due(None)


def _beside(
    backend: Backend, packed: PackedWorkload, key: Key, slabs: Iterator[Slab], turns: Turns
) -> Iterator[Columns]:
    """Slabs up to the last request that stands alone, of a backend that puts turns in their places."""
    for slab in slabs:
        yield from turns.due(slab.from_us)
        columns = backend.sample_beside(packed, key, slab, turns.due_rows(slab.to_us))
        if len(np.asarray(columns["client"])):
            yield columns


def _merged_slabs(
    backend: Backend, packed: PackedWorkload, key: Key, slabs: Iterator[Slab], turns: Turns
) -> Iterator[Columns]:
    """Slabs up to the last request that stands alone."""
    slabs, known = tee(slabs)
    ends = (slab.to_us for slab in known)
    end = next(ends, None)
    for sampled_alone in backend.sample_slabs(packed, key, slabs):
        alone = standing_alone(packed, sampled_alone)
        arrival_us = np.asarray(alone["arrival_us"])
        if not len(arrival_us):
            continue
        while end is not None and end <= arrival_us[0] + packed.start_us:
            yield from turns.due(end)
            end = next(ends, None)
        due = list(turns.due(int(arrival_us[-1]) + packed.start_us + 1))
        yield merged(alone, due[0]) if due else alone
    for until_us in (end, *ends):
        yield from turns.due(until_us)


class Turns:
    """Turns of the conversations of a span, in order of time.

    Parameters
    ----------
    backend : Backend
    packed : PackedWorkload
    key : tuple of int
        As for `with_turns`.
    span_us : tuple of int
    max_requests : int
    carry : Carry
        Where turns wait.
    """

    def __init__(
        self,
        backend: Backend,
        packed: PackedWorkload,
        key: Key,
        span_us: tuple[int, int],
        max_requests: int,
        carry: Carry,
    ) -> None:
        first_turns = packed.conversations
        assert first_turns is not None
        assert first_turns.turns is not None
        self._backend, self._packed, self._key, self._carry = backend, first_turns, key, carry
        self._span_us = span_us[0] - first_turns.start_us, span_us[1] - first_turns.start_us
        self._before_us = packed.start_us - first_turns.start_us
        begin_us = max(span_us[0] - longest_us(first_turns), first_turns.start_us)
        most = backend.first_turns_at_once(max_requests)
        self._slabs = plan(first_turns, most, (begin_us, span_us[1]), most)
        self._next = next(self._slabs, None)
        self._columns = empty_columns(packed.category, conversations=True)

    def due(self, until_us: int | None) -> Iterator[Columns]:
        """Those that arrive before an instant of the absolute axis, or all: one batch, or none."""
        rows = self.due_rows(until_us)
        if rows is not None:
            yield columns_of(rows, self._columns)

    def due_rows(self, until_us: int | None) -> TurnRows | None:
        """The same, as the backend makes them."""
        while self._next is not None and (until_us is None or self._next.from_us < until_us):
            for rows in self._backend.sample_turns(self._packed, self._key, self._next, self._span_us):
                self._carry.add(rows)
            self._next = next(self._slabs, None)
        due = self._carry.due(None if until_us is None else until_us - self._packed.start_us)
        if due is None:
            return None
        due["arrival_us"] -= self._before_us  # type: ignore[operator,assignment]
        return due


def standing_alone(packed: PackedWorkload, sampled: Columns) -> Columns:
    """The columns of a trace for requests that stand alone."""
    client, ordinal, arrival_us = (np.asarray(sampled[name]) for name in ("client", ORDINAL, "arrival_us"))
    columns = {name: column for name, column in sampled.items() if name != ORDINAL}
    columns["conversation"] = session_ids(packed.stream, client, window_of(packed, arrival_us), ordinal)
    columns["turn"] = np.ones(len(client), np.int32)
    columns["new_tokens"] = columns["input_tokens"]
    return columns


def merged(alone: Columns, turns: Columns) -> Columns:
    """Both by arrival, which they are in already; of equal arrivals, requests that stand alone come first."""
    arrival_us, due_us = np.asarray(alone["arrival_us"]), np.asarray(turns["arrival_us"])
    place = np.searchsorted(arrival_us, due_us, side="right") + np.arange(len(due_us))
    stands_alone = np.ones(len(arrival_us) + len(due_us), np.bool_)
    stands_alone[place] = False
    rows: Columns = {}
    for name, column in alone.items():
        due: Any = turns[name]
        if isinstance(column, Ragged):
            source = np.empty(len(stands_alone), np.int64)
            source[stands_alone], source[place] = np.arange(len(column)), len(column) + np.arange(len(place))
            rows[name] = Ragged.concat([column, due]).take(source)
            continue
        out = np.empty(len(stands_alone), column.dtype)
        out[place] = due

        def block(a: int, b: int, out: NDArray[Any] = out, column: NDArray[Any] = column) -> None:
            low, high = np.searchsorted(place, [a, b])
            out[a:b][stands_alone[a:b]] = column[a - low : b - high]

        for_blocks(len(out), block)
        rows[name] = out
    return rows


def _bucket_us(packed: PackedWorkload) -> int:
    """A window, or the part of it in which at most `BUCKET_TURNS` are expected."""
    assert packed.conversations is not None
    assert packed.conversations.turns is not None
    requests = packed.conversations.turns.requests
    parts = 1 << max(0, int(requests.max(initial=0.0) // BUCKET_TURNS)).bit_length()
    return max(packed.window_us // parts, 1)
