"""Bins that few requests stand behind, merged with their neighbours.

Axes: tables, bins (of all tables together), as in `servegen_gpu.request.tables`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError

Bins = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def merged_bins(
    offsets: NDArray[np.integer], values: NDArray[np.integer], counts: NDArray[np.integer], least: int
) -> Bins:
    """Tables whose every bin has at least `least` requests behind it; each keeps its requests.

    A bin that has enough keeps its value. Runs of bins that have not become as many bins as have enough together, each
    at the mean of its requests, rounded; a run that has too few in all falls to the nearest bin that has enough. So
    no value stays that fewer than `least` requests had, least and largest ones included.

    Parameters
    ----------
    offsets : int[tables + 1]
    values : int[bins]
        Ascending inside each table.
    counts : int[bins]
        Requests in each bin, not negative.
    least : int
        At least 1, and no more than any table has.

    Returns
    -------
    offsets : int64[tables + 1]
    values, counts : int64[bins]

    Raises
    ------
    OptionError
        If a table has fewer requests than `least`.
    """
    offsets, values, counts = (np.asarray(a, np.int64) for a in (offsets, values, counts))
    if not len(offsets) - 1:
        return offsets, values, counts
    totals = np.add.reduceat(counts, offsets[:-1])
    if (totals < least).any():
        t = int(np.argmin(totals))
        raise OptionError(
            f"tables of at least {least:,} requests", f"{totals[t]:,} in table {t}", "merge tables, or lower min_count"
        )
    table = np.repeat(np.arange(len(totals)), np.diff(offsets))
    heavy = counts >= least
    begins = np.concatenate(([True], (np.diff(table) != 0) | heavy[1:] | heavy[:-1]))
    run_starts = np.flatnonzero(begins)
    sums = np.add.reduceat(counts, run_starts)
    poor = sums < least
    begins |= _filled(counts, run_starts[~poor & ~heavy[run_starts]], sums[~poor & ~heavy[run_starts]], least)
    group_starts = np.flatnonzero(begins)
    sums = np.add.reduceat(counts, group_starts)
    means = _means(values, counts, group_starts, sums)
    into = _receivers(means, sums < least, table[group_starts])
    kept = np.flatnonzero(sums >= least)
    moved = np.bincount(into, sums, minlength=len(sums)).astype(np.int64)
    per_table = np.bincount(table[group_starts[kept]], minlength=len(totals))
    return np.concatenate(([0], np.cumsum(per_table))), means[kept], moved[kept]


def _filled(
    counts: NDArray[np.int64], starts: NDArray[np.int64], sums: NDArray[np.int64], least: int
) -> NDArray[np.bool_]:
    """Where the groups of runs begin: each takes bins until it has enough, the last one of a run takes the rest.

    Runs begin at `starts` and have `sums` requests each, at least `least`.
    """
    before = np.concatenate(([0], np.cumsum(counts)))
    # where the group that begins at a bin has enough
    full = np.searchsorted(before, before[:-1] + least).tolist()
    ends = (before[starts] + sums).tolist()
    upto = before.tolist()
    begins = np.zeros(len(counts), np.bool_)
    found: list[int] = []
    for start, end in zip(starts.tolist(), ends, strict=True):
        at = start
        while end - upto[at] >= least:
            found.append(at)
            at = full[at]
    begins[found] = True
    # a rest that has too few belongs to the group before it, and so begins none
    return begins


def _means(
    values: NDArray[np.int64], counts: NDArray[np.int64], starts: NDArray[np.int64], sums: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Mean value of the requests of each group, rounded; the middle one where there are none."""
    first = values[starts]
    deviation = values - np.repeat(first, np.diff(np.append(starts, len(values))))
    moment = np.add.reduceat(deviation.astype(np.float64) * counts, starts)
    return first + np.rint(moment / np.maximum(sums, 1)).astype(np.int64)


def _receivers(means: NDArray[np.int64], poor: NDArray[np.bool_], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which group takes the requests of each: itself if it has enough, else the nearest in value that has."""
    at = np.arange(len(means))
    left = np.maximum.accumulate(np.where(poor, -1, at))
    right = np.minimum.accumulate(np.where(poor, len(at), at)[::-1])[::-1]
    has_left = (left >= 0) & (table[left] == table)
    has_right = (right < len(at)) & (table[np.minimum(right, len(at) - 1)] == table)
    right = np.minimum(right, len(at) - 1)
    to_left = has_left & (~has_right | (means - means[left] <= means[right] - means))
    return np.where(to_left, left, right)
