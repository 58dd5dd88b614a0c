"""A first look at a large file: how many requests it has, from when to when, and whether they are in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.formats.reading.times import BILLION, Ticks
from servegen_gpu.formats.reading.units import Spread

FINE = BILLION // 1000
"""Billionths that three digits behind the point are made of."""


@dataclass
class Survey:
    """What all times so far have in common.

    Attributes
    ----------
    count : int
    first, last : pair of int
        The least and the largest time: whole part and billionths.
    falls : int
        Requests that are earlier than the one before.
    """

    count: int = 0
    first: tuple[int, int] = (0, 0)
    last: tuple[int, int] = (0, 0)
    falls: int = 0
    whole: bool = True
    fine: bool = False
    _before: tuple[int, int] = (0, 0)

    def add(self, times: Ticks) -> None:
        """The next times."""
        if not len(times):
            return
        ends = [_extreme(times, np.ndarray.min), _extreme(times, np.ndarray.max)]
        if self.count:
            ends += [self.first, self.last]
            self.falls += (int(times.whole[0]), int(times.billionths[0])) < self._before
        self.first, self.last = min(ends), max(ends)
        whole, part = times.whole, times.billionths
        self.falls += int(((whole[1:] < whole[:-1]) | ((whole[1:] == whole[:-1]) & (part[1:] < part[:-1]))).sum())
        self.whole &= not part.any()
        # numbers of JSON are float64: what is left of three digits is a little off where they are large
        off = np.minimum(part % FINE, FINE - part % FINE)
        self.fine |= bool((off > 1 + np.abs(whole) * 2.3e-7).any())
        self._before = int(whole[-1]), int(part[-1])
        self.count += len(times)

    def spread(self) -> Spread:
        """For the unit."""
        low, high = (whole + part / BILLION for whole, part in (self.first, self.last))
        return Spread(self.count, low, high, self.whole, self.fine)


def _extreme(times: Ticks, which: Callable[[NDArray[np.int64]], np.int64]) -> tuple[int, int]:
    end = int(which(times.whole))
    return end, int(which(times.billionths[times.whole == end]))
