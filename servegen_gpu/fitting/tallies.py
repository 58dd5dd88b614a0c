"""How often each value occurred, by label (a client, or a cluster of requests), and fewer bins of the same.

Axes: labels, bins (of all labels together).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.tables import Tables

VALUE_BITS = 32
KNOTS = 256
TOP = 0.01
"""What `knots` keeps value by value."""


@dataclass(frozen=True, eq=False)
class Tally:
    """Counted values, label by label.

    Attributes
    ----------
    offsets : int64[labels + 1]
        Label l owns the bins ``offsets[l]:offsets[l + 1]``, at least one.
    values : int64[bins]
        Strictly ascending inside a label.
    counts : int64[bins]
        Positive; but a label without values has one bin, of value 0 and count 0.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def totals(self) -> NDArray[np.int64]:
        """How many values each label has, int64[labels]."""
        return np.asarray(np.add.reduceat(self.counts, self.offsets[:-1]))

    @property
    def label(self) -> NDArray[np.int64]:
        """Label of each bin, int64[bins]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def before(self) -> NDArray[np.int64]:
        """How many values of the same label lie below each bin, int64[bins]."""
        below = np.cumsum(self.counts) - self.counts
        return np.asarray(below - below[self.offsets[:-1]][self.label])

    def tables(self) -> Tables:
        """A table for each label; always 0 where nothing was counted."""
        silent = self.totals[self.label] == 0
        return Tables.from_weights(self.offsets, self.values, np.where(silent, 1, self.counts))

    def merged(self, begins: NDArray[np.bool_]) -> Tally:
        """Runs of bins as one bin each, whose value is the rounded mean of what is in it.

        Parameters
        ----------
        begins : bool[bins]
            Where a run begins; the first bin of a label always does.
        """
        begins = begins.copy()
        begins[self.offsets[:-1]] = True
        first = np.flatnonzero(begins)
        counts = np.add.reduceat(self.counts, first)
        # from the run's first value, so that sums stay small and a run of one bin keeps its value
        above = self.values - self.values[first][np.cumsum(begins) - 1]
        mean = np.add.reduceat(above * self.counts, first) / np.maximum(counts, 1)
        values = self.values[first] + np.rint(mean).astype(np.int64)
        return Tally(np.searchsorted(first, self.offsets), values, counts)

    def clipped(self, least: int) -> Tally:
        """With the least and the largest values of each label put together until `least` stand behind both ends.

        Of a label with fewer than twice as many values, half of them stand behind each.
        """
        if least <= 1:
            return self
        enough = np.minimum(least, (self.totals + 1) // 2)[self.label]
        starts, values = self.offsets[:-1], self.values
        low = np.minimum.reduceat(np.where(self.before + self.counts >= enough, values, values.max()), starts)
        high = np.maximum.reduceat(np.where(self.totals[self.label] - self.before >= enough, values, 0), starts)
        cut = np.clip(values, low[self.label], high[self.label])
        return Tally(self.offsets, cut, self.counts).merged(np.diff(cut, prepend=-1) != 0)


def tally(values: NDArray[np.integer], label: NDArray[np.integer], count: int) -> Tally:
    """Count values by label.

    Parameters
    ----------
    values : int[n]
        0 to 2**31 - 1.
    label : int[n]
        0 to `count` - 1.
    count : int
        How many labels there are, with values or without.
    """
    key, counts = np.unique(np.asarray(label, np.int64) << VALUE_BITS | values, return_counts=True)
    silent = np.flatnonzero(np.bincount(key >> VALUE_BITS, minlength=count) == 0)
    at = np.searchsorted(key, silent << VALUE_BITS)
    key = np.insert(key, at, silent << VALUE_BITS)
    counts = np.insert(counts, at, 0)
    offsets = np.searchsorted(key, np.arange(count + 1) << VALUE_BITS)
    return Tally(offsets.astype(np.int64), key & ((1 << VALUE_BITS) - 1), counts.astype(np.int64))


def knots(counted: Tally, most: int = KNOTS) -> Tally:
    """At most `most` bins of about the same count below the top 1 %, and every value in it.

    Labels with no more bins than that stay as they are. Fewer than 256 knots, or a top that is merged, move the 99th
    percentile by factors.
    """
    totals = counted.totals[counted.label]
    upto = counted.before + counted.counts
    exact = upto >= (1 - TOP) * totals
    exact |= np.diff(counted.offsets)[counted.label] <= most
    middle = counted.before + counted.counts / 2
    knot = np.floor(middle * (most / ((1 - TOP) * np.maximum(totals, 1)))).astype(np.int64)
    return counted.merged(exact | (np.diff(knot, prepend=-1) != 0) | np.roll(exact, 1))
