"""Draws of what clients are like, by seed and client id, that keep the mix of the whole as it was stated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEAD = 256
"""How many of the largest clients share out the choices evenly among themselves."""


def stratified(
    shares: NDArray[np.float64],
    tail_shares: NDArray[np.float64],
    group: NDArray[np.int64],
    weight: NDArray[np.float64],
    seed: int,
    lane: int,
    begin: int = 0,
) -> NDArray[np.int64]:
    """One choice for every client, int64[clients], so that choices get their shares of the requests of each group.

    Ten clients make half of the requests, so independent draws would leave the mix of the whole to a few throws of
    the dice. The head is therefore drawn one after the other, each choice by how much it lacks of what it is due.

    Parameters
    ----------
    shares, tail_shares : float64[groups, choices]
        Of the requests of the head, and of the clients beyond it; both are weights, normalised here.
    group : int64[clients]
        At least `HEAD` of them.
    weight : float64[HEAD]
        Requests of the head.
    seed, lane : int
        A lane for every sort of choice.
    begin : int
        Clients before this one are not counted.
    """
    uniform = uniforms(seed, lane, np.arange(len(group)))
    ends = np.cumsum(tail_shares, axis=1)
    ends /= ends[:, -1:]
    choice = (uniform[:, None] >= ends[group, :-1]).sum(axis=1)
    shares = shares / shares.sum(axis=1, keepdims=True)
    due = np.zeros(shares.shape)
    for i in range(begin, HEAD):
        mine = due[group[i]]
        mine += weight[i] * shares[group[i]]
        lacking = np.cumsum(np.maximum(mine, 0))
        choice[i] = np.searchsorted(lacking[:-1], uniform[i] * lacking[-1], side="right")
        mine[choice[i]] -= weight[i]
    return np.asarray(choice, np.int64)


def uniforms(seed: int, lane: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniforms in [0, 1) by seed, lane and client id: SplitMix64's finaliser, once for the key, once for the id."""
    key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(lane))
    return (_mix(key + ids.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
