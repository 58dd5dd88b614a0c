"""A model of conversations as tables of whole numbers, so that turns are the same integers on every machine.

Notation: N turns of a conversation, T the time from its first turn to turn j + 1 (the sum of j gaps), H the longest
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import Distribution
from servegen_gpu.clients.stated.tabulate import TOKENS, Grid, Table, new_table, tables_of
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import MAX_TURNS
from servegen_gpu.request.tables import WORDS, Tables

MAX_SESSION_S = 14 * 86_400.0
TURNS = Grid("turns", 1, 2, MAX_TURNS - 1, MAX_TURNS - 1)
GAPS = Grid("inter-turn times, seconds", 1000, 0, int(MAX_SESSION_S * 1000), int(MAX_SESSION_S * 1000))
"""In milliseconds; a draw is spread evenly over its bin, down to microseconds."""
STEPS = 4096
"""Of a session's longest time, in which sums of gaps are followed."""
RARE = 1e-9


@dataclass(frozen=True, eq=False)
class TurnTables:
    """Tables of one model.

    Attributes
    ----------
    count : Tables
        One table: turns of a conversation, two or more.
    gap : Tables
        One table, whose values are the numbers of its bins.
    gap_us, gap_width_us : int64[bins]
        Where each bin of inter-turn times begins, and how wide it is.
    new : Tables or None
        One table: new tokens of later turns.
    session_us : int
    mean_turns : float
        Mean requests of a conversation within `session_us`, rounded so that the last bit of a library never shows.
    """

    count: Tables
    gap: Tables
    gap_us: NDArray[np.int64]
    gap_width_us: NDArray[np.int64]
    new: Tables | None
    session_us: int
    mean_turns: float


def turn_tables(
    turns: Distribution, gap_s: Distribution, new_tokens: Distribution | None, session_s: float
) -> TurnTables:
    """Tables of a model (see `servegen_gpu.clients.stated.turns.TurnModel`)."""
    count, gap = tables_of([several_turns(turns)]), new_table(gap_s, GAPS)
    first_ms = np.concatenate(([gap.values[0]], gap.last[:-1] + 1))
    begin_us = np.maximum(1000 * first_ms - 500, 0)
    width_us = 1000 * gap.last + 500 - begin_us
    session_us = round(session_s * 1e6)
    bins = tables_of([Table(np.arange(len(gap.values)), gap.words, gap.last)])
    return TurnTables(
        count=count,
        gap=bins,
        gap_us=begin_us,
        gap_width_us=width_us,
        new=None if new_tokens is None else tables_of([new_table(new_tokens, TOKENS)]),
        session_us=session_us,
        mean_turns=_mean_turns(count, gap.words / WORDS, begin_us, width_us, session_us),
    )


def several_turns(turns: Distribution) -> Table:
    """Table of the turns of conversations."""
    table = new_table(turns, TURNS)
    if table.values[0] < 2:
        raise OptionError("conversations of 2 turns or more", f"some of {table.values[0]}", "state min = 2")
    return table


def _mean_turns(
    count: Tables,
    weight: NDArray[np.float64],
    begin_us: NDArray[np.int64],
    width_us: NDArray[np.int64],
    session_us: int,
) -> float:
    """Mean turns within H: the sum of P(N > j) P(T of j gaps <= H), sums of gaps followed on a grid of `STEPS`."""
    turns, share = count.table(0)
    # the grid's cells are centred on its points, so that rounding a gap to a point does not shift it
    edges = (np.arange(STEPS + 2) - 0.5) * (session_us / STEPS)
    ends = np.concatenate((begin_us, begin_us[-1:] + width_us[-1:])).astype(np.float64)
    below = np.interp(edges, ends, np.concatenate(([0.0], np.cumsum(weight))))
    gap = np.diff(below)
    gap[0] += below[0]
    size = 1 << (2 * STEPS + 1).bit_length()
    spectrum, sums = np.fft.rfft(gap, size), gap
    mean = 1.0
    for j in range(1, int(turns[-1])):
        more = float(share[turns > j].sum())
        inside = max(float(sums.sum() - sums[-1] / 2), 0.0)  # half of the last cell lies beyond
        mean += more * inside
        if more * inside < RARE:
            break
        sums = np.fft.irfft(np.fft.rfft(sums, size) * spectrum, size)[: STEPS + 1]
    return float(np.rint(mean * 2.0**24) * 2.0**-24)
