"""Drawing from discrete distributions: the bin whose words contain a word.

A table's bins are ascending; bin i takes the words up to and including its threshold. The inverse is found by integer
comparison, with a guide table (Chen and Asau, 1974) that narrows the search to a few bins: it is monotone in the word,
which dependence between fields and common random numbers need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.lengths import LengthTables
from servegen_gpu.clients.pool import RATIO_STEPS

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


def pack_tables(tables: LengthTables) -> PackedTables:
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


def guide_range(xp: Any, word: Any, table: Any, tables: PackedTables) -> tuple[Any, Any]:
    """First and last bin that a word can select: bounds for the search, int64."""
    cell = table * ((1 << tables.guide_bits) + 1) + (word >> xp.uint32(32 - tables.guide_bits)).astype(xp.int64)
    return tables.guide[cell].astype(xp.int64), tables.guide[cell + 1].astype(xp.int64)


def find_bin(xp: Any, word: Any, table: Any, tables: PackedTables) -> Any:
    """The bin that a word selects: the first with ``word <= threshold``.

    Parameters
    ----------
    word : uint32[n]
    table : int64[n]

    Returns
    -------
    int64[n]
        Index into `thresholds` and `values`.
    """
    low, high = guide_range(xp, word, table, tables)
    for _ in range(tables.steps):
        middle = (low + high) >> 1
        right = tables.thresholds[middle] < word
        low, high = xp.where(right, middle + 1, low), xp.where(right, high, middle)
    return low


def reason_tokens(xp: Any, output: Any, ratio: Any) -> Any:
    """The reasoning part of an output: its share k/501, rounded half up in integers.

    Parameters
    ----------
    output, ratio : int32[n]
        Output tokens, and k.

    Returns
    -------
    int32[n]
    """
    share = output.astype(xp.int64) * ratio * 2 + RATIO_STEPS
    return (share // (2 * RATIO_STEPS)).astype(xp.int32)
