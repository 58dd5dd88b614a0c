"""Conversations: from first turns, which backends sample, to all of their turns.

All that follows is drawn from the address of the first turn, so it is the same whatever slabs and shares there are:

- ``TURN``, turn 0: the number of turns;
- ``TURN``, turn j: the time between turns j and j + 1 (a bin, and the place inside of it), and new tokens;
- ``DATA`` and items, turn j: the fields of turn j + 1, from the tables of the window in which the conversation began.

Axes: conversations, rows (turns of conversations, one conversation after another).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL, Backend
from servegen_gpu.backends.host.addresses import Addresses
from servegen_gpu.backends.host.fields import later_fields, lookup, scalar_fields
from servegen_gpu.backends.host.growth import with_history
from servegen_gpu.law.address import Key, Purpose
from servegen_gpu.law.session_ids import session_ids
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packed_turns import EDIT, SORTED, PackedTurns
from servegen_gpu.plan import Cells, Slab, number_of
from servegen_gpu.request.columns import Columns, take

PLACE = ("arrival_us", "client", "conversation", "turn")
"""Columns that say when and whose a turn is; the rest says what is asked."""


@dataclass(frozen=True, eq=False)
class Starts:
    """First turns of conversations.

    Attributes
    ----------
    arrival_us : int64[conversations]
        From the begin of the packed span.
    client, window : int64[conversations]
        Index of the client, absolute number of the window.
    ordinal : uint32[conversations]
    """

    arrival_us: NDArray[np.int64]
    client: NDArray[np.int64]
    window: NDArray[np.int64]
    ordinal: NDArray[np.uint32]

    def take(self, index: NDArray[np.integer]) -> Starts:
        """Some of them."""
        return Starts(self.arrival_us[index], self.client[index], self.window[index], self.ordinal[index])


def starts_of(packed: PackedWorkload, sampled: Columns) -> Starts:
    """First turns from what a backend sampled of the stream of conversations."""
    client_id, ordinal, arrival_us = (np.asarray(sampled[name]) for name in ("client", ORDINAL, "arrival_us"))
    return Starts(arrival_us, _index(packed, client_id), window_of(packed, arrival_us), ordinal)


def window_of(packed: PackedWorkload, arrival_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Absolute window of each request: one arrives in the window that it comes from."""
    return (arrival_us + packed.start_us) // packed.window_us


