"""Discrete distributions of token counts, packed one behind the other.

A distribution is a run of bins; each bin has a value and the last 32-bit word that selects it, so that drawing is an
integer comparison and comes out the same everywhere (law, section 4).

Axes: tables, bins (of all tables together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = 1 << 32
"""How many words a uniform draw chooses from."""

BLOCK_BINS = 1 << 15
"""Bins that are worked on at a time."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Discrete distributions over non-negative integers.

    Attributes
    ----------
    offsets : int64[tables + 1]
        Table t owns the bins ``offsets[t]:offsets[t + 1]``; every table has at least one.
    values : int32[bins]
        What a bin stands for (tokens, items, or k of a ratio k/501), ascending inside a table.
    thresholds : uint32[bins]
        The last word that selects the bin, strictly ascending inside a table and ending at 2**32 - 1:
        a word u selects the first bin with ``u <= threshold``.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int32]
    thresholds: NDArray[np.uint32]

    def __repr__(self) -> str:
        return f"<Tables: {len(self.offsets) - 1:,} distributions, {len(self.values):,} values>"

    def __post_init__(self) -> None:
        for array in (self.offsets, self.values, self.thresholds):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def table(self, t: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Values and probabilities of table `t`."""
        bins = slice(int(self.offsets[t]), int(self.offsets[t + 1]))
        return self.values[bins], self.widths(bins) / WORDS

    def widths(self, bins: slice | None = None) -> NDArray[np.int64]:
        """How many words select each bin, int64[bins]; `bins` must begin at a table's first bin."""
        last = self.thresholds[bins if bins is not None else slice(None)].astype(np.int64)
        widths = np.diff(last, prepend=-1)
        return np.where(widths <= 0, widths + WORDS, widths)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Mean of every table, float64[tables]; summed in integers, and so the same everywhere."""
        sums = np.empty(len(self), np.int64)
        begin = 0
        while begin < len(self):  # blocks of whole tables that stay in the processor's cache
            reach = np.searchsorted(self.offsets, self.offsets[begin] + BLOCK_BINS, side="right") - 1
            end = max(int(reach), begin + 1)
            bins = slice(int(self.offsets[begin]), int(self.offsets[end]))
            starts = self.offsets[begin:end] - bins.start
            last = self.thresholds[bins].astype(np.int64)
            words = np.diff(last, prepend=-1)
            words[starts] = last[starts] + 1
            sums[begin:end] = np.add.reduceat(words * self.values[bins], starts)  # below 2**31 * 2**32
            begin = end
        means = sums / WORDS
        means.setflags(write=False)
        return means

    @property
    def smallest(self) -> NDArray[np.int32]:
        """Smallest value of every table, int32[tables]."""
        return self.values[self.offsets[:-1]]

    @property
    def largest(self) -> NDArray[np.int32]:
        """Largest value of every table, int32[tables]."""
        return self.values[self.offsets[1:] - 1]

    def quantile(self, level: float) -> NDArray[np.int32]:
        """The first value of every table whose cumulative probability reaches `level`, int32[tables].

        Probabilities are multiples of 2**-32, and the level is rounded to the nearest of them.

        Parameters
        ----------
        level : float
            Above 0, at most 1.
        """
        if level not in self._quantiles:
            self._quantiles[level] = self._find_quantile(level)
        return self._quantiles[level]

    @cached_property
    def _quantiles(self) -> dict[float, NDArray[np.int32]]:
        """What `quantile` has found so far."""
        return {}

    def _find_quantile(self, level: float) -> NDArray[np.int32]:
        word = max(round(level * WORDS), 1) - 1
        low, high = self.offsets[:-1].copy(), self.offsets[1:] - 1
        for _ in range(int(np.diff(self.offsets).max(initial=1)).bit_length()):
            middle = (low + high) >> 1
            right = self.thresholds[middle] < word
            low, high = np.where(right, middle + 1, low), np.where(right, high, middle)
        found = self.values[low]
        found.setflags(write=False)
        return found

    def select(self, tables: NDArray[np.integer]) -> Tables:
        """Only the given tables, in the given order."""
        starts = self.offsets[tables]
        sizes = self.offsets[np.asarray(tables) + 1] - starts
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        bins = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return Tables(offsets, self.values[bins], self.thresholds[bins])

    @classmethod
    def join(cls, parts: Sequence[Tables]) -> Tables:
        """The tables of all parts, one part behind the other."""
        ends = np.cumsum([0] + [len(part.values) for part in parts])
        return cls(
            np.concatenate([ends[:1], *(part.offsets[1:] + end for part, end in zip(parts, ends, strict=False))]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.thresholds for part in parts]),
        )

    @classmethod
    def from_weights(
        cls,
        offsets: NDArray[np.integer],
        values: NDArray[np.integer],
        weights: NDArray[np.floating | np.integer],
    ) -> Tables:
        """Tables from weights per bin: probabilities, counts, or any multiple of them.

        Weights are normalised table by table in integers, so a table does not depend on its neighbours. Bins of
        weight zero, or too light for a word of their own (below about 2**-32 of the table), are left out; their
        share falls to the next bin, or to the last one that is kept.

        Parameters
        ----------
        offsets : int[tables + 1]
            Where each table begins in `values` and `weights`.
        values : int[bins]
            Ascending inside each table, from 0 to 2**31 - 1 (checked by the caller).
        weights : float[bins] or int[bins]
            Finite and non-negative, with a positive sum in each table (checked by the caller).
        """
        offsets = np.asarray(offsets, np.int64)
        sizes = np.diff(offsets)
        heaviest = np.maximum.reduceat(np.asarray(weights, np.float64), offsets[:-1])
        relative = weights / np.repeat(heaviest, sizes)
        # a table's integers sum to between 2**51 and 2**53, exact as a float; the power of two must not hang on the
        # last bit of a sum, so sums just below one count as above it
        room = np.frexp(np.add.reduceat(relative, offsets[:-1]) * (1 + 2**-20))[1]
        parts = np.rint(relative * np.repeat(np.ldexp(1.0, 52 - room), sizes)).astype(np.int64)
        # the running sum over all tables may wrap around, the differences inside one table are exact all the same
        ends = np.cumsum(parts)
        first = np.concatenate(([0], ends))[offsets]
        total = np.repeat(np.diff(first), sizes)
        share = (ends - np.repeat(first[:-1], sizes)).astype(np.float64) / total
        last_word = np.rint(share * WORDS).astype(np.int64) - 1

        previous = np.concatenate(([-1], last_word[:-1]))
        previous[offsets[:-1]] = -1
        kept = last_word > previous
        table = np.repeat(np.arange(len(sizes)), sizes)[kept]
        new_offsets = np.concatenate(([0], np.cumsum(np.bincount(table, minlength=len(sizes)))))
        return cls(
            new_offsets.astype(np.int64),
            np.asarray(values)[kept].astype(np.int32),
            last_word[kept].astype(np.uint32),
        )


def fault_of(offsets: NDArray[Any], values: NDArray[Any], thresholds: NDArray[Any], times: bool = False) -> str:
    """What is wrong with arrays that are to be `Tables`: what would send a draw astray; empty if nothing is.

    Those of `times` (`PackedClock.segments`) have no values.
    """
    if any(array.ndim != 1 for array in (offsets, values, thresholds)) or len(offsets) < 2:
        return "tables that are no lists, or none"
    if len(values) != len(thresholds) or offsets[0] != 0 or offsets[-1] != len(values):
        return f"offsets from {offsets[0]:,} to {offsets[-1]:,} for {len(thresholds):,} bins, {len(values):,} values"
    if (empty := offsets[1:] <= offsets[:-1]).any():
        return f"no bin in table {np.argmax(empty)}"
    first = np.zeros(len(values), np.bool_)
    first[offsets[:-1]] = True
    for name, array in (("values", values), ("thresholds", thresholds)):
        falls = ~first[1:] & (array[1:] <= array[:-1]) & (not times or name == "thresholds")
        if falls.any():
            at = int(np.argmax(falls)) + 1
            return f"{name} that do not ascend, {array[at]} at bin {at:,}"
    if times and values.any():
        return "values among times"
    if (values < 0).any() or (thresholds[offsets[1:] - 1] != WORDS - 1).any():
        return "values below 0, or thresholds that do not end at 2**32 - 1"
    return ""


MAX_GUIDE_BITS = 11

MAX_GUIDE_ENTRIES = 1 << 24


@dataclass(frozen=True, eq=False)
class PackedTables:
    """Tables with their guides, ready for lookup.

    Attributes
    ----------
    thresholds : uint32[bins]
        Last word of each bin.
    values : int32[bins]
    guide : int32[tables * (2**guide_bits + 1)]
        Entry j of a table: its first bin whose threshold reaches ``j * 2**(32 - guide_bits)``; the last entry is its
        last bin.
    guide_bits : int
        How many leading bits of a word choose the guide entry; only speed depends on it.
    steps : int
        Halvings that settle every search.
    """

    thresholds: NDArray[np.uint32]
    values: NDArray[np.int32]
    guide: NDArray[np.int32]
    guide_bits: int
    steps: int


def unpack_tables(packed: PackedTables, times: bool = False) -> Tables:
    """The tables that were packed.

    Raises
    ------
    ValueError
        If it is not what `pack_tables` makes of tables.
    """
    if not 0 < packed.guide_bits <= MAX_GUIDE_BITS or len(packed.guide) % ((1 << packed.guide_bits) + 1):
        raise ValueError(f"a guide of {len(packed.guide):,} entries with {packed.guide_bits} bits")
    guide = packed.guide.reshape(-1, (1 << packed.guide_bits) + 1)
    tables = Tables(np.append(guide[:, 0], len(packed.values)).astype(np.int64), packed.values, packed.thresholds)
    if len(tables) and (fault := fault_of(tables.offsets, tables.values, tables.thresholds, times)):
        raise ValueError(fault)
    again = pack_tables(tables)
    if not np.array_equal(again.guide, packed.guide) or (again.guide_bits, again.steps) != (
        packed.guide_bits,
        packed.steps,
    ):
        raise ValueError("a guide that does not lead to the bins")
    return tables


def pack_tables(tables: Tables) -> PackedTables:
    """Add guides to `tables`, finer where there are few tables, 64 MB in all at most."""
    count = max(len(tables), 1)
    bits = int(np.clip(MAX_GUIDE_ENTRIES // count, 16, 1 << MAX_GUIDE_BITS)).bit_length() - 1
    base = np.repeat(np.arange(len(tables), dtype=np.uint64) << np.uint64(32), np.diff(tables.offsets))
    starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(32 - bits)
    wanted = (np.arange(len(tables), dtype=np.uint64) << np.uint64(32))[:, None] + starts
    first = np.searchsorted(base + tables.thresholds, wanted.ravel()).reshape(wanted.shape)
    guide = np.concatenate((first, tables.offsets[1:, None] - 1), axis=1).astype(np.int32)
    widest = int(np.diff(guide, axis=1).max(initial=0))
    return PackedTables(tables.thresholds, tables.values, guide.ravel(), bits, widest.bit_length())
