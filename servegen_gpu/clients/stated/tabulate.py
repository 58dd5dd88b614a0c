"""From a stated distribution to a table of whole numbers with whole words.

Tokens are exact one by one up to 512, and wherever one of them alone has a thousandth of the requests; otherwise a bin
is at most 0.2 % wide, holds at most a thousandth of the requests, and stands for its middle. Values stated one by one
(constants, PMFs, samples, bounds) always are their own bins.

A table's words are whole, so that it is the same on every machine (see `distribution`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import Distribution
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import MAX_ITEMS
from servegen_gpu.request.schema import KINDS, RATIO_STEPS, Kind
from servegen_gpu.request.tables import WORDS, Tables

FINE_BITS = 9
"""Bins are at most 2**-9 wide, so whole up to 2**9."""
HEAVY_WORDS = WORDS >> 10
"""Wider bins with more words than this are halved."""
UNSTATED = 0.01
"""How much of a distribution a bound that nobody stated may cut."""
MAX_BINS = 1 << 23
"""Of all distributions of a pool together: 1,800 log-normal ones, or any number of short lists."""


@dataclass(frozen=True)
class Grid:
    """The whole numbers that a field is drawn from.

    Attributes
    ----------
    what : str
        For messages.
    unit : int
        A whole number k stands for k / unit.
    least, most : int
        Bounds where a distribution states none, and no value of its own lies beyond.
    limit : int
        Nothing may be larger.
    """

    what: str
    unit: int
    least: int
    most: int
    limit: int


TOKENS = Grid("tokens", 1, 1, 1 << 20, 2**31 - 1)
ITEMS = Grid("items", 1, 0, 1 << 10, MAX_ITEMS)
RATIO = Grid("shares", RATIO_STEPS, 0, RATIO_STEPS - 1, RATIO_STEPS - 1)


def grid_of(field: str) -> Grid:
    """Grid of a field of a request."""
    return {Kind.RATIO: RATIO, Kind.COUNT: ITEMS}.get(KINDS[field], TOKENS)


class Table(NamedTuple):
    """A tabulated distribution.

    Attributes
    ----------
    values : int64[bins]
        Ascending.
    words : int64[bins]
        How many of the 2**32 words select the bin.
    last : int64[bins]
        Largest whole number of the bin.
    """

    values: NDArray[np.int64]
    words: NDArray[np.int64]
    last: NDArray[np.int64]


@lru_cache(maxsize=2048)
def tabulate(distribution: Distribution, grid: Grid) -> Table:
    """`new_table`, remembered: many clients share a distribution."""
    return new_table(distribution, grid)


@dataclass
class Lengths:
    """The distributions of a pool, each tabulated once, `MAX_BINS` of them together.

    Attributes
    ----------
    rows : dict
        Number of the table of a distribution on a grid.
    bins : int
    """

    rows: dict[tuple[Distribution, Grid], int] = field(default_factory=dict)
    bins: int = 0

    def row(self, distribution: Distribution, grid: Grid) -> int:
        """Number of a distribution's table; an `OptionError` where there are too many bins."""
        key = distribution, grid
        if key not in self.rows:
            self.bins += len(tabulate(distribution, grid).values)
            if self.bins > MAX_BINS:
                got = f"{len(self.rows) + 1:,} distributions with more"
                fix = "let clients share distributions, or state a smaller max="
                raise OptionError(f"at most {MAX_BINS:,} bins of all distributions of lengths", got, fix)
            self.rows[key] = len(self.rows)
        return self.rows[key]


def new_table(distribution: Distribution, grid: Grid) -> Table:
    """Table of a distribution on a grid.

    Raises
    ------
    OptionError
        If explicit values are off the grid, or a bound that was not stated would cut more than 1 %.
    """
    atoms = _on_grid(distribution.atoms(), grid)
    low, high = _bounds(distribution, atoms, grid)
    _check_cut(distribution, low, high, grid)
    stated = np.clip(np.concatenate((atoms, [low, high])), low, high)
    stated = np.unique(np.concatenate((stated, stated - 1)))
    ends = _whole_bins(low, high)
    at = np.searchsorted(ends, stated)
    new = (stated >= low) & (np.append(ends, -1)[at] != stated)
    ends = np.insert(ends, at[new], stated[new])
    return _halved(lambda k: distribution.cut_at_most(k, grid.unit), ends)


