"""From gaps to arrival times inside a window.

Operational time x is a 32-bit word: x / 2**32 of the window's expected requests have come. A window's clock table turns
it into microseconds. All sums are integers, so any order of summation gives the same arrival.

=====  ========================================================================================
S_j    sum of the ticks of gaps 0 … j of a cell; G the sum of all
V      rotation of the cell, a word
f      occupancy: the part of the window that the run of gaps covers
=====  ========================================================================================
"""

from __future__ import annotations

from typing import Any

from servegen_gpu.law.philox import MASK

RENEWAL_BITS = 62
"""A renewal cell counts 2**62 ticks to the window: no sum overflows before it passes the end."""


def tick_bits(xp: Any, count: Any) -> Any:
    """Bits b of the largest gap of a cell with `count` gaps (int64, positive): sums stay below 2**62."""
    # ceil(log2(count)) from the exponent of a float that holds count - 1 exactly
    exponent = ((count - 1).astype(xp.float64).view(xp.int64) >> 52) - 1022
    return 62 - xp.where(count > 1, exponent, 0)


def on_circle(xp: Any, ticks_before: Any, ticks_in_all: Any, occupancy: Any, rotation: Any) -> Any:
    """Operational time of the end of a gap on the rotated circle: ``frac(V + f S / G)``, a word in int64.

    Parameters
    ----------
    ticks_before, ticks_in_all : int64
        S_j and G.
    occupancy : float64
        f.
    rotation : int64
        V.
    """
    share = ticks_before.astype(xp.float64) / ticks_in_all.astype(xp.float64)
    return (rotation + (share * (occupancy * 2.0**32)).astype(xp.int64)) & MASK


def from_start(xp: Any, ticks_before: Any, ticks_in_all: Any) -> tuple[Any, Any]:
    """Operational time under the ``servegen`` rule: gaps fill the window from its start, its end is outside.

    Returns
    -------
    x : int64
        A word.
    inside : bool
        False for the last gap, which ends where the window does, and for any that ends within 2**-53 of it.
    """
    share = ticks_before.astype(xp.float64) / ticks_in_all.astype(xp.float64)
    return (share * 2.0**32).astype(xp.int64) & MASK, share < 1.0


def clock_us(xp: Any, x: Any, first: Any, start_us: Any, slope: Any) -> Any:
    """Clock time of operational time x on its segment of the clock table.

    Parameters
    ----------
    x : uint64
        Operational time.
    first, start_us, slope : uint64
        Of the segment: first operational instant, its microsecond, and microseconds per 2**32 instants times 2**32.

    Returns
    -------
    uint64
        Microseconds from the start of the window; non-decreasing in x.
    """
    return start_us + (((x - first) * slope) >> xp.uint64(32))
