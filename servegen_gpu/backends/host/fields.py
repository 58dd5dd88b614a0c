"""Lengths of many requests at once: words, dependence, table lookups in blocks.

Axes: cells, requests, items (of all requests together).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.addresses import Addresses
from servegen_gpu.blocks import for_blocks
from servegen_gpu.law.address import Purpose
from servegen_gpu.law.context import cut_input, cut_output
from servegen_gpu.law.dependence import mix_words
from servegen_gpu.law.tables import guide_range, reason_tokens
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import INPUT, OUTPUT
from servegen_gpu.request.tables import PackedTables

Turns = int | NDArray[np.int64]
"""Turn of every request, from 0, or of all."""
FIRST: Turns = 0
ITEM_PURPOSES = {"image": Purpose.IMAGE, "audio": Purpose.AUDIO, "video": Purpose.VIDEO}


def lookup(word: NDArray[np.uint32], table: NDArray[np.int64], tables: PackedTables) -> NDArray[np.int64]:
    """`find_bin` of the law, halving only where the guide leaves a choice."""
    low: NDArray[np.int64]
    low, high = guide_range(np, word, table, tables)
    # most words fall in the first bin that the guide names
    open_ = np.flatnonzero(tables.thresholds[low] < word)
    if len(open_):
        rest, below, above = word[open_], low[open_] + 1, high[open_]
        for _ in range(tables.steps):
            middle = (below + above) >> 1
            right = tables.thresholds[middle] < rest
            np.copyto(below, middle + 1, where=right)
            np.copyto(above, middle, where=~right)
        low[open_] = below
    return low


def scalar_fields(
    packed: PackedWorkload,
    cells: Cells,
    law: Addresses,
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    turn: Turns = FIRST,
    new: NDArray[np.int32] | None = None,
) -> dict[str, NDArray[np.int32]]:
    """Fields that are drawn once per request, int32[requests] each, by name.

    Where `new` is given and not negative, it stands for the first field: input or text tokens drawn elsewhere.
    """
    names = packed.fields[: packed.scalar_fields]
    table, mixing_of = packed.table[cells.profile, cells.row], packed.mixing_of[cells.profile]
    context = packed.context_tokens[cells.profile]
    cut = packed.limited and not packed.schema.items  # with items, the input is not known yet
    out = {name: np.empty(len(cell), np.int32) for name in names}

    def block(a: int, b: int) -> None:
        at = cell[a:b]
        words = _field_words(packed, law, at, ordinal[a:b], _part(turn, a, b), len(names))
        if packed.dependence == "copula":
            words = _mixed(words, packed.mixing, mixing_of[at])
        for f, (name, word) in enumerate(zip(names, words, strict=True)):
            bins = lookup(word, table[at, f], packed.tables)
            out[name][a:b] = packed.tables.values[bins]
        if new is not None:
            np.copyto(out[names[0]][a:b], new[a:b], where=new[a:b] >= 0)
        if cut:
            tokens, output = (out[names[lane]][a:b] for lane in (INPUT, OUTPUT))
            tokens[:] = cut_input(np, tokens, context[at])
            output[:] = cut_output(np, output, tokens, context[at])

    for_blocks(len(cell), block)
    return out


def _field_words(
    packed: PackedWorkload,
    law: Addresses,
    at: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    turn: Turns,
    count: int,
) -> list[NDArray[np.uint32]]:
    """One word for every scalar field, before a copula."""
    words = list(law.words(Purpose.DATA, at, ordinal, turn=turn))
    if packed.dependence == "comonotone":
        return [words[0].astype(np.uint32)] * count
    if count > 4:
        words += law.words(Purpose.DATA, at, ordinal, turn=turn, item=1)
    return [word.astype(np.uint32) for word in words[:count]]


def _mixed(
    words: list[NDArray[np.uint32]], mixing: NDArray[np.float64], of: NDArray[np.int32]
) -> list[NDArray[np.uint32]]:
    """Words after the copulas of requests; `of` is the matrix of each."""
    some = np.flatnonzero(of)
    if not len(some):
        return words
    first = of[some[0]]
    one = bool((of[some] == first).all())
    which: tuple[Any, ...] = (mixing[first],) if one else (mixing, of[some])
    every = len(some) == len(of)
    drawn = words if every else [word[some] for word in words]
    mixed = [word.astype(np.uint32, copy=False) for word in mix_words(np, drawn, *which)]
    if every:
        return mixed
    for word, new in zip(words, mixed, strict=True):
        word[some] = new
    return words


def _part(turn: Turns, a: int, b: int) -> Turns:
    return turn if isinstance(turn, int) else turn[a:b]


def later_fields(
    packed: PackedWorkload,
    cells: Cells,
    law: Addresses,
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    drawn: dict[str, NDArray[np.int32]],
    turn: Turns = FIRST,
) -> dict[str, NDArray[np.int32] | Ragged]:
    """Columns of requests whose scalar fields are `drawn`, in the order of a trace: reasoning split, items drawn."""
    schema, columns = packed.schema, dict[str, Any](drawn)
    first, output = (schema.fields[lane].name for lane in (INPUT, OUTPUT))
    if schema.ratio:
        columns[schema.ratio.column] = split_output(columns[output], columns[schema.ratio.name])
    if schema.items:
        lists = item_lists(packed, cells, law, cell, ordinal, drawn, turn)
        columns[schema.total] = columns[first] + sum(row_sums(items) for items in lists.values())
        columns[output] = limited_output(packed, cells, cell, columns[schema.total], columns[output])
        columns |= lists
    return schema.in_order(columns)


def row_sums(items: Ragged) -> NDArray[np.int32]:
    """Sum of every list, int32[n]."""
    if not len(items.values):
        return np.zeros(len(items), np.int32)
    ends = np.concatenate(([0], np.cumsum(items.values, dtype=np.int64)))
    return np.diff(ends[items.offsets]).astype(np.int32)


def split_output(output: NDArray[np.int32], ratio: NDArray[np.int32]) -> NDArray[np.int32]:
    """`reason_tokens` of the law, in blocks."""
    out = np.empty(len(output), np.int32)

    def block(a: int, b: int) -> None:
        out[a:b] = reason_tokens(np, output[a:b], ratio[a:b])

    for_blocks(len(out), block)
    return out


def limited_output(
    packed: PackedWorkload,
    cells: Cells,
    cell: NDArray[np.int32],
    tokens: NDArray[np.int32],
    output: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Output tokens within the clients' contexts beside inputs that are known, in blocks."""
    if not packed.limited:
        return output
    context, out = packed.context_tokens[cells.profile], np.empty(len(output), np.int32)

    def block(a: int, b: int) -> None:
        out[a:b] = cut_output(np, output[a:b], tokens[a:b], context[cell[a:b]])

    for_blocks(len(out), block)
    return out


