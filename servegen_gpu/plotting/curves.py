"""Curves to draw: few points, from what was counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import PAIR_BINS, PAIR_SIDE, Points
from servegen_gpu.comparing.seen import Seen
from servegen_gpu.windowed import MIN_GAPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LADDER_S = (1, 2, 5, 10, 30, 60, 300, 600, 3600, 21_600, 86_400, 604_800)
"""Lengths of windows."""
MOST_WINDOWS = 300
POINTS = 240
"""Points of a distribution function."""
CELLS_PER_DECADE = 12
JOINED = PAIR_BINS // 4
"""Bins of pairs that a cell of a picture has."""


def log_cells(low: float, high: float, whole: bool) -> Floats:
    """Edges of cells, `CELLS_PER_DECADE` of a decade, that hold all values from `low` to `high`, both above 0.

    With `whole`, edges lie between whole numbers, and cells that hold none of them are left out.
    """
    decades = np.log10(max(high, low * 1.01) / low)
    edges = np.geomspace(low, high, max(int(np.ceil(decades * CELLS_PER_DECADE)), 1) + 1)
    if whole:
        return np.asarray(np.unique(np.append(np.floor(edges[:-1]), np.floor(high) + 1)) - 0.5)
    return np.append(edges[:-1], np.nextafter(high, np.inf))


def density(points: Points | tuple[Floats, NDArray[np.int64]], edges: Floats) -> Floats:
    """Share of values by decade in each cell, float64[edges - 1]; on a logarithmic axis, areas are shares."""
    values, counts = points
    found = np.bincount(np.searchsorted(edges, values, side="right"), counts, len(edges) + 1)[1 : len(edges)]
    return np.asarray(found / counts.sum() / np.diff(np.log10(edges)))


def tail(points: Points) -> tuple[Floats, Floats]:
    """Values above 0, and the share of all values that are at least as large, both float64[up to 2 × `POINTS`]."""
    values, counts = points
    share = np.cumsum(counts[::-1])[::-1] / counts.sum()
    some = values > 0
    return _thinned(values[some].astype(np.float64), share[some])


def cdf(points: Points | tuple[Floats, NDArray[np.generic]]) -> tuple[Floats, Floats]:
    """Values, and the share of weights up to each, float64[up to 2 × `POINTS`]."""
    values, weights = points
    return _thinned(np.asarray(values, np.float64), np.cumsum(weights) / weights.sum())


def _thinned(x: Floats, share: Floats) -> tuple[Floats, Floats]:
    """About as many points as are worth drawing, evenly spaced along both axes, in logarithms of the values."""
    if len(x) <= 2 * POINTS:
        return x, share
    log = np.log(np.maximum(x, x[x > 0].min(initial=1.0)))
    down = np.log(np.maximum(share, 1e-300)) if share[0] > share[-1] else share
    along = np.abs(np.diff(log)) / max(abs(log[-1] - log[0]), 1e-12) + np.abs(np.diff(down)) / max(
        abs(down[-1] - down[0]), 1e-12
    )
    step = np.floor(np.concatenate(([0.0], np.cumsum(along))) * POINTS)
    keep = np.flatnonzero(np.diff(step, prepend=-1))
    keep = np.unique(np.append(keep, len(x) - 1))
    return x[keep], share[keep]


@dataclass(frozen=True, eq=False)
class Windows:
    """A trace over time.

    Attributes
    ----------
    window_s : int
    start_s : float64[windows]
    sums : dict of str to float64[windows]
        By the names of `Seen.cells`.
    """

    window_s: int
    start_s: Floats
    sums: dict[str, Floats]

    @property
    def rate_rps(self) -> Floats:
        """Requests per second."""
        return np.asarray(self.sums["requests"] / self.window_s)

    def mean(self, name: str) -> Floats:
        """Mean of a column by window; NaN without requests."""
        return ratio(self.sums[name], self.sums["requests"])

    @property
    def gap_cv(self) -> Floats:
        """CV of the inter-arrival times that end in each window; NaN where there are fewer than 30."""
        return gap_cv(self.sums["gaps"], self.sums["gap_s"], self.sums["gap_s2"])


def gap_cv(n: Floats, total: Floats, squares: Floats) -> Floats:
    """CV of inter-arrival times, of their number, sum and sum of squares; NaN where there are fewer than 30."""
    mean = ratio(total, n)
    found = ratio(np.sqrt(np.maximum(ratio(squares, n) - mean**2, 0)), mean)
    return np.where(n >= MIN_GAPS, found, np.nan)


def ratio(top: Floats, bottom: Floats) -> Floats:
    """One by the other; NaN where that is 0."""
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0))


def windows(seen: Seen, window_s: int) -> Windows:
    """Whole windows of a length; at least one, of what there is. Cells are joined, never cut."""
    cells = seen.cells
    size = max(window_s // seen.cell_s, 1)
    count = max(len(cells["requests"]) // size, 1)
    sums = {name: np.add.reduceat(x, np.arange(0, len(x), size))[:count] for name, x in cells.items()}
    length_s = size * seen.cell_s
    return Windows(length_s, np.arange(count, dtype=np.float64) * length_s, sums)


def window_for(seen: Seen, most: int = MOST_WINDOWS, requests: float = 0) -> int:
    """The shortest window of `LADDER_S` of which a trace has so many at most, with so many requests on average."""
    for window_s in LADDER_S:
        count = seen.seconds / window_s
        if window_s >= seen.cell_s and count <= most and seen.rows >= requests * count:
            return window_s
    return LADDER_S[-1]


def shaded(pairs: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Edges of cells of a quarter of an octave, tokens, and a histogram of pairs, int64[cells, cells], in them.

    What is empty above is left out.
    """
    side = PAIR_SIDE // JOINED
    square = pairs.reshape(side, JOINED, side, JOINED).sum(axis=(1, 3))
    there = np.flatnonzero(square.any(axis=0) | square.any(axis=1))
    count = int(there[-1]) + 1 if len(there) else 1
    return np.exp2(np.arange(count + 1) * (JOINED / PAIR_BINS)) - 1, square[:count, :count]


def quantiles_by_cell(pairs: NDArray[np.int64], p: tuple[float, ...], least: int = 20) -> tuple[Floats, Floats]:
    """Quantiles of the second length for cells of the first, from a histogram of pairs.

    Returns
    -------
    float64[cells], float64[p, cells]
        Middles of the first length's cells that hold at least so many pairs, tokens; and quantiles, tokens.
    """
    edges, square = shaded(pairs)
    cells = np.flatnonzero(square.sum(axis=1) >= least)
    running = np.cumsum(pairs.reshape(-1, JOINED, PAIR_SIDE).sum(axis=1)[cells], axis=1)
    found = [np.argmax(running >= share * running[:, -1:], axis=1) for share in p]
    middles = np.sqrt((edges[cells] + 1) * (edges[cells + 1] + 1)) - 1
    return middles, np.exp2((np.array(found) + 0.5) / PAIR_BINS) - 1
