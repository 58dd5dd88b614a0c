"""Draws of what clients are like, by seed and client id, that keep the mix of the whole as it was stated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.variates import uniform52

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
    the dice. The head is therefore drawn one after the other, each choice by how much it lacks of what it is due. No
    choice gets a client that sends more than all that it is due; a client too large for every choice, or for those that
    lack something, has the middle one.

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
    most = np.bincount(group[begin:HEAD], weight[begin:], len(shares))[:, None] * shares
    due = np.zeros(shares.shape)
    for i in range(begin, HEAD):
        mine = due[group[i]]
        mine += weight[i] * shares[group[i]]
        lacking = np.cumsum(np.where(most[group[i]] < weight[i], 0.0, np.maximum(mine, 0.0)))
        by, at = (lacking, uniform[i]) if lacking[-1] else (np.cumsum(shares[group[i]]), 0.5)
        choice[i] = np.searchsorted(by[:-1], at * by[-1], side="right")
        mine[choice[i]] -= weight[i]
    return np.asarray(choice, np.int64)


def uniforms(seed: int, lane: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniforms by seed, lane and client id, float64[clients]: never 0, never 1."""
    words = draw(np, derive_key(seed), Purpose.POPULATION, ordinal=0, client=ids, window=0, item=lane)
    return np.asarray(uniform52(np, words[0], words[1]), np.float64)
