"""Conversations of which something was cut, remembered from slab to slab.

Memory grows with the number of conversations that were cut, not with the length of a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct

Int64s = NDArray[np.int64]


class Ended:
    """Conversations that ended early, because a request of theirs was left out."""

    def __init__(self) -> None:
        self._ids: Int64s = np.empty(0, np.int64)

    def after(self, conversation: Int64s, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Requests of a slab that belong to what is left out: those after a request of theirs that is gone, bool[n]."""
        at = np.flatnonzero(gone & (conversation >= 0))
        ids, first = np.unique(conversation[at], return_index=True)
        begin = np.zeros(len(self._ids) + len(ids), np.int64)  # rows from here on; all, if it ended in an earlier slab
        begin[len(self._ids) :] = at[first]
        names, once = np.unique(np.concatenate((self._ids, ids)), return_index=True)
        self._ids = names
        if not len(names):
            return np.zeros(len(gone), np.bool_)
        place = np.searchsorted(names, conversation).clip(max=len(names) - 1)
        ended = names[place] == conversation
        return np.asarray(ended & (np.arange(len(gone)) >= begin[once][place]))


class Shortened:
    """Conversations whose answers were cut: later inputs that repeat them are shorter, too."""

    def __init__(self) -> None:
        self._ids: Int64s = np.empty(0, np.int64)
        self._ends: Int64s = np.empty(0, np.int64)  # input and answer of the last turn, before anything was cut
        self._lost: Int64s = np.empty(0, np.int64)  # how much less of them there is now

    def inputs(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> NDArray[Any]:
        """Inputs of a slab whose outputs were cut.

        An input repeats an answer if what is not new of it is exactly the input and the answer of the turn before.

        Parameters
        ----------
        before, after : mapping of str to array
            Columns with outputs as they were, and cut.
        """
        tokens: NDArray[Any] = before["input_tokens"]
        said = _answers(before)
        cut = said - _answers(after)
        rows = np.flatnonzero(before["conversation"] >= 0)
        if not len(rows) or not (len(self._ids) or cut[rows].any()):
            return tokens
        mine = before["conversation"][rows]
        names = distinct(mine)
        here = names[np.searchsorted(names, self._ids).clip(max=len(names) - 1)] == self._ids
        known = int(here.sum())

        # the last turn before this slab, then the turns of this slab, conversation by conversation
        whose = np.concatenate((self._ids[here], mine))
        order = np.argsort(whose, kind="stable")
        whose = whose[order]
        input_tokens = tokens[rows].astype(np.int64)
        end = np.concatenate((self._ends[here], input_tokens + said[rows]))[order]
        repeated = np.concatenate((np.zeros(known, np.int64), input_tokens - before["new_tokens"][rows]))[order]
        less = np.concatenate((self._lost[here], cut[rows]))[order]
        goes_on = np.zeros(len(order), np.bool_)
        goes_on[1:] = (whose[1:] == whose[:-1]) & (repeated[1:] == end[:-1]) & (repeated[1:] > 0)
        upto = np.cumsum(less) - less
        begin = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(order))))
        lost = upto - upto[begin]

        last = np.append(whose[1:] != whose[:-1], True)
        left = (lost + less)[last]
        keep = left > 0
        ids = np.concatenate((self._ids[~here], whose[last][keep]))
        by_id = np.argsort(ids)
        self._ids = ids[by_id]
        self._ends = np.concatenate((self._ends[~here], end[last][keep]))[by_id]
        self._lost = np.concatenate((self._lost[~here], left[keep]))[by_id]

        shorter = np.zeros(len(tokens), np.int64)
        in_slab = order >= known
        shorter[rows[order[in_slab] - known]] = lost[in_slab]
        return (tokens - shorter).astype(tokens.dtype)


def _answers(columns: Mapping[str, Any]) -> Int64s:
    """What later inputs repeat of an output: the answer, but not its reasoning, int64[n]."""
    reason = columns.get("reason_tokens")
    output: Int64s = columns["output_tokens"].astype(np.int64)
    return output if reason is None else output - reason
