"""Every random number has an address.

A draw is ``Philox(key, counter)``. The key comes from the seed and the replica; the counter says whose number it is
and what for:

====  =====================================================
word  content
====  =====================================================
0     ordinal of the request inside its cell, 32 bits
1     client id, 32 bits
2     window 24 bits + purpose 5 bits + stream 3 bits
3     turn 16 bits + item 16 bits
====  =====================================================

The first named are the lowest bits. The window is the absolute number on the time axis, so a trace is a slice of every
longer one; the client is its id, so neither order nor neighbours matter. A client's streams are its kinds of requests,
each an arrival process of its own: 0 for requests that stand alone, 1 for conversations, the others are free. What does
not fit is refused when a workload is packed.
"""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from servegen_gpu.law.philox import MASK, Words, philox4x32

STREAM_VERSION = 2
"""Changes whenever any trace would change; golden digests change in the same commit."""

Key = tuple[int, int]
"""Two words of 32 bits each, of `derive_key`."""

MAX_WINDOW = 1 << 24
MAX_STREAMS = 1 << 3
MAX_TURNS = 1 << 16
MAX_ITEMS = 4 << 16
"""Items come four to a draw (`Purpose.IMAGE` and its like), so 16 bits count draws of four."""
MAX_ATTEMPTS = 1 << 8
"""Of a rejection method; `Purpose.GAP` has them where others have items."""

ALONE, CONVERSATIONS = 0, 1
"""Streams of a client: requests that stand alone, and first turns of conversations."""
STREAM_SHIFT = 29
"""The stream is above the purpose in word 2."""


_ONE = SimpleNamespace(uint64=int, broadcast_arrays=lambda *words: words)
"""Python's own integers in the place of arrays: a tenth of the time for one address."""


class Purpose(IntEnum):
    """What a random number is for, from 0 to 31. Numbers are part of the stream: add, never change."""

    COUNT = 0  # word 0: rounding of the count; word 1: rotation of the cell
    GAP = 1  # item: which try of a rejection method
    DATA = 2  # lanes: scalar fields in the order of the category; item: which four of them
    IMAGE = 3  # lanes: items 4i .. 4i + 3 of the request
    AUDIO = 4
    VIDEO = 5
    TURN = 6  # turn 0, word 0: how many turns; turn j, words 0 and 1: time to the turn after, word 2: new tokens
    DATASET = 7  # lengths from a dataset, by row: lanes as in DATA; turn: 0, or which kind of items
    THINNING = 8  # word 0: whether to keep a conversation (window 0) or row (window 1): its number is client, ordinal
    DESCRIPTION = 9  # draws from distributions over clients: four to an ordinal, of no client and no window
    POPULATION = 10  # what a client is like, by its id: words 0 and 1; item: which of its choices
    ENVIRONMENT = 11  # what clients share: window: octave; stream: whose; four normals to an ordinal; turn 1: a phase
    STUDY = 12  # parameters of a study's draws: ordinal: the draw; client: CRC-32 of the parameter's name


def derive_key(seed: int, replica: int = 0) -> Key:
    """Key of a replica: two words of Philox under the 64-bit seed, so that replicas are independent.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1; 0 is a seed like any other.
    replica : int
        0 to 2**32 - 1.
    """
    first, second, _, _ = philox4x32(_ONE, (int(replica), STREAM_VERSION, 0, 0), (seed & MASK, seed >> 32))
    return first, second


def draw(
    xp: Any,
    key: tuple[int, int],
    purpose: Purpose,
    *,
    ordinal: Any,
    client: Any,
    window: Any,
    stream: Any = 0,
    turn: Any = 0,
    item: Any = 0,
) -> Words:
    """The four words at an address; arguments broadcast.

    Parameters
    ----------
    ordinal, client, window, stream, turn, item : uint64 array or int

    Returns
    -------
    4 of uint64 arrays
        32-bit values.
    """
    u64 = xp.uint64
    place = xp.asarray(window, dtype=u64) | u64(purpose << 24) | (xp.asarray(stream, dtype=u64) << u64(29))
    detail = xp.asarray(turn, dtype=u64) | (xp.asarray(item, dtype=u64) << u64(16))
    counter = (xp.asarray(ordinal, dtype=u64), xp.asarray(client, dtype=u64), place, detail)
    return philox4x32(xp, counter, key)
