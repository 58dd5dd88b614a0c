"""Requests that go on where an earlier one was, as ids of blocks tell: sessions of a log that names none.

The *parent* of a request is the last one that held the deepest block which the request shares with any before it. It
goes on with the parent's session if it repeats nearly all of the parent's blocks: all but the last, which is rarely
full, or most of them, as another question about the same document does. Blocks of a system prompt do not count: they
are followed by very many different blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.prefixes.lru import NEVER, last_use
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

MOST = 0.75
"""Share of the parent's blocks that go on with it."""
FEW_BRANCHES = 16
"""Different blocks behind a block that are no system prompt's yet; in a log of n requests at least sqrt(n)."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shared:
    """What each request of a trace shares with those before it, int64[n] each.

    Attributes
    ----------
    blocks : int64[n]
        How many leading blocks an earlier request had.
    prompt_blocks : int64[n]
        How many of its leading blocks are those of a system prompt.
    parent : int64[n]
        Row of the last request that had the deepest of them; below 0 if there is none.
    """

    blocks: Ints
    prompt_blocks: Ints
    parent: Ints


def shared_blocks(ids: Ragged) -> Shared:
    """What each request shares with those before it; `ids` in order of time."""
    row = np.repeat(np.arange(len(ids)), ids.lengths)
    begin, before = ids.offsets[:-1], last_use(ids.values)
    # what is shared is a beginning; where a list is odd, it ends with the first block that is new
    blocks = _leading(before != NEVER, row, ids)
    parent = np.full(len(ids), -1)
    some = np.flatnonzero(blocks)
    parent[some] = row[before[begin[some] + blocks[some] - 1]]
    parent[parent >= np.arange(len(ids))] = -1
    return Shared(blocks, _leading(_branching(ids, row), row, ids, last=True), parent)


def links_of(trace: Trace, limit_s: float) -> Ints:
    """Row of the request whose session each request goes on with, int64[n]; below 0 where it begins one or is alone."""
    ids = trace["hash_ids"]
    shared = shared_blocks(ids)
    parent = shared.parent
    whole = ids.lengths[parent]
    goes_on = (shared.blocks >= np.maximum(np.minimum(whole - 1, np.ceil(MOST * whole)), 1)) & (parent >= 0)
    goes_on &= shared.blocks > shared.prompt_blocks
    at_us = trace["arrival_us"]
    goes_on &= at_us - at_us[parent] <= round(limit_s * 1e6)
    if "client" in trace:
        goes_on &= trace["client"] == trace["client"][parent]
    return np.where(goes_on, parent, -1)


def _leading(true: NDArray[np.bool_], row: Ints, ids: Ragged, last: bool = False) -> Ints:
    """How many leading blocks of each request are true; or, with `last`, how many there are up to the last true one."""
    place = np.arange(len(row)) - ids.offsets[row]
    found = np.zeros(len(ids), np.int64) if last else ids.lengths.copy()
    if last:
        np.maximum.at(found, row[true], place[true] + 1)
    else:
        np.minimum.at(found, row[~true], place[~true])
    return found


def _branching(ids: Ragged, row: Ints) -> NDArray[np.bool_]:
    """Which blocks are followed by very many different ones, bool[blocks]."""
    many = max(FEW_BRANCHES, int(np.sqrt(len(ids))))
    if len(ids.values) < 2:
        return np.zeros(len(ids.values), np.bool_)
    block = np.unique(ids.values, return_inverse=True)[1]
    inside = np.flatnonzero(row[1:] == row[:-1])
    pairs = distinct(block[inside] * (block.max() + 1) + block[inside + 1])
    branches = np.bincount(pairs // (block.max() + 1), minlength=int(block.max()) + 1)
    return np.asarray((branches >= many)[block])
