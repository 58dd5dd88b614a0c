"""The stand-in for CuPy has nothing that CuPy lacks, and refuses what CuPy refuses."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_host import COMPILER
from fake_cupy import FUNCTIONS, TYPES, DeviceArray, Generator, StandIn

from servegen_gpu.backends.cuda.device import Copy

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


def public(thing: Any) -> Iterator[str]:
    """Names of a class that it does not inherit from NumPy."""
    own = {"host", "checked", "made", "host_of", "xp", "memory"}
    return (name for name in vars(thing) if not name.startswith("_") and name not in own)


def test_cupy_has_all_of_it() -> None:
    cupy = pytest.importorskip("cupy")
    xp = StandIn()
    missing = [name for name in (*FUNCTIONS, *TYPES, *public(StandIn)) if not hasattr(cupy, name)]
    missing += [f"ndarray.{name}" for name in public(DeviceArray) if not hasattr(cupy.ndarray, name)]
    missing += [f"Generator.{name}" for name in public(Generator) if not hasattr(cupy.random.Generator, name)]
    names = ("MemoryPool", "PinnedMemoryPool", "Stream", "Device", "Event", "get_current_stream", "get_elapsed_time")
    missing += [
        f"cuda.{name}" for name in (*names, "using_allocator", "alloc_pinned_memory") if not hasattr(cupy.cuda, name)
    ]
    for module in ("runtime", "compiler", "memory", "driver"):
        stand_in, real = getattr(xp.cuda, module), getattr(cupy.cuda, module)
        missing += [f"cuda.{module}.{name}" for name in vars(stand_in) if not hasattr(real, name)]
    pools = [(cupy.cuda.MemoryPool, xp.cuda.MemoryPool()), (cupy.cuda.PinnedMemoryPool, xp.cuda.PinnedMemoryPool())]
    for real, stand_in in pools:
        offered = [name for name in dir(stand_in) if not name.startswith("_") and name != "back"]
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

    def host(like: Any) -> np.ndarray:
        made.append(np.zeros(like.shape, like.dtype))
        return made[-1]

    copy = Copy({"client": xp.asarray(np.arange(3))}, xp, stream, host)
    assert made[0].tolist() == [0, 0, 0]
    assert copy.finished()["client"].tolist() == [0, 1, 2]
    assert copy.finished()["client"].tolist() == [0, 1, 2]
