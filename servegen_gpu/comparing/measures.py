"""Figures as sums over cells of time: the same sums over blocks of cells give their bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Summed:
    """A figure of sums.

    Attributes
    ----------
    features : function of nothing
        Gives float64[features, cells]: what each cell adds to the sums.
    combine : function of float64[features, ...]
        The figure of sums, float64[...]; NaN where there is none.
    """

    features: Callable[[], Floats]
    combine: Callable[[Floats], Floats]

    def value(self) -> float:
        """The figure of all cells."""
        return float(self.combine(self.features().sum(axis=1)))

    def resampled(self, starts: NDArray[np.int64], block: int) -> Floats:
        """The figure of resamples of blocks of cells, whose begins are int64[resamples, blocks]; time is a circle."""
        return self.combine(np.stack([_over_blocks(row, starts, block) for row in self.features()]))


def _over_blocks(feature: Floats, starts: NDArray[np.int64], block: int) -> Floats:
    running = np.zeros(len(feature) + block + 1)
    np.cumsum(np.concatenate((feature, feature[:block])), out=running[1:])
    return np.asarray((running[starts + block] - running[starts]).sum(axis=1))


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest of the values of cells, float64[cells]."""

    values: Callable[[], Floats]

    def value(self) -> float:
        """The largest of all cells."""
        return float(self.values().max())

    def resampled(self, starts: NDArray[np.int64], block: int) -> Floats:
        """The largest in resamples of blocks of cells."""
        values = self.values()
        missing = max(int(starts.max()) + 1 - len(values), 0)  # of windows that would pass the end
        values = np.concatenate((values, np.full(missing, -np.inf)))
        reach = np.concatenate((values, values[:block]))
        width = 1
        while 2 * width <= block:  # the largest of 2, 4, 8 … cells from each on
            reach = np.maximum(reach[:-width], reach[width:])
            width *= 2
        at = np.maximum(reach[starts], reach[starts + block - width])
        return np.asarray(at.max(axis=1))


@dataclass(frozen=True, eq=False)
class Quantile:
    """A quantile of values that come in cells.

    Attributes
    ----------
    values : float64[n]
        Ascending.
    p : float
        0 to 1.
    below : function of nothing
        Gives float64[2, cells]: how many values each cell has, and how many no larger than the quantile.
    """

    values: Floats
    p: float
    below: Callable[[], Floats]

    def value(self) -> float:
        """The quantile of all values."""
        return float(np.quantile(self.values, self.p))

    def resampled(self, starts: NDArray[np.int64], block: int) -> Floats:
        """Quantiles as far above as their share falls short in a resample, and the other way round."""
        below = Summed(self.below, ratio)
        share = below.resampled(starts, block) - below.value()
        return np.quantile(self.values, np.clip(self.p - np.nan_to_num(share), 0, 1))


Measure = Summed | Largest | Quantile


def at_cells(cells: int, cell: NDArray[np.int64], features: NDArray[np.generic]) -> Floats:
    """Sums of features, [features, rows], by cell, float64[features, cells]."""
    return np.stack([np.bincount(cell, row, cells) for row in features])


def in_blocks(grid: Floats, cells: int, step: int = 1) -> Floats:
    """Sums over so many cells from every `step`-th cell on, float64[windows]; whole windows only."""
    running = np.concatenate(([0.0], np.cumsum(grid)))
    return np.asarray((running[cells:] - running[:-cells])[::step])


def spread_out(features: Floats, step: int, cells: int) -> Floats:
    """Features of windows, float64[features, windows], at the cells where windows begin, float64[features, cells]."""
    out = np.zeros((len(features), cells))
    out[:, : len(features[0]) * step : step] = features
    return out


def _quiet(top: Floats, bottom: Floats) -> Floats:
    """The ratio; NaN where it has none."""
    none = np.full(np.shape(top), np.nan)
    return np.asarray(np.divide(top, bottom, out=none, where=np.asarray(bottom) > 0))


def ratio(sums: Floats) -> Floats:
    """Second sum over first."""
    return _quiet(sums[1], sums[0])


def dispersion(sums: Floats) -> Floats:
    """Variance over mean, of sums of 1, x and x² over windows; over tokens per request, too, with a sum of requests."""
    n, total, squares = sums[:3]
    variance = np.maximum(squares - _quiet(total**2, n), 0)
    found = _quiet(variance * n, (n - 1) * total)
    if len(sums) > 3:
        found = _quiet(found * sums[3], total)
    return found


def variation(sums: Floats) -> Floats:
    """Coefficient of variation, of sums of 1, x and x²."""
    n, total, squares = sums
    return _quiet(np.sqrt(np.maximum(squares * n - total**2, 0)), total)


def correlation(sums: Floats) -> Floats:
    """Correlation, of sums of 1, a, b, a², b² and ab."""
    n, a, b, aa, bb, ab = sums
    spread = np.maximum(n * aa - a**2, 0) * np.maximum(n * bb - b**2, 0)
    enough = spread > 1e-18 * np.maximum(n * aa, 1) * np.maximum(n * bb, 1)
    return _quiet(n * ab - a * b, np.sqrt(np.where(enough, spread, 0)))


def autocorrelation(sums: Floats) -> Floats:
    """Of sums of 1, x, x², and of 1 and xx' over pairs, where x has mean 0 in the whole trace."""
    n, total, squares, pairs, products = sums
    mean = _quiet(total, n)
    return _quiet(_quiet(products, pairs) - mean**2, _quiet(squares, n) - mean**2)


def products(a: Floats, b: Floats) -> Floats:
    """What `correlation` sums, float64[6, n]."""
    return np.stack((np.ones(len(a)), a, b, a * a, b * b, a * b))


def midranks(values: NDArray[np.number]) -> Floats:
    """Ranks from -1/2 to 1/2, those of equal values their mean, float64[n]."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    return np.asarray(((upto - (counts + 1) / 2) / max(len(values) - 1, 1) - 0.5)[at])