def _index(packed: PackedWorkload, client_id: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index of each client."""
    if packed.client_id[-1] == len(packed.client_id) - 1:  # ids are 0, 1, 2, …
        return client_id.astype(np.int64)
    return np.searchsorted(packed.client_id, client_id.astype(np.uint64))


@dataclass(frozen=True, eq=False)
class Course:
    """When the turns of conversations come.

    Attributes
    ----------
    starts : Starts
    conversation : int32[rows]
        Index into `starts`, ascending.
    turn : int64[rows]
        From 0.
    since_us : int64[rows]
        From the first turn.
    """

    starts: Starts
    conversation: NDArray[np.int32]
    turn: NDArray[np.int64]
    since_us: NDArray[np.int64]


def sample_turns(
    backend: Backend, packed: PackedWorkload, key: Key, slab: Slab, span_us: tuple[int, int]
) -> Iterator[Columns]:
    """`Backend.sample_turns` from the first turns that a backend samples."""
    starts = starts_of(packed, backend.sample_slab(packed, key, slab))
    yield rows_inside(all_turns(packed, key, course_of(packed, key, starts, span_us[0])), span_us)


def rows_inside(rows: Columns, span_us: tuple[int, int]) -> Columns:
    """The rows that arrive in a span."""
    arrival_us = np.asarray(rows["arrival_us"])
    inside = (arrival_us >= span_us[0]) & (arrival_us < span_us[1])
    return rows if inside.all() else take(rows, np.flatnonzero(inside))


def course_of(packed: PackedWorkload, key: Key, starts: Starts, from_us: int) -> Course:
    """The turns of conversations that still go on at an instant, from the first turn on."""
    turns = packed.turns
    assert turns is not None
    client_id = packed.client_id[starts.client]
    addresses = Addresses(key, client_id, number_of(starts.window, packed.stream))
    model = turns.model[packed.profile[starts.client]]
    word = addresses.words(Purpose.TURN, slice(None), starts.ordinal)[0].astype(np.uint32)
    count = turns.counts.values[lookup(word, model, turns.counts)]
    of = np.repeat(np.arange(len(count), dtype=np.int32), count)
    begin = np.repeat(np.cumsum(count) - count, count)
    turn = np.arange(len(of)) - begin
    words = addresses.words(Purpose.TURN, of, starts.ordinal[of], turn=turn)
    since_us = _times(turns, model[of], words, turn, begin)
    inside = since_us <= turns.session_us[model[of]]
    last_us = np.zeros(len(count), np.int64)
    np.maximum.at(last_us, of[inside], since_us[inside])
    goes_on = starts.arrival_us + last_us >= from_us
    kept = np.flatnonzero(inside & goes_on[of])
    renumbered = (np.cumsum(goes_on) - 1).astype(np.int32)
    return Course(starts.take(np.flatnonzero(goes_on)), renumbered[of[kept]], turn[kept], since_us[kept])


def all_turns(packed: PackedWorkload, key: Key, course: Course) -> Columns:
    """All turns of conversations, one conversation after another, with the columns of a trace."""
    turns, starts, of = packed.turns, course.starts, course.conversation
    assert turns is not None
    profile, window_index = packed.profile[starts.client], starts.window - packed.first_window
    cells = Cells(
        client=starts.client,
        profile=profile,
        row=packed.row[window_index],
        window=starts.window,
        window_index=window_index,
        expected_q32=np.zeros(len(profile), np.int64),
        stream=packed.stream,
    )
    client_id = packed.client_id[starts.client]
    addresses, ordinal = Addresses(key, client_id, cells.number), starts.ordinal[of]
    new = _new_tokens(turns, turns.model[profile], addresses, course)
    drawn = scalar_fields(packed, cells, addresses, of, ordinal, course.turn, new)
    ids = session_ids(packed.stream, client_id.astype(np.int64), starts.window, starts.ordinal)
    rows: Columns = {
        "arrival_us": starts.arrival_us[of] + course.since_us,
        "client": client_id.astype(np.int32)[of],
        **later_fields(packed, cells, addresses, of, ordinal, drawn, course.turn),
        "conversation": ids[of],
        "turn": (course.turn + 1).astype(np.int32),
    }
    return _grown(packed, rows, of, turns.growth[turns.model[profile]][of], packed.context_tokens[profile][of])


def _times(
    turns: PackedTurns, model: NDArray[np.int64], words: Any, turn: NDArray[np.int64], begin: NDArray[np.int64]
) -> NDArray[np.int64]:
    """From the first turn to each turn, int64[rows]; `begin` is the conversation's first row."""
    bins = turns.gaps.values[lookup(words[0].astype(np.uint32), model, turns.gaps)]
    width_us = turns.gap_width_us[bins].astype(np.uint64)  # below 2**32: bins are at most 0.2 % wide
    gap_us = turns.gap_us[bins] + ((width_us * words[1]) >> np.uint64(32)).astype(np.int64)
    gap_us[turn == 0] = 0
    upto = np.cumsum(gap_us)
    since: NDArray[np.int64] = upto - upto[begin]
    return since


def _new_tokens(
    turns: PackedTurns, model: NDArray[np.int64], addresses: Addresses, course: Course
) -> NDArray[np.int32] | None:
    """New tokens of later turns where models have some of their own, -1 elsewhere; None if no model has any."""
    of = course.conversation
    table = np.where(course.turn > 0, turns.new_table[model][of], -1)
    if not (table >= 0).any():
        return None
    word = addresses.words(Purpose.TURN, of, course.starts.ordinal[of], turn=course.turn)[2]
    values = turns.new.values[lookup(word.astype(np.uint32), np.maximum(table, 0), turns.new)]
    return np.where(table >= 0, values, np.int32(-1))


def _grown(
    packed: PackedWorkload,
    rows: Columns,
    conversation: NDArray[np.integer],
    growth: NDArray[np.uint8],
    context: NDArray[np.int32],
) -> Columns:
    """Rows whose inputs grow from turn to turn, with `new_tokens`; in the order of a trace's columns."""
    inputs = np.asarray(rows["input_tokens"])
    # whole requests change places, so that their fields stay together and within the context
    repeats = growth != SORTED
    order = np.lexsort((np.where(repeats, 0, inputs), conversation))
    drawn = take({name: column for name, column in rows.items() if name not in PLACE}, order)
    inputs = np.asarray(drawn["input_tokens"])
    first = np.asarray(rows["turn"]) == 1
    new = np.where(first, inputs, inputs - np.roll(inputs, 1))
    if repeats.any():
        said = np.asarray(drawn["output_tokens"])
        if packed.schema.ratio:
            said = said - np.asarray(drawn[packed.schema.ratio.column])
        said = np.where(growth == EDIT, 0, said)
        whole, fresh = with_history(inputs, np.asarray(drawn["output_tokens"]), said, first, context)
        drawn["input_tokens"], new = np.where(repeats, whole, inputs), np.where(repeats, fresh, new)
    place = {name: rows[name] for name in PLACE}
    last = {name: place.pop(name) for name in ("conversation", "turn")}
    return place | drawn | last | {"new_tokens": new.astype(np.int32)}
