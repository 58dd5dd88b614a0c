"""The cupy backend over a stand-in for CuPy: all of it but the device, with one, two and three of them."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cuda_host import COMPILER
from profiles import tiny_pool
from test_golden import CASES
from traces import joined, same

import servegen_gpu as sg
from servegen_gpu.backends import describe_backends
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import open_device
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    open_device.cache_clear()


def nothing_is_held(xp: fake_cupy.StandIn) -> bool:
    """Whether no pool of any device has memory, once all that is kept is given back."""
    gc.collect()
    CupyBackend().release()
    return xp.cuda.held_bytes() == 0


def on_host(slab: Trace) -> Trace:
    """A slab that stayed on the device, on the host."""
    return Trace({
        name: Ragged(c.offsets.get(), c.values.get()) if isinstance(c, Ragged) else c.get()
        for name, c in slab.columns.items()
    })  # fmt: skip


@pytest.mark.parametrize("name", list(CASES)[::5])
def test_columns_equal_numpy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    pool, keywords = CASES[name]
    assert same(joined(pool, backend="cupy", **keywords), joined(pool, backend="numpy", **keywords))
    assert nothing_is_held(xp)


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize(
    ("category", "counts"), [("language", "exact"), ("reason", "renewal"), ("multimodal", "exact")]
)
def test_devices_share_slabs_in_turns(
    category: str, counts: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp = fake_cupy.install(monkeypatch, devices=devices)
    pool = tiny_pool(category, 6)
    keywords: dict[str, Any] = {"rate": 20.0, "duration": 3000, "counts": counts, "seed": 4}
    expected = joined(pool, backend="numpy", **keywords)
    budget = 5000 * CupyBackend().bytes_per_request(category)
    slabs = list(sg.stream(pool, backend="cupy", memory=budget, **keywords))  # windows larger than the budget
    assert len(slabs) >= 6
    assert same(Trace.concat(slabs), expected)
    kernels = [sum(n == device and kernel == "sg_row" for n, kernel in xp.cuda.launched) for device in range(devices)]
    assert min(kernels) >= len(slabs) // devices
    assert nothing_is_held(xp)


def test_a_survey_of_renewals_brings_little_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    pool = tiny_pool("language", 2, 1, silent=False, measured=False)
    keywords: dict[str, Any] = {"rate": 200.0, "duration": 600, "seed": 5}
    budget = 30_000 * CupyBackend().bytes_per_request("language")
    before = xp.brought_bytes
    trace = joined(pool, backend="cupy", memory=budget, **keywords)
    assert same(trace, joined(pool, backend="numpy", **keywords))
    assert len(trace) > 80_000
    assert 0 < xp.brought_bytes - before < len(trace) / 4  # 8 bytes of 256 requests and of every run; it was 8 of each


def test_devices_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=2)
    backend = CupyBackend()
    both = threading.Barrier(2, timeout=20)
    for turn in range(2):
        copies = backend._lane(turn).copies

        def together(packed: Any, key: Any, slab: Any, copies: Any = copies) -> Any:
            both.wait()  # only passed if the other device is at a slab as well
            return copies(packed, key, slab)

        monkeypatch.setattr(backend._lane(turn), "copies", together)
    workload = sg.stream(tiny_pool(), backend="numpy", duration=4800)
    slabs = list(itertools.islice(_windows(workload), 8))
    rows = sum(len(Trace(columns)) for columns in backend.sample_slabs(workload.packed, workload.key, slabs))
    assert rows == len(joined(tiny_pool(), backend="numpy", duration=4800))


def _windows(workload: sg.Workload) -> Iterator[Any]:
    from servegen_gpu.plan import Slab

    packed = workload.packed
    for w, expected in enumerate(packed.expected):
        yield Slab(np.array([w]), packed.start_us, packed.end_us, float(expected))


def test_devices_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=3)
    monkeypatch.setenv("SERVEGEN_GPU_DEVICES", "2,1")
    pool, keywords = tiny_pool(), {"duration": "12h", "memory": "300kB"}
    assert same(joined(pool, backend="cupy", **keywords), joined(pool, backend="numpy", duration="12h"))
    assert {device for device, _ in xp.cuda.launched} == {1, 2}
    assert CupyBackend().device.number == 2
    (stays, *_) = sg.stream(pool, backend="cupy", device=True, duration=600)
    assert stays["client"].data.device_id == 2
    for wrong in ("3", "1,1", "-1", "gpu", "0,"):
        monkeypatch.setenv("SERVEGEN_GPU_DEVICES", wrong)
        with pytest.raises(OptionError, match=rf"numbers from 0 to 2, .*got '{wrong}'; change or unset it"):
            sg.stream(pool, backend="cupy", duration=600)


def test_a_device_is_opened_once_by_number_and_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=2)
    monkeypatch.setenv("SERVEGEN_GPU_DEVICES", "1,0")
    assert open_device() is open_device(None) is open_device(1) is CupyBackend().device
    assert open_device(0) is not open_device(1)


def test_a_second_device_is_opened_only_when_it_has_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=2)
    joined(tiny_pool(), backend="cupy", duration=600)
    assert open_device.cache_info().currsize == 1
    joined(tiny_pool(), backend="cupy", duration="12h", memory="300kB")
    assert open_device.cache_info().currsize == 2


def test_slabs_stay_on_the_first_device(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=2)
    pool, keywords = tiny_pool("multimodal"), {"duration": "12h", "seed": 2}
    slabs = list(sg.stream(pool, backend="cupy", device=True, memory="2MB", **keywords))
    assert len(slabs) > 2
    assert isinstance(slabs[0]["arrival_us"], xp.ndarray)
    assert {slab["client"].data.device_id for slab in slabs} == {0}
    assert same(Trace.concat([on_host(slab) for slab in slabs]), joined(pool, backend="numpy", **keywords))
    again = xp.from_dlpack(slabs[0]["arrival_us"])
    assert again.data.ptr == slabs[0]["arrival_us"].data.ptr
    assert not nothing_is_held(xp)  # the columns' own
    again = None
    slabs.clear()
    open_device(0).release()
    assert nothing_is_held(xp)


@pytest.mark.parametrize("devices", [1, 2])
def test_slabs_are_halved_where_memory_is_short(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=devices, memory_bytes=6 << 20)
    pool, keywords = tiny_pool("reason", 6), {"rate": 150.0, "duration": 3600}
    slabs = list(sg.stream(pool, backend="cupy", **keywords))
    assert len(slabs) > 4
    assert same(Trace.concat(slabs), joined(pool, backend="numpy", **keywords))
    assert nothing_is_held(xp)


def test_a_device_without_memory_for_anything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    CupyBackend()  # is opened while there is memory
    full = xp.cuda.MemoryPool()
    taken = full.malloc(xp.cuda.free_bytes(0) - 30_000)
    with pytest.raises(OptionError, match=r"device memory for 4,096 requests.*nvidia-smi shows who has it"):
        joined(tiny_pool(), backend="cupy", duration=1800)
    del taken
    full.free_all_blocks()
    assert nothing_is_held(xp)


def test_an_error_of_one_device_ends_the_trace_and_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=2)
    workload = sg.stream(tiny_pool(), backend="cupy", duration="12h", memory="300kB")
    backend: Any = workload.backend

    def fails(*_: Any) -> Any:
        raise OptionError("a device", "none", "try another")

    monkeypatch.setattr(backend._lane(1), "copies", fails)
    with pytest.raises(OptionError, match="expected a device"):
        list(workload)
    del workload
    assert nothing_is_held(xp)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cuda")]


def test_a_reader_who_leaves_early_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=2)
    slabs = iter(sg.stream(tiny_pool(), backend="cupy", duration="12h", memory="300kB"))
    next(slabs)
    assert xp.cuda.held_bytes()
    slabs.close()  # type: ignore[attr-defined]
    assert nothing_is_held(xp)


def test_shards_and_an_empty_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=2)
    pool, keywords = tiny_pool(), {"duration": "12h", "backend": "cupy"}
    rows = [len(joined(pool, shard=(k, 3), **keywords)) for k in range(3)]
    assert sum(rows) == len(joined(pool, **keywords))
    assert len(joined(pool, backend="cupy", scale=1e-9, duration=1800)) == 0


def test_backends_lists_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=3)
    (row,) = [row for row in describe_backends() if row["name"] == "cupy"]
    assert row["state"] == "ready"
    assert row["detail"].startswith("2 x Stand-in, Other stand-in, driver for CUDA 13.0, CuPy 14.2.0, sorts with cupy")
