"""A CUDA device through CuPy: kernels built for it, memory of our own, sorts, copies to the host.

CuPy compiles with NVRTC, which it brings, and keeps what it compiled by source, architecture and compiler in
``$CUPY_CACHE_DIR``, written so that processes do not disturb each other. A device belongs to a number; whoever works on
it does so inside `CudaDevice.current`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.cuda import driver
from servegen_gpu.backends.cuda.driver import first_line, version_text
from servegen_gpu.backends.cuda.job import BLOCK, THREADS, words
from servegen_gpu.backends.cuda.loader import one_text
from servegen_gpu.backends.cuda.memory import PageLocked, kept_bytes
from servegen_gpu.backends.cuda.sort import CubSort, CudaSortError, open_sort
from servegen_gpu.backends.cuda.tables import WorkloadTables
from servegen_gpu.backends.per_workload import PerWorkload
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged

OPTIONS = ("--fmad=false", "-std=c++17")
SORT_BYTES = 1 << 16
"""Of scratch that `cupy.sort` needs for any number of words, beside an array as large and an eighth."""

ALIGNED = 64
"""Bytes that a column begins at a multiple of, on the host."""


OPEN: weakref.WeakSet[CudaDevice] = weakref.WeakSet()
"""Devices of this process."""

WAVES = 4
"""Times that warps which take turns fill a device: more even out their work, fewer read shared tables less often."""


class CudaDevice:
    """A CUDA device.

    Parameters
    ----------
    number : int
        As CUDA counts what ``CUDA_VISIBLE_DEVICES`` leaves.

    Attributes
    ----------
    xp : module
        CuPy.
    pool : cupy.cuda.MemoryPool
        Memory of the slabs; kept from trace to trace, as far as `memory.kept_bytes` says.
    tables : PerWorkload
        What is kept here of workloads, in memory of its own, as long as they live.
    cub : CubSort or None
        The sort of some bits only; without it, `cupy.sort` sorts whole words to the same order.
    why_no_cub : str
    """

    def __init__(self, number: int) -> None:
        self.xp = driver.import_cupy()
        driver.check_driver(self.xp)
        self.number = number
        self._lost: Any = None
        self._streams: set[int] = set()
        self.pool = self.xp.cuda.MemoryPool()
        self._table_pool = self.xp.cuda.MemoryPool()  # apart: a block of a slab with a table in it could not be freed
        self.tables: PerWorkload[WorkloadTables] = PerWorkload(gone=self.rest)
        self._host = PageLocked(self.xp.cuda)
        self._kernels: dict[str, Any] = {}
        try:
            with self.xp.cuda.Device(number):
                self._kept_bytes = kept_bytes(self.xp.cuda.runtime.memGetInfo()[1])
                self._copies = self.xp.cuda.Stream(non_blocking=True)
                self._module = self._compiled()
                self.most_threads = WAVES * 2048 * int(self.xp.cuda.Device().attributes["MultiProcessorCount"])
                self.cub, self.why_no_cub = self._cub()
                self.pool.free_all_blocks()
            OPEN.add(self)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, (MemoryError, *self._errors)):
                raise
            raise driver.no_device(error) from None

    def describe(self) -> str:
        """Versions of driver and CuPy, and what sorts."""
        sort = "sorts with CUB" if self.cub else f"sorts with cupy.sort ({self.why_no_cub})"
        driver = version_text(self.xp.cuda.runtime.driverGetVersion())
        return f"driver for CUDA {driver}, CuPy {self.xp.__version__}, {sort}"

    def name_of(self, number: int | None = None) -> str:
        """Name of a device, by default this one."""
        with self.current():
            properties = self.xp.cuda.runtime.getDeviceProperties(self.number if number is None else number)
        return str(properties["name"].decode())

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return self.xp.cuda.runtime.CUDARuntimeError, self.xp.cuda.driver.CUDADriverError, CudaSortError

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, this thread works on this device.

        Raises
        ------
        MemoryError
            If the device has too little memory.
        OptionError
            If CUDA reports anything else: often of work that was started before, and then of all that follows.
        """
        if self._lost:
            raise driver.failed(self._lost, self.number)
        try:
            with self.xp.cuda.Device(self.number):
                yield
        except self._errors as error:
            status = getattr(error, "status", 0)
            if status == driver.OUT_OF_MEMORY:
                raise MemoryError(first_line(error)) from None
            if status in driver.LOST:
                self._lost = error
            raise driver.failed(error, self.number) from None

    def launch(self, kernel: str, job: Mapping[str, Any], n: int, shared_bytes: int = 0) -> None:
        """Start a kernel of kernels/slab.cu for n threads on the current stream; `shared_bytes` for each block."""
        if kernel not in self._kernels:
            self._kernels[kernel] = self._module.get_function(f"sg_{kernel}")
        function = self._kernels[kernel]
        if shared_bytes > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared_bytes
        self._streams.add(self.xp.cuda.get_current_stream().ptr)
        told = words(job, lambda array: int(array.data.ptr))
        threads = BLOCK.get(kernel, THREADS)
        function((-(-n // threads),), (threads,), (told, np.int64(n)), shared_mem=shared_bytes)

    def sort(self, word: Any, begin_bit: int, end_bit: int) -> Any:
        """Words in the order of some of their bits, equals as they came; those that came are used up.

        Below `begin_bit` words must ascend already, and only bits below `end_bit` may decide: then sorting whole words
        gives the same.
        """
        if self.cub:
            return self.cub(word, begin_bit, end_bit)
        # some CuPy 14 sort wrongly, without a word, where their scratch does not fit: what is freed here is theirs
        self.xp.empty(word.nbytes + word.nbytes // 8 + SORT_BYTES, np.uint8)
        try:
            word.sort()
        except RuntimeError as error:  # of Thrust, which has no numbers
            if "out of memory" in str(error):
                raise MemoryError(first_line(error)) from None
            raise
        return word

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Arrays made in here come from the device's own pool."""
        with self.xp.cuda.using_allocator(self.pool.malloc):
            yield

    def reserve(self, size: int) -> None:
        """Have so much memory in one piece, which the pool splits and joins again: arrays of many sizes leave no gaps.

        Where there is not so much, they are allocated one by one.
        """
        if self.pool.total_bytes() < size:
            self.pool.free_all_blocks()
            with suppress(MemoryError):
                self.pool.malloc(size)  # the pool keeps it

    @contextmanager
    def table_memory(self) -> Iterator[None]:
        """Arrays made in here are tables: in a pool of their own, and there for all streams once this ends.

        The pool may give out memory of tables that are gone but still read on another stream of the reader's: that is
        waited for.
        """
        if self._streams - {self.xp.cuda.get_current_stream().ptr}:
            self.xp.cuda.Device().synchronize()
            self._streams.clear()
        with self.xp.cuda.using_allocator(self._table_pool.malloc):
            yield
        self.xp.cuda.get_current_stream().synchronize()

    def to_host(self, array: Any) -> NDArray[Any]:
        """An array of the device as one of the host."""
        found: NDArray[Any] = array.get()
        return found

    def release(self) -> None:
        """Give back all memory that no array uses."""
        with suppress(OptionError), self.current():  # of a lost device there is nothing to give back
            self.pool.free_all_blocks()
            self._table_pool.free_all_blocks()
        self._host.release()

    def rest(self) -> None:
        """Give back what may not be kept until the next trace."""
        with suppress(OptionError), self.current():
            if self.pool.total_bytes() + self._table_pool.total_bytes() <= self._kept_bytes:
                return
        self.release()

    def start_copy(self, columns: dict[str, Any]) -> Copy:
        """Begin to copy columns to the host, beside whatever the device does next."""
        return Copy(columns, self, self._copies)

    def host_arrays(self, like: Sequence[Any]) -> list[NDArray[Any]]:
        """Arrays of the host for those of the device, in one piece that is page-locked, if there is one."""
        ends = np.cumsum([0, *(-(-array.nbytes // ALIGNED) * ALIGNED for array in like)]).tolist()
        if (block := self._host.lend(ends[-1]) if ends[-1] else None) is None:
            return [np.empty(array.shape, array.dtype) for array in like]
        return [block[begin : begin + array.nbytes].view(array.dtype) for begin, array in zip(ends, like, strict=False)]

    def _cub(self) -> tuple[CubSort | None, str]:
        with self.memory():
            return open_sort(self.xp, self.number)

    def _compiled(self) -> Any:
        """The kernels, from CuPy's cache or compiled now."""
        cuda = self.xp.cuda
        module = self.xp.RawModule(code=one_text(), options=OPTIONS)
        try:
            module.compile()
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError):
            raise
        except cuda.compiler.CompileException as error:
            raise OptionError(
                "kernels that NVRTC compiles", first_line(error), "report this, or choose backend 'native'"
            ) from None
        except OSError as error:
            raise driver.no_cache(error) from None
        except (RuntimeError, ImportError) as error:  # NVRTC itself is missing, or of another CUDA
            raise OptionError(
                "NVRTC, which compiles the kernels",
                first_line(error),
                "pip install nvidia-cuda-nvrtc for CUDA 13, nvidia-cuda-nvrtc-cu12 for CUDA 12",
            ) from None
        return module


class Copy:
    """Columns on their way to the host."""

    def __init__(self, columns: dict[str, Any], device: CudaDevice, stream: Any) -> None:
        self._from, self._device = columns, device
        self._two = {name: isinstance(column, Ragged) for name, column in columns.items()}
        event = device.xp.cuda.Event
        ready = event(disable_timing=True)
        ready.record()
        stream.wait_event(ready)
        self._to = device.host_arrays(list(flat(columns)))
        try:
            for to, array in zip(self._to, flat(columns), strict=True):
                if array.size:
                    self._start(to, array, stream.ptr)
            self._done = event(disable_timing=True)
            self._done.record(stream)
        except BaseException:
            stream.synchronize()  # until then memory on both sides is in use
            raise

    def _start(self, to: NDArray[Any], array: Any, stream: int) -> None:
        runtime = self._device.xp.cuda.runtime
        kind = runtime.memcpyDeviceToHost
        runtime.memcpyAsync(to.ctypes.data, array.data.ptr, array.nbytes, kind, stream)

    def wait(self) -> None:
        """Until the columns are on the host; the device's are let go."""
        with self._device.current():
            self._done.synchronize()
        self._from = {}

    def finished(self) -> dict[str, Any]:
        """The columns on the host, once they are there."""
        self.wait()
        arrays = iter(self._to)
        return {name: Ragged(next(arrays), next(arrays)) if two else next(arrays) for name, two in self._two.items()}


def flat(columns: dict[str, Any]) -> Iterator[Any]:
    """The arrays of columns."""
    for column in columns.values():
        yield from (column.offsets, column.values) if isinstance(column, Ragged) else (column,)


@functools.cache
def open_device(number: int | None = None) -> CudaDevice:
    """A CUDA device, opened once and checked; by default the first of `driver.usable_devices`."""
    from servegen_gpu.backends.cuda.check import refuse_other_ticks

    if number is None:
        return open_device(driver.usable_devices()[0])
    device = CudaDevice(number)
    why: OptionError | None = None
    try:
        with device.current(), device.memory():
            refuse_other_ticks(device)
    except MemoryError as error:
        why = driver.no_device(error)
    device.tables.forget()
    device.release()
    if why:
        raise why
    return device
