"""Clients and windows with few requests, made alike with others.

Axes: clients, profiles, windows, fields, as in `servegen_gpu.clients.pool`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.private_bins import filled
from servegen_gpu.fitting.private_draft import OF_PROFILE, Draft, by_table
from servegen_gpu.request.families import EXPONENTIAL

MOST_GROUPS = 64
"""Kinds of clients that small ones become at most: alike in size, so that they stay as unequal as they were."""


def groups_of(
    requests: NDArray[np.integer], users: NDArray[np.integer] | None, least: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which clients have fewer than `least` requests (or users), bool[clients], and a group for each, -1 for others.

    A group has `least` or more.
    """
    standing = np.asarray(requests, np.int64)
    standing = standing if users is None else np.minimum(standing, np.asarray(users, np.int64))
    total = int(standing.sum())
    if total < least:
        what = "requests" if users is None else "requests and users"
        raise OptionError(
            f"a log of at least {least:,} {what}",
            f"{total:,} in all",
            "lower min_count (--min-count), or fit a longer log",
        )
    small = standing < least
    group = np.full(len(standing), -1)
    if not small.any():
        return small, group
    wanted = max(least, -(-int(standing[small].sum()) // MOST_GROUPS))
    if standing[small].sum() < least:  # the next larger client joins them
        others = np.flatnonzero(~small)
        small[others[np.argmin(standing[others])]] = True
        wanted = int(standing[small].sum())
    members = np.flatnonzero(small)
    members = members[np.argsort(standing[members], kind="stable")]
    sizes = standing[members]
    begins = filled(sizes, np.array([0]), sizes.sum(keepdims=True), wanted)
    group[members] = np.cumsum(begins) - 1
    return small, group


def with_groups(
    draft: Draft, profile: NDArray[np.int32], rate_factor: NDArray[np.float64], group: NDArray[np.int64]
) -> Draft:
    """The clients of each group on one profile: their mean rate, all their lengths, exponential gaps."""
    old = draft.rows
    profiles, fields = len(draft.requests), draft.table.shape[2]
    counted = draft.counted
    factor = np.bincount(profile, rate_factor, minlength=profiles)
    drawn = [np.maximum(by_table(draft.table, draft.requests, lane, len(counted)), 1) for lane in range(fields)]
    rows: dict[str, list[Any]] = {name: [] for name in old}
    left, counts = draft.requests.astype(np.float64), []
    tables: list[NDArray[np.int64]] = []
    made: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for g in range(int(group.max()) + 1):
        of_profile = np.bincount(profile[group == g], rate_factor[group == g], minlength=profiles)
        used = np.flatnonzero(of_profile)
        rate = of_profile[used] @ old["rate_rps"][used] / np.count_nonzero(group == g)
        mine = (of_profile[used] / factor[used])[:, None] * draft.requests[used]
        left[used] -= mine
        counts.append(mine.sum(axis=0))
        active = rate > 0
        table = np.full((len(rate), fields), -1)
        for lane in range(fields):
            table[active, lane] = len(counted) + len(made)
            part = by_table(draft.table[used], mine, lane, len(counted)) / drawn[lane]
            if not part.any():  # rates, but no request: as good as any of their tables
                part[np.unique(draft.table[used][..., lane][old["rate_rps"][used] > 0])[:1]] = 1.0
            made.append(counted.joint(part))
        tables.append(table)
        rows["rate_rps"].append(rate)
        for name, value in (("cv", 1.0), ("shape", 1.0), ("occupancy", 1.0), ("family", EXPONENTIAL)):
            rows[name].append(np.where(active, value, 0))
        for name in OF_PROFILE:
            rows[name].append(_most_common(old[name][used], mine.sum(axis=1)))
    moved = np.where(group >= 0, profiles + group, profile)
    kept, moved = np.unique(moved, return_inverse=True)
    stacked = {name: np.concatenate((old[name], np.array(new, old[name].dtype)))[kept] for name, new in rows.items()}
    requests = np.concatenate((left, np.array(counts)))[kept]
    return Draft(
        profile=moved.astype(np.int32),
        rows=stacked,
        table=np.concatenate((draft.table, np.array(tables)))[kept],
        counted=counted.with_tables(made),
        tables=draft.tables,
        requests=np.rint(requests).astype(np.int64),
    )


def _most_common(values: NDArray[Any], weight: NDArray[np.float64]) -> Any:
    """The value that most requests have."""
    distinct, at = np.unique(values, return_inverse=True)
    return distinct[np.argmax(np.bincount(at, weight))]


def even_windows(draft: Draft, least: int) -> tuple[Draft, int, int]:
    """The draft with the mean rate of several windows where single ones have few requests.

    From its first request on, a profile's windows make runs that end when they have enough; what is left at the end
    belongs to the last run. Windows of a run have its mean rate and the gaps of its busiest window; those that were
    silent have the lengths of that window, too.

    Returns
    -------
    draft : Draft
    windows : int
        How many have another rate than before.
    requests : int
        In these.
    """
    rate = draft.rows["rate_rps"]
    run = _runs(draft.requests, rate > 0, least)
    within = run >= 0
    profile, window = np.nonzero(within)
    flat, at = np.unique(profile * rate.shape[1] + run[within], return_inverse=True)
    length = np.bincount(at)
    single = (length == 1)[at]
    mean = np.bincount(at, rate[within]) / length
    order = np.lexsort((-rate[within], -draft.requests[within], at))
    busiest = order[np.searchsorted(at[order], np.arange(len(flat)))][at]
    rows = dict(draft.rows)
    for name in ("family", "shape", "cv", "occupancy"):
        rows[name] = rows[name].copy()
        rows[name][profile, window] = rows[name][profile[busiest], window[busiest]]
    table = draft.table.copy()
    silent = rate[within] == 0
    table[profile[silent], window[silent]] = table[profile[busiest[silent]], window[busiest[silent]]]
    rows["rate_rps"] = rate.copy()
    rows["rate_rps"][profile, window] = np.where(single, rate[within], mean[at])
    changed = rows["rate_rps"] != rate
    return replace(draft, rows=rows, table=table), int(changed.sum()), int(draft.requests[changed].sum())


def _runs(requests: NDArray[np.int64], active: NDArray[np.bool_], least: int) -> NDArray[np.int64]:
    """Number of the run of each window, ascending in each profile, int64[profiles, windows]; -1 in none."""
    profiles, windows = requests.shape
    run = np.full((profiles, windows), -1)
    number = np.full(profiles, -1)
    had = np.full(profiles, least)  # as much as is needed: no run is open
    for w in range(windows):
        opens = (had >= least) & (active[:, w] | (requests[:, w] > 0))
        number += opens
        had[opens] = 0
        inside = had < least
        run[inside, w] = number[inside]
        had += np.where(inside, requests[:, w], 0)
    for p in np.flatnonzero(had < least):  # the last run has too little
        end = int(np.flatnonzero(active[p] | (requests[p] > 0))[-1]) + 1
        run[p, end:] = -1
        if number[p] > 0:
            before = int(np.flatnonzero(run[p] == number[p] - 1)[-1])
            run[p, before:end] = number[p] - 1
    return run
