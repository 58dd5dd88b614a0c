"""Memory of the cupy backend: in one piece and inside the budget, kept from trace to trace, given back on demand."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cuda_host import COMPILER
from profiles import tiny_pool
from traces import joined, same

import servegen_gpu as sg
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import open_device
from servegen_gpu.backends.cuda.memory import SLABS, PageLocked
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import write_stream
from servegen_gpu.pipeline import Workload
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    open_device.cache_clear()


def workload(stay: bool = False, **changes: Any) -> Workload:
    """Ten slabs of 6,000 requests."""
    made = sg.stream(tiny_pool("reason", 6), rate=10.0, duration=6000, seed=4, backend="numpy")
    return replace(made, backend=CupyBackend(stay=stay), **{"max_requests": 7000} | changes)


# On a device


@pytest.mark.parametrize("stay", [False, True])
@pytest.mark.parametrize("counts", ["exact", "renewal"])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_slabs_have_one_piece_of_memory_inside_the_budget(
    category: str, counts: str, stay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cupy.install(monkeypatch)
    pool = tiny_pool(category, 6, measured=counts == "exact")
    made = sg.stream(pool, rate=10.0, duration=6000, seed=4, counts=counts, backend="numpy")
    backend = CupyBackend(stay=stay)
    budget = 7000 * backend.bytes_per_request(category)
    rows, device = 0, backend.device
    before = device.pool._allocations
    for slab in replace(made, backend=backend, max_requests=7000):
        rows += len(slab)
        assert 0 < device.pool.total_bytes() < budget
        del slab
    assert rows > 55_000
    assert device.pool._allocations - before <= 2  # one by one there are hundreds


def test_the_next_trace_has_the_memory_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    first = Trace.concat(list(workload()))
    for slab in workload():
        del slab
    gc.collect()
    allocated, locked = len(xp.cuda.mallocs), xp.cuda.pinned.locked
    assert allocated
    assert locked
    again = Trace.concat([Trace.concat([slab]) for slab in workload()])
    assert (len(xp.cuda.mallocs), xp.cuda.pinned.locked) == (allocated, locked)
    assert same(again, first)
    del first, again
    assert xp.cuda.held_bytes() > 0
    CupyBackend().release()
    gc.collect()
    assert xp.cuda.held_bytes() == xp.cuda.pinned.bytes == 0


@pytest.mark.parametrize(
    ("keep", "memory_bytes", "kept"),
    [("", 1 << 32, True), ("", 3 << 19, False), ("0", 1 << 32, False), ("64MB", 1 << 26, True)],
)
def test_how_much_is_kept_can_be_said(
    keep: str, memory_bytes: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp = fake_cupy.install(monkeypatch, memory_bytes=memory_bytes)
    monkeypatch.setenv("SERVEGEN_GPU_KEEP", keep)
    rows = sum(len(slab) for slab in workload())
    gc.collect()
    assert rows > 55_000
    assert (xp.cuda.held_bytes() > 400_000) == kept  # a slab, not tables alone
    assert kept or xp.cuda.held_bytes() <= (memory_bytes // 4 if not keep else 0)
    assert (xp.cuda.pinned.bytes > 0) == kept


@pytest.mark.parametrize("wrong", ["much", "-1", "3 pounds"])
def test_what_is_kept_must_be_bytes(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch)
    monkeypatch.setenv("SERVEGEN_GPU_KEEP", wrong)
    with pytest.raises(OptionError, match=rf"SERVEGEN_GPU_KEEP as bytes .*, got '{wrong}'; units are b, .*unset it"):
        CupyBackend()


def test_what_is_released_is_not_what_somebody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    on_host, on_device = list(workload()), list(workload(stay=True))
    CupyBackend().release()
    arrivals = xp.concatenate([slab["arrival_us"] for slab in on_device]).get()
    assert np.array_equal(arrivals, Trace.concat(on_host)["arrival_us"])
    assert same(
        Trace.concat(on_host),
        Trace.concat(list(replace(workload(), backend=sg.stream(tiny_pool(), backend="numpy").backend))),
    )


def test_a_sort_without_room_for_its_scratch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    device = open_device()
    with device.current(), device.memory():
        word = xp.asarray(np.arange(1 << 16)[::-1] % 1000)
        device.pool.set_limit(size=device.pool.total_bytes() + 1000)
        with pytest.raises(MemoryError):
            device.sort(word, 0, 10)
        word.sort()
        assert (np.diff(word.get()) < 0).any()  # what CuPy would have made of it
        device.pool.set_limit(size=0)
        assert (np.diff(device.sort(word, 0, 10).get()) >= 0).all()


# On the host


def test_page_locked_memory_is_three_slabs_and_lent_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    xp = fake_cupy.install(monkeypatch)
    largest = 0
    for slab in workload():
        largest = max(largest, sum(column.nbytes for column in slab.columns.values()))
        del slab
    assert largest < xp.cuda.pinned.peak_bytes < SLABS * (largest * 66 // 64 + 4096)
    assert xp.cuda.pinned.locked <= SLABS + 1  # another where one is larger by more than 1/64
    for name in ("first", "second"):
        locked = xp.cuda.pinned.locked
        write_stream(workload(), tmp_path / f"{name}.parquet")
        assert xp.cuda.pinned.locked - locked <= (1 if name == "first" else 0)
    assert same(Trace.read(tmp_path / "second.parquet"), Trace.concat(list(workload())))


def test_columns_that_somebody_has_are_never_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    kept, copied = [], []
    for slab in workload():
        part = slab["input_tokens"][100:300].view(np.uint32)[::2]  # a view of a view of a view
        kept.append(part)
        copied.append(part.copy())
        del slab, part
    for _ in range(3):
        assert len(list(workload())) > 5
    assert all(np.array_equal(a, b) for a, b in zip(kept, copied, strict=True))
    assert xp.cuda.pinned.locked <= SLABS + 1  # all others have plain memory


@pytest.mark.parametrize("most_bytes", [0, 200_000])
def test_plain_memory_serves_where_none_can_be_locked(most_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    xp.cuda.pinned.most_bytes = most_bytes
    trace = Trace.concat(list(workload()))
    assert same(trace, joined(tiny_pool("reason", 6), rate=10.0, duration=6000, seed=4, backend="numpy"))
    assert xp.cuda.pinned.peak_bytes <= most_bytes
    assert (xp.cuda.pinned.locked > 0) == (most_bytes > 0)


def test_blocks_are_a_little_larger_than_asked_for() -> None:
    xp = fake_cupy.StandIn()
    locked = PageLocked(xp.cuda)
    block = locked.lend(1_000_000)
    assert block is not None
    assert 1_000_000 * 65 / 64 <= xp.cuda.pinned.bytes < 1_000_000 * 65 / 64 + 4096
    del block
    again = locked.lend(1_010_000)
    assert again is not None
    assert xp.cuda.pinned.locked == 1
    others = [locked.lend(1_010_000) for _ in range(3)]
    assert [other is None for other in others] == [False, False, True]
    assert xp.cuda.pinned.locked == SLABS
    del again, others
    larger = locked.lend(2_000_000)  # in the place of free ones
    assert larger is not None
    assert xp.cuda.pinned.bytes < SLABS * 2_050_000
    locked.release()
    assert xp.cuda.pinned.bytes
    del larger
    assert xp.cuda.pinned.bytes == 0


def test_tables_that_go_are_waited_for_on_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    streams = [xp.cuda.Stream(non_blocking=True) for _ in range(2)]
    first, second = (sg.stream(tiny_pool("reason", 6), rate=rate, duration=600, backend="numpy") for rate in (5.0, 6.0))
    with streams[0]:
        list(replace(first, backend=CupyBackend(stay=True)))
    with streams[1]:
        (slab,) = replace(first, backend=CupyBackend(stay=True))  # the tables are read last on this stream
    expected = Trace.concat(list(first))
    del first
    with streams[0]:
        (other,) = replace(second, backend=CupyBackend(stay=True))  # has their memory
        assert np.array_equal(other["arrival_us"].get(), Trace.concat(list(second))["arrival_us"])
    with streams[1]:
        assert np.array_equal(slab["arrival_us"].get(), expected["arrival_us"])
