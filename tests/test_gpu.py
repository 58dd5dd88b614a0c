"""The cupy backend on a device: the columns of NumPy, memory kept to and given back, slabs that stay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import tiny_pool
from test_golden import CASES
from traces import flat, same

import servegen_gpu as sg
from servegen_gpu.backends.cuda import CupyBackend
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Ragged, Trace


def why_not() -> str:
    """Why there is no device here, or nothing."""
    try:
        CupyBackend()
    except OptionError as error:
        return str(error)
    return ""


WHY_NOT = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture
def backend() -> Iterator[CupyBackend]:
    """The backend, its memory without a limit again afterwards."""
    backend = CupyBackend()
    yield backend
    backend.device.pool.set_limit(size=0)


def equal(pool: sg.ClientPool, **keywords: Any) -> Trace:
    """The trace, after comparing it with NumPy's."""
    ours = Trace.concat(list(sg.stream(pool, backend="cupy", **keywords)))
    memory = {"memory": "2GB"} if "memory" in keywords else {}
    assert same(ours, Trace.concat(list(sg.stream(pool, backend="numpy", **keywords | memory))))
    return ours


@pytest.mark.parametrize("name", CASES)
def test_columns_equal_numpy(name: str) -> None:
    pool, keywords = CASES[name]
    equal(pool, **keywords)


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_surveyed_windows_equal_numpy(category: str, counts: str) -> None:
    equal(tiny_pool(category, 6), rate=50.0, duration=1500, start=250, counts=counts, memory="5MB")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 1 << 20, (1 << 20) + 1])
def test_sizes_around_warps_tiles_and_blocks(count: int) -> None:
    pool = tiny_pool("language", 1, 1, rate_rps=1.0, silent=False)
    trace = equal(pool, scale=count / 600 / pool.rate_rps[0, 0] + 1e-12, duration=600)
    assert len(trace) == count


@pytest.mark.parametrize("counts", ["exact", "renewal"])
def test_thousands_of_clients_beside_large_ones_equal_numpy(counts: str) -> None:
    equal(sg.population("deepseek-r1", clients=25_913, seed=1), rate=3000, duration=1800, counts=counts)


def test_shards_are_the_whole() -> None:
    pool = sg.population("deepseek-r1", clients=500, seed=1)
    keywords: dict[str, Any] = {"rate": 30_000, "duration": 1200, "backend": "cupy"}
    rows = [len(sg.generate(pool, shard=(k, 3), **keywords)) for k in range(3)]
    assert sum(rows) == len(sg.generate(pool, **keywords))


def test_slabs_stay_on_the_device() -> None:
    cupy = pytest.importorskip("cupy")
    pool, keywords = tiny_pool("multimodal"), {"duration": 1800, "seed": 2}
    slabs = list(sg.stream(pool, backend="cupy", device=True, **keywords))
    expected = sg.generate(pool, backend="numpy", **keywords)
    assert isinstance(slabs[0]["arrival_us"], cupy.ndarray)
    on_host = [
        Trace({
            name: Ragged(c.offsets.get(), c.values.get()) if isinstance(c, Ragged) else c.get()
            for name, c in slab.columns.items()
        })
        for slab in slabs
    ]  # fmt: skip
    assert same(Trace.concat(on_host), expected)
    again = cupy.from_dlpack(slabs[0]["arrival_us"])
    assert again.data.ptr == slabs[0]["arrival_us"].data.ptr


def test_memory_is_limited_and_given_back(backend: CupyBackend) -> None:
    cupy = pytest.importorskip("cupy")
    pool = sg.population("deepseek-r1", clients=1000, seed=1)
    before = cupy.cuda.runtime.memGetInfo()[0]
    peak = rows = 0
    workload = sg.stream(pool, rate=100_000, duration=1800, backend="cupy", memory="8GB")
    for slab in workload:
        peak = max(peak, workload.backend.device.pool.total_bytes())  # type: ignore[attr-defined]
        rows += len(slab)
        del slab
    assert rows > 170_000_000
    assert peak < 8e9
    assert backend.device.pool.total_bytes() == 0
    assert cupy.cuda.runtime.memGetInfo()[0] >= before - (64 << 20)


def test_slabs_are_halved_where_memory_is_short(backend: CupyBackend) -> None:
    pool = tiny_pool("reason", 6)
    expected = sg.generate(pool, rate=5000.0, duration=1800, backend="numpy")
    backend.device.pool.set_limit(size=256 << 20)
    slabs = list(sg.stream(pool, rate=5000.0, duration=1800, backend="cupy"))
    assert len(slabs) > 1
    assert same(Trace.concat(slabs), expected)


def test_full_device_memory_is_said(backend: CupyBackend) -> None:
    backend.device.pool.set_limit(size=1 << 16)
    with pytest.raises(OptionError, match="device memory"):
        list(sg.stream(tiny_pool(), duration=1800, backend="cupy"))


CHILD = """
import sys, servegen_gpu as sg
sys.path.insert(0, sys.argv[1])
from profiles import tiny_pool
print(len(sg.generate(tiny_pool(), duration=1800, backend="cupy")))
"""


def child(cache: Path) -> subprocess.Popen[str]:
    """A process that builds the kernels into a cache of its own."""
    here = Path(__file__).parent
    environment = os.environ | {"CUPY_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", CHILD, str(here)]
    return subprocess.Popen(
        command, env=environment, cwd=here.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    said = [process.communicate() for process in [child(tmp_path), child(tmp_path)]]
    assert said[0][0] == said[1][0] != "", said


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "set CUPY_CACHE_DIR" in child(tmp_path).communicate()[1]


def test_auto_takes_the_device() -> None:
    assert sg.stream(tiny_pool(), duration=600).backend.name == "cupy"
    assert np.all(np.diff(flat(sg.generate(tiny_pool(), duration=600))["arrival_us"]) >= 0)
