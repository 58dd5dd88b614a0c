"""A digest of the rows of a trace, which proves that two traces are the same wherever their rows lie.

It depends on the rows and their order alone: not on slabs, files, parts, formats, integer types or what computed them.

Notation, all modulo 2**64:

=========  ===================================================================================================
v          a value, as a 64-bit integer in two's complement
a, b       words of a column's name, `a` odd: two of the 64-bit words of SHA-512 of "servegen_gpu digest 1 NAME"
c, d, e    the next three of them, odd
f(x)       a bijection of 64 bits in which every bit of x changes each bit of f(x) half of the time: the finaliser of
           SplitMix64 (x ^= x >> 30, x *= …, x ^= x >> 27, x *= …, x ^= x >> 31)
list       of items v_1 … v_n: Σ f(c v_j + d j) + e n, which then stands for `v`
row i      m_i = f(Σ (a v + b)), over all columns
total      Σ m_i
weighted   Σ (i + 1) m_i, rows counted from 0
=========  ===================================================================================================

Rows that follow others weigh more by their number, so the digest of a trace follows from those of its parts:
``a + b`` has ``total_a + total_b`` and ``weighted_a + weighted_b + rows_a total_b``.

What it proves: that traces are the same, against accidents. Where one value changed, the total does, always; where many
changed, or rows were lost or doubled, it is the same by chance in 1 of 2**64 cases. Where rows are in another order,
only the weighted sum tells, and two rows that changed places a multiple of 2**k rows apart are missed once in
2**(64 - k). It does not withstand an adversary: whoever wants two traces to have the same digest can solve the sums.
Columns without rows have the digest of nothing.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Column, Ragged, rows_between

if TYPE_CHECKING:
    from servegen_gpu.backends.native.library import Library

Words = NDArray[np.uint64]

BLOCK_ROWS = 1 << 14
"""At once: what is in between stays in cache."""

MASK = 2**64 - 1


@dataclass(frozen=True)
class Digest:
    """Digest of consecutive rows; see the module.

    Attributes
    ----------
    rows : int
        How many.
    total, weighted : int
        Sums over the rows, from 0 to 2**64 - 1.

    Examples
    --------
    >>> Digest.of(trace.columns) == Digest.of(trace[:100].columns) + Digest.of(trace[100:].columns)
    True
    """

    rows: int = 0
    total: int = 0
    weighted: int = 0

    def __repr__(self) -> str:
        return f"<Digest {self.hex}: {self.rows:,} rows>"

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Digest:
        """Digest of the rows of columns of integers and of lists of them."""
        library = _library()
        return in_numpy(columns) if library is None else in_library(library, columns)

    @classmethod
    def parse(cls, text: str, rows: int) -> Digest:
        """The digest of so many rows from its `hex`.

        Raises
        ------
        OptionError
            If it is none.
        """
        if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{32}", text):
            raise OptionError("a digest of 32 hexadecimal digits", repr(text)[:60], "copy it whole")
        return cls(rows, int(text[:16], 16), int(text[16:], 16))

    @property
    def hex(self) -> str:
        """32 hexadecimal digits: the total, and the weighted one."""
        return f"{self.total:016x}{self.weighted:016x}"

    def __str__(self) -> str:
        return self.hex

    def __add__(self, after: Digest) -> Digest:
        """The digest of these rows followed by those of the other."""
        weighted = self.weighted + after.weighted + self.rows * after.total
        return Digest(self.rows + after.rows, (self.total + after.total) & MASK, weighted & MASK)


NO_ROWS = Digest()


def in_library(library: Library, columns: Mapping[str, Column]) -> Digest:
    """The digest by compiled code."""
    from servegen_gpu.backends.native.library import Digested, address

    kept, given = list[Any](), (Digested * len(columns))()
    for each, (name, column) in zip(given, columns.items(), strict=True):
        values, offsets = (column.values, column.offsets) if isinstance(column, Ragged) else (column, None)
        wide = values.dtype != np.int32
        values = np.ascontiguousarray(values, np.int64 if wide else np.int32)
        offsets = None if offsets is None else np.ascontiguousarray(offsets, np.int64)
        kept += [values, offsets]
        each.values, each.offsets = address(values), None if offsets is None else address(offsets)
        each.wide, each.words[:] = wide, [int(word) for word in words_of(name)]
    rows, sums = len(next(iter(columns.values()))), np.empty(2, np.uint64)
    library.call("sg_digest", given, ctypes.c_int64(len(given)), ctypes.c_int64(rows), sums)
    return Digest(rows, *sums.tolist())


def in_numpy(columns: Mapping[str, Column]) -> Digest:
    """The same, where there is none."""
    found, rows = NO_ROWS, len(next(iter(columns.values())))
    for at in range(0, rows, BLOCK_ROWS):
        found += _of_block(rows_between(columns, at, at + BLOCK_ROWS))
    return found


@functools.cache
def _library() -> Library | None:
    """Compiled kernels, where they are here already."""
    from servegen_gpu.backends.native.library import load_library

    try:
        return load_library()
    except OptionError:
        return None


@functools.cache
def words_of(name: str) -> tuple[np.uint64, ...]:
    """The words a to e of a column."""
    text = f"servegen_gpu digest 1 {name}".encode(errors="backslashreplace")
    found = np.frombuffer(hashlib.sha512(text).digest(), "<u8")
    return tuple(np.uint64(word) if at == 1 else np.uint64(word) | np.uint64(1) for at, word in enumerate(found[:5]))


def _of_block(columns: Mapping[str, Column]) -> Digest:
    mixed = _mixed(columns)
    numbers = np.arange(1, len(mixed) + 1, dtype=np.uint64)
    return Digest(len(mixed), int(mixed.sum()), int((mixed * numbers).sum()))


def _mixed(columns: Mapping[str, Column]) -> Words:
    """m of every row, uint64[n]."""
    summed = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for name, column in columns.items():
        a, b, *of_items = words_of(name)
        values = _lists(column, *of_items) if isinstance(column, Ragged) else _words(column)
        summed += a * values + b
    return _final(summed)


def _lists(column: Ragged, c: np.uint64, d: np.uint64, e: np.uint64) -> Words:
    """What stands for each list, uint64[n]."""
    places = np.arange(1, len(column.values) + 1) - np.repeat(column.offsets[:-1], column.lengths)
    running = np.zeros(len(column.values) + 1, np.uint64)
    np.cumsum(_final(c * _words(column.values) + d * _words(places)), out=running[1:])
    return running[column.offsets[1:]] - running[column.offsets[:-1]] + e * _words(column.lengths)


def _words(values: NDArray[np.integer]) -> Words:
    """Values as 64-bit words."""
    return np.ascontiguousarray(values, np.int64).view(np.uint64)


def _final(x: Words) -> Words:
    """f of each, in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x


def digest_of(trace: Any) -> Digest:
    """The digest of all rows of a trace: in memory, in slabs in order of time, or in a file or directory.

    Parameters
    ----------
    trace : Trace, iterable of Trace, or path
        A file is read, whatever digest it has recorded.
    """
    if isinstance(trace, str | os.PathLike):
        from servegen_gpu.formats import read_slabs

        trace = read_slabs(trace)
    columns = getattr(trace, "columns", None)
    if isinstance(columns, Mapping):
        return Digest.of(columns)
    return sum((Digest.of(slab.columns) for slab in trace), NO_ROWS)
