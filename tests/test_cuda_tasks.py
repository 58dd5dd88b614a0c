"""Slabs of many requests a cell on a device that the host plays: kernels/tasks.h, warps and blocks as fibers.

Rows are compared with NumPy's at sizes around lanes, tasks and pools, and where buckets of time do not fit a block.
Sums of ticks are compared as well: rows show 32 of their 62 bits.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_host import COMPILER, HostDevice
from profiles import REPOSITORY, tiny_pool
from traces import same

import servegen_gpu as sg
from servegen_gpu.backends.cuda import tasks
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.job import POOL, TASK
from servegen_gpu.backends.cuda.tables import pairs_of
from servegen_gpu.backends.cuda.tasks import SIZES, Arranging
from servegen_gpu.law.tables import find_bin
from servegen_gpu.pipeline import Workload
from servegen_gpu.request.families import GAMMA, LOGNORMAL, WEIBULL
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


@pytest.fixture(autouse=True)
def _by_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few requests share a cell."""
    monkeypatch.setattr(tasks, "LEAST_FULL", 10**9)
    monkeypatch.setattr(tasks, "MOST_PLACES", 10**18)


def launched(workload: Workload, **changes: Any) -> tuple[Trace, Counter[str]]:
    """A workload's trace from the cupy backend, and how often it launched every kernel."""
    device = HostDevice()
    backend = CupyBackend([device])  # type: ignore[list-item]
    found = Trace.concat(list(replace(workload, backend=backend, **changes)))
    return found, Counter(kernel for kernel, _ in device.launched)


def equal(workload: Workload, simple: bool = False, **changes: Any) -> Counter[str]:
    """Launches of a workload, after comparing its rows with NumPy's."""
    found, kernels = launched(workload, **changes)
    assert same(found, Trace.concat(list(workload)))
    assert ("row" in kernels) == simple
    assert ("arrange" in kernels) != simple
    return kernels


@pytest.mark.parametrize(
    "count", [1, 7, 8, 9, 31, 32, 33, TASK - 1, TASK, TASK + 1, POOL * TASK, POOL * TASK + 1, 2000]
)
def test_sizes_around_lanes_tasks_and_pools(count: int) -> None:
    pool = tiny_pool("reason", 1, 1, rate_rps=1.0, silent=False)
    workload = sg.stream(pool, backend="numpy", scale=count / 600 / pool.rate_rps[0, 0] + 1e-12, duration=600)
    assert len(Trace.concat(list(workload))) == count
    equal(workload)


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("category", ["language", "reason"])
def test_count_rules_and_part_of_a_window(category: str, counts: str) -> None:
    pool = tiny_pool(category, 6, measured=counts != "renewal", contexts=(100, 0, 2500, 1, 700))
    keywords: dict[str, Any] = {"rate": 3.0, "duration": 2100, "start": 250, "counts": counts, "seed": 3}
    kernels = equal(sg.stream(pool, backend="numpy", **keywords))
    assert ("more" in kernels) == (counts == "renewal")
    assert ("sums" in kernels) == (counts != "renewal")


@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
@pytest.mark.parametrize("category", ["language", "reason"])
def test_dependence(category: str, dependence: str) -> None:
    pool = tiny_pool(category, 7, dependent=True)
    keywords = {"rank_correlation": {"input_tokens:output_tokens": 0.4}} if dependence == "copula" else {}
    equal(sg.stream(pool, backend="numpy", rate=2.0, duration=1800, dependence=dependence, **keywords))  # type: ignore[arg-type]
    equal(sg.stream(pool, backend="numpy", rate=2.0, duration=1800))  # every client's own


@pytest.mark.parametrize(("family", "shape"), [(GAMMA, 0.05), (GAMMA, 3.0), (WEIBULL, 0.3), (LOGNORMAL, 1.4)])
def test_bursts_go_on_until_their_window_ends(family: int, shape: float) -> None:
    pool = tiny_pool("language", 4, 3, silent=False, measured=False, shape=shape, family=family).clone(20)
    kernels = equal(sg.stream(pool, rate=8.0, duration=1800, seed=5, backend="numpy"))
    assert kernels["more"] == 1
    assert kernels["draw"] == (2 if shape < 1.0 else 1)  # what was missing after the first round, all of it


def test_many_nearly_empty_cells_beside_a_large_one() -> None:
    pool = tiny_pool("language", 3, 2, silent=False).clone(100)
    equal(sg.stream(pool, scale=0.05, duration=1200, counts="renewal", backend="numpy"))


