"""Drawing from discrete distributions: the bin whose words contain a word.

A table's bins are ascending; bin i takes the words up to and including its threshold. The inverse is found by integer
comparison, with a guide table (Chen and Asau, 1974) that narrows the search to a few bins: it is monotone in the word,
which dependence between fields and common random numbers need.
"""

from __future__ import annotations

from typing import Any

from servegen_gpu.request.schema import RATIO_STEPS
from servegen_gpu.request.tables import PackedTables


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
