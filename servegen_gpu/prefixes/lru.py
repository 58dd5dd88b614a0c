"""How many blocks a prefix cache of a given size would find: the hit curve of LRU, for all sizes at once.

A request looks its input up first, then its blocks become the most recently used ones, the first block last. A block is
never older than those behind it then, so what a cache holds of an input is always its beginning.

Notation: a block's *stack distance* is how many different blocks were used since it was used last. A cache of C blocks
holds it if the distance is below C (Mattson, Gecsei, Slutz, Traiger, IBM Systems Journal 1970).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

Ints = NDArray[np.int64]
NEVER = -1
SIZES = 5


def lru_curve(trace: Trace | Ragged, sizes: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of all blocks that a cache under LRU holds when they are asked for.

    Parameters
    ----------
    trace : Trace or Ragged
        With the column ``hash_ids``, in order of time; or that column.
    sizes : int[k]
        Sizes of caches, blocks.

    Returns
    -------
    float64[k]
        NaN if there are no blocks.

    Raises
    ------
    OptionError
        If the trace has no ``hash_ids``, or a size is below 0.
    """
    wanted = np.asarray(sizes)
    if wanted.dtype.kind not in "iu" or (wanted < 0).any():
        raise OptionError("sizes of caches as numbers of blocks, from 0 on", repr(sizes)[:60], "change sizes")
    distance = stack_distances(trace)
    if not len(distance):
        return np.full(len(wanted), np.nan)
    known = np.sort(distance[distance != NEVER])
    return np.asarray(np.searchsorted(known, wanted) / len(distance))


def cache_sizes(trace: Trace | Ragged, count: int = SIZES) -> Ints:
    """Sizes to compare caches at, int64[count]: 1, 1/4, 1/16, … of the different blocks of a trace; smallest first."""
    different = len(distinct(_ids(trace).values))
    return np.array([max(different >> 2 * step, 1) for step in range(count - 1, -1, -1)])


def stack_distances(trace: Trace | Ragged) -> Ints:
    """How many different blocks were used between a request and the last use of each of its blocks.

    Returns
    -------
    int64[blocks]
        In the order of ``hash_ids``; `NEVER` for a block that comes for the first time. A block that a request names
        twice counts as just used the second time.
    """
    ids = _ids(trace)
    begins, ends = (np.repeat(edge, ids.lengths) for edge in (ids.offsets[:-1], ids.offsets[1:]))
    use = begins + ends - 1 - np.arange(len(begins))  # when each block is used, and which block is used when
    before = last_use(ids.values[use])
    repeated = np.flatnonzero(before != NEVER)
    last = before[use]
    again = np.flatnonzero(last != NEVER)
    since, last = begins[again], last[again]
    # of the uses in between, those of a block that was used in between already do not count
    twice = _greater(before[repeated], np.searchsorted(repeated, since), last)
    distance = np.full(len(begins), NEVER)
    distance[again] = np.maximum(since - last - 1 - twice, 0)
    return distance


def _ids(trace: Trace | Ragged) -> Ragged:
    if isinstance(trace, Ragged):
        return trace
    ids = trace.columns.get("hash_ids")
    if not isinstance(ids, Ragged):
        raise OptionError("a trace with hash_ids", f"columns {', '.join(trace)}", "add them: trace.with_hash_ids()")
    return ids


def last_use(ids: NDArray[np.integer]) -> Ints:
    """Place of the same id before each place; `NEVER` if there is none."""
    before = np.full(len(ids), NEVER)
    order = np.argsort(ids, kind="stable")
    same = ids[order[1:]] == ids[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def _greater(numbers: Ints, first: Ints, than: Ints) -> Ints:
    """How many of the `first` numbers are greater than another one; all of them from 0 on.

    Numbers are parted by one bit after the other, the highest first, as in a wavelet matrix (Claude, Navarro, Ordóñez,
    Information Systems 2015): each step is a sum over all, and a look-up for each question.
    """
    found = np.zeros(len(first), np.int64)
    low, high = np.zeros(len(first), np.int64), first
    for bit in range(int(numbers.max(initial=0)).bit_length() - 1, -1, -1):
        ones = (numbers >> bit & 1).astype(np.bool_)
        zeros = np.concatenate(([0], np.cumsum(~ones)))
        up = (than >> bit & 1).astype(np.bool_)
        low_zeros, high_zeros = zeros[low], zeros[high]
        found += np.where(up, 0, high - low - high_zeros + low_zeros)
        low = np.where(up, zeros[-1] + low - low_zeros, low_zeros)
        high = np.where(up, zeros[-1] + high - high_zeros, high_zeros)
        numbers = np.concatenate((numbers[~ones], numbers[ones]))
    return found
