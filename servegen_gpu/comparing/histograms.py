"""Counts of values, and distances between two of them: Kolmogorov–Smirnov and energy, exact for what was counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.windowed import grown

DENSE = 1 << 22
"""Values below are counted in an array, the few above in a table."""
GAP_BITS = 10
"""Bits behind the leading one that a bin of inter-arrival times keeps: bins are 0.1 % wide, and exact below 2 ms."""
_SHIFT, _FIRST = 52 - GAP_BITS, 1023 << GAP_BITS
PAIR_BINS = 16
"""Bins of an octave of 1 + tokens, in histograms of pairs."""
PAIR_SIDE = 512

Points = tuple[NDArray[np.int64], NDArray[Any]]
"""Values, ascending, and how often each occurred, or its weight."""


class Counts:
    """How often each whole number from 0 on occurred."""

    def __init__(self) -> None:
        self.dense: NDArray[np.int64] = np.zeros(0, np.int64)
        self.above: Points = (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def add(self, values: NDArray[np.integer]) -> None:
        """Count more values, int[n]."""
        if not len(values):
            return
        if values.max() >= DENSE:
            large = values >= DENSE
            found, counts = np.unique(values[large].astype(np.int64), return_counts=True)
            self.above = merged(self.above, (found, counts))
            values = values[~large]
        counts = np.bincount(values)
        self.dense = grown(self.dense, len(counts))
        self.dense[: len(counts)] += counts

    def points(self) -> Points:
        """Values and counts."""
        there = np.flatnonzero(self.dense)
        return np.concatenate((there, self.above[0])), np.concatenate((self.dense[there], self.above[1]))


def merged(a: Points, b: Points) -> Points:
    """The counts of both."""
    values, at = np.unique(np.concatenate((a[0], b[0])), return_inverse=True)
    return values, np.bincount(at, np.concatenate((a[1], b[1])), len(values)).astype(np.int64)


def points_of(values: NDArray[np.integer]) -> Points:
    """Values and counts of a column."""
    found, counts = np.unique(values, return_counts=True)
    return found.astype(np.int64), counts


def gap_bin(gap_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bin of inter-arrival times from 0 on, int64[n]: 0 is a bin of its own."""
    bits: NDArray[np.int64] = gap_us.astype(np.float64).view(np.int64) >> _SHIFT
    return np.maximum(bits - (_FIRST - 1), 0)


def gap_of_bin(number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Middle of the bins, microseconds; whole numbers lie in the middle of bins that hold only one."""
    bits = (number + (_FIRST - 1)) << _SHIFT
    low: NDArray[np.float64] = bits.view(np.float64)
    high = ((number + _FIRST) << _SHIFT).view(np.float64)
    return np.where(number > 0, (np.ceil(low) + np.ceil(high) - 1) / 2, 0.0)


def pair_bin(first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int64]:
    """Bin of pairs of lengths in a square of logarithms, int64[n]."""
    return octave_bin(first) * PAIR_SIDE + octave_bin(second)


def octave_bin(tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of the sixteenth of an octave in which 1 + tokens lies, int64[n]."""
    most = int(tokens.max(initial=0))
    if most < len(tokens) * 4:  # a table of all lengths is cheaper than as many logarithms
        table = (PAIR_BINS * np.log2(1.0 + np.arange(most + 1))).astype(np.int64)
        return np.asarray(table[tokens])
    return np.asarray((PAIR_BINS * np.log2(1.0 + tokens)).astype(np.int64))


def _together(a: Points, b: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All values, and the difference of the two distribution functions at each."""
    values = np.union1d(a[0], b[0])
    step = np.zeros(len(values))
    step[np.searchsorted(values, a[0])] += a[1] / a[1].sum()
    step[np.searchsorted(values, b[0])] -= b[1] / b[1].sum()
    return values, np.cumsum(step)


def ks(a: Points, b: Points) -> float:
    """Largest difference of the two distribution functions; NaN if one is empty."""
    if not len(a[0]) or not len(b[0]):
        return float("nan")
    return float(np.abs(_together(a, b)[1]).max())


def log_energy(a: Points, b: Points) -> float:
    """Energy distance of ln(1 + value), in standard deviations of the first: 2 E|X - Y| - E|X - X'| - E|Y - Y'|.

    NaN if one is empty.
    """
    if not len(a[0]) or not len(b[0]):
        return float("nan")
    values, difference = _together(a, b)
    width = np.diff(np.log1p(values.astype(np.float64)))
    return float(2 * (difference[:-1] ** 2 @ width) / log_spread(a))


def log_spread(points: Points) -> float:
    """Standard deviation of ln(1 + value); 1 where all values are equal."""
    x, weight = np.log1p(points[0].astype(np.float64)), points[1] / points[1].sum()
    spread = float(np.sqrt(max(weight @ x**2 - (weight @ x) ** 2, 0.0)))
    return spread if spread > 1e-6 else 1.0


class PairEnergy:
    """Energy distances between histograms of pairs, by one convolution each.

    Distances are Euclidean between the middles of bins, ln(1 + tokens) in standard deviations of the reference.

    Parameters
    ----------
    spread : tuple of float
        Standard deviations of ln(1 + tokens) of the reference, of both lengths.
    box : tuple of int
        Bins of both lengths that occur: those below.
    """

    def __init__(self, spread: tuple[float, float], box: tuple[int, int]) -> None:
        self.box = box
        self.shape = tuple(2 * side for side in box)
        width = np.log(2) / PAIR_BINS
        steps = (np.arange(2 * side) for side in box)
        apart = [np.minimum(x, len(x) - x) * width / sd for x, sd in zip(steps, spread, strict=True)]
        self.kernel: NDArray[np.complex128] = np.fft.rfft2(np.hypot(apart[0][:, None], apart[1][None]))

    def potential(self, mass: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of distances from every bin to all mass, float64[box]."""
        spectrum = np.fft.rfft2(mass, self.shape) * self.kernel
        there: NDArray[np.float64] = np.fft.irfft2(spectrum, self.shape)
        return there[: self.box[0], : self.box[1]]

    def distance(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """Energy distance of two histograms, each float64[box]."""
        difference = a / a.sum() - b / b.sum()
        return max(0.0, -float((difference * self.potential(difference)).sum()))


def cropped(square: NDArray[Any], box: tuple[int, int]) -> NDArray[Any]:
    """The corner of a histogram of pairs that is not empty, [box]."""
    return square.reshape(PAIR_SIDE, PAIR_SIDE)[: box[0], : box[1]]


def box_of(*squares: NDArray[np.int64]) -> tuple[int, int]:
    """How many bins of both lengths hold all mass of histograms of pairs."""
    seen = sum(squares[1:], squares[0]).reshape(PAIR_SIDE, PAIR_SIDE) > 0
    first, second = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return int(first[-1]) + 1, int(second[-1]) + 1
