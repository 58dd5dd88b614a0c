"""Which of a client's requests of one microsecond a request is: what an arrival lacks to be an address."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class LastMicrosecond(NamedTuple):
    """The requests that arrived last so far, all in one microsecond; int64[k] each."""

    arrival_us: NDArray[np.int64]
    client: NDArray[np.int64]


NOBODY = LastMicrosecond(np.zeros(0, np.int64), np.zeros(0, np.int64))


def ranks(
    arrival_us: NDArray[np.int64], client: NDArray[np.integer], before: LastMicrosecond = NOBODY
) -> tuple[NDArray[np.int64], LastMicrosecond]:
    """How many requests of the same client and microsecond came before each request.

    Parameters
    ----------
    arrival_us, client : int64[n]
        In any order; if there is something before, it and these are in order of time.
    before : LastMicrosecond
        Of the slabs before.

    Returns
    -------
    rank : int64[n]
    last : LastMicrosecond
        What the next slab needs to know.
    """
    if not len(arrival_us):
        return np.zeros(0, np.int64), before
    known = len(before.client) if len(before.client) and before.arrival_us[0] == arrival_us[0] else 0
    if known:
        arrival_us = np.concatenate((before.arrival_us, arrival_us))
        client = np.concatenate((before.client, client))
    rank = _within_groups(arrival_us, client)[known:]
    latest = np.flatnonzero(arrival_us == arrival_us[-1])
    return rank, LastMicrosecond(arrival_us[latest], client[latest].astype(np.int64))


def _within_groups(arrival_us: NDArray[np.int64], client: NDArray[np.integer]) -> NDArray[np.int64]:
    rank = np.zeros(len(client), np.int64)
    step = np.diff(arrival_us)
    rows = np.arange(len(client))
    if (step >= 0).all():  # few share a microsecond
        alike = np.concatenate(([False], step == 0, [False]))
        rows = np.flatnonzero(alike[1:] | alike[:-1])
    order = rows[np.lexsort((client[rows], arrival_us[rows]))]
    at, whose = arrival_us[order], client[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (at[1:] != at[:-1]) | (whose[1:] != whose[:-1])
    place = np.arange(len(order))
    rank[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return rank
