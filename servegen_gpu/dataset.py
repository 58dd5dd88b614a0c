"""Arrivals of one origin with lengths of another: a published trace with a dataset.

That is how workloads are often put together (arrivals of a public trace, lengths of a public dataset), and what
ServeGen (arXiv 2505.09999) compares with: nothing ties lengths to clients, to the time of day, or to turns before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.blocks import for_blocks
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.pooled import active_cells, pooled_tables
from servegen_gpu.clients.stated.parametric import pool as pool_of
from servegen_gpu.clients.stated.spec import client
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.philox import MASK, Words
from servegen_gpu.law.tables import find_bin, reason_tokens
from servegen_gpu.law.variates import uniform52
from servegen_gpu.provenance import noted
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.request.schema import COLUMNS, FIELDS, INPUT, MODALITIES, OUTPUT, Items
from servegen_gpu.request.tables import PackedTables, pack_tables
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

JOINT_ITEM = 4
"""`turn` of the draw that chooses a whole row; 0 is for scalar fields, 1 to 3 for items."""

Lengths = ClientPool | Trace | Mapping[str, Any]


@overload
def with_lengths(trace: Trace, lengths: Lengths, *, seed: int = 0) -> Trace: ...
@overload
def with_lengths(trace: Iterable[Trace], lengths: Lengths, *, seed: int = 0) -> Iterator[Trace]: ...
def with_lengths(trace: Trace | Iterable[Trace], lengths: Lengths, *, seed: int = 0) -> Trace | Iterator[Trace]:
    """The arrivals of a trace with lengths from a dataset, drawn request by request, independently of everything else.

    Parameters
    ----------
    trace : Trace or iterable of Trace
        Gives arrivals, their order, and clients if it has any; all else in it is left out, conversations included,
        because lengths that do not grow from turn to turn would belie them.
    lengths : ClientPool, mapping or Trace
        A pool gives the distributions of its fields over all clients and windows, weighted by requests (items by
        items); a mapping states them by field, as `client` takes them; fields are drawn independently, and context
        limits of clients do not apply. The requests of a trace are drawn as they are, all lengths of one together.
    seed : int
        0 to 2**64 - 1. A number depends on seed and row only, so the first requests of a longer trace are these.

    Returns
    -------
    Trace or iterator of Trace

    Raises
    ------
    OptionError
        If there is nothing to draw from, or a distribution is no such thing.
    """
    key = derive_key(options.integer("seed", seed, 2**64 - 1))
    if isinstance(lengths, Trace):
        source: _Rows | _Fields = _Rows(lengths)
    else:
        source = _Fields(lengths if isinstance(lengths, ClientPool) else _stated(lengths))
    note = {"lengths": source.name, "seed": int(seed)}

    def change(slab: Trace) -> Trace:
        columns: dict[str, Column] = {name: slab[name] for name in ("arrival_us", "client") if name in slab}
        columns |= source.draw(key, slab.first_row, len(slab))
        return Trace.trusted(columns, noted(slab.provenance, note, None), slab.first_row)

    return change(trace) if isinstance(trace, Trace) else map(change, slabs_of(trace))


def _stated(lengths: Mapping[str, Any]) -> ClientPool:
    """Distributions by field as a pool of one client."""
    known = sorted({field for fields in FIELDS.values() for field in fields})
    if not isinstance(lengths, Mapping) or not set(lengths) <= set(known):
        got = sorted(set(lengths) - set(known)) if isinstance(lengths, Mapping) else type(lengths).__name__
        raise OptionError(f"a pool, a trace, or distributions of {', '.join(known)}", f"{got}", "change lengths")
    return pool_of([client(name="lengths", rate=1, **lengths)], name="stated")


class _Rows:
    """Requests of a trace, each as likely as any other."""

    def __init__(self, dataset: Trace) -> None:
        found: dict[str, Column] = {name: dataset[name] for name in COLUMNS if name in dataset}
        if not found or not len(dataset):
            got = f"{len(dataset):,} requests with {', '.join(dataset)}"
            raise OptionError(f"a dataset of requests with columns among {', '.join(COLUMNS)}", got, "give another")
        self.rows = Trace.trusted(found)
        about = {name: dataset.provenance[name] for name in ("workload", "source") if name in dataset.provenance}
        self.name = {"trace": about, "requests": len(dataset)}

    def draw(self, key: tuple[int, int], first_row: int, n: int) -> dict[str, Column]:
        """Columns of n rows from `first_row` on."""
        chosen = np.empty(n, np.int64)

        def block(a: int, b: int) -> None:
            words = _words(key, first_row, np.arange(a, b), JOINT_ITEM, 0)
            # rounding could only reach n itself for more rows than memory holds
            chosen[a:b] = (uniform52(np, words[0], words[1]) * len(self.rows)).astype(np.int64)

        for_blocks(n, block)
        return dict(self.rows.take(chosen).columns)


class _Fields:
    """Independent fields of a pool."""

    def __init__(self, pool: ClientPool) -> None:
        cells = active_cells(pool, np.zeros(pool.windows, np.int64))
        if not len(cells.profile):
            raise OptionError("a pool with requests", f"silence throughout {pool.name}", "give another pool")
        self.tables: PackedTables = pack_tables(pooled_tables(pool, cells, 1)[0])
        self.schema = pool.schema
        self.name = {"pool": pool.name, "digest": pool.digest()}

    def draw(self, key: tuple[int, int], first_row: int, n: int) -> dict[str, Column]:
        """Columns of n rows from `first_row` on."""
        schema = self.schema
        drawn = [np.empty(n, np.int32) for _ in schema.scalars]

        def block(a: int, b: int) -> None:
            for lane, values in enumerate(drawn):
                if lane % 4 == 0:
                    words = _words(key, first_row, np.arange(a, b), 0, lane // 4)
                values[a:b] = self._values(words[lane % 4], lane)

        for_blocks(n, block)
        columns: dict[str, Column] = {field.column: drawn[field.lane] for field in schema.scalars if field.column}
        if schema.ratio:
            columns[schema.ratio.column] = reason_tokens(np, drawn[OUTPUT], drawn[schema.ratio.lane])
        total = drawn[INPUT].astype(np.int64)
        for modality in schema.items:
            items = self._items(key, first_row, drawn[modality.count.lane], modality)
            total += items.sums()
            columns[modality.item.column] = items
        if total.max(initial=0) > 2**31 - 1:
            raise OptionError("inputs below 2**31 tokens", f"one of {total.max():,}", "state smaller items, or fewer")
        return schema.in_order(columns | {schema.total: total.astype(np.int32)})

    def _items(self, key: tuple[int, int], first_row: int, count: NDArray[np.int32], modality: Items) -> Ragged:
        """Items of every row: lane ``i % 4`` of draw ``i // 4`` for item i."""
        offsets = np.concatenate(([0], np.cumsum(count, dtype=np.int64)))
        values = np.empty(offsets[-1], np.int32)
        turn, lane = 1 + MODALITIES.index(modality.modality), modality.item.lane

        def block(a: int, b: int) -> None:
            row = np.searchsorted(offsets, np.arange(a, b), side="right") - 1
            index = np.arange(a, b) - offsets[row]
            words = np.choose(index & 3, _words(key, first_row, row, turn, index >> 2))
            values[a:b] = self._values(words, lane)

        for_blocks(len(values), block)
        return Ragged(offsets, values)

    def _values(self, word: NDArray[np.uint64], lane: int) -> NDArray[np.int32]:
        table = np.full(len(word), lane, np.int64)
        found: NDArray[np.int32] = self.tables.values[find_bin(np, word.astype(np.uint32), table, self.tables)]
        return found


def _words(key: tuple[int, int], first_row: int, row: NDArray[np.int64], turn: int, item: Any) -> Words:
    """Four words for each row, counted from `first_row`."""
    at = row.astype(np.uint64) + np.uint64(first_row)
    low, high = at & np.uint64(MASK), at >> np.uint64(32)
    return draw(np, key, Purpose.DATASET, ordinal=low, client=high, window=0, turn=turn, item=item)
