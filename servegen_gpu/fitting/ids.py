"""Clients of a log that names them: the large ones as they are, the small ones in groups of similar lengths.

A client with hundreds of requests has lengths and correlations of its own. Of the others a log says too little each:
they share the lengths of those that are like them.

Axes: clients, profiles (large clients, then groups of small ones).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.chance import sample_rows
from servegen_gpu.fitting.dependence import measured_spearman, pooled_spearman, stated_spearman
from servegen_gpu.fitting.latent import cluster
from servegen_gpu.fitting.tallies import tally

OWN = 300
"""Requests from which on a client has lengths of its own."""
GROUPS = 32
"""Most groups of small clients."""
DRIFT_REQUESTS = 200
DRIFT_KS, DRIFT_NOISE = 0.25, 3.0
"""A client has changed if its halves differ by this much, and by this many times the scale of chance."""
CORRELATION_ROWS = 1_000_000
LEAST_SHRINK, MOST_SHRINK = 30.0, 1e6
ROW_LANE = 96


@dataclass(frozen=True, eq=False)
class Identified:
    """Clients by their ids.

    Attributes
    ----------
    ids : int64[clients]
        Ascending.
    sizes : int64[clients]
        Requests of each.
    client : int32[n]
        Row of `ids` of each request.
    profile : int32[clients]
        Profile of each client: large ones have their own, in order of their ids; groups of small ones follow.
    large : int
        How many profiles are of one client.
    profile_sizes : int64[profiles]
        Requests of each.
    changed : int64[some]
        Ids whose lengths in the first half of their requests are not those of the second.
    notes : tuple of str
    """

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    client: NDArray[np.int32]
    profile: NDArray[np.int32]
    large: int
    profile_sizes: NDArray[np.int64]
    changed: NDArray[np.int64]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label(self) -> NDArray[np.int32]:
        """Profile of each request, int32[n]."""
        return self.profile[self.client]


def identified(
    client: NDArray[np.integer],
    input_tokens: NDArray[np.integer],
    output_tokens: NDArray[np.integer],
    *,
    own: int = OWN,
    seed: int = 0,
) -> Identified:
    """Clients of a log in order of time.

    Parameters
    ----------
    client : int[n]
        Id of each request, not negative.
    input_tokens, output_tokens : int[n]
    own : int
        Requests from which on a client has a profile of its own.
    seed : int

    Raises
    ------
    OptionError
        If there are no requests.
    """
    if not len(client):
        raise OptionError("a log with requests", "none", "give another log")
    ids, row, sizes = _dense(client)
    is_large = sizes >= own
    large = int(is_large.sum())
    profile = np.empty(len(ids), np.int32)
    profile[is_large] = np.arange(large)
    small = np.flatnonzero(~is_large)
    if len(small):
        requests = int(sizes[small].sum())
        groups = max(min(GROUPS, requests // own), 1)
        profile[small] = large + cluster(_mean_logs(row, sizes, small, input_tokens, output_tokens), groups, seed)
    counts = np.bincount(profile, sizes).astype(np.int64)
    changed = ids[_changed(row, sizes, (input_tokens, output_tokens))]
    notes = _notes(sizes, len(small), len(counts) - large, changed, own)
    return Identified(ids, sizes, row, profile, large, counts, changed, notes)


def profile_spearman(
    fields: NDArray[np.int64], label: NDArray[np.integer], count: int, *, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Spearman matrices to state for each profile, shrunk to that of all inside profiles.

    A profile of n requests keeps the part n / (n + m) of its own correlation; m is such that noise is taken off and
    true differences stay.

    Parameters
    ----------
    fields : int64[fields, n]
    label : int[n]
    count : int
        Profiles.
    seed : int

    Returns
    -------
    spearman : float64[profiles, fields, fields]
    m : float
    """
    rows = sample_rows(len(label), CORRELATION_ROWS, seed, ROW_LANE)
    part, own = fields[:, rows], np.asarray(label, np.int64)[rows]
    counted = [tally(field, own, count) for field in part]
    measured, pooled = measured_spearman(part, own, counted), pooled_spearman(part, own, counted)
    size = np.bincount(own, minlength=count).astype(np.float64)
    several = size >= 10
    pair = np.tril_indices(len(fields), -1)
    off = (measured - pooled)[:, pair[0], pair[1]][several]
    noise = (1 - pooled[pair] ** 2) ** 2 / (size[several, None] - 1)
    true = float((off * off - noise).mean()) if off.size else 0.0
    m = float(np.clip(1 / max(true, 1e-12), LEAST_SHRINK, MOST_SHRINK))
    kept = (size / (size + m))[:, None, None]
    return stated_spearman(kept * measured + (1 - kept) * pooled, counted), m


