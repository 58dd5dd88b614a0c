"""Work in cache-sized blocks on a few threads."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import VariableError
from servegen_gpu.forks import in_children
from servegen_gpu.options import integer

BLOCK = 1 << 16
"""Elements a block: long enough that a ufunc hides the interpreter's lock, short enough for the L2 cache."""

AHEAD = 4
"""Items a thread that `in_turn` works on before somebody asks for them."""

MOST_THREADS = 1024
_COUNT = re.compile(r"\d{1,4}", re.ASCII)

S = TypeVar("S")
T = TypeVar("T")

_own = threading.local()


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for all that this thread does: others do the same beside it."""
    before, _own.alone = getattr(_own, "alone", False), True
    try:
        yield
    finally:
        _own.alone = before


def thread_count() -> int:
    """Processors that this process may use, or ``SERVEGEN_GPU_THREADS``; 1 inside `single_threaded`.

    Raises
    ------
    VariableError
        If the variable is no number from 1 to 1,024.
    """
    if getattr(_own, "alone", False):
        return 1
    if wanted := os.environ.get("SERVEGEN_GPU_THREADS", "").strip():
        if not _COUNT.fullmatch(wanted) or not 1 <= int(wanted) <= MOST_THREADS:
            expected = f"SERVEGEN_GPU_THREADS as a number from 1 to {MOST_THREADS:,}"
            raise VariableError(expected, repr(wanted), "change or unset it")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(threads: int | None, shared: bool) -> int:
    """Threads for work in turn: as many as asked for, or one a processor; one where they cannot share what they use.

    Raises
    ------
    OptionError
        For no number from 1 to 1,024.
    """
    if threads is None:
        return thread_count() if shared else 1
    number = integer("threads", threads, MOST_THREADS, 1)
    return number if shared else 1


def for_blocks(n: int, work: Callable[[int, int], T]) -> list[T]:
    """``work(a, b)`` for consecutive blocks of range(n), in parallel; results in order."""
    begins = range(0, n, BLOCK)
    if len(begins) <= 1 or thread_count() == 1:
        return [work(a, min(a + BLOCK, n)) for a in begins]
    return list(_threads(thread_count()).map(lambda a: work(a, min(a + BLOCK, n)), begins))


def in_turn(work: Callable[[S], T], items: Iterable[S], threads: int, ahead: int = AHEAD) -> Iterator[T]:
    """``work(item)`` of every item, in their order, on so many threads; each of them works alone.

    Parameters
    ----------
    work : function of an item
        Its own work is not spread over threads once more, unless there is only one.
    items : iterable
        Taken from as results are.
    threads : int
    ahead : int
        Items a thread that are taken before somebody asks for their results.
    """
    if threads == 1:
        yield from map(work, items)
        return
    left = iter(items)

    def alone(item: S) -> T:
        with single_threaded():
            return work(item)

    with ThreadPoolExecutor(threads, thread_name_prefix="servegen_gpu_turns") as pool:
        begun: deque[Future[T]] = deque(pool.submit(alone, item) for item in islice(left, ahead * threads))
        try:
            while begun:
                found = begun.popleft().result()
                begun.extend(pool.submit(alone, item) for item in islice(left, 1))
                yield found
        finally:
            for future in begun:
                future.cancel()


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The different values of an array, ascending; `numpy.unique` hashes integers, a hundred times slower."""
    ascending = np.sort(values, axis=None)
    return ascending[np.append(True, ascending[1:] != ascending[:-1])] if len(ascending) else ascending


def gather(column: NDArray[Any], index: NDArray[np.integer]) -> NDArray[Any]:
    """``column[index]`` in blocks."""
    out = np.empty(len(index), column.dtype)

    def block(a: int, b: int) -> None:
        np.take(column, index[a:b], out=out[a:b], mode="clip")

    for_blocks(len(index), block)
    return out


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    keep_freed_memory()
    return ThreadPoolExecutor(count, thread_name_prefix="servegen_gpu")


in_children(_threads.cache_clear)


@functools.cache
def keep_freed_memory() -> None:
    """Let temporary arrays use freed memory again.

    glibc returns freed blocks to the system until it has seen a large one freed; each temporary array would then cost
    its page faults again, five times the arithmetic on it.
    """
    np.empty(31 << 20, np.uint8)
