"""How slabs reach an encoder: cut to fixed sizes, and encoded while the next one is being made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from servegen_gpu.trace import Trace

T = TypeVar("T")


def chunks(slabs: Iterable[Trace], rows: int) -> Iterator[Trace]:
    """The same rows in chunks of exactly `rows`, the last one shorter; never an empty one.

    A chunk inside one slab is a view. What is left of a slab is copied, so that it does not keep the whole slab alive.
    """
    carry: list[Trace] = []
    carried = 0
    for slab in slabs:
        at = min(rows - carried, len(slab)) if carried else 0
        if at:
            carry.append(Trace.concat([slab.rows(0, at)]))
            carried += at
        if carried == rows:
            yield Trace.concat(carry)
            carry, carried = [], 0
        while len(slab) - at >= rows:
            yield slab.rows(at, at + rows)
            at += rows
        if at < len(slab):
            carry.append(Trace.concat([slab.rows(at, len(slab))]))
            carried += len(slab) - at
        del slab  # not kept while the next one is made
    if carried:
        yield Trace.concat(carry)


def overlap(items: Iterable[T], consume: Callable[[T], None], depth: int = 2) -> None:
    """Call ``consume(item)`` for each item in order, in one other thread, at most `depth` items behind.

    The first exception of either side ends both and is raised.
    """
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="servegen-encode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(consume, item))
                del item
                while len(pending) > depth or (pending and pending[0].done()):
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
