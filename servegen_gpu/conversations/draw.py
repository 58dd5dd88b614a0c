"""Conversations: from sessions, which backends sample, to all of their turns.

A session is a row of a backend: a request that stands alone, or the first turn of a conversation. All that follows is
drawn from the session's address, so it is the same whatever slabs and shards there are:

- ``TURN``, turn 0: the number of turns;
- ``TURN``, turn j: the time between turns j and j + 1 (a bin, and the place inside of it), and new tokens;
- ``DATA`` and items, turn j: the fields of turn j + 1, from the tables of the window in which the session began.

Axes: sessions, rows (turns of sessions, one session after another), slab rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import ORDINAL, SEVERAL
from servegen_gpu.backends.host.addresses import Addresses
from servegen_gpu.backends.host.fields import later_fields, lookup, scalar_fields
from servegen_gpu.blocks import for_blocks
from servegen_gpu.conversations.growth import with_history
from servegen_gpu.law.address import Key, Purpose
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packed_turns import PackedTurns, conversation_id
from servegen_gpu.plan import Cells, number_of
from servegen_gpu.request.columns import Columns, take

PLACE = ("arrival_us", "client", "conversation", "turn")
"""Columns that say when and whose a turn is; the rest says what is asked."""


@dataclass(frozen=True, eq=False)
class Talks:
    """Sessions of several turns.

    Attributes
    ----------
    arrival_us : int64[sessions]
        From the begin of the packed span.
    client, window : int64[sessions]
        Index of the client, absolute number of the window.
    ordinal : uint32[sessions]
    """

    arrival_us: NDArray[np.int64]
    client: NDArray[np.int64]
    window: NDArray[np.int64]
    ordinal: NDArray[np.uint32]


def find_talks(packed: PackedWorkload, key: Key, sessions: Columns) -> NDArray[np.bool_]:
    """Which sessions of a slab have several turns, where a backend does not say so itself."""
    turns = packed.turns
    assert turns is not None
    client_id, ordinal, arrival_us = (np.asarray(sessions[name]) for name in ("client", ORDINAL, "arrival_us"))
    several, last = np.empty(len(ordinal), np.bool_), turns.last_single[packed.profile]

    def block(a: int, b: int) -> None:
        addresses = Addresses(key, client_id[a:b].astype(np.uint64), number_of(_window(packed, arrival_us[a:b])))
        word = addresses.words(Purpose.TURN, slice(None), ordinal[a:b])[0]
        several[a:b] = word.astype(np.int64) > last[_index(packed, client_id[a:b])]

    for_blocks(len(several), block)
    return several


def talks_at(packed: PackedWorkload, sessions: Columns, rows: NDArray[np.int64] | slice) -> Talks:
    """Some sessions of a slab."""
    client_id, ordinal, arrival_us = (np.asarray(sessions[name])[rows] for name in ("client", ORDINAL, "arrival_us"))
    return Talks(arrival_us, _index(packed, client_id), _window(packed, arrival_us), ordinal)


def standing_alone(packed: PackedWorkload, sessions: Columns) -> Columns:
    """The columns of a trace for sessions of one turn; others may be among them, to be left out afterwards."""
    client, ordinal, arrival_us = (np.asarray(sessions[name]) for name in ("client", ORDINAL, "arrival_us"))
    columns = {name: column for name, column in sessions.items() if name not in (ORDINAL, SEVERAL)}
    columns["conversation"] = conversation_id(client, _window(packed, arrival_us), ordinal)
    columns["turn"] = np.ones(len(client), np.int32)
    columns["new_tokens"] = columns["input_tokens"]
    return columns


def _window(packed: PackedWorkload, arrival_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Absolute window of each session: one arrives in the window that it comes from."""
    return (arrival_us + packed.start_us) // packed.window_us


