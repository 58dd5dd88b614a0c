"""From operational time to clock time inside a window.

Arrivals are drawn in operational time, where the target rate is constant, as 32-bit words: x / 2**32 is Λ_w, the
normalised integral of the rate over the window. A table takes x to microseconds after the window's start. It is
piecewise linear and all integers, so that every backend lands on the same microsecond (law, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.tables import WORDS, Tables

US = 1_000_000
"""Microseconds in a second."""


@dataclass(frozen=True, eq=False)
class ClockTables:
    """Piecewise-linear maps from operational words to microseconds, packed one behind the other.

    A word x of a window belongs to the segment s of the window's table with ``first[s] <= x <= last[s]``, and its
    time is ``start_us[s] + (((x - first[s]) * slope[s]) >> 32)`` after the window's start, in uint64.

    Nothing overflows and nothing leaves the segment. With width = last - first + 1 <= 2**32 words and dt < 2**32 us,
    slope = floor(dt * 2**32 / width), so (x - first) * slope <= (width - 1) * dt * 2**32 / width < dt * 2**32, which
    is below 2**64, and its high word is below dt.

    Attributes
    ----------
    offsets : int64[tables + 1]
        Table t owns the segments ``offsets[t]:offsets[t + 1]``. Table 0 is the constant rate: one segment.
    last : uint32[segments]
        Last word of a segment, strictly ascending inside a table and ending at 2**32 - 1.
    first : uint32[segments]
        First word of a segment.
    start_us : uint32[segments]
        Where the segment begins, microseconds after the window's start.
    slope : uint64[segments]
        Microseconds per word, times 2**32.
    table : int32[windows]
        Which table a window uses.
    """

    offsets: NDArray[np.int64]
    last: NDArray[np.uint32]
    first: NDArray[np.uint32]
    start_us: NDArray[np.uint32]
    slope: NDArray[np.uint64]
    table: NDArray[np.int32]

    def __post_init__(self) -> None:
        for array in (self.offsets, self.last, self.first, self.start_us, self.slope, self.table):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def since(self, window: int) -> ClockTables:
        """Without the windows before one."""
        return replace(self, table=self.table[window:])


@dataclass(frozen=True, eq=False)
class Pieces:
    """A rate cut into linear pieces, none of which crosses the edge of a window.

    Attributes
    ----------
    offsets : int64[windows + 1]
        Window w owns the pieces ``offsets[w]:offsets[w + 1]``: at least one, together the whole window, in order.
    start_us, length_us : int64[pieces]
        From the window's start.
    left_rps, right_rps : float64[pieces]
        Rate where the piece begins and ends; finite and not negative.
    """

    offsets: NDArray[np.int64]
    start_us: NDArray[np.int64]
    length_us: NDArray[np.int64]
    left_rps: NDArray[np.float64]
    right_rps: NDArray[np.float64]


def constant_clock(windows: int, window_s: int) -> ClockTables:
    """Tables for a rate that is constant inside every window."""
    return ClockTables(
        offsets=np.array([0, 1], np.int64),
        last=np.array([WORDS - 1], np.uint32),
        first=np.zeros(1, np.uint32),
        start_us=np.zeros(1, np.uint32),
        slope=np.array([window_s * US], np.uint64),
        table=np.zeros(windows, np.int32),
    )


def mean_rates(pieces: Pieces, window_s: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Mean rates of windows whose rate is given piece by piece.

    Returns
    -------
    mean_rps : float64[windows]
    varying : bool[windows]
        Where the rate is not constant inside the window.
    mass : float64[pieces]
        Requests that are expected of each piece, times a million.
    """
    begins = pieces.offsets[:-1]
    mass = (pieces.left_rps + pieces.right_rps) * 0.5 * pieces.length_us
    low = np.minimum.reduceat(np.minimum(pieces.left_rps, pieces.right_rps), begins)
    high = np.maximum.reduceat(np.maximum(pieces.left_rps, pieces.right_rps), begins)
    total = np.add.reduceat(mass, begins)
    constant = low == high
    # below that the weights of the pieces would be denormal numbers
    varying = ~constant & (total > 1e-200)
    return np.where(constant, high, total / (window_s * US)), varying, mass


def clock_of(pieces: Pieces, window_s: int) -> tuple[NDArray[np.float64], ClockTables]:
    """Mean rates and tables of windows whose rate is given piece by piece.

    Each window is reduced by itself, so that its figures do not depend on the windows around it.

    Returns
    -------
    mean_rps : float64[windows]
    clock : ClockTables
    """
    mean_rps, varying, mass = mean_rates(pieces, window_s)
    still = constant_clock(len(mean_rps), window_s)
    if not varying.any():
        return mean_rps, still

    sizes = np.diff(pieces.offsets)
    chosen = np.flatnonzero(np.repeat(varying, sizes))
    # A segment's share of the words is its share of the mass: the tables of lengths do just that, exactly, and leave
    # out pieces without mass. What they draw here is the number of a piece.
    shares = Tables.from_weights(np.concatenate(([0], np.cumsum(sizes[varying]))), chosen, mass[chosen])
    piece = shares.values.astype(np.int64)
    widths = shares.widths()
    slope = (pieces.length_us[piece].astype(np.uint64) << np.uint64(32)) // widths.astype(np.uint64)
    return mean_rps, ClockTables(
        offsets=np.concatenate((still.offsets, shares.offsets[1:] + 1)),
        last=np.concatenate((still.last, shares.thresholds)),
        first=np.concatenate((still.first, (shares.thresholds - (widths - 1)).astype(np.uint32))),
        start_us=np.concatenate((still.start_us, pieces.start_us[piece].astype(np.uint32))),
        slope=np.concatenate((still.slope, slope)),
        table=np.where(varying, np.cumsum(varying), 0).astype(np.int32),
    )
