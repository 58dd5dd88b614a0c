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

from servegen_gpu.backends.addresses import Addresses
from servegen_gpu.backends.blocks import for_blocks
from servegen_gpu.backends.contract import ORDINAL, Columns
from servegen_gpu.backends.numpy_lengths import later_fields, lookup, scalar_fields
from servegen_gpu.columns import concat, take
from servegen_gpu.conversations.packed import PackedTurns, conversation_id
from servegen_gpu.law.address import Purpose
from servegen_gpu.law.growth import with_history
from servegen_gpu.packing import PackedWorkload
from servegen_gpu.plan import Cells, number_of

PLACE = ("arrival_us", "client", "conversation", "turn")
"""Columns that say when and whose a turn is; the rest says what is asked."""


def split_sessions(packed: PackedWorkload, sessions: Columns) -> tuple[Columns, NDArray[np.int64], Columns | None]:
    """Tell sessions that stand alone from the others, and draw all turns of these.

    Parameters
    ----------
    packed : PackedWorkload
    sessions : Columns
        Of a slab, with `ORDINAL`; times count from the begin of the packed span.

    Returns
    -------
    sessions : Columns
        All of them with the columns `conversation`, `turn` and `new_tokens`.
    alone : int64[n]
        Which of them stand alone, ascending.
    turns : Columns or None
        Rows of conversations, one after another, turns ascending; None if there are none.
    """
    assert packed.turns is not None
    found = _locate(packed, sessions)
    sessions = {name: column for name, column in sessions.items() if name != ORDINAL}
    some = np.flatnonzero(found.turns > 1)
    alone, turns = np.ones(len(found.turns), np.bool_), None
    if len(some):
        talks, turns = _conversations(packed, packed.turns, sessions, found, some)
        alone[talks] = False
    columns: Columns = {
        **sessions,
        "conversation": conversation_id(np.asarray(sessions["client"]), found.window, found.ordinal),
        "turn": np.ones(len(found.client), np.int32),
        "new_tokens": sessions["input_tokens"],
    }
    return columns, np.flatnonzero(alone), turns if turns and len(np.asarray(turns["turn"])) else None


@dataclass(frozen=True, eq=False)
class Located:
    """Addresses of sessions, and how many turns each has.

    Attributes
    ----------
    client, window : int64[sessions]
        Index of the client, absolute number of the window.
    ordinal : uint32[sessions]
    turns : int32[sessions]
    """

    client: NDArray[np.int64]
    window: NDArray[np.int64]
    ordinal: NDArray[np.uint32]
    turns: NDArray[np.int32]

    def rows(self, at: NDArray[np.int64]) -> Located:
        """Some sessions."""
        return Located(self.client[at], self.window[at], self.ordinal[at], self.turns[at])


def _locate(packed: PackedWorkload, sessions: Columns) -> Located:
    turns = packed.turns
    assert turns is not None
    client_id, ordinal, arrival_us = (np.asarray(sessions[name]) for name in ("client", ORDINAL, "arrival_us"))
    n = len(ordinal)
    client, window, count = np.empty(n, np.int64), np.empty(n, np.int64), np.ones(n, np.int32)
    in_order = bool(packed.client_id[-1] == len(packed.client_id) - 1)  # ids are 0, 1, 2, …

    def block(a: int, b: int) -> None:
        ids = client_id[a:b].astype(np.uint64)
        client[a:b] = ids if in_order else np.searchsorted(packed.client_id, ids)
        # a session arrives in the window that it comes from
        window[a:b] = (arrival_us[a:b] + packed.start_us) // packed.window_us
        model = turns.model[packed.profile[client[a:b]]]
        cells = Addresses(packed.key, ids, number_of(window[a:b]))
        word = cells.words(Purpose.TURN, slice(None), ordinal[a:b])[0].astype(np.uint32)
        values = turns.counts.values[lookup(word, np.maximum(model, 0), turns.counts)]
        count[a:b] = np.where(model >= 0, values, 1)

    for_blocks(n, block)
    return Located(client, window, ordinal, count)


def _conversations(
    packed: PackedWorkload, turns: PackedTurns, sessions: Columns, found: Located, some: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Columns]:
    """Sessions that do go on, as slab rows, and all turns of theirs."""
    held = found.rows(some)
    profile = packed.profile[held.client]
    window_index = held.window - packed.first_window
    cells = Cells(
        client=held.client,
        profile=profile,
        row=packed.row[window_index],
        window=held.window,
        window_index=window_index,
        expected_q32=np.zeros(len(some), np.int64),
    )
    addresses = Addresses(packed.key, packed.client_id[held.client], cells.number)
    model = turns.model[profile]
    later = held.turns - 1
    cell = np.repeat(np.arange(len(some), dtype=np.int32), later)
    first = np.repeat(np.cumsum(later) - later, later)
    turn = np.arange(len(cell)) - first + 1
    words = addresses.words(Purpose.TURN, cell, held.ordinal[cell], turn=turn)
    since_us = _times(turns, model[cell], words, first)
    inside = since_us <= turns.session_us[model[cell]]
    cell, turn, since_us = cell[inside], turn[inside], since_us[inside]
    new = _new_tokens(turns, model[cell], words[2][inside])
    ordinal = held.ordinal[cell]
    drawn = scalar_fields(packed, cells, addresses, cell, ordinal, turn, new)
    fields = later_fields(packed, cells, addresses, cell, ordinal, drawn, turn)

    goes_on = np.zeros(len(some), np.bool_)
    goes_on[cell] = True
    at = np.flatnonzero(goes_on)
    starts = take(sessions, some[at])
    start_us = np.asarray(sessions["arrival_us"])[some]
    session: NDArray[np.int64] = np.concatenate((at, cell.astype(np.int64)))
    client = np.asarray(sessions["client"])[some]
    rows = concat([starts, {"arrival_us": start_us[cell] + since_us, "client": client[cell], **fields}])
    order = np.argsort(session, kind="stable")
    session = session[order]
    rows = take(rows, order)
    rows["turn"] = np.concatenate((np.ones(len(at), np.int32), (turn + 1).astype(np.int32)))[order]
    rows["conversation"] = conversation_id(client, held.window, held.ordinal)[session]
    rows = _grown(packed, rows, session, turns.history[model][session], packed.context_tokens[profile][session])
    return some[at], rows


def _times(turns: PackedTurns, model: NDArray[np.int64], words: Any, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the first turn to each of the later ones, int64[rows]; `first` is the session's first row."""
    bins = turns.gaps.values[lookup(words[0].astype(np.uint32), model, turns.gaps)]
    width_us = turns.gap_width_us[bins].astype(np.uint64)  # below 2**32: bins are at most 0.2 % wide
    gap_us = turns.gap_us[bins] + ((width_us * words[1]) >> np.uint64(32)).astype(np.int64)
    upto = np.concatenate(([0], np.cumsum(gap_us)))
    since: NDArray[np.int64] = upto[1:] - upto[first]
    return since


def _new_tokens(turns: PackedTurns, model: NDArray[np.int64], word: Any) -> NDArray[np.int32] | None:
    """New tokens of later turns where models have some of their own, -1 elsewhere; None if no model has any."""
    table = turns.new_table[model]
    if not (table >= 0).any():
        return None
    values = turns.new.values[lookup(word.astype(np.uint32), np.maximum(table, 0), turns.new)]
    return np.where(table >= 0, values, np.int32(-1))


def _grown(
    packed: PackedWorkload,
    rows: Columns,
    session: NDArray[np.int64],
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