def test_few_requests_a_cell_go_the_simple_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LEAST_FULL", 4)
    pool = tiny_pool("language", 3, 2, silent=False)
    equal(sg.stream(pool, rate=0.01, duration=1200, backend="numpy"), simple=True)
    equal(sg.stream(pool, rate=3.0, duration=1200, backend="numpy"))


def test_items_and_ordinals_go_the_simple_way() -> None:
    equal(sg.stream(tiny_pool("multimodal", 3), rate=1.0, duration=1200, backend="numpy"), simple=True)


# Buckets of time


@pytest.fixture
def bursts() -> Workload:
    """A few clients whose requests come at once."""
    pool = tiny_pool("language", 3, 2, silent=False, measured=False, shape=0.05, family=GAMMA)
    return sg.stream(pool, rate=3.0, duration=1200, seed=2, backend="numpy")


def test_buckets_of_two_sizes(bursts: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BUCKET_ITEMS", 400)
    monkeypatch.setattr(tasks, "SIZES", (Arranging(64, 512), Arranging(4096, 1024)))
    assert equal(bursts)["arrange"] == 2


def test_buckets_become_finer_until_the_largest_fits(bursts: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SIZES", (Arranging(256, 512),))
    rounds = 1 + (equal(bursts)["draw"] == 2)
    assert launched(bursts)[1]["time"] > rounds


def test_the_simple_way_where_no_bucket_fits(bursts: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SIZES", (Arranging(8, 512),))
    kernels = equal(bursts, simple=True)
    assert kernels["time"] > 0


@pytest.mark.parametrize(("first", "simple"), [(0, False), (1000, False), (2**20, True), (2**31 - 4, True)])
def test_ids_of_clients_beside_times(first: int, simple: bool) -> None:
    pool = tiny_pool("language", 3, 2, silent=False)
    pool = replace(pool, client_ids=first + np.arange(len(pool.client_ids)))
    equal(sg.stream(pool, rate=20.0, duration=1200, backend="numpy"), simple)


def test_equal_times_keep_the_order_of_clients_and_requests() -> None:
    pool = tiny_pool("language", 5, 1, silent=False, measured=False, shape=0.001, family=GAMMA)
    workload = sg.stream(pool, rate=6.0, duration=600, seed=9, backend="numpy")
    trace = Trace.concat(list(workload))
    assert (np.diff(trace["arrival_us"]) == 0).mean() > 0.2
    equal(workload)


def test_shared_memory_is_what_devices_give() -> None:
    assert 3 * (SIZES[0].shared_bytes + 1024) <= 228 << 10  # of a multiprocessor of compute capability 9.0
    assert SIZES[1].shared_bytes <= 227 << 10
    for size in SIZES:
        assert size.slots % 512 == 0


# Tables


def test_pairs_hold_what_the_guide_says() -> None:
    pool = tiny_pool("reason", 5)
    packed = sg.stream(pool, duration=600, backend="numpy").packed
    tables, bits = packed.tables, packed.tables.guide_bits
    pairs = pairs_of(tables)
    rng = np.random.default_rng(4)
    for table in range(len(pairs) >> bits):
        edges = tables.thresholds[rng.integers(0, len(tables.thresholds), 200)]
        word = np.concatenate((rng.integers(0, 2**32, 2000, dtype=np.uint32), edges, edges + np.uint32(1)))
        pair = pairs[(table << bits) + (word >> np.uint32(32 - bits))]
        short = pair[:, 3] >> 31 == 0
        expected = tables.values[find_bin(np, word, np.full(len(word), table), tables)]
        assert np.array_equal(np.where(pair[:, 0] < word, pair[:, 2], pair[:, 1])[short], expected[short])
        assert short.mean() > 0.5
        assert np.all(pair[:, 3] & 0x7FFFFFFF <= find_bin(np, word, np.full(len(word), table), tables))


# Sums of ticks


@pytest.fixture
def device_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """bench/device_rows.py."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    import device_rows

    yield device_rows
    for name in ("device_rows", "device_workloads", "common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("family", [GAMMA, WEIBULL, LOGNORMAL])
def test_sums_of_ticks(device_rows: Any, counts: str, family: int) -> None:
    pool = tiny_pool("language", 4, 2, silent=False, measured=False, shape=0.6, family=family)
    workload = sg.stream(pool, rate=4.0, duration=600, counts=counts, seed=8, backend="numpy")
    look = SimpleNamespace(device=HostDevice(), sizes=SimpleNamespace(ticks=500))
    for way in (device_rows.by_tasks, device_rows.one_by_one):
        found, expected = way(look, workload)
        assert len(found) > 400
        assert np.array_equal(found, expected)
        assert not np.array_equal(found ^ 1, expected)
