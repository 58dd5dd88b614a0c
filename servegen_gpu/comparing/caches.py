"""How many blocks a cache of inputs finds that forgets what was used longest ago, at any size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).max
"""Distance of what was not used before."""


def stack_distances(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many different ids came since the last use of each, itself included, int64[n]; `NEVER` for first uses.

    A cache of c blocks has those with a distance of at most c. In n log n whole-array steps: of the uses since the
    last one, those count whose own last use came no later; these are counted bit by bit of the time of last use.
    """
    n = len(ids)
    order = np.argsort(ids, kind="stable")
    same = np.diff(ids[order]) == 0
    before = np.full(n, -1)
    before[order[1:][same]] = order[:-1][same]
    again = np.flatnonzero(before >= 0)
    distance = np.full(n, NEVER)
    # uses up to `before` all had their last use earlier; of later ones those count that were not used in between
    distance[again] = _no_later(before + 1, again) - before[again]
    return distance


def _no_later(values: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place in `at`, how many of the values before it are no larger than its own, int64[at].

    A wavelet matrix: values are parted by one bit after the other, highest first, and queries follow theirs.
    """
    wanted, first, last = values[at], np.zeros(len(at), np.int64), at.copy()
    found = np.zeros(len(at), np.int64)
    for bit in range(int(values.max(initial=0)).bit_length() - 1, -1, -1):
        one = (values >> bit & 1).astype(np.bool_)
        zeros_before = np.zeros(len(values) + 1, np.int64)
        np.cumsum(~one, out=zeros_before[1:])
        low, high = zeros_before[first], zeros_before[last]
        up = (wanted >> bit & 1).astype(np.bool_)
        found += np.where(up, high - low, 0)
        zeros = zeros_before[-1]
        first, last = np.where(up, zeros + first - low, low), np.where(up, zeros + last - high, high)
        values = np.concatenate((values[~one], values[one]))
    return found + last - first


def hit_shares(ids: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of blocks that caches of `sizes` blocks have, float64[sizes]."""
    ordered = np.sort(stack_distances(ids))
    return np.asarray(np.searchsorted(ordered, sizes, side="right") / len(ids))
