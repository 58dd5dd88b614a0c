"""Groups of clients that follow clocks and scales of their own, on every backend.

The oracle is one workload for each group, in which all clients follow that group's schedule: of each, the rows of the
group's clients, bit for bit.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import COMPILER, HostDevice
from native import library
from profiles import talking, tiny_pool
from traces import same, take

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.contract import Backend
from servegen_gpu.backends.cuda import tasks
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.packed import PackedWorkload, pack_clocks, unpack_clock
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import Slab, cells_of, plan, share_us

SCHEDULES: tuple[Any, ...] = (
    [(0, 1.0), (333, 20.0), (900, 0.5), (1700, 6.0)],
    sg.Schedule([0, 900, 2400, 7200], [6.0, 0.2, 12.0, 1.0], "linear"),
    3.0,
)
"""Of the groups by turns: steps, lines and a constant, at different levels."""


def jax_backend() -> Backend:
    pytest.importorskip("jax")
    from servegen_gpu.backends.xla.backend import JaxBackend

    return JaxBackend()


def cuda_backend() -> Backend:
    if not COMPILER:
        pytest.skip("no g++ to play the device")
    return CupyBackend([HostDevice()])  # type: ignore[list-item]


BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "native": lambda: NativeBackend(library()),
    "cuda": cuda_backend,
    "jax": jax_backend,
}
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def grouped(parts: Sequence[PackedWorkload]) -> PackedWorkload:
    """One workload whose clients follow the clocks and scales of several, by turns of their ids."""
    first = parts[0]
    others = [part.conversations for part in parts if part.conversations is not None]
    group, scale = first.client_id.astype(np.int64) % len(parts), np.concatenate([part.window_scale for part in parts])
    mean = first.rate_factor[:, None] * first.rate_rps[first.profile][:, first.row] * scale[group]
    return replace(
        first,
        group=group,
        window_scale=scale,
        expected=mean.sum(axis=0) * first.window_length_s,
        clock=pack_clocks([unpack_clock(part.clock) for part in parts]),
        turns=first.turns and replace(first.turns, requests=np.mean([p.turns.requests for p in parts], axis=0)),  # type: ignore[union-attr]
        conversations=grouped(others) if others else None,
    )


def sampled(workload: Workload, packed: PackedWorkload, backend: str | None = None, **changes: Any) -> Trace:
    """The trace of another packed workload."""
    changes |= {"backend": BACKENDS[backend]()} if backend else {}
    return Trace.concat(list(replace(workload, packed=packed, **changes)))


def case(pool: sg.ClientPool, groups: int = 3, **keywords: Any) -> tuple[Workload, Trace]:
    """A workload of groups, and its trace from the workloads of single groups."""
    keywords = {"start": 250.5, "duration": 2700, "seed": 9} | keywords
    alone = [sg.stream(pool, backend="numpy", rate=SCHEDULES[g], **keywords) for g in range(groups)]
    rows = []
    for g, workload in enumerate(alone):
        trace = Trace.concat(list(workload))
        mine = take(trace, np.flatnonzero(trace["client"] % groups == g))
        assert len(mine) > 20
        rows.append(mine)
    workload = replace(alone[0], packed=grouped([of.packed for of in alone]))
    return workload, in_order(Trace.concat(rows))


def in_order(trace: Trace) -> Trace:
    """Rows by arrival; of equal arrivals requests that stand alone by client, then turns by conversation."""
    keys = [trace["client"], trace["arrival_us"]]
    if "turn" in trace:
        stands_alone = trace["conversation"] < 0
        name = np.where(stands_alone, trace["client"], trace["conversation"])
        keys = [trace["turn"], name, ~stands_alone, trace["arrival_us"]]
    return take(trace, np.lexsort(keys))


POOLS = {
    "exact": (tiny_pool("language", 7, rate_rps=2.0), {"counts": "exact"}),
    "renewal": (tiny_pool("reason", 7, rate_rps=2.0), {"counts": "renewal"}),
    "servegen": (tiny_pool("reason", 7, rate_rps=2.0), {"counts": "servegen"}),
    "multimodal": (tiny_pool("multimodal", 7, dependent=True, contexts=(100, 0, 2500)), {}),
    "gaps between ids": (tiny_pool("language", 5, ids=[0, 1, 5, 1000, 2**31 - 1]), {}),
}


@each_backend
@pytest.mark.parametrize("name", POOLS)
def test_rows_are_those_of_the_groups(name: str, backend: str) -> None:
    pool, keywords = POOLS[name]
    for groups in (2, 3) if keywords else (2,):
        workload, expected = case(pool, groups, **keywords)
        assert same(sampled(workload, workload.packed, backend), expected)


@each_backend
@pytest.mark.parametrize("part", ["group", "clock", "scale"])
def test_a_workload_that_ignores_its_groups_has_other_rows(part: str, backend: str) -> None:
    """What the tests above would see of a backend that looked up the first group's clock or scale for everybody."""
    pool, keywords = POOLS["renewal"]
    workload, expected = case(pool, **keywords)
    packed = workload.packed
    table, scale = packed.clock.table, packed.window_scale
    planted = {
        "group": {"group": np.zeros_like(packed.group)},
        "clock": {"clock": replace(packed.clock, table=np.broadcast_to(table[:1], table.shape))},
        "scale": {"window_scale": np.broadcast_to(scale[:1], scale.shape)},
    }[part]
    assert not same(sampled(workload, replace(packed, **planted), backend), expected)  # type: ignore[arg-type]


