"""What inputs of a log share: system prompts of its clients, and blocks that come again for other reasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.shared_blocks import shared_blocks
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

NEARLY_ALL = 0.8
"""Share of a client's conversations that begin with its system prompt."""
FEW = 3
"""Conversations of a client: what fewer of them share is no system prompt."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Reuse:
    """Why blocks of a log come again, as shares of all blocks; what comes for the first time is the rest.

    Attributes
    ----------
    prompt : float
        Blocks of system prompts.
    conversation : float
        Blocks that the turn before had.
    other : float
        Blocks that another conversation had: a model of prompts and conversations does not have them.
    """

    prompt: float
    conversation: float
    other: float


def system_tokens(trace: Trace, block_tokens: int) -> dict[int, int]:
    """Tokens of each client's system prompt: the full blocks that nearly all of its conversations begin with.

    Parameters
    ----------
    trace : Trace
        With ``client``, ``hash_ids`` and, if it has conversations, ``turn``.
    block_tokens : int
        Tokens of a block. What a prompt has beyond its last full block is shared with nobody, so it is not seen.

    Returns
    -------
    dict of int to int
        As `servegen_gpu.hash_ids` takes it; clients without one are left out.
    """
    clients, depth = _prompts(trace)
    return {int(client): int(blocks) * block_tokens for client, blocks in zip(clients, depth, strict=True) if blocks}


def reuse(trace: Trace) -> Reuse:
    """Why blocks come again; `trace` as for `system_tokens`, in order of time, with ``conversation``."""
    ids = trace["hash_ids"]
    blocks = shared_blocks(ids).blocks
    clients, depth = _prompts(trace)
    prompt = np.minimum(depth[np.searchsorted(clients, trace["client"])], blocks)
    order = np.argsort(trace["conversation"], kind="stable")
    which = trace["conversation"][order]
    later = np.flatnonzero(which[1:] == which[:-1])
    held = np.zeros(len(trace), np.int64)
    held[order[later + 1]] = common_blocks(ids, order[later + 1], order[later])
    held = np.maximum(np.minimum(held, blocks), prompt)
    total = max(len(ids.values), 1)
    return Reuse(*(float(part.sum() / total) for part in (prompt, held - prompt, blocks - held)))


def common_blocks(ids: Ragged, rows: Ints, others: Ints) -> Ints:
    """How many leading blocks pairs of requests have in common, int64[rows]."""
    a, b = ids.take(rows), ids.take(others)
    both = np.minimum(a.lengths, b.lengths)
    of = np.repeat(np.arange(len(rows)), both)
    place = np.arange(len(of)) - np.repeat(np.cumsum(both) - both, both)
    differs = np.flatnonzero(a.values[a.offsets[of] + place] != b.values[b.offsets[of] + place])
    found = both.copy()
    np.minimum.at(found, of[differs], place[differs])
    return found


def _prompts(trace: Trace) -> tuple[Ints, Ints]:
    """Clients, and full blocks of the system prompt of each."""
    if missing := [name for name in ("client", "hash_ids") if name not in trace]:
        raise OptionError("a trace with client and hash_ids", f"none of {missing[0]!r}", "add it")
    first = np.flatnonzero(trace["turn"] == 1) if "turn" in trace else np.arange(len(trace))
    clients, of = np.unique(trace["client"], return_inverse=True)
    begins = np.bincount(of[first], minlength=len(clients))
    ids = trace["hash_ids"].take(first)
    row = np.repeat(np.arange(len(first)), ids.lengths)
    place = np.arange(len(row)) - ids.offsets[row]
    blocks = np.stack((of[first][row], place, ids.values))
    order = np.lexsort(blocks[::-1])
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(blocks[:, order], axis=1) != 0).any(axis=0)
    at = np.flatnonzero(new)
    held = np.diff(np.append(at, len(order)))
    whose, place = blocks[:2, order[at]]
    common = (held >= NEARLY_ALL * begins[whose]) & (begins[whose] >= FEW)
    whose, place = whose[common], place[common]
    leading = place == np.arange(len(whose)) - np.searchsorted(whose, whose)
    return clients, np.bincount(whose[leading], minlength=len(clients))
