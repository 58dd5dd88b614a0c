"""Ids of conversations, and of requests that stand alone: whose and which, in one whole number.

A conversation has an id from 0 on, a request that stands alone one below 0, so that ids group the rows that belong
together, and their sign says what they are. An id follows from the address of the first turn (client, window, ordinal)
alone, so it is the same in every slice, share and backend.

The three numbers stand side by side in one of several *layouts*: the first with room for them. Each layout has a range
of ids of its own. The first six ranges end at 2**53, up to where JavaScript, jq and float64 keep whole numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import for_blocks
from servegen_gpu.errors import RateError
from servegen_gpu.law.address import ALONE


class Layout(NamedTuple):
    """Bits of the parts of an id, from the top, and where its range begins."""

    client: int
    window: int
    ordinal: int
    base: int


def _layouts(*bits: tuple[int, int, int]) -> tuple[Layout, ...]:
    """Ranges one behind the other."""
    base, found = 0, []
    for client, window, ordinal in bits:
        found.append(Layout(client, window, ordinal, base))
        base += 1 << (client + window + ordinal)
    return tuple(found)


LAYOUTS = _layouts(
    (16, 16, 20),  # 65,536 clients, 455 days of windows of ten minutes, a million ids of a client in each
    (15, 9, 27),  # a billion requests an hour
    (20, 20, 10),  # a million clients, 12 days of windows of one second
    (10, 24, 15),
    (20, 10, 18),
    (12, 12, 24),
    # beyond 2**53
    (31, 12, 19),  # any client
    (31, 24, 6),
    (24, 16, 20),
    (15, 13, 31),
    (20, 12, 26),
)


def session_ids(
    stream: int, client: NDArray[np.integer], window: NDArray[np.int64], ordinal: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Ids by the address of the first turn.

    Parameters
    ----------
    stream : int
        `ALONE` or `CONVERSATIONS`.
    client : int[n]
        Ids.
    window : int64[n]
        Absolute number of the window of the first turn; conversations may have begun before the axis does.
    ordinal : uint32[n]

    Returns
    -------
    int64[n]

    Raises
    ------
    RateError
        If no layout has room.
    """
    out = np.empty(len(ordinal), np.int64)

    def block(a: int, b: int) -> None:
        whose, when, which = client[a:b].astype(np.int64), window[a:b], ordinal[a:b].astype(np.int64)
        named = whose, when, which
        if stream != ALONE:
            when = folded(when)
            which = which << 1  # odd numbers are left for later kinds of sessions
        out[a:b] = found = _side_by_side(whose, when, which)
        if (found < 0).any():
            raise _no_room(*(int(part[np.argmin(found)]) for part in named))
        if stream == ALONE:
            np.invert(out[a:b], out=out[a:b])  # -1 - id

    for_blocks(len(out), block)
    return out


def folded(window: NDArray[np.int64]) -> NDArray[np.int64]:
    """Windows before and after the begin of the axis by turns: 0, -1, 1, -2, … become 0, 1, 2, 3, …"""
    return np.where(window < 0, -2 * window - 1, 2 * window)


def _side_by_side(
    client: NDArray[np.int64], window: NDArray[np.int64], ordinal: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Three whole numbers in the first layout with room for them; -1 if none has."""
    parts = (client, window, ordinal)
    largest = [int(part.max(initial=0)) for part in parts]
    found = np.full(len(client), -1, np.int64)
    for layout in LAYOUTS:
        bits = layout[:3]
        ids = (((client << layout.window) | window) << layout.ordinal) + (ordinal + layout.base)
        fits = [part >> bit == 0 for part, bit, most in zip(parts, bits, largest, strict=True) if most >> bit]
        room = (found < 0) & np.logical_and.reduce(fits) if fits else found < 0
        found = np.where(room, ids, found)
        if not fits:
            return found
    return found


def _no_room(client: int, window: int, ordinal: int) -> RateError:
    return RateError(
        "ids of requests and conversations that fit 63 bits",
        f"request {ordinal:,} of client {client} in window {window:,}",
        "lower the rate, split clients with pool.clone(n), or renumber them with servegen_gpu.join([pool])",
    )
