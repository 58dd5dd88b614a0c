"""Rows of sessions as turns of conversations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MAX_TOKENS

Ints = NDArray[np.int64]
FEW = 0.05


class Turns:
    """Numbers of turns and new tokens, where inputs hold the history; slab after slab in order of time.

    What continues the turn before is its input and its output. Where an input is shorter than both, as programs leave
    out what models thought, it is the input alone; and where it is shorter than that, the context was built anew.

    Attributes
    ----------
    shortened : int
        Later turns so far whose input is shorter than input and output of the turn before.
    """

    def __init__(self) -> None:
        self.ids: Ints = np.zeros(0, np.int64)
        self.known: NDArray[np.int64] = np.zeros((3, 0), np.int64)  # turns, and input and output of the last one
        self.shortened = 0

    def add(self, session: Ints, input_tokens: Ints, output_tokens: Ints) -> tuple[Ints, Ints]:
        """Turn from 1 on and new tokens of each request, int64[n] each; below 0 are requests that stand alone."""
        turn, new = np.ones(len(session), np.int64), input_tokens.astype(np.int64)
        order = np.argsort(session, kind="stable")
        order = order[np.searchsorted(session[order], 0) :]
        if not len(order):
            return turn, new
        grouped = session[order]
        first = np.flatnonzero(np.concatenate(([True], grouped[1:] != grouped[:-1])))
        sizes = np.diff(np.append(first, len(order)))
        ids = grouped[first]
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        seen = self.ids[at] == ids if len(self.ids) else np.zeros(len(ids), np.bool_)
        state = np.where(seen, self.known[:, at], 0) if len(self.ids) else np.zeros((3, len(ids)), np.int64)

        turns = np.repeat(state[0] - first, sizes) + np.arange(1, len(order) + 1)
        both = np.stack((input_tokens[order], output_tokens[order])).astype(np.int64)
        before = np.concatenate((np.zeros((2, 1), np.int64), both[:, :-1]), axis=1)
        before[:, first] = state[1:]
        more = both[0] - before.sum(axis=0)
        self.shortened += int((more < 0).sum())
        more = np.where(more < 0, both[0] - before[0], more)
        turn[order], new[order] = turns, np.where(more < 0, both[0], more)

        last = first + sizes - 1
        after = np.stack((turns[last], *both[:, last]))
        self.known[:, at[seen]] = after[:, seen]
        self.ids = np.concatenate((self.ids, ids[~seen]))
        by_id = np.argsort(self.ids)
        self.ids = self.ids[by_id]
        self.known = np.concatenate((self.known, after[:, ~seen]), axis=1)[:, by_id]
        return turn, new


def with_history(session: Ints, new: Ints, output: Ints) -> Ints:
    """Inputs of sessions that state what is new: with inputs and outputs of all turns before; rows in order."""
    order = np.argsort(session, kind="stable")
    grouped, both = session[order], (new + output)[order]
    first = np.flatnonzero(np.concatenate(([True], grouped[1:] != grouped[:-1])))
    until = np.cumsum(both)
    before = np.repeat(until[first] - both[first], np.diff(np.append(first, len(order))))
    whole = np.empty(len(session), np.int64)
    whole[order] = until - before - output[order]
    return np.where(session < 0, new, whole)


def with_delays(session: Ints, time: Ints, known: NDArray[np.bool_], delay: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Times of rows that state how long after the row of their session before they come, rows in order of the file.

    Returns
    -------
    int64[n], bool[n]
        Times, and whether they can be known: a first row needs a time of its own.
    """
    order = np.argsort(session, kind="stable")
    grouped = session[order]
    new = np.concatenate(([True], grouped[1:] != grouped[:-1]))
    stated = known[order]
    since = np.where(stated, 0, delay[order])
    total = np.cumsum(since)
    run = np.maximum.accumulate(np.where(stated | new, np.arange(len(order)), 0))  # where the stretch of delays begins
    times, told = np.empty_like(time), np.empty(len(time), np.bool_)
    times[order] = time[order][run] + total - total[run]
    told[order] = stated[run]
    return times, told


def linked(chat: Ints, parent: Ints) -> Ints:
    """Session of each row, int64[n]: the first chat that its parents lead to; below 0 where a chat has no others.

    Parameters
    ----------
    chat, parent : int64[n]
        Ids from 0 on; a parent below 0 is none. A parent may be missing in the file.
    """
    nodes, places = np.unique(np.concatenate((chat, parent)), return_inverse=True)
    root = np.arange(len(nodes))
    child, of = places[: len(chat)], places[len(chat) :]
    root[child] = np.where(parent < 0, child, of)
    for _ in range(64):
        further = root[root]
        if (further == root).all():
            break
        root = further
    alone = np.bincount(root[child], minlength=len(nodes))[root[child]] == 1
    alone &= parent < 0
    return np.where(alone, -np.cumsum(alone), nodes[root[child]])


def says_new(session: Ints, input_tokens: Ints, hash_ids: Ragged | None) -> tuple[bool, str]:
    """Whether inputs of sessions seem to be what is new, and why, for the note; rows in order of time."""
    order = np.argsort(session, kind="stable")
    order = order[np.searchsorted(session[order], 0) :]
    grouped = session[order]
    later = np.flatnonzero(grouped[1:] == grouped[:-1]) + 1
    if not len(later):
        return False, "inputs taken as whole: no session has a second turn among the first rows"
    now, before = order[later], order[later - 1]
    if hash_ids is not None:
        some = (hash_ids.lengths[now] > 0) & (hash_ids.lengths[before] > 0)
        begins = hash_ids.offsets[:-1]
        same = hash_ids.values[begins[now[some]]] == hash_ids.values[begins[before[some]]]
        if len(same):
            share = f"{int(same.sum()):,} of {len(same):,} later turns begin with the same block as the turn before"
            is_new = int(same.sum()) < FEW * len(same)  # whole inputs may be cut, but new ones share a block by chance
            return is_new, f"inputs taken as {'what is new' if is_new else 'whole'}: {share}"
    shorter = int((input_tokens[now] < input_tokens[before]).sum())
    if shorter:
        return True, f"inputs taken as what is new: {shorter:,} of {len(later):,} later turns are shorter than before"
    return False, "inputs taken as whole: no later turn is shorter than the one before"


def too_long(whole: Ints) -> int | None:
    """The first row whose input is more than a trace holds."""
    wrong = np.flatnonzero(whole > MAX_TOKENS)
    return int(wrong[0]) if len(wrong) else None
