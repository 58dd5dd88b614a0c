"""The ticks on which time stamps sit: nothing can be said of times that are shorter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import Points

FEW_GAPS = 50
SOFT_TICKS_US = (1_000, 10_000, 100_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000, 60_000_000)
BATCHED = 0.2
"""Share of gaps of 0 from which on stamps are those of batches."""
CLUSTERED = 0.4
"""Mean cosine of the phase of gaps from which on they lie at multiples of a tick: it is 0 if they lie anywhere."""


def tick_us_of(stamps: NDArray[np.int64]) -> int:
    """Length of a tick, microseconds: 1 if there is none to be seen.

    The largest number that divides all gaps, or a usual one at whose multiples they lie nearly, as where a log is
    written in batches. Gaps from one and a half to 20 ticks tell that, because many short ones lie near the multiple 0
    of anything, and requests that come regularly near the multiple 1 of their mean; but not if many have one stamp.
    """
    gaps = np.diff(stamps)
    batched = np.count_nonzero(gaps == 0) > BATCHED * len(gaps)
    gaps = gaps[gaps > 0]
    if len(gaps) < FEW_GAPS:
        return 1
    exact = int(np.gcd.reduce(gaps))
    for tick in reversed(SOFT_TICKS_US):
        some = gaps[(gaps > (0.5 if batched else 1.5) * tick) & (gaps < 20.5 * tick)]
        if tick <= exact or len(some) < FEW_GAPS:
            continue
        several = batched or len(np.unique(np.rint(some / tick))) > 2
        if several and np.cos(2 * np.pi * some / tick).mean() > CLUSTERED:
            return tick
    return exact


def on_ticks(gap_us: NDArray[np.float64], count: NDArray[np.integer], tick_us: int, own_tick_us: int) -> Points:
    """Gaps in whole ticks, and their weights: what they would be if both stamps were on ticks.

    Parameters
    ----------
    gap_us : float64[n]
    count : int[n]
    tick_us : int
        Of the other trace.
    own_tick_us : int
        Of the gaps. Gaps that sit on such ticks are rounded; others fall on one of the two next to them, as they would
        if the first stamp lay anywhere in its tick.
    """
    if own_tick_us % tick_us == 0:
        at = np.rint(gap_us / tick_us)
        above = np.zeros(len(at))
    else:
        at = np.floor(gap_us / tick_us)
        above = gap_us / tick_us - at
    low = at.astype(np.int64)
    ticks, which = np.unique(np.concatenate((low, low + 1)), return_inverse=True)
    return ticks, np.bincount(which, np.concatenate((count * (1 - above), count * above)), len(ticks))
