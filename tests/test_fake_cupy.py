"""The stand-in for CuPy has nothing that CuPy lacks, and refuses what CuPy refuses."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_host import COMPILER
from fake_cuda import CUDARuntimeError, Fault
from fake_cupy import FUNCTIONS, TYPES, DeviceArray, Generator, StandIn
from fake_memory import POISON, UNIT

from servegen_gpu.backends.cuda.device import Copy

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


def public(thing: Any) -> Iterator[str]:
    """Names of a class that it does not inherit from NumPy."""
    own = {"host", "checked", "waited", "made", "host_of", "xp", "memory"}
    return (name for name in vars(thing) if not name.startswith("_") and name not in own)


def test_cupy_has_all_of_it() -> None:
    cupy = pytest.importorskip("cupy")
    xp = StandIn()
    missing = [name for name in (*FUNCTIONS, *TYPES, *public(StandIn)) if not hasattr(cupy, name)]
    missing += [f"ndarray.{name}" for name in public(DeviceArray) if not hasattr(cupy.ndarray, name)]
    missing += [f"Generator.{name}" for name in public(Generator) if not hasattr(cupy.random.Generator, name)]
    names = ("MemoryPool", "PinnedMemoryPool", "Stream", "Device", "Event", "get_current_stream", "get_elapsed_time")
    more = ("using_allocator", "alloc_pinned_memory", "PinnedMemory", "PinnedMemoryPointer")
    missing += [f"cuda.{name}" for name in (*names, *more) if not hasattr(cupy.cuda, name)]
    for module in ("runtime", "compiler", "memory", "driver"):
        stand_in, real = getattr(xp.cuda, module), getattr(cupy.cuda, module)
        missing += [f"cuda.{module}.{name}" for name in vars(stand_in) if not hasattr(real, name)]
    pools = [(cupy.cuda.MemoryPool, xp.cuda.MemoryPool()), (cupy.cuda.PinnedMemoryPool, xp.cuda.PinnedMemoryPool())]
    for real, stand_in in pools:
        offered = [name for name in dir(stand_in) if not name.startswith("_") and name != "returned"]
        missing += [f"{real.__name__}.{name}" for name in offered if not hasattr(real, name)]
    assert not missing
    assert {"prepend"} <= set(inspect.signature(cupy.diff).parameters)
    assert {"kind"} <= set(inspect.signature(cupy.argsort).parameters)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert cupy.cuda.runtime.memcpyDeviceToHost == xp.cuda.runtime.memcpyDeviceToHost


def test_arrays_of_numpy_are_refused() -> None:
    xp = StandIn()
    array = xp.zeros(4, np.int64)
    for wrong in (
        lambda: array + np.ones(4),
        lambda: xp.cumsum(np.ones(4)),
        lambda: array[np.array([1])],
        lambda: np.asarray(array),
        lambda: np.add(array, array, out=np.empty(4, np.int64)),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError, match="no lexsort"):
        xp.lexsort  # noqa: B018


def test_arrays_of_another_device_are_refused() -> None:
    xp = StandIn(devices=2)
    array = xp.zeros(4, np.int64)
    with xp.cuda.Device(1), pytest.raises(AssertionError, match="device 1 is current"):
        array + 1
    assert (array + 1).get().tolist() == [1] * 4


def test_memory_is_counted_and_runs_short() -> None:
    xp = StandIn(memory_bytes=1 << 20)
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc):
        array = xp.empty(1 << 16, np.int64)
        assert (pool.used_bytes(), pool.total_bytes()) == (1 << 19, 1 << 19)
        half, array = array[: 1 << 15], None
        assert pool.used_bytes() == 1 << 19  # a part keeps the whole
        with pytest.raises(MemoryError):
            xp.zeros(1 << 17, np.int64)
        del half
        assert (pool.used_bytes(), pool.total_bytes()) == (0, 1 << 19)
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
        pool.set_limit(size=1 << 10)
        with pytest.raises(MemoryError):
            xp.empty(1 << 12, np.uint8)
    assert xp.cuda.runtime.memGetInfo() == (1 << 20, 1 << 20)


def test_a_copy_is_there_only_when_somebody_waited() -> None:
    xp = StandIn()
    stream, made = xp.cuda.Stream(non_blocking=True), []

    def host(like: list[Any]) -> list[np.ndarray]:
        made.extend(np.zeros(array.shape, array.dtype) for array in like)
        return made

    device: Any = SimpleNamespace(xp=xp, host_arrays=host, current=lambda: xp.cuda.Device(0))
    copy = Copy({"client": xp.asarray(np.arange(3))}, device, stream)
    assert (made[0].view(np.uint8) == POISON).all()
    assert copy.finished()["client"].tolist() == [0, 1, 2]


def test_a_chunk_that_is_a_little_too_small_is_of_no_use() -> None:
    xp = StandIn()
    pool = xp.cuda.MemoryPool()
    with xp.cuda.using_allocator(pool.malloc):
        first = xp.empty(4 * UNIT, np.uint8)
        del first
        half = xp.empty(2 * UNIT, np.uint8)
        assert (pool.total_bytes(), pool.used_bytes(), pool.free_bytes()) == (4 * UNIT, 2 * UNIT, 2 * UNIT)
        more = xp.empty(2 * UNIT + 1, np.uint8)
        assert pool.total_bytes() == 7 * UNIT  # not in the rest of the first
        pool.free_all_blocks()
        assert pool.total_bytes() == 7 * UNIT  # half of an allocation is used
        del half
        whole = xp.empty(4 * UNIT, np.uint8)  # its parts are joined again
        assert pool.total_bytes() == 7 * UNIT
        del whole, more
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
    assert xp.cuda.mallocs == [(0, 4 * UNIT), (0, 3 * UNIT)]


def test_nothing_is_at_a_null_pointer_and_page_locked_memory_is_rounded() -> None:
    xp = StandIn()
    assert xp.empty(0, np.int64).data.ptr == 0
    assert xp.zeros(1, np.int64).data.ptr
    kept = [lock(1100) for lock in (xp.cuda.PinnedMemory, xp.cuda.alloc_pinned_memory)]
    assert [len(memory) for memory in kept] == [1100, 1100]
    assert xp.cuda.pinned.bytes == 1100 + 2048
    kept.clear()
    assert xp.cuda.pinned.bytes == 0


def test_memory_of_another_stream_needs_a_wait() -> None:
    xp = StandIn()
    streams = [xp.cuda.Stream(non_blocking=True) for _ in range(2)]

    def made() -> DeviceArray:
        with streams[0]:
            return xp.zeros(4, np.int64) + 1

    with pytest.raises(AssertionError, match="read before it is written"), streams[1]:
        made() + 1
    event, array = xp.cuda.Event(), made()
    event.record(streams[0])
    streams[1].wait_event(event)
    with streams[1]:
        assert (array + 1).get().tolist() == [2] * 4
    array = made()
    streams[0].synchronize()
    with streams[1]:
        array + 1
    with pytest.raises(AssertionError, match="written while it is used"), streams[0]:
        array[0] = 3


def test_memory_given_back_too_early_is_found() -> None:
    xp = StandIn()
    pool, other = xp.cuda.MemoryPool(), xp.cuda.Stream(non_blocking=True)
    with xp.cuda.using_allocator(pool.malloc):
        array, event = xp.zeros(64, np.int64), xp.cuda.Event()
        event.record()
        other.wait_event(event)
        to = np.zeros(64, np.int64)
        xp.cuda.runtime.memcpyAsync(to.ctypes.data, array.data.ptr, 512, 2, other.ptr)
        del array
        with pytest.raises(AssertionError, match="given out that another stream still uses"):
            xp.zeros(64, np.int64)
        other.synchronize()
    assert (to.view(np.uint8) == POISON).all()


def test_planned_faults_happen_and_a_lost_device_stays_lost() -> None:
    xp = StandIn(devices=2)
    xp.cuda.faults = [Fault("malloc", 2, after=1), Fault("synchronize", 719)]
    xp.zeros(1, np.int64)
    with pytest.raises(CUDARuntimeError, match="out of memory"):
        xp.zeros(1 << 20, np.int64)
    array = xp.zeros(1 << 20, np.int64)
    for _ in range(2):
        with pytest.raises(CUDARuntimeError, match="LaunchFailure"):
            array.get()
    with xp.cuda.Device(1):
        assert xp.zeros(1, np.int64).get() == 0
