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
from servegen_gpu.blocks import for_blocks
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.conversations.draw import all_turns, course_of, starts_of, window_of
from servegen_gpu.conversations.ids import session_ids
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab, plan
from servegen_gpu.request.columns import Columns, Ragged, take

BUCKET_TURNS = 1 << 18
"""Turns that a bucket of the carry should hold at most."""
BYTES_PER_REQUEST = 96
"""That this stage adds to what a backend needs for a request."""
MAX_STARTS = 1 << 17
ROWS_PER_START = 16
"""Conversations are drawn with their turns, and a slab of them counts for so many requests."""


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
    with Carry(_bucket_us(packed), memory_bytes) as carry:
        turns = Turns(backend, packed, key, span_us, max_requests, carry)
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
    key : tuple of int
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
        begin_us = max(span_us[0] - first_turns.turns.warmup_us, first_turns.start_us)
        most = min(MAX_STARTS, max(max_requests // ROWS_PER_START, 1))
        self._slabs = plan(first_turns, most, (begin_us, span_us[1]), most)
        self._next = next(self._slabs, None)

    def due(self, until_us: int | None) -> Iterator[Columns]:
        """Those that arrive before an instant of the absolute axis, or all: one batch, or none."""
        while self._next is not None and (until_us is None or self._next.from_us < until_us):
            self._draw(self._next)
            self._next = next(self._slabs, None)
        rows = self._carry.due(None if until_us is None else until_us - self._packed.start_us)
        if rows is not None:
            yield rows | {"arrival_us": np.asarray(rows["arrival_us"]) - self._before_us}

    def _draw(self, slab: Slab) -> None:
        """Draw the turns of the conversations that begin in a slab, and let those of the span wait."""
        from_us, to_us = self._span_us
        starts = starts_of(self._packed, self._backend.sample_starts(self._packed, self._key, slab))
        course = course_of(self._packed, self._key, starts, from_us)
        if not len(course.turn):
            return
        rows = all_turns(self._packed, self._key, course)
        at_us = np.asarray(rows["arrival_us"])
        inside = (at_us >= from_us) & (at_us < to_us)
        self._carry.add(rows if inside.all() else take(rows, np.flatnonzero(inside)))


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
