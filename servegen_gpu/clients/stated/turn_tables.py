"""A model of conversations as tables of whole numbers, so that turns are the same integers on every machine.

Notation: N turns of a conversation, T the time from its first turn to turn j + 1 (the sum of j gaps), H the longest
time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import Distribution
from servegen_gpu.clients.stated.diurnal import settled
from servegen_gpu.clients.stated.tabulate import TOKENS, Grid, Table, new_table, tables_of
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import MAX_TURNS
from servegen_gpu.request.tables import WORDS, Tables

MAX_SESSION_S = 14 * 86_400.0
TURNS = Grid("turns", 1, 2, (1 << 10) - 1, MAX_TURNS - 1)
GAPS = Grid("inter-turn times, seconds", 1000, 0, int(MAX_SESSION_S * 1000), int(MAX_SESSION_S * 1000))
"""In milliseconds; a draw is spread evenly over its bin, down to microseconds."""
STEPS = 4096
"""Of a conversation's longest time, in which sums of gaps are followed."""
RARE = 1e-9
ONE_BY_ONE = 128
"""Sums of so many gaps are followed one after the other, later ones this many at once."""


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


def new_tokens_grid(growth: str) -> Grid:
    """Grid of the new tokens of later turns: where nothing else follows what is repeated, there may be none."""
    return replace(TOKENS, least=0) if growth == "edit" else TOKENS


def turn_tables(
    turns: Distribution, gap_s: Distribution, new_tokens: Distribution | None, grid: Grid, session_s: float
) -> TurnTables:
    """Tables of a model (see `servegen_gpu.clients.stated.turns.TurnModel`); `grid` is that of its new tokens."""
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
        new=None if new_tokens is None else tables_of([new_table(new_tokens, grid)]),
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
    """Mean turns within H: the sum of P(N > j) P(T of j gaps <= H) over all j."""
    turns, share = count.table(0)
    upto = np.append(np.cumsum(share[::-1])[::-1], 0.0)
    more = upto[np.searchsorted(turns, np.arange(1, turns[-1]), side="right")]  # P(N > j) for j = 1, 2, …
    ends = np.append(begin_us, begin_us[-1] + width_us[-1]) * (STEPS / session_us)
    mean = 1.0
    for each in map(operator.mul, more.tolist(), _within(_gap_on_grid(weight, ends))):
        mean += each
        if each < RARE:
            break
    return float(settled(np.array([mean]))[0])


def _gap_on_grid(weight: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a gap puts on 0, 1, … `STEPS`, float64[STEPS + 1], as shares of H / STEPS; `ends` are those of its bins.

    A gap between two points is split so that its mean stays: however short gaps are, long sums of them are right.
    """
    width = np.diff(ends)
    upto = np.concatenate(([0.0], np.cumsum(weight)))
    area = np.concatenate(([0.0], np.cumsum((upto[1:] + upto[:-1]) / 2 * width)))  # under the distribution function
    at = np.arange(STEPS + 2.0)
    bin_ = np.clip(np.searchsorted(ends, at, side="right") - 1, 0, len(width) - 1)
    inside = np.clip(at - ends[bin_], 0.0, width[bin_])
    area_at = area[bin_] + inside * (upto[bin_] + weight[bin_] * inside / (2 * width[bin_]))
    area_at += np.maximum(at - ends[-1], 0.0)
    return np.diff(np.diff(area_at), prepend=0.0)


def _within(gap: NDArray[np.float64]) -> Iterator[float]:
    """P(T of j gaps <= H) for j = 1, 2, … without end; of sums on the grid, what is past H never returns."""
    size = 1 << (2 * STEPS + 1).bit_length()

    def plus(sums: NDArray[np.float64], spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
        return np.fft.irfft(np.fft.rfft(sums, size) * spectrum, size)[: STEPS + 1]

    one, sums = np.fft.rfft(gap, size), gap
    upto = [np.append(0.5, np.ones(STEPS))]  # a sum of no gaps
    for _ in range(ONE_BY_ONE - 1):
        upto.append(np.cumsum(sums) - sums / 2)  # half of a point lies beyond
        yield max(float(upto[-1][-1]), 0.0)
        sums = plus(sums, one)
    many = np.fft.rfft(sums, size)  # of ONE_BY_ONE gaps
    rest = np.stack(upto)[:, ::-1]  # P(j gaps <= H - point)
    while True:
        yield from np.maximum(rest @ sums, 0.0).tolist()
        sums = plus(sums, many)
