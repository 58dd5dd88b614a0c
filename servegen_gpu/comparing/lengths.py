"""Figures of consecutive requests: which lengths go together, and which come again.

They are those of the rows that are kept, but for means, which are of all: see `seen`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing import measures as m
from servegen_gpu.comparing.arrivals import SIDES
from servegen_gpu.comparing.measures import Measure, Summed
from servegen_gpu.comparing.seen import Seen

NEAR_TOKENS = 5
RECENT = 20
"""A match is an input within so many tokens of one of so many inputs before it."""


ITEMS = ("image", "audio", "video")


def request_measures(seen: Seen) -> Iterator[tuple[str, Measure]]:
    """Figures by name."""
    kept = seen.kept
    cells, cell = len(seen.cells["requests"]), seen.cell_of(kept["arrival_us"])
    sides = {side: kept[name] for side, name in SIDES.items() if name in kept}
    place = partial(m.at_cells, cells)
    for side in sides:
        yield f"mean_{side}", Summed(partial(_totals, seen.cells, SIDES[side]), m.ratio)
    if len(sides) == 2 and len(cell) > 2:
        both = m.products(*map(m.midranks, sides.values()))
        yield "io_spearman", Summed(partial(place, cell, both), m.correlation)
    follows = np.flatnonzero(np.diff(kept["row"]) == 1) + 1
    if len(follows) > 2:
        for side, column in sides.items():
            pairs = m.products(m.midranks(column[follows - 1]), m.midranks(column[follows]))
            yield f"serial_{side}", Summed(partial(place, cell[follows], pairs), m.correlation)
    late = np.flatnonzero(kept["row"][RECENT:] - kept["row"][:-RECENT] == RECENT) + RECENT
    if "input" in sides and len(late):
        matched = _matches(sides["input"], late)
        chance = _chance(sides["input"])
        features = np.stack((np.ones(len(late)), matched))
        yield "match_share", Summed(partial(place, cell[late], features), m.ratio)
        features = np.stack((np.ones(len(late)), matched - chance))
        yield "match_excess", Summed(partial(place, cell[late], features), m.ratio)


def _totals(cells: Mapping[str, NDArray[Any]], column: str) -> NDArray[np.float64]:
    """Requests and tokens of every cell, of all rows: float64[2, cells]."""
    return np.stack((cells["requests"], cells[column]))


def item_measures(seen: Seen) -> Iterator[tuple[str, Measure]]:
    """Figures of reasoning and of items by name."""
    grid = seen.cells

    def share(below: str, above: str) -> Summed:
        return Summed(lambda: np.stack((grid[below], grid[above])), m.ratio)

    if "reason_share" in grid:
        yield "reason_share", share("with output", "reason_share")
    for item in ITEMS:
        if f"with {item}_tokens" in grid:
            yield f"{item}_share", share("requests", f"with {item}_tokens")
            yield f"{item}_count", share(f"with {item}_tokens", f"items {item}_tokens")


def _matches(tokens: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether inputs are near one of the recent ones, bool[rows]."""
    signed = tokens.astype(np.int64)
    found = np.zeros(len(rows), np.bool_)
    for back in range(1, RECENT + 1):
        found |= np.abs(signed[rows] - signed[rows - back]) <= NEAR_TOKENS
    return found


def _chance(tokens: NDArray[Any]) -> float:
    """Expected share of matches after shuffling: none of the recent ones, drawn from all others, is near."""
    ordered = np.sort(tokens.astype(np.int64))
    values, counts = np.unique(ordered, return_counts=True)
    upper = np.searchsorted(ordered, values + NEAR_TOKENS, side="right")
    near = upper - np.searchsorted(ordered, values - NEAR_TOKENS) - 1  # of the others
    others = len(ordered) - 1
    none = np.ones(len(values))
    for drawn in range(RECENT):
        none *= np.maximum(others - drawn - near, 0) / (others - drawn)
    return float(1 - none @ counts / len(ordered))
