"""Memory kept from slab to slab and from trace to trace: how much of a device's, and page-locked memory of the host."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.cuda.driver import OUT_OF_MEMORY
from servegen_gpu.errors import OptionError, VariableError
from servegen_gpu.options import MEMORY_UNITS, budget_bytes

KEPT_SHARE = 4
"""Of a device's memory, a quarter may be kept between traces."""

SLABS = 3
"""Page-locked are: a slab in use, one that is there, and one that is being copied."""

HOST_SHARE = 8
"""Of the host's memory, an eighth may be page-locked."""

PAGE = 4096


class Block(NamedTuple):
    """Page-locked memory, and its bytes."""

    size: int
    memory: Any


def kept_bytes(device_bytes: int) -> int:
    """What may be kept of a device's memory when a trace is done: ``$SERVEGEN_GPU_KEEP``, such as ``2GB`` or ``0``."""
    wanted = os.environ.get("SERVEGEN_GPU_KEEP", "").strip()
    if not wanted:
        return device_bytes // KEPT_SHARE
    try:
        if (found := budget_bytes(wanted)) >= 0:
            return found
    except OptionError:
        pass
    raise VariableError(
        "SERVEGEN_GPU_KEEP as bytes of a device that are kept between traces, such as 2GB or 0",
        repr(wanted),
        f"units are {', '.join(filter(None, MEMORY_UNITS))}; change or unset it",
    )


class PageLocked:
    """Page-locked memory of the host, lent for as long as an array uses it, and lent again.

    Locking takes longer than copying, so blocks are kept. A block is a little larger than asked for: slabs of a trace
    differ by less. There are at most `SLABS` of the largest size so far, and less than a share of the host's memory.

    Parameters
    ----------
    cuda : module
        ``cupy.cuda``.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 22
        self._host_bytes = pages * PAGE
        self._lock = threading.Lock()
        self._free: list[Block] = []
        self._back: deque[Block] = deque()  # a collection may come at any time: it takes no lock
        self._bytes = self._largest = 0

    def lend(self, size: int) -> NDArray[np.uint8] | None:
        """So much memory, or None where no more may or can be locked; it comes back once no array is a view of it."""
        with self._lock:
            self._take_back()
            block: Block | None
            fits = [block for block in self._free if block.size >= size]
            if fits:
                self._free.remove(block := min(fits, key=lambda block: block.size))
            else:
                block = self._locked(size)
        if block is None:
            return None
        lent = (ctypes.c_ubyte * size).from_buffer(block.memory)
        # not of an array: its views may go past it, to what it has its memory from
        weakref.finalize(lent, self._back.append, block).atexit = False
        return np.frombuffer(memoryview(lent), np.uint8)

    def release(self) -> None:
        """Unlock what no array uses, and what is lent once no array uses it."""
        with self._lock:
            self._free, self._back = [], deque()
            self._bytes = self._largest = 0

    def _take_back(self) -> None:
        while self._back:
            self._free.append(self._back.popleft())

    def _locked(self, size: int) -> Block | None:
        """A new block, in the place of free ones where there would be too much."""
        capacity = -(-(size + size // 64) // PAGE) * PAGE
        self._largest = max(self._largest, capacity)
        most = min(SLABS * self._largest, self._host_bytes // HOST_SHARE)
        while self._free and self._bytes + capacity > most:
            self._bytes -= self._free.pop(0).size
        if self._bytes + capacity > most:
            return None
        try:
            memory = self._cuda.PinnedMemory(capacity)
        except self._cuda.runtime.CUDARuntimeError as error:
            if error.status != OUT_OF_MEMORY:
                raise
            return None
        self._bytes += capacity
        return Block(capacity, self._cuda.PinnedMemoryPointer(memory, 0))