def _index(packed: PackedWorkload, client_id: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index of each client."""
    if packed.client_id[-1] == len(packed.client_id) - 1:  # ids are 0, 1, 2, …
        return client_id.astype(np.int64)
    return np.searchsorted(packed.client_id, client_id.astype(np.uint64))


def all_turns(packed: PackedWorkload, key: Key, talks: Talks) -> Columns:
    """All turns of sessions, one session after another, with the columns of a trace."""
    turns = packed.turns
    assert turns is not None
    profile = packed.profile[talks.client]
    window_index = talks.window - packed.first_window
    cells = Cells(
        client=talks.client,
        profile=profile,
        row=packed.row[window_index],
        window=talks.window,
        window_index=window_index,
        expected_q32=np.zeros(len(profile), np.int64),
    )
    client_id = packed.client_id[talks.client]
    addresses, model = Addresses(key, client_id, cells.number), turns.model[profile]
    word = addresses.words(Purpose.TURN, slice(None), talks.ordinal)[0].astype(np.uint32)
    count = turns.counts.values[lookup(word, model, turns.counts)]
    cell = np.repeat(np.arange(len(count), dtype=np.int32), count)
    begin = np.repeat(np.cumsum(count) - count, count)
    turn = np.arange(len(cell)) - begin
    words = addresses.words(Purpose.TURN, cell, talks.ordinal[cell], turn=turn)
    since_us = _times(turns, model[cell], words, turn, begin)
    inside = since_us <= turns.session_us[model[cell]]
    cell, turn, since_us = cell[inside], turn[inside], since_us[inside]
    ordinal, new = talks.ordinal[cell], _new_tokens(turns, model[cell], words[2][inside], turn)
    drawn = scalar_fields(packed, cells, addresses, cell, ordinal, turn, new)
    rows: Columns = {
        "arrival_us": talks.arrival_us[cell] + since_us,
        "client": client_id.astype(np.int32)[cell],
        **later_fields(packed, cells, addresses, cell, ordinal, drawn, turn),
        "conversation": conversation_id(client_id.astype(np.int64), talks.window, talks.ordinal)[cell],
        "turn": (turn + 1).astype(np.int32),
    }
    return _grown(packed, rows, cell, turns.history[model][cell], packed.context_tokens[profile][cell])


def _times(
    turns: PackedTurns, model: NDArray[np.int64], words: Any, turn: NDArray[np.int64], begin: NDArray[np.int64]
) -> NDArray[np.int64]:
    """From the first turn to each turn, int64[rows]; `begin` is the session's first row."""
    bins = turns.gaps.values[lookup(words[0].astype(np.uint32), model, turns.gaps)]
    width_us = turns.gap_width_us[bins].astype(np.uint64)  # below 2**32: bins are at most 0.2 % wide
    gap_us = turns.gap_us[bins] + ((width_us * words[1]) >> np.uint64(32)).astype(np.int64)
    gap_us[turn == 0] = 0
    upto = np.cumsum(gap_us)
    since: NDArray[np.int64] = upto - upto[begin]
    return since


def _new_tokens(
    turns: PackedTurns, model: NDArray[np.int64], word: Any, turn: NDArray[np.int64]
) -> NDArray[np.int32] | None:
    """New tokens of later turns where models have some of their own, -1 elsewhere; None if no model has any."""
    table = np.where(turn > 0, turns.new_table[model], -1)
    if not (table >= 0).any():
        return None
    values = turns.new.values[lookup(word.astype(np.uint32), np.maximum(table, 0), turns.new)]
    return np.where(table >= 0, values, np.int32(-1))


def _grown(
    packed: PackedWorkload,
    rows: Columns,
    session: NDArray[np.integer],
    history: NDArray[np.bool_],
    context: NDArray[np.int32],
) -> Columns:
    """Rows whose inputs grow from turn to turn, with `new_tokens`; in the order of a trace's columns."""
    inputs = np.asarray(rows["input_tokens"])
    # whole requests change places, so that their fields stay together and within the context
    order = np.lexsort((np.where(history, 0, inputs), session))
    drawn = take({name: column for name, column in rows.items() if name not in PLACE}, order)
    inputs = np.asarray(drawn["input_tokens"])
    first = np.asarray(rows["turn"]) == 1
    new = np.where(first, inputs, inputs - np.roll(inputs, 1))
    if history.any():
        said = np.asarray(drawn["output_tokens"])
        if packed.category == "reason":
            said = said - np.asarray(drawn["reason_tokens"])
        whole, fresh = with_history(inputs, np.asarray(drawn["output_tokens"]), said, first, context)
        drawn["input_tokens"], new = np.where(history, whole, inputs), np.where(history, fresh, new)
    place = {name: rows[name] for name in PLACE}
    last = {name: place.pop(name) for name in ("conversation", "turn")}
    return place | drawn | last | {"new_tokens": new.astype(np.int32)}