@each_backend
@pytest.mark.parametrize("name", ["exact", "renewal", "servegen", "multimodal"])
def test_parts_of_surveyed_windows(name: str, backend: str) -> None:
    pool, keywords = POOLS[name]
    workload, expected = case(pool, **keywords)
    slabs = list(plan(workload.packed, 512))
    assert sum(slab.surveyed for slab in slabs) > 4
    assert same(sampled(workload, workload.packed, backend, max_requests=512), expected)


@pytest.mark.parametrize("surveyed", [False, True])
def test_parts_cut_anywhere(surveyed: bool) -> None:
    """A slab has what arrives in it, by every client's own clock."""
    pool, keywords = POOLS["exact"]
    workload, expected = case(pool, start=0, duration=1800, **keywords)
    packed, n = workload.packed, len(workload.packed.expected)
    edges = [600_000_000 * w // 7 for w in range(7 * n + 1)]
    for backend in (NumpyBackend(), NativeBackend(library())):
        rows = [
            Trace(backend.sample_slab(packed, workload.key, Slab(np.array([a // 600_000_000]), a, b, 500.0, surveyed)))
            for a, b in pairwise(edges)
        ]
        assert same(Trace.concat(rows), expected)


@pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")
@pytest.mark.parametrize("count", ["exact", "renewal", "servegen"])
def test_cuda_tasks(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LEAST_FULL", 10**9)
    monkeypatch.setattr(tasks, "MOST_PLACES", 10**18)
    pool, keywords = POOLS[count]
    workload, expected = case(pool, **keywords)
    device = HostDevice()
    backend = CupyBackend([device])  # type: ignore[list-item]
    assert same(Trace.concat(list(replace(workload, backend=backend))), expected)
    kernels = {kernel for kernel, _ in device.launched}
    assert "arrange" in kernels
    assert "row" not in kernels


@each_backend
@pytest.mark.parametrize("shares", [2, 5])
def test_shares_are_the_whole(shares: int, backend: str) -> None:
    pool, keywords = POOLS["exact"]
    workload, expected = case(pool, **keywords)
    parts = [sampled(workload, workload.packed, backend, shard=(k, shares)) for k in range(shares)]
    assert same(Trace.concat(parts), expected)
    assert all(len(part) for part in parts)
    spans = [share_us(workload.packed, (k, shares)) for k in range(shares)]
    assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]


@each_backend
@pytest.mark.parametrize("most", [10**6, 512])
@pytest.mark.parametrize("category", ["language", "multimodal"])
def test_conversations(category: str, most: int, backend: str) -> None:
    workload, expected = case(talking(category), start=900)
    conversations = workload.packed.conversations
    assert conversations is not None
    assert len(conversations.window_scale) == 3
    assert same(sampled(workload, workload.packed, backend, max_requests=most), expected)
    parts = [sampled(workload, workload.packed, backend, max_requests=most, shard=(k, 3)) for k in range(3)]
    assert same(Trace.concat(parts), expected)


def test_a_window_in_a_users_jitted_code() -> None:
    pytest.importorskip("jax")
    from servegen_gpu.backends.xla import backend as xla

    pool, keywords = POOLS["exact"]
    workload, expected = case(pool, start=600, duration=600, **keywords)
    tables, cells = xla.device_tables(workload.packed, workload.key), xla.window_cells(workload.packed, first=0)
    sample = xla.sample_window(tables, cells, capacity=1 << 14)
    assert bool(sample.fits)
    valid = np.asarray(sample.valid)
    assert valid.sum() == len(expected)
    assert np.array_equal(np.asarray(sample.us)[valid], expected["arrival_us"])
    assert np.array_equal(np.asarray(sample.client)[valid], expected["client"])


@pytest.mark.parametrize("pool", [POOLS["exact"][0], talking("language")], ids=["alone", "talking"])
def test_files_and_pickles(pool: sg.ClientPool, tmp_path: Path) -> None:
    workload, expected = case(pool, start=900)
    workload.packed.save(tmp_path / "packed")
    for packed in (PackedWorkload.load(tmp_path / "packed"), pickle.loads(pickle.dumps(workload.packed))):
        for name in ("group", "window_scale"):
            assert getattr(packed, name).dtype == getattr(workload.packed, name).dtype
        assert same(sampled(workload, packed), expected)
        assert same(Trace.concat(list(sg.stream(packed, seed=9, backend="numpy"))), expected)


def test_cells_have_the_scale_of_their_group() -> None:
    pool = POOLS["exact"][0]
    workload, _ = case(pool, start=0, duration=1800)
    packed = workload.packed
    cells = cells_of(packed, np.arange(len(packed.expected)))
    assert len(cells) > 15
    for client, row, window, q32 in zip(
        cells.client, cells.row, cells.window_index, cells.expected_q32 * 2.0**-32, strict=True
    ):
        rate = pool.rate_rps[client, row]
        assert q32 == pytest.approx(rate * packed.window_scale[client % 3, window] * 600, rel=1e-8)


def test_groups_that_follow_one_clock_are_as_one() -> None:
    pool, keywords = POOLS["renewal"]
    one = sg.stream(pool, backend="numpy", rate=SCHEDULES[0], duration=1800, **keywords)
    assert one.packed.window_scale.shape == one.packed.clock.table.shape == (1, 3)
    assert not one.packed.group.any()
    for backend in ("numpy", "native"):
        assert same(sampled(one, grouped([one.packed] * 3), backend), Trace.concat(list(one)))
