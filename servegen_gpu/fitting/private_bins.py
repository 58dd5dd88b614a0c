"""Bins that few requests stand behind, merged with their neighbours.

Axes: tables, bins (of all tables together), as in `servegen_gpu.request.tables`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.private_draft import Counted, Draft
from servegen_gpu.request.tables import Tables

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
    begins |= filled(counts, run_starts[~poor & ~heavy[run_starts]], sums[~poor & ~heavy[run_starts]], least)
    group_starts = np.flatnonzero(begins)
    sums = np.add.reduceat(counts, group_starts)
    means = _means(values, counts, group_starts, sums)
    into = _receivers(means, sums < least, table[group_starts])
    kept = np.flatnonzero(sums >= least)
    moved = np.bincount(into, sums, minlength=len(sums)).astype(np.int64)
    per_table = np.bincount(table[group_starts[kept]], minlength=len(totals))
    return np.concatenate(([0], np.cumsum(per_table))), means[kept], moved[kept]


def filled(
    counts: NDArray[np.int64], starts: NDArray[np.int64], sums: NDArray[np.int64], least: int
) -> NDArray[np.bool_]:
    """Where the groups of runs begin, bool[bins]: each takes bins until it has enough, a run's last one the rest.

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


def private_tables(draft: Draft, least: int) -> tuple[NDArray[np.int32], Tables, float]:
    """Tables with at least `least` requests behind every bin, and who draws from which.

    Tables of fewer requests become one for each field, or join the largest of the field. Tables that tell of nobody
    stay as they are.

    Returns
    -------
    table : int32[profiles, windows, fields]
    tables : Tables
    share : float
        Of the draws, how many are of bins that had too few.
    """
    counted, table = draft.counted, draft.table.copy()
    for lane in range(table.shape[2]):
        used = np.unique(table[..., lane][table[..., lane] >= 0])
        used = used[~counted.free[used]]
        totals = counted.totals()[used]
        few = used[totals < least]
        if len(few) and counted.totals()[few].sum() < least and len(few) < len(used):
            few = np.append(few, used[np.argmax(totals)])
        if len(few):
            part = np.zeros(len(counted), np.float64)
            part[few] = 1.0
            counted = counted.with_tables([counted.joint(part)])
            table[..., lane][np.isin(table[..., lane], few)] = len(counted) - 1
    used, table_rows = np.unique(table, return_inverse=True)
    rows = table_rows.reshape(table.shape) - (used[0] < 0)
    used = used[used >= 0]
    free = counted.free[used]
    mine = counted.select(used[~free])
    totals = mine.totals()
    scarce = totals < least  # a whole field that hardly occurs: one value, to one digit
    offsets, values, counts = (
        merged_bins(mine.offsets, mine.values, mine.counts, least)
        if not scarce.any()
        else (_with_scarce(mine, scarce, least))
    )
    share = float(mine.counts[mine.counts < least].sum() / max(mine.counts.sum(), 1))
    parts = [draft.tables.select(used[free])]
    if len(mine):
        parts.append(Tables.from_weights(offsets, values, counts))
    place = np.empty(len(used), np.int64)
    place[np.flatnonzero(free)] = np.arange(free.sum())
    place[np.flatnonzero(~free)] = free.sum() + np.arange((~free).sum())
    return np.where(rows < 0, -1, place[rows]).astype(np.int32), Tables.join(parts), share


def _with_scarce(mine: Counted, scarce: NDArray[np.bool_], least: int) -> Bins:
    """`merged_bins`, where some tables have fewer requests than `least`: these become one rounded value each."""
    rich = mine.select(np.flatnonzero(~scarce))
    offsets, values, counts = merged_bins(rich.offsets, rich.values, rich.counts, least)
    at, found = 0, []
    for t, is_scarce in enumerate(scarce.tolist()):
        if is_scarce:
            bins = slice(int(mine.offsets[t]), int(mine.offsets[t + 1]))
            weights = mine.counts[bins] if mine.counts[bins].any() else None
            mean = np.average(mine.values[bins], weights=weights)
            found.append((np.array([int(float(f"{mean:.0e}"))]), mine.counts[bins].sum(keepdims=True)))
        else:
            bins = slice(int(offsets[at]), int(offsets[at + 1]))
            found.append((values[bins], counts[bins]))
            at += 1
    sizes = [len(one) for one, _ in found]
    return np.cumsum([0, *sizes]), np.concatenate([v for v, _ in found]), np.concatenate([c for _, c in found])
