"""Latent clients of a log that names none: requests that begin alike, or are alike in length.

Clusters of lengths carry what no rank correlation shows, such as outputs that are long for inputs of one size only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.chance import sample_rows, uniforms
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MODALITIES

LEAST = 100
"""Requests for each cluster that is asked for."""
FEWEST = 50
"""A cluster with fewer requests is given up."""
BLOCK_SHARE = 0.02
"""Part of the requests that must share a first block for a latent client of their own."""
SAMPLE = 100_000
START_SAMPLE, STARTS, STEPS = 10_000, 4, 30
BLOCK_ROWS = 1 << 16
START_LANE, ROW_LANE = 1, 2


@dataclass(frozen=True, eq=False)
class Latent:
    """Latent clients, the largest first.

    Attributes
    ----------
    label : int32[n]
        Client of each request.
    sizes : int64[clients]
    block : int64[clients]
        First block that all requests of a client share; -1 where there is none.
    how : {"one", "lengths", "first blocks"}
    notes : tuple of str
    """

    label: NDArray[np.int32]
    sizes: NDArray[np.int64]
    block: NDArray[np.int64]
    how: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)


def latent_clients(
    columns: Mapping[str, Any],
    *,
    first_blocks: NDArray[np.integer] | None = None,
    conversation: NDArray[np.integer] | None = None,
    most: int = 8,
    seed: int = 0,
) -> Latent:
    """Clients for a log without ids.

    Requests whose first prefix block is common are apart from the others; within these groups, requests are clustered
    by the logarithms of their lengths, as finely as `most` allows and as there are about 100 requests for each.

    Parameters
    ----------
    columns : mapping of str to int[n] or Ragged
        ``input_tokens``, ``output_tokens``; ``reason_tokens`` and lists of items, where there are any.
    first_blocks : int[n], optional
        The first of each request's prefix blocks; below 0 for none.
    conversation : int[n], optional
        Requests with the same number belong together, and so to the same client.
    most : int
        Largest number of clients.
    seed : int

    Raises
    ------
    OptionError
        If there are no requests, or `most` is below 1.
    """
    if most < 1:
        raise OptionError("at least 1 latent client", f"{most}", "change it")
    points = features(columns)
    if not len(points):
        raise OptionError("a log with requests", "none", "give another log")
    member = None
    if conversation is not None:
        _, first, member = np.unique(conversation, return_index=True, return_inverse=True)
        size = np.bincount(member)
        means = [np.bincount(member, axis) / size for axis in points.T]
        points = np.stack(means, axis=1) if means else np.zeros((len(size), 0))
        first_blocks = None if first_blocks is None else np.asarray(first_blocks)[first]
    group, block = _common_blocks(first_blocks, len(points), most)
    label = np.empty(len(points), np.int32)
    owner: list[int] = []
    for g, clusters in enumerate(_shared_out(np.bincount(group, minlength=len(block)), most)):
        rows = np.flatnonzero(group == g)
        label[rows] = cluster(points[rows], int(clusters), seed) + len(owner)
        owner += [int(block[g])] * (int(label[rows].max()) + 1 - len(owner))
    label = label if member is None else label[member]
    sizes = np.bincount(label)
    order = np.argsort(-sizes, kind="stable")
    place = np.argsort(order).astype(np.int32)
    own_block = np.array(owner, np.int64)[order]
    how = "first blocks" if (own_block >= 0).any() else "lengths" if len(sizes) > 1 else "one"
    return Latent(place[label], sizes[order], own_block, how, _notes(how, sizes, block, most))


def first_blocks_of(hash_ids: Ragged) -> NDArray[np.int64]:
    """The first prefix block of each request, int64[n]; -1 for a request without blocks."""
    some = hash_ids.lengths > 0
    first = np.full(len(hash_ids), -1, np.int64)
    first[some] = hash_ids.values[hash_ids.offsets[:-1][some]]
    return first


def features(columns: Mapping[str, Any]) -> NDArray[np.float64]:
    """What requests are compared by, float64[n, features]: those that vary, with mean 0 and variance 1."""
    every = [np.log1p(columns[name]) for name in ("input_tokens", "output_tokens")]
    if "reason_tokens" in columns:
        every.append(columns["reason_tokens"] / np.maximum(columns["output_tokens"], 1))
    for name in (f"{m}_tokens" for m in MODALITIES):
        if isinstance(column := columns.get(name), Ragged):
            every.append(np.log1p(column.sums()))
    kept = [(x - x.mean()) / spread for x in every if len(x) and (spread := float(x.std())) > 1e-9]
    return np.stack(kept, axis=1) if kept else np.zeros((len(every[0]), 0))


def cluster(points: NDArray[np.float64], most: int, seed: int) -> NDArray[np.int64]:
    """K-means of points: the number of each one's cluster, int64[n], from 0 without gaps."""
    n = len(points)
    most = min(most, n // LEAST)
    if most < 2 or not points.shape[1]:
        return np.zeros(n, np.int64)
    few = points[sample_rows(n, START_SAMPLE, seed, ROW_LANE)]
    best, centers = np.inf, few[:1]
    for start in range(STARTS):
        tried = _moved(few, _spread(few, most, seed, START_LANE + 2 * start), STEPS)
        off = float(_distances(few, tried).min(axis=1).sum())
        if off < best * (1 - 1e-9):
            best, centers = off, tried
    centers = _moved(points[sample_rows(n, SAMPLE, seed, ROW_LANE)], centers, STEPS)
    label = nearest(points, centers)
    while (sizes := np.bincount(label, minlength=len(centers))).min() < min(FEWEST, n):
        centers = np.delete(centers, sizes.argmin(), axis=0)
        label = nearest(points, centers)
    return label


def nearest(points: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest center of each point, int64[n]."""
    label = np.empty(len(points), np.int64)
    for begin in range(0, len(points), BLOCK_ROWS):
        rows = slice(begin, begin + BLOCK_ROWS)
        label[rows] = _distances(points[rows], centers).argmin(axis=1)
    return label


def _distances(points: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances, float64[points, centers]."""
    total = np.zeros((len(points), len(centers)))
    for x, c in zip(points.T, centers.T, strict=True):
        total += (x[:, None] - c) ** 2
    return total


def _spread(points: NDArray[np.float64], most: int, seed: int, lane: int) -> NDArray[np.float64]:
    """Centers to start from, by k-means++ (Arthur and Vassilvitskii, 2007); fewer if there are fewer points."""
    chance = uniforms(seed, lane, most)
    chosen = [points[int(chance[0] * len(points))]]
    off = np.full(len(points), np.inf)
    for u in chance[1:]:
        off = np.minimum(off, ((points - chosen[-1]) ** 2).sum(axis=1))
        upto = np.cumsum(off)
        if upto[-1] <= 0:
            break
        chosen.append(points[min(int(np.searchsorted(upto, u * upto[-1], side="right")), len(points) - 1)])
    return np.array(chosen)


def _moved(points: NDArray[np.float64], centers: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Centers after Lloyd's steps; those without points are left out."""
    label = np.full(len(points), -1)
    for _ in range(steps):
        before, label = label, nearest(points, centers)
        if np.array_equal(before, label):
            break
        size = np.bincount(label, minlength=len(centers))
        sums = np.stack([np.bincount(label, axis, len(centers)) for axis in points.T], axis=1)
        centers = sums[size > 0] / size[size > 0, None]
    return centers


def _common_blocks(
    first_blocks: NDArray[np.integer] | None, n: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each row by first block, int64[n], and the block of each group; -1 for that of the rest, the last."""
    if first_blocks is None:
        return np.zeros(n, np.int64), np.array([-1])
    blocks, at, size = np.unique(np.asarray(first_blocks, np.int64), return_inverse=True, return_counts=True)
    common = np.flatnonzero((blocks >= 0) & (size >= max(LEAST, BLOCK_SHARE * n)))
    common = common[np.argsort(-size[common], kind="stable")][:most]
    if len(common) == most and size[common].sum() < n:
        common = common[:-1]  # the rest is a client, too
    group = np.full(len(blocks), len(common))
    group[common] = np.arange(len(common))
    rest = size[common].sum() < n
    return group[at], np.append(blocks[common], [-1] * int(rest))


def _shared_out(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """How many clusters each group may have, int64[groups]: at least 1, the others where they are largest."""
    clusters = np.ones(len(sizes), np.int64)
    for _ in range(most - len(sizes)):
        clusters[np.argmax(sizes / clusters)] += 1
    return clusters


def _notes(how: str, sizes: NDArray[np.int64], block: NDArray[np.int64], most: int) -> tuple[str, ...]:
    """What a user should know."""
    if how == "first blocks":
        shared = int((block >= 0).sum())
        return (f"{len(sizes)} latent clients of {shared} common first blocks and of lengths",)
    if how == "lengths":
        return (f"{len(sizes)} latent clients, clusters of lengths",)
    few = most > 1 and sizes.sum() < 2 * LEAST
    why = f"{sizes.sum():,} requests are too few for more" if few else "requests do not differ in length"
    return (f"one latent client: {why}",) if most > 1 else ()
