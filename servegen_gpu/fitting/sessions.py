"""Which requests of a log belong together: by its own ids, by shared blocks, or because inputs are near copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting import near_copies, shared_blocks
from servegen_gpu.fitting.prefixes import common_blocks
from servegen_gpu.formats.reading.sessions import Turns
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

LIMIT_S = 1800.0
FAR = 4.0
"""Times the median, from which on a gap between near copies is left out."""
NEEDED = ("arrival_us", "input_tokens", "output_tokens")
TURN_COLUMNS = ("conversation", "turn", "new_tokens")

Found = Literal["ids", "blocks", "near copies", "none"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SessionFacts:
    """How conversations of a log were found, and how much they are.

    Attributes
    ----------
    found : {"ids", "blocks", "near copies", "none"}
    share : float
        Of the requests that belong to conversations of two turns or more in the log.
    conversations : int
        Number of conversations of two turns or more.
    match_share, chance : float or None
        Where inputs were compared: share of the requests that are near copies of one of the last 20, and share that
        would be by chance.
    notes : tuple of str
        What was assumed.
    """

    found: Found
    share: float
    conversations: int
    match_share: float | None = None
    chance: float | None = None
    notes: tuple[str, ...] = ()


def with_sessions(trace: Trace, *, limit_s: float = LIMIT_S) -> tuple[Trace, SessionFacts]:
    """The trace with its conversations: as it names them, as its blocks tell, or as near copies of inputs do.

    Parameters
    ----------
    trace : Trace
        With ``arrival_us``, ``input_tokens`` and ``output_tokens``, in order of time. The first of these decides:
        ids of conversations (turns and new tokens are found if they are missing); ``hash_ids``; inputs that nearly
        repeat earlier ones more often than by chance. Requests of different clients never belong together.
    limit_s : float
        Seconds between two turns at most; for conversations that the log does not name.

    Returns
    -------
    Trace
        With the columns ``conversation``, ``turn`` and ``new_tokens``; all requests stand alone where no sessions were
        found.
    SessionFacts

    Raises
    ------
    OptionError
        If a column is missing.
    """
    if missing := [name for name in NEEDED if name not in trace]:
        raise OptionError(f"columns {', '.join(NEEDED)}", f"none of {missing[0]!r}", "give a trace of requests")
    limit_s = number("limit_s", limit_s, 0, high=MAX_SESSION_S)
    if "conversation" in trace:
        return _named(trace)
    if isinstance(trace.columns.get("hash_ids"), Ragged) and len(trace["hash_ids"].values):
        return _by_blocks(trace, limit_s)
    return _by_near_copies(trace, limit_s)


def _named(trace: Trace) -> tuple[Trace, SessionFacts]:
    """A log that names its conversations."""
    conversation = np.asarray(trace["conversation"]).astype(np.int64)
    if all(name in trace for name in TURN_COLUMNS):
        return trace, _facts("ids", conversation, [])
    turns = Turns()
    turn, new = turns.add(conversation, np.asarray(trace["input_tokens"]), np.asarray(trace["output_tokens"]))
    notes = ["turns and new tokens by the order of requests: the log does not state them"]
    if turns.shortened:
        later = int((turn > 1).sum())
        notes.append(
            f"{turns.shortened:,} of {later:,} later inputs are shorter than the turn before and its answer: their new "
            "tokens are what is more than the input before, or all of the input"
        )
    found = {"turn": turn.astype(np.int32), "new_tokens": new.astype(np.int32)}
    return _with(trace, {"conversation": conversation} | found | _given(trace)), _facts("ids", conversation, notes)


def _by_blocks(trace: Trace, limit_s: float) -> tuple[Trace, SessionFacts]:
    conversation, turn, before = _sessions(shared_blocks.links_of(trace, limit_s))
    inputs, outputs = (np.asarray(trace[name]).astype(np.int64) for name in ("input_tokens", "output_tokens"))
    later = np.flatnonzero(turn > 1)
    new = inputs.copy()
    notes = [f"conversations by shared blocks, at most {limit_s:g} s from turn to turn"]
    if len(later):
        ids = trace["hash_ids"]
        size = block_tokens(trace)
        shared = np.minimum(common_blocks(ids, later, before[later]) * size, inputs[later])
        whole = inputs[before[later]] + outputs[before[later]]
        # what goes on with all of the turn before and its answer is what comes after them
        goes_on = (inputs[later] >= whole) & (shared >= inputs[before[later]] - size)
        new[later] = inputs[later] - np.where(goes_on, whole, shared)
        notes.append(
            f"new tokens of {int((~goes_on).sum()):,} of {len(later):,} later turns by blocks of {size} tokens"
        )
    return _with(trace, _columns(conversation, turn, new)), _facts("blocks", conversation, notes)


def _by_near_copies(trace: Trace, limit_s: float) -> tuple[Trace, SessionFacts]:
    matches = near_copies.matches_of(trace)
    further = near_copies.matches_of(trace, near_copies.REACH)
    some = further if further.links else matches
    parent = near_copies.links_of(trace, some)
    # far copies come after silences that a log has and turns of the law do not keep; they are few
    gap_us = np.asarray(trace["arrival_us"]) - np.asarray(trace["arrival_us"])[parent]
    near_us = FAR * float(np.median(gap_us[parent >= 0])) if (parent >= 0).any() else 0.0
    parent[gap_us > min(limit_s * 1e6, near_us)] = -1
    conversation, turn, before = _sessions(parent)
    inputs = np.asarray(trace["input_tokens"]).astype(np.int64)
    new = np.where(turn > 1, np.maximum(inputs - inputs[before], 0), inputs)
    compared = f"{matches.share:.1%} of the inputs are within {near_copies.WITHIN_TOKENS} tokens of one of the last"
    compared += f" {near_copies.LAGS} of their client, {matches.chance:.1%} would be by chance"
    if not some.links:
        notes = [f"no conversations: {compared}"]
        return _with(trace, _columns(conversation, turn, new)), _facts("none", conversation, notes, matches)
    notes = [f"conversations by near copies of inputs: {compared}"]
    shrunk = int(((turn > 1) & (inputs < inputs[before])).sum())
    if shrunk:
        notes.append(f"{shrunk:,} later inputs are a few tokens shorter than before: no new tokens")
    return _with(trace, _columns(conversation, turn, new)), _facts("near copies", conversation, notes, matches)


def _sessions(parent: Ints) -> tuple[Ints, Ints, Ints]:
    """Conversation, turn and row of the turn before of each row, int64[n] each, from rows that each goes on with.

    A conversation has the row of its first turn as its id; a request that stands alone, one below 0.
    """
    rows = np.arange(len(parent))
    root = np.where(parent < 0, rows, parent)
    while True:
        further = root[root]
        if (further == root).all():
            break
        root = further
    order = np.argsort(root, kind="stable")
    first = np.searchsorted(root[order], root[order])
    turn, before = np.empty_like(root), np.empty_like(root)
    turn[order] = rows - first + 1
    before[order] = order[np.where(rows == first, first, rows - 1)]
    alone = np.bincount(root, minlength=len(root))[root] == 1
    return np.where(alone, -1 - rows, root), turn, before


def block_tokens(trace: Trace) -> int:
    """Tokens of a block, as provenance states them or as inputs and lengths of lists tell."""
    about = trace.provenance.get("hash_ids")
    stated = about.get("block_tokens") if isinstance(about, dict) else None
    if isinstance(stated, int) and stated > 0:
        return stated
    lengths = trace["hash_ids"].lengths
    some = lengths > 0
    return max(int((-(-np.asarray(trace["input_tokens"])[some].astype(np.int64) // lengths[some])).max(initial=1)), 1)


def _columns(conversation: Ints, turn: Ints, new: Ints) -> dict[str, NDArray[np.integer]]:
    return {"conversation": conversation, "turn": turn.astype(np.int32), "new_tokens": new.astype(np.int32)}


def _given(trace: Trace) -> dict[str, NDArray[np.integer]]:
    return {name: trace[name] for name in ("turn", "new_tokens") if name in trace}


def _with(trace: Trace, columns: dict[str, NDArray[np.integer]]) -> Trace:
    others = {name: column for name, column in trace.columns.items() if name not in columns and name != "hash_ids"}
    last = {"hash_ids": trace["hash_ids"]} if "hash_ids" in trace else {}
    return Trace.trusted(others | columns | last, trace.provenance, trace.first_row)


def _facts(
    found: Found, conversation: Ints, notes: list[str], matches: near_copies.Matches | None = None
) -> SessionFacts:
    sizes = np.unique(conversation[conversation >= 0], return_counts=True)[1]
    several = sizes[sizes > 1]
    return SessionFacts(
        found=found,
        share=float(several.sum() / max(len(conversation), 1)),
        conversations=len(several),
        match_share=None if matches is None else matches.share,
        chance=None if matches is None else matches.chance,
        notes=tuple(notes),
    )