def _dense(client: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Ids, ascending, the place of each request's among them, and how often each occurs."""
    largest = int(client.max())
    if largest > 4 * len(client) + 1024:
        ids, row, sizes = np.unique(client, return_inverse=True, return_counts=True)
        return ids.astype(np.int64), row.astype(np.int32), sizes
    every = np.bincount(client)
    ids = np.flatnonzero(every)
    if len(ids) == len(every):
        return ids, np.asarray(client, np.int32), every
    place = np.zeros(len(every), np.int32)
    place[ids] = np.arange(len(ids))
    return ids, place[client], every[ids]


def _mean_logs(
    row: NDArray[np.int32],
    sizes: NDArray[np.int64],
    small: NDArray[np.int64],
    input_tokens: NDArray[np.integer],
    output_tokens: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Mean logarithms of lengths of small clients, standardised over these, float64[small, features]."""
    found = []
    for tokens in (input_tokens, output_tokens):
        sums = np.bincount(row, np.log1p(tokens), len(sizes))[small]
        mean = sums / sizes[small]
        spread = float(mean.std())
        if spread > 1e-9:
            found.append((mean - mean.mean()) / spread)
    return np.stack(found, axis=1) if found else np.zeros((len(small), 0))


def _changed(
    row: NDArray[np.int32], sizes: NDArray[np.int64], columns: tuple[NDArray[np.integer], ...]
) -> NDArray[np.int64]:
    """Clients whose lengths differ between the halves of their requests, far beyond chance."""
    enough = sizes >= DRIFT_REQUESTS
    if not enough.any():
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(enough[row])
    clients = np.flatnonzero(enough)
    place = np.zeros(len(sizes), np.int64)
    place[clients] = np.arange(len(clients))
    own = place[row[rows]]
    n = sizes[clients]
    begin = np.cumsum(n) - n
    in_time = np.argsort(own, kind="stable")
    early = np.empty(len(rows), np.bool_)
    early[in_time] = np.arange(len(rows)) - np.repeat(begin, n) < np.repeat(n // 2, n)
    apart = np.zeros(len(clients))
    for tokens in columns:
        key = own << 33 | np.asarray(tokens, np.int64)[rows] << 1 | early
        key.sort()
        client, late = key >> 33, (key & 1) == 0
        step = np.where(late, -1.0 / (n - n // 2)[client], 1.0 / (n // 2)[client])
        upto = np.cumsum(step)
        upto -= np.repeat(np.concatenate(([0.0], upto))[begin], n)
        last = np.append(key[1:] >> 1 != key[:-1] >> 1, True)  # of equal lengths
        apart = np.maximum(apart, np.maximum.reduceat(np.where(last, np.abs(upto), 0.0), begin))
    return clients[(apart >= DRIFT_KS) & (apart * np.sqrt(n / 4) >= DRIFT_NOISE)]


def _notes(sizes: NDArray[np.int64], small: int, groups: int, changed: NDArray[np.int64], own: int) -> tuple[str, ...]:
    """What a user should know."""
    found = []
    if small:
        share = float(sizes[sizes < own].sum() / sizes.sum())
        found.append(
            f"{small:,} of {len(sizes):,} clients have fewer than {own} requests ({share:.0%} of all): their lengths "
            f"are those of {groups} group{'s' * (groups != 1)} of similar clients"
        )
    if len(changed):
        tested = int((sizes >= DRIFT_REQUESTS).sum())
        found.append(
            f"{len(changed):,} of {tested:,} clients with {DRIFT_REQUESTS} requests or more "
            f"({len(changed) / tested:.0%}) have other lengths in the second half of their requests than in the first: "
            "their ids may have changed meaning"
        )
    return tuple(found)
