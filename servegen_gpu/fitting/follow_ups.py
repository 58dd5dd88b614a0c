"""Whether another turn follows, and after how long, from a log that ends before its conversations do.

After turn j another one follows with probability q_j, after a time with distribution G. What was not seen to follow
within a time c, because the log or the longest session ended, still follows with probability
q_j (1 - G(c)) / (1 - q_j G(c)). Weighing the unseen with that, and counting again, until nothing changes, is the most
likely q and G (EM). G ends with the longest time that was seen: a log cannot tell what it is too short for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 512
FEW = 30
"""Conversations at a turn: from where fewer are, all later turns share one probability."""
MOST_TURNS = 512
MOST_STEPS = 1000
SETTLED = 1e-6
MOST_SURE = 0.9999
FURTHER = 4
"""Most turns of a model, as a multiple of the most that were seen."""
RARE = 1e-4
"""Share of conversations beyond the last number of turns that a model has."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FollowUps:
    """Estimates from one log.

    Attributes
    ----------
    more : float64[turns]
        Probability that a turn follows turn 1, 2, …; the last one holds for all later turns.
    edges_s : float64[bins + 1]
        Bins of inter-turn times, seconds; one number if all are the same.
    weight : float64[bins]
        How many follow after such a time, seen or not.
    unseen : float
        Share of the turns that follow, which the log is too short to show.
    longest : int
        Most turns that were seen.
    """

    more: Floats
    edges_s: Floats
    weight: Floats
    unseen: float
    longest: int

    def turns(self) -> tuple[Floats, Floats]:
        """Numbers of turns from 2 on, and their probabilities."""
        after = self.more[1:]
        last = float(after[-1]) if len(after) else 0.0
        tail = 0 if last <= 0 else int(np.ceil(np.log(RARE) / np.log(min(last, MOST_SURE))))
        tail = min(tail, FURTHER * self.longest)
        going_on = np.concatenate((after, np.full(tail, last)))
        left = np.concatenate(([1.0], np.cumprod(going_on)))
        ended = left - np.append(left[1:], 0.0)
        number = np.arange(2.0, 2.0 + len(ended))
        return number[ended > 0], ended[ended > 0]


def follow_ups(turn: Ints, gap_s: Floats, seen_s: Floats, pooled_from: int | None = None) -> FollowUps:
    """The most likely probabilities and times.

    Parameters
    ----------
    turn : int64[n]
        Number of each turn, from 1 on.
    gap_s : float64[n]
        Time to the next turn; NaN if none was seen.
    seen_s : float64[n]
        How long a next turn would have been seen.
    pooled_from : int, optional
        The first turn that has its probability in common with all later ones; by default the first of which there are
        less than `FEW`.
    """
    reached = np.bincount(np.minimum(turn, MOST_TURNS), minlength=2)[1:]
    if pooled_from is None:
        thin = np.flatnonzero(reached[1:] < FEW)
        pooled_from = int(thin[0]) + 2 if len(thin) else len(reached)
    groups = min(pooled_from, len(reached))
    group = np.minimum(turn, groups) - 1
    follows = np.isfinite(gap_s)
    gaps = gap_s[follows]
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, min(MOST_BINS, len(gaps)) + 1))) if len(gaps) else np.zeros(1)
    bins = max(len(edges) - 1, 1)
    seen = np.histogram(gaps, edges)[0].astype(np.float64) if len(edges) > 1 else np.array([float(len(gaps))])
    # times that were waited in vain, to the nearest edge: of one group, at edge 0, 1, …
    middle = (edges[1:] + edges[:-1]) / 2 if len(edges) > 1 else edges
    waited = np.searchsorted(middle, seen_s[~follows], side="right")
    vain = np.bincount(group[~follows] * (bins + 1) + waited, minlength=groups * (bins + 1))
    at_risk, followed = (np.bincount(rows, minlength=groups) for rows in (group, group[follows]))
    more, weight, unseen = _settled(at_risk, followed, seen, vain)
    return FollowUps(more, edges, weight, unseen, int(turn.max(initial=1)))


def _settled(at_risk: Ints, followed: Ints, seen: Floats, vain: Ints) -> tuple[Floats, Floats, float]:
    """Repeat expectation and counting until nothing changes: probabilities, weights of bins, and the share unseen."""
    unseen_at = vain.reshape(len(at_risk), -1).astype(np.float64)
    weight, more = seen.copy(), followed / np.maximum(at_risk, 1)
    follow = np.zeros_like(unseen_at)
    for _ in range(MOST_STEPS):
        beyond = np.append(np.cumsum(weight[::-1])[::-1], 0.0) / max(weight.sum(), 1e-300)
        still = more[:, None] * beyond
        follow = unseen_at * still / np.maximum(1 - more[:, None] + still, 1e-300)
        now = (followed + follow.sum(axis=1)) / np.maximum(at_risk, 1)
        # those that are beyond an edge lie in the bins behind it, as others do
        each = np.cumsum(follow.sum(axis=0)[:-1] / np.maximum(beyond[:-1], 1e-300))
        weight = seen + weight / max(weight.sum(), 1e-300) * each
        done = np.abs(now - more).max(initial=0.0) < SETTLED
        more = now
        if done:
            break
    total = float(seen.sum() + follow.sum())
    return more, weight, float(follow.sum()) / total if total else 0.0
