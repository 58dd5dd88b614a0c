"""``cupy.cuda`` on the host: memory that can run short, devices, streams, events, kernels; part of fake_cupy.py."""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from cuda_host import library, probes, run

from servegen_gpu.backends.cuda.loader import one_text

UNIT = 512
"""Bytes that memory is given in."""

THREAD = threading.Lock()
"""Held while kernels run: the thread that the host plays is a global of theirs."""


class CUDARuntimeError(RuntimeError):
    """An error of the runtime, by number."""

    def __init__(self, status: int) -> None:
        names = {2: "cudaErrorMemoryAllocation: out of memory", 35: "cudaErrorInsufficientDriver: too old",
                 46: "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable"}  # fmt: skip
        super().__init__(names.get(status, "cudaErrorUnknown: details"))
        self.status = status


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CUDADriverError(RuntimeError):
    """As CuPy's."""


class CompileException(Exception):
    """As CuPy's."""


class Memory:
    """A piece of a device's memory; back in its pool when nobody has it."""

    def __init__(self, pool: Any, device: int, size: int) -> None:
        self.pool, self.device, self.size = pool, device, size

    def __del__(self) -> None:
        self.pool.back(self)


class MemoryPool:
    """Keeps what was given back until it is freed; each device apart."""

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._limit = cuda, 0
        self._used: dict[int, int] = defaultdict(int)
        self._kept: dict[int, int] = defaultdict(int)
        cuda.pools.append(self)

    def malloc(self, size: int) -> Memory:
        """Memory of the current device."""
        device, size = self._cuda.current, -(-size // UNIT) * UNIT
        more = max(0, self._used[device] + size - self._kept[device])
        if (self._limit and self._kept[device] + more > self._limit) or more > self._cuda.free_bytes(device):
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self._kept[device] += more
        self._used[device] += size
        return Memory(self, device, size)

    def back(self, memory: Memory) -> None:
        self._used[memory.device] -= memory.size

    def free_all_blocks(self) -> None:
        device = self._cuda.current
        self._kept[device] = self._used[device]

    def set_limit(self, size: int) -> None:
        self._limit = size

    def total_bytes(self, device: int | None = None) -> int:
        return self._kept[self._cuda.current if device is None else device]

    def used_bytes(self) -> int:
        return self._used[self._cuda.current]


class Pinned(np.ndarray):
    """Page-locked memory."""

    ptr = property(lambda self: self.ctypes.data)


def pinned(size: int) -> Any:
    """Page-locked memory, poisoned."""
    return np.full(size, 0xA5, np.uint8).view(Pinned)


class Stream:
    """Copies wait in it until somebody waits for them."""

    made: ClassVar[weakref.WeakValueDictionary[int, Stream]] = weakref.WeakValueDictionary()
    _numbers: ClassVar[Any] = itertools.count(1)

    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = next(self._numbers)
        self.waiting: list[Callable[[], None]] = []
        self.made[self.ptr] = self

    def wait_event(self, event: Event) -> None:
        assert event.recorded

    def synchronize(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Event:
    """Remembers the stream that it was recorded on, and when."""

    def __init__(self, disable_timing: bool = False) -> None:
        self.recorded, self.timed, self.stream = 0.0, not disable_timing, None

    def record(self, stream: Stream | None = None) -> None:
        self.recorded, self.stream = time.perf_counter(), stream

    def synchronize(self) -> None:
        if self.stream:
            self.stream.synchronize()


class Kernel:
    """A kernel, which may ask for more of a block's own memory than every device gives."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self, start: Callable[..., None]) -> None:
        self._start = start

    def __call__(self, *given: Any, **keywords: Any) -> None:
        self._start(*given, **keywords)


class CudaStandIn:
    """Devices, memory, streams.

    Parameters
    ----------
    devices : int
    memory_bytes : int
        Of each device.
    driver, runtime : int
        CUDA versions, such as 13000.
    status : int
        Error of the runtime when it is asked for devices.
    start_status : int
        Error when a device starts: at its first stream.
    compiled : Exception, optional
        What compiling raises.
    capability : str
    is_hip : bool
    """

    def __init__(
        self, devices: int = 1, memory_bytes: int = 1 << 32, driver: int = 13000, runtime: int = 13000, status: int = 0,
        start_status: int = 0, compiled: Exception | None = None, capability: str = "90", is_hip: bool = False,
    ) -> None:  # fmt: skip
        self.version, self.memory_bytes, self.capability = driver, memory_bytes, capability
        self._here = threading.local()
        self.pools: list[MemoryPool] = []
        self.launched: list[tuple[int, str]] = []
        self.default_pool = MemoryPool(self)
        self._compiled, self._start_status = compiled, start_status
        self.compiler = SimpleNamespace(CompileException=CompileException)
        self.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.driver = SimpleNamespace(CUDADriverError=CUDADriverError)
        self.Event, self.alloc_pinned_memory = Event, pinned
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            is_hip=is_hip,
            getDeviceCount=lambda: self._raise(status) or devices,
            runtimeGetVersion=lambda: runtime,
            driverGetVersion=lambda: driver,
            getDeviceProperties=lambda n: {"name": b"Stand-in" if n < 2 else b"Other stand-in"},
            memGetInfo=lambda: (self.free_bytes(self.current), memory_bytes),
            memcpyDeviceToHost=2,
            memcpyAsync=self._copy,
        )

    @property
    def current(self) -> int:
        """The thread's device."""
        return getattr(self._here, "device", 0)

    def free_bytes(self, device: int) -> int:
        """What no pool has of a device's memory."""
        return self.memory_bytes - sum(pool.total_bytes(device) for pool in self.pools)

    def allocate(self, host: np.ndarray) -> Memory:
        """Memory for an array on the current device, from the pool that the thread uses."""
        found: Memory = getattr(self._here, "allocator", self.default_pool.malloc)(host.nbytes)
        return found

    @contextmanager
    def using_allocator(self, allocator: Callable[[int], Memory]) -> Iterator[None]:
        """A pool for what this thread makes."""
        before = getattr(self._here, "allocator", self.default_pool.malloc)
        self._here.allocator = allocator
        try:
            yield
        finally:
            self._here.allocator = before

    def MemoryPool(self) -> MemoryPool:
        return MemoryPool(self)

    def PinnedMemoryPool(self) -> Any:
        return SimpleNamespace(malloc=pinned, free_all_blocks=lambda: None)

    def Stream(self, non_blocking: bool = False) -> Stream:
        self._raise(self._start_status)
        return Stream(non_blocking)

    def Device(self, number: int | None = None) -> Device:
        return Device(self, self.current if number is None else number)

    def get_current_stream(self) -> Any:
        return SimpleNamespace(ptr=0, synchronize=lambda: None)

    def get_elapsed_time(self, begin: Event, end: Event) -> float:
        """Milliseconds."""
        assert begin.timed
        assert end.timed
        return max(1e3 * (end.recorded - begin.recorded), 1e-6)

    def raw_module(self, code: str, options: tuple[str, ...] = ()) -> Any:
        """Kernels of the host, if the text is theirs."""
        assert "--fmad=false" in options
        kernels = one_text()
        assert code.startswith(kernels)
        loaded = probes() if len(code) > len(kernels) else library()

        def compile_() -> None:
            if self._compiled:
                raise self._compiled

        return SimpleNamespace(compile=compile_, get_function=lambda name: self._kernel(loaded, name, self.current))

    def _kernel(self, loaded: Any, name: str, device: int) -> Any:
        def start(
            grid: tuple[int, ...], block: tuple[int, ...], given: tuple[Any, ...], shared_mem: int = 0
        ) -> None:
            assert self.current == device, "a kernel belongs to the device that it was loaded for"
            assert shared_mem <= started.max_dynamic_shared_size_bytes
            n = next(int(value) for value in given if isinstance(value, np.int64))
            assert (grid[0] - 1) * block[0] < n <= grid[0] * block[0]
            with THREAD:
                if name.startswith("sg_"):
                    self.launched.append((device, name))
                    run(loaded, name.removeprefix("sg_"), given[0], n, block[0])
                else:
                    passed = [
                        ctypes.c_void_p(value.data.ptr) if hasattr(value, "data") and hasattr(value, "checked")
                        else _C[type(value)](value)
                        for value in given
                    ]  # fmt: skip
                    getattr(loaded, f"test_{name}")(ctypes.c_int64(block[0]), *passed)

        started = Kernel(start)
        return started

    def _copy(self, to: int, start: int, size: int, kind: int, stream: int) -> None:
        assert kind == self.runtime.memcpyDeviceToHost
        Stream.made[stream].waiting.append(lambda: ctypes.memmove(to, start, size) and None)

    @staticmethod
    def _raise(status: int) -> int:
        if status:
            raise CUDARuntimeError(status)
        return 0


_C = {np.int64: ctypes.c_int64, np.uint32: ctypes.c_uint32, np.float64: ctypes.c_double, np.float32: ctypes.c_float}


class Device:
    """Current inside its context."""

    def __init__(self, cuda: CudaStandIn, number: int) -> None:
        self._cuda, self.id = cuda, number
        self.attributes = {"MultiProcessorCount": 1}
        self.compute_capability = cuda.capability

    def __enter__(self) -> Device:
        self._before = self._cuda.current
        self._cuda._here.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        self._cuda._here.device = self._before

    def synchronize(self) -> None:
        for stream in list(Stream.made.values()):
            stream.synchronize()
