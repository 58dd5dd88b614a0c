"""Memory of the stand-in for CuPy: pools that split and keep what they have, page-locked memory; part of fake_cuda.py.

A pool gives the smallest free chunk that is large enough, splits off what is not asked for, and joins neighbours of one
allocation again. A chunk that is a little too small is of no use, so memory fragments here as it does on a device.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np

UNIT = 512
"""Bytes that memory is given in."""

POISON = 0xA5


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class Chunk:
    """A part of an allocation, between its neighbours."""

    def __init__(self, size: int, stream: int) -> None:
        self.size, self.stream = size, stream
        self.before: Chunk | None = None
        self.behind: Chunk | None = None
        self.last_uses: dict[int, int] = {}

    def split(self, size: int) -> Chunk | None:
        """Keep `size` bytes; the rest, if there is any."""
        if self.size == size:
            return None
        rest = Chunk(self.size - size, self.stream)
        rest.before, rest.behind, rest.last_uses = self, self.behind, dict(self.last_uses)
        if rest.behind:
            rest.behind.before = rest
        self.size, self.behind = size, rest
        return rest

    def join(self, behind: Chunk) -> None:
        """Take in the neighbour behind."""
        self.size, self.behind = self.size + behind.size, behind.behind
        if self.behind:
            self.behind.before = self
        for stream, n in behind.last_uses.items():
            self.last_uses[stream] = max(n, self.last_uses.get(stream, 0))


class Memory:
    """A piece of a device's memory; back in its pool, and poisoned, when nobody has it."""

    def __init__(self, pool: MemoryPool, device: int, chunk: Chunk | None) -> None:
        self.pool, self.device, self.chunk = pool, device, chunk
        self.host = np.empty(0, np.uint8)
        self.wrote, self.uploaded = (0, 0), False
        self.read: dict[int, int] = {}

    def __del__(self) -> None:
        if self.host.base is None and self.host.flags.writeable:
            self.host.reshape(-1).view(np.uint8)[:] = POISON
        if self.chunk:
            self.chunk.last_uses = {self.wrote[0]: self.wrote[1]} | self.read
            self.pool.returned.append((self.device, self.chunk))


class MemoryPool:
    """Keeps what was given back until it is freed; each device and each stream apart."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._limit: dict[int, int] = {}
        self._free: dict[int, list[Chunk]] = {}
        self._allocations = 0
        self._total: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self.returned: deque[tuple[int, Chunk]] = deque()  # not taken back at once: a collection may come at any time
        cuda.pools.append(self)

    def malloc(self, size: int) -> Memory:
        """Memory of the current device."""
        device, stream = self._cuda.current, self._cuda.get_current_stream()
        if not size:
            return Memory(self, device, None)
        size = -(-size // UNIT) * UNIT
        with self._cuda.lock:
            fits = [c for c in self._chunks(device) if c.size >= size and c.stream == stream.number]
            if fits:
                chunk = min(fits, key=lambda c: c.size)
                self._free[device].remove(chunk)
                if rest := chunk.split(size):
                    self._free[device].append(rest)
                self._cuda.clocks.check(chunk.last_uses, stream, "memory is given out that another stream still uses")
            else:
                chunk = self._allocated(device, size, stream.number)
            chunk.last_uses = {}
            self._used[device] = self._used.get(device, 0) + size
        return Memory(self, device, chunk)

    def _allocated(self, device: int, size: int, stream: int) -> Chunk:
        """More of the device's memory; what is kept goes first if there is too little."""
        if self._limit.get(device) and self.total_bytes(device) + size > self._limit[device]:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (limit set to {self._limit[device]:,})")
        self._cuda.happens("malloc")
        if size > self._cuda.free_bytes(device):
            self.free_all_blocks()
        if size > self._cuda.free_bytes(device):
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self._cuda.mallocs.append((device, size))
        self._allocations += 1
        self._total[device] = self._total.get(device, 0) + size
        return Chunk(size, stream)

    def _chunks(self, device: int) -> list[Chunk]:
        """Free chunks of a device, with those that came back."""
        while self.returned:
            of, chunk = self.returned.popleft()
            free = self._free.setdefault(of, [])
            self._used[of] -= chunk.size
            if chunk.behind in free:
                free.remove(chunk.behind)  # type: ignore[arg-type]
                chunk.join(chunk.behind)  # type: ignore[arg-type]
            if chunk.before in free:
                chunk.before.join(chunk)  # type: ignore[union-attr]
            else:
                free.append(chunk)
        return self._free.setdefault(device, [])

    def free_all_blocks(self) -> None:
        """Allocations of which nothing is used go back to the device."""
        device = self._cuda.current
        with self._cuda.lock:
            whole = [chunk for chunk in self._chunks(device) if not chunk.before and not chunk.behind]
            for chunk in whole:
                self._free[device].remove(chunk)
                self._total[device] -= chunk.size

    def set_limit(self, size: int) -> None:
        self._limit[self._cuda.current] = size

    def total_bytes(self, device: int | None = None) -> int:
        return self._total.get(self._cuda.current if device is None else device, 0)

    def used_bytes(self) -> int:
        with self._cuda.lock:
            self._chunks(self._cuda.current)
            return self._used.get(self._cuda.current, 0)

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()


class Pinned(np.ndarray):
    """Page-locked memory."""

    ptr = property(lambda self: self.ctypes.data)


class PinnedStandIn:
    """Page-locked memory of the host.

    Attributes
    ----------
    bytes, peak_bytes, most_bytes : int
        Locked now, at most so far, and what may be.
    locked : int
        How often memory was locked.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.bytes = self.peak_bytes = self.locked = 0
        self.most_bytes = 1 << 40

    def lock(self, size: int) -> Any:
        """As ``cupy.cuda.PinnedMemory``: to the byte, poisoned."""
        self._cuda.happens("pin")
        if self.bytes + size > self.most_bytes:
            raise self._cuda.runtime.CUDARuntimeError(2)
        self.locked, self.bytes = self.locked + 1, self.bytes + size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        memory = np.full(size, POISON, np.uint8).view(Pinned)
        weakref.finalize(memory, self._unlocked, size)
        return memory

    def _unlocked(self, size: int) -> None:
        self.bytes -= size

    def rounded(self, size: int) -> Any:
        """As CuPy's pool of it: the next power of two."""
        return self.lock(1 << max(size - 1, 0).bit_length())[:size]

    @staticmethod
    def pointer(memory: Any, offset: int) -> Any:
        """As ``cupy.cuda.PinnedMemoryPointer``."""
        return memoryview(memory)[offset:]
