"""How slabs reach an encoder: cut to fixed sizes, and encoded while the next one is being made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

T = TypeVar("T")
R = TypeVar("R")
CHUNK_IDS = 1 << 22
"""32 MB."""
TEXT_CHUNK_IDS = 1 << 20
"""8 MB, and at most 20 MB of text, of which several chunks are made at once, each in a few copies."""


def chunks(slabs: Iterable[Trace], rows: int, most_ids: int = CHUNK_IDS) -> Iterator[Trace]:
    """The same rows in chunks of exactly `rows`, the last one shorter; never an empty one.

    Where a column has lists of 64-bit ids, of which one request may have thousands, such a chunk comes in pieces of as
    many rows as have `most_ids` or fewer together, or of one row. A chunk inside one slab is a view. What is left of a
    slab is copied, so that it does not keep the whole slab alive.
    """
    carry: list[Trace] = []
    carried = ids = 0  # of the piece so far
    missing = rows  # until the chunk is full
    for slab in slabs:
        ends = _ids_before(slab)
        at = 0
        while at < len(slab):
            n = wanted = min(missing, len(slab) - at)
            if ends is not None:
                fits = int(np.searchsorted(ends, ends[at] + most_ids - ids, side="right")) - 1 - at
                n = min(wanted, max(fits, 0 if carried else 1))
            full = n < wanted or n == missing
            if full and not carried:
                yield slab.rows(at, at + n)
            else:
                carry.append(Trace.concat([slab.rows(at, at + n)]))
                carried += n
                ids += int(ends[at + n] - ends[at]) if ends is not None else 0
                if full:
                    yield Trace.concat(carry)
            if full:
                carry, carried, ids = [], 0, 0
            missing = missing - n or rows
            at += n
        del slab  # not kept while the next one is made
    if carried:
        yield Trace.concat(carry)


def _ids_before(slab: Trace) -> NDArray[np.int64] | None:
    """How many ids come before each row, int64[n + 1], if there is a column of lists of them."""
    lists = [c.offsets for c in slab.columns.values() if isinstance(c, Ragged) and c.values.dtype == np.int64]
    return sum(lists[1:], start=lists[0]) if lists else None


def overlap(
    items: Iterable[T], work: Callable[[T], R], finish: Callable[[R], object] | None = None, threads: int = 1
) -> None:
    """Call ``work(item)`` for each item in `threads` other threads, and ``finish(result)`` for each result in order.

    At most one item more than there are threads waits or is worked on while the next one is made. The first exception
    of any side ends all and is raised.
    """
    pending: deque[Future[None]] = deque()

    def both(item: T, before: Future[None] | None) -> None:
        result = work(item)
        del item
        if before is not None:
            before.result()
        if finish is not None:
            finish(result)

    with ThreadPoolExecutor(threads, thread_name_prefix="servegen-encode") as pool:
        before = None
        try:
            for item in items:
                pending.append(before := pool.submit(both, item, before))
                del item
                while len(pending) > threads + 1 or (pending and pending[0].done()):
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