def table_of_bins(at_most: Callable[[NDArray[np.float64]], NDArray[np.float64]], last: NDArray[np.int64]) -> Table:
    """Table with given bins: `last` are their last whole numbers, ascending; the first bin begins at ``last[0]``."""
    words = np.diff(_words(at_most, last[:-1]), prepend=0, append=WORDS)
    first = np.concatenate((last[:1], last[:-1] + 1))
    return Table((first + last) // 2, words, last)


def tables_of(tables: Sequence[Table]) -> Tables:
    """Tables packed one behind the other; bins without a word are left out."""
    kept = [np.flatnonzero(table.words) for table in tables]
    return Tables(
        np.cumsum([0] + [len(bins) for bins in kept], dtype=np.int64),
        np.concatenate([t.values[bins] for t, bins in zip(tables, kept, strict=True)]).astype(np.int32),
        np.concatenate([np.cumsum(t.words)[bins] - 1 for t, bins in zip(tables, kept, strict=True)]).astype(np.uint32),
    )


def _on_grid(values: NDArray[np.float64], grid: Grid) -> NDArray[np.int64]:
    """Explicit values as whole numbers of the grid."""
    steps = np.rint(values * grid.unit)
    if grid.unit > 1:
        most = max(1.0, grid.limit / grid.unit)
        wrong = values > most
        expected = f"{grid.what} from 0 to {most:,.10g}"
    else:
        wrong = (steps != values) | (values > grid.limit)
        expected = f"whole numbers of {grid.what} from 0 to {grid.limit:,}"
    if wrong.any():
        raise OptionError(expected, f"{values[np.argmax(wrong)]:g}", "round or fix the values")
    return np.minimum(steps, grid.limit).astype(np.int64)


def _bounds(distribution: Distribution, atoms: NDArray[np.int64], grid: Grid) -> tuple[int, int]:
    """Smallest and largest whole number."""
    stated = {
        name: _on_grid(np.array([bound]), grid)[0]
        for name, bound in (("min", distribution.min), ("max", distribution.max))
        if bound is not None
    }
    low = int(stated.get("min", min(grid.least, atoms.min(initial=grid.least))))
    high = int(stated.get("max", max(grid.most, atoms.max(initial=grid.most))))
    if "min" not in stated:
        low = min(low, high)
    return low, max(low, high)


def _check_cut(distribution: Distribution, low: int, high: int, grid: Grid) -> None:
    """Refuse to cut much where no bound was stated: negative values, or a tail past all contexts."""
    beyond = high + (grid.unit > 1)  # all of a share's last step is inside
    below, upto = distribution.at_most(np.array([-1.0, float(beyond)]), grid.unit)
    cuts = {
        "min": (distribution.min is None and below > UNSTATED, f"{below:.2%} below 0"),
        "max": (distribution.max is None and 1 - upto > UNSTATED, f"{1 - upto:.2%} above {high / grid.unit:,.10g}"),
    }
    for name, (cut, got) in cuts.items():
        if cut:
            raise OptionError(
                f"a distribution of {grid.what} within its bounds", got, f"state {name}=, to which values are cut"
            )


@lru_cache(maxsize=64)
def _whole_bins(low: int, high: int) -> NDArray[np.int64]:
    """Last whole numbers of bins that are at most 2**-FINE_BITS wide."""
    last = np.arange(low, min(high, 1 << FINE_BITS) + 1, dtype=np.int64)
    parts, begin = [last], 1 << FINE_BITS
    while begin < high:  # an octave at a time
        parts.append(np.arange(begin, 2 * begin, begin >> FINE_BITS, dtype=np.int64))
        begin *= 2
    ends = np.unique(np.concatenate(parts))
    return ends[(ends >= low) & (ends <= high)]


def _halved(at_most: Callable[[NDArray[np.float64]], NDArray[np.float64]], last: NDArray[np.int64]) -> Table:
    """Table of bins that end at `last`, ascending, the first of them one number, after heavy ones have been halved.

    Bins without a word are left out.
    """
    while True:
        words = np.diff(_words(at_most, last[:-1]), prepend=0, append=WORDS)
        first = np.concatenate((last[:1], last[:-1] + 1))
        heavy = (words > HEAVY_WORDS) & (last > first)
        if not heavy.any():
            break
        last = np.insert(last, np.flatnonzero(heavy), ((first + last) // 2)[heavy])
    if (words < 0).any():
        raise OptionError("a distribution function that never falls", "one that does", "check the distribution")
    kept = words > 0
    middle = (first + last + np.arange(len(last)) % 2) // 2  # a half goes down and up by turns
    return Table(middle[kept], words[kept], last[kept])


def _words(at_most: Callable[[NDArray[np.float64]], NDArray[np.float64]], k: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.rint(at_most(k.astype(np.float64)) * WORDS).astype(np.int64)