def item_lists(
    packed: PackedWorkload,
    cells: Cells,
    law: Addresses,
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    counts: dict[str, NDArray[np.int32]],
    turn: Turns = FIRST,
) -> dict[str, Ragged]:
    """Token counts of every item of every request, by modality, for requests in any order."""
    lists = {}
    for items in packed.schema.items:
        count = counts[items.count.name].astype(np.int64)
        offsets = np.concatenate(([0], np.cumsum(count)))
        table = packed.table[cells.profile, cells.row, items.item.lane]
        values = _items(packed.tables, law, ITEM_PURPOSES[items.modality], table, cell, ordinal, turn, offsets)
        lists[items.item.column] = Ragged(offsets, values)
    return lists


def _items(
    tables: PackedTables,
    law: Addresses,
    purpose: Purpose,
    table: NDArray[np.int64],
    cell: NDArray[np.int32],
    ordinal: NDArray[np.uint32],
    turn: Turns,
    offsets: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Values of the items, int32[items]: word ``i % 4`` of draw ``i // 4`` for item i of a request."""
    values = np.empty(offsets[-1], np.int32)

    def block(a: int, b: int) -> None:
        count = np.diff(offsets[a : b + 1])
        if not count.any():
            return
        draws = (count + 3) >> 2
        request = np.repeat(np.arange(a, b), draws)
        first = np.repeat(np.cumsum(draws) - draws, draws)
        index = np.arange(len(request)) - first
        at, turns = cell[request], turn if isinstance(turn, int) else turn[request]
        words = np.empty((len(request), 4), np.uint32)
        for lane, word in enumerate(law.words(purpose, at, ordinal[request], turn=turns, item=index)):
            words[:, lane] = word
        used = np.arange(4) < (np.repeat(count, draws) - 4 * index)[:, None]
        of = np.repeat(table[cell[a:b]], count)
        values[offsets[a] : offsets[b]] = tables.values[lookup(words[used], of, tables)]

    for_blocks(len(cell), block)
    return values
