"""Figures of caches of inputs: which share of blocks they have, under LRU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing import measures as m
from servegen_gpu.comparing.measures import Measure, Summed
from servegen_gpu.comparing.seen import Seen
from servegen_gpu.prefixes.lru import NEVER, stack_distances

CACHE_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Sizes of caches, in shares of the different blocks of the log."""


def cache_name(share: float) -> str:
    """What the figure of a cache is called."""
    return f"cache_{share * 100:g}pct"


def cache_measures(seen: Seen, blocks: NDArray[np.int64]) -> Iterator[tuple[str, Measure]]:
    """Figures by name, of caches of so many blocks; none without ids of blocks."""
    ids, at_us = seen.blocks
    if not len(ids.values):
        return
    distances = stack_distances(ids)
    known = distances != NEVER
    cell = np.repeat(seen.cell_of(at_us), ids.lengths)
    for share, size in zip(CACHE_SHARES, blocks.tolist(), strict=True):
        features = np.stack((np.ones(len(cell)), known & (distances < size)))
        yield cache_name(share), Summed(partial(m.at_cells, len(seen.cells["requests"]), cell, features), m.ratio)
