"""How the context of a conversation grows when every turn repeats what was said before.

An input is the input before, what was said in answer (nothing where turns are edits), and new tokens. Where that and
the output pass the context limit, the oldest tokens of the history are cut, so that new tokens and output keep the room
that they would have in a request of their own. What is left then begins elsewhere in the conversation, so nothing of it
is a prefix of what came before: all of such an input counts as new. So does all of every later input of the
conversation: a column says how many tokens are new, not where in the conversation the rest begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_LIMIT = 2**31 - 1
"""Tokens are int32."""


def with_history(
    new: NDArray[np.int32],
    output: NDArray[np.int32],
    said: NDArray[np.int32],
    first: NDArray[np.bool_],
    context: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Inputs with their history.

    Parameters
    ----------
    new : int32[rows]
        Tokens that every turn adds; rows are turns of conversations, one conversation after another.
    output : int32[rows]
    said : int32[rows]
        The part of the output that later inputs repeat: answers, but not their reasoning; nothing of edits.
    first : bool[rows]
        Where a conversation begins.
    context : int32[rows]
        Most tokens of input and output together; 0 for no limit.

    Returns
    -------
    input_tokens, new_tokens : int32[rows]
        New tokens are those of the input that do not continue what is repeated; all of them, from the first cut on.
    """
    begins = np.flatnonzero(first)
    turns = np.diff(begins, append=len(first))
    inputs, fresh = new.astype(np.int64), new.copy()
    room = np.where(context > 0, context, NO_LIMIT).astype(np.int64) - new - output
    by_length = begins[np.argsort(-turns, kind="stable")]
    still = len(begins) - np.searchsorted(np.sort(turns), np.arange(int(turns.max(initial=1))), side="right")
    lost = np.zeros(len(first), np.bool_)
    for turn in range(1, len(still)):
        at = by_length[: still[turn]] + turn
        before = inputs[at - 1] + said[at - 1]
        history = np.minimum(before, np.maximum(room[at], 0))
        inputs[at] += history
        lost[at] = lost[at - 1] | (history < before)
    fresh[lost] = inputs[lost].astype(np.int32)
    return inputs.astype(np.int32), fresh
