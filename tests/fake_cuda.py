"""``cupy.cuda`` on the host: memory that can run short, devices, streams, events, kernels; part of fake_cupy.py."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_host import library, probes, run
from fake_memory import POISON, Memory, MemoryPool, OutOfMemoryError, PinnedStandIn
from fake_streams import Clocks, Event, Stream

from servegen_gpu.backends.cuda.loader import one_text

THREAD = threading.Lock()
"""Held while kernels run: the thread that the host plays is a global of theirs."""


class CUDARuntimeError(RuntimeError):
    """An error of the runtime, by number."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{STATUSES.get(status, 'Unknown: details')}")
        self.status = status


class CUDADriverError(RuntimeError):
    """An error of the driver, by number."""

    def __init__(self, status: int | str) -> None:
        super().__init__(f"CUDA_ERROR {STATUSES.get(status, status)}" if isinstance(status, int) else status)
        self.status = status


STATUSES = {
    2: "MemoryAllocation: out of memory",
    35: "InsufficientDriver: too old",
    46: "DevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable",
    214: "ECCUncorrectable: uncorrectable ECC error encountered",
    700: "IllegalAddress: an illegal memory access was encountered",
    719: "LaunchFailure: unspecified launch failure",
}


class CompileException(Exception):
    """As CuPy's."""


@dataclass
class Fault:
    """Something that will fail.

    Attributes
    ----------
    what : str
        "launch", "copy", "synchronize", "malloc", "pin" or "record".
    status : int
        Of CUDA.
    after : int
        How many of them work before.
    """

    what: str
    status: int
    after: int = 0


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
        self.mallocs: list[tuple[int, int]] = []
        self.lock, self.clocks = threading.RLock(), Clocks()
        self.faults: list[Fault] = []
        self.lost: dict[int, int] = {}
        self._failing: dict[int, int] = {}
        self._null = [Stream(self, device, null=True) for device in range(devices)]
        self.memories: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self.default_pool = MemoryPool(self)
        self._compiled, self._start_status = compiled, start_status
        self.compiler = SimpleNamespace(CompileException=CompileException)
        self.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.driver = SimpleNamespace(CUDADriverError=CUDADriverError)
        self.pinned = PinnedStandIn(self)
        self.alloc_pinned_memory, self.PinnedMemory = self.pinned.rounded, self.pinned.lock
        self.PinnedMemoryPointer = self.pinned.pointer
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

    def held_bytes(self) -> int:
        """What pools other than the default one have of all devices."""
        own = (pool for pool in self.pools if pool is not self.default_pool)
        return sum(pool.total_bytes(device) for pool in own for device in range(len(self._null)))

    def happens(self, what: str) -> None:
        """Something that may fail: as planned, or because the device is lost.

        A kernel that fails is noticed by what comes after it. Only memory that is short leaves a device as it was.
        """
        device = self.current
        if device in self._failing:
            self.lost[device] = self._failing.pop(device)
        if device in self.lost:
            raise (CUDADriverError if what == "launch" else CUDARuntimeError)(self.lost[device])
        for fault in [fault for fault in self.faults if fault.what == what]:
            if fault.after:
                fault.after -= 1
                continue
            self.faults.remove(fault)
            if fault.status == 2:
                raise (CUDADriverError if what == "launch" else CUDARuntimeError)(2)
            if what == "launch":
                self._failing[device] = fault.status
            else:
                self.lost[device] = fault.status
                raise CUDARuntimeError(fault.status)

    def allocate(self, host: np.ndarray) -> Memory:
        """Memory for an array on the current device, from the pool that the thread uses."""
        found: Memory = getattr(self._here, "allocator", self.default_pool.malloc)(host.nbytes)
        found.host = host
        if host.size:
            self.memories[host.ctypes.data] = found
        self.use(found, write=True)
        return found

    def use(self, memory: Memory, write: bool = False) -> None:
        """Something on the current stream that reads or writes memory."""
        with self.lock:
            stream = self.get_current_stream()
            self.clocks.tick(stream)
            (self.clocks.write if write else self.clocks.read)(memory, stream)

    def stack(self) -> list[Stream]:
        """The thread's streams, the current one last."""
        if not hasattr(self._here, "streams"):
            self._here.streams = []
        found: list[Stream] = self._here.streams
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
        return SimpleNamespace(malloc=self.pinned.rounded, free_all_blocks=lambda: None)

    def Stream(self, non_blocking: bool = False) -> Stream:
        self._raise(self._start_status)
        return Stream(self, self.current, not non_blocking)

    def Event(self, disable_timing: bool = False) -> Event:
        return Event(self, disable_timing)

    def Device(self, number: int | None = None) -> Device:
        return Device(self, self.current if number is None else number)

    def get_current_stream(self) -> Stream:
        return self.stack()[-1] if self.stack() else self._null[self.current]

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
        def start(grid: tuple[int, ...], block: tuple[int, ...], given: tuple[Any, ...], shared_mem: int = 0) -> None:
            assert self.current == device, "a kernel belongs to the device that it was loaded for"
            assert shared_mem <= started.max_dynamic_shared_size_bytes
            n = next(int(value) for value in given if isinstance(value, np.int64))
            assert (grid[0] - 1) * block[0] < n <= grid[0] * block[0]
            self.happens("launch")
            if self.current in self._failing:
                return
            with THREAD:
                if name.startswith("sg_"):
                    self.launched.append((device, name))
                    self._kernel_uses(given[0])
                    run(loaded, name.removeprefix("sg_"), given[0], n, block[0], shared_mem)
                else:
                    passed = [
                        ctypes.c_void_p(value.data.ptr) if hasattr(value, "data") and hasattr(value, "checked")
                        else _C[type(value)](value)
                        for value in given
                    ]  # fmt: skip
                    getattr(loaded, f"test_{name}")(ctypes.c_int64(block[0]), *passed)

        started = Kernel(start)
        return started

    def _kernel_uses(self, told: np.ndarray) -> None:
        """A kernel uses all that its job points at; what was made on its stream and not uploaded, it may write."""
        with self.lock:
            stream = self.get_current_stream()
            self.clocks.tick(stream)
            for at in np.frombuffer(told.tobytes(), np.uint64).tolist():
                if not (memory := self.memories.get(at)):
                    continue
                mine = memory.wrote[0] == stream.number and not memory.uploaded
                (self.clocks.write if mine else self.clocks.read)(memory, stream)

    def _copy(self, to: int, start: int, size: int, kind: int, number: int) -> None:
        self.happens("copy")
        assert kind == self.runtime.memcpyDeviceToHost
        ctypes.memset(to, POISON, size)  # until somebody waits
        with self.lock:
            (stream,) = (s for s in self.clocks.streams.values() if s.ptr == number and s.device == self.current)
            n, memory = self.clocks.tick(stream), self._memory_at(start)
            self.clocks.read(memory, stream)
            keeps = memory.host  # it may be given back, and poisoned, before the copy is done
            stream.waiting.append((n, lambda: ctypes.memmove(to, start, size * (keeps is not None)) and None))

    def _memory_at(self, start: int) -> Memory:
        """The memory that an address is in."""
        found = self.memories.get(start)
        return found or next(m for at, m in self.memories.items() if at <= start < at + m.host.nbytes)

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
        self._cuda.happens("synchronize")
        for stream in list(self._cuda.clocks.streams.values()):
            if stream.device == self.id:
                stream.synchronize()
