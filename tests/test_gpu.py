"""The cupy backend on a device: the columns of NumPy, memory kept to and given back, slabs that stay.

``SERVEGEN_GPU_STAND_IN=1`` runs all of it over the stand-in for CuPy, at small sizes (test_gpu_stand_in.py): nothing
here is run for the first time when a device is there.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import tiny_pool
from test_golden import CASES, GOLDEN, digests
from traces import flat, joined, same

import servegen_gpu as sg
from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.check import ticks_that_differ
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.backends.cuda.slab import OUTSIDE, position_bits
from servegen_gpu.backends.cuda.sort import sort_bits
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

STAND_IN = bool(os.environ.get("SERVEGEN_GPU_STAND_IN"))
if STAND_IN:
    import fake_cupy

    fake_cupy.install(pytest.MonkeyPatch(), devices=2)
LARGE = 1e-3 if STAND_IN else 1.0
"""Share of the large sizes."""


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
def device() -> Iterator[CudaDevice]:
    """The first device, with nothing kept, and its memory without a limit again afterwards."""
    device = open_device()
    device.release()
    yield device
    with device.current():
        device.pool.set_limit(size=0)


@pytest.fixture
def cupy() -> Any:
    """CuPy, or what stands in for it."""
    return cuda_driver.import_cupy()


def equal(pool: sg.ClientPool, **keywords: Any) -> Trace:
    """The trace, after comparing it with NumPy's."""
    ours = joined(pool, backend="cupy", **keywords)
    memory = {"memory": "2GB"} if "memory" in keywords else {}
    assert same(ours, joined(pool, backend="numpy", **keywords | memory))
    return ours


def on_host(slab: Trace) -> Trace:
    """A slab that stayed on the device, on the host."""
    return Trace({
        name: Ragged(c.offsets.get(), c.values.get()) if isinstance(c, Ragged) else c.get()
        for name, c in slab.columns.items()
    })  # fmt: skip


# The columns


@pytest.mark.parametrize("name", CASES)
def test_columns_have_the_digests_on_file(name: str) -> None:
    assert digests(name, backend="cupy") == json.loads(GOLDEN.read_text())["traces"][name]


def test_ticks_equal_numpy(device: CudaDevice) -> None:
    """To the last of 62 bits: rows would hide a contracted multiply-add."""
    with device.current(), device.memory():
        assert ticks_that_differ(device, each=int(400_000 * (LARGE if not STAND_IN else 0.01)), seed=3) == 0


@pytest.mark.skipif(STAND_IN, reason="an hour of the stand-in")
def test_a_hundred_million_rows_equal_native(device: CudaDevice) -> None:
    pool = sg.population("deepseek-r1", clients=25_913, seed=1).with_conversations(None)
    keywords: dict[str, Any] = {"rate": 1e8 / 3600, "duration": 3600, "seed": 7}
    theirs = sg.stream(pool, backend="native", memory="4GB", **keywords)
    ours = Trace.concat(list(replace(theirs, backend=CupyBackend([device]))))
    assert len(ours) > 99_000_000
    assert same(ours, Trace.concat(list(theirs)))


@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_windows_and_their_parts_equal_numpy(category: str, counts: str, dependence: str) -> None:
    pool = tiny_pool(category, 6, measured=counts != "renewal")
    keywords: dict[str, Any] = {"duration": 1500, "start": 250, "counts": counts, "dependence": dependence, "seed": 3}
    if dependence == "copula":
        fields = {"language": 2, "reason": 3, "multimodal": 5}[category]
        keywords["rank_correlation"] = np.where(np.eye(fields), 1.0, 0.25)
    whole = equal(pool, rate=20.0, **keywords)
    budget = 4096 * CupyBackend().bytes_per_request(category)
    assert same(joined(pool, backend="cupy", rate=20.0, memory=budget, **keywords), whole)


BOUNDS = (1, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097)


@pytest.mark.parametrize("count", [*BOUNDS, *([] if STAND_IN else [(1 << 20) - 1, 1 << 20, (1 << 20) + 1])])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_sizes_around_warps_blocks_and_slabs(category: str, count: int) -> None:
    pool = tiny_pool(category, 1, 1, rate_rps=1.0, silent=False)
    budget = 4096 * CupyBackend().bytes_per_request(category)
    scale = count / 600 / pool.rate_rps[0, 0] + 1e-12
    for memory in ("2GB", budget):
        assert len(equal(pool, scale=scale, duration=600, memory=memory)) == count


@pytest.mark.parametrize("count", BOUNDS)
def test_many_cells_around_warps_and_blocks(count: int) -> None:
    pool = tiny_pool("language", 1, 1, rate_rps=1.0, silent=False).clone(count)
    assert len(equal(pool, scale=3 * count / 600 / pool.rate_rps[0, 0], duration=600)) > count


@pytest.mark.parametrize("counts", ["exact", "renewal"])
def test_thousands_of_clients_beside_large_ones_equal_numpy(counts: str) -> None:
    pool = sg.population("deepseek-r1", clients=500 if STAND_IN else 25_913, seed=1).with_conversations(None)
    equal(pool, rate=3000 * (10 * LARGE if STAND_IN else 1), duration=1800, counts=counts)


def test_shards_are_the_whole() -> None:
    pool = sg.population("deepseek-r1", clients=500, seed=1).with_conversations(None)
    keywords: dict[str, Any] = {"rate": 30_000 * LARGE, "duration": 1200, "backend": "cupy"}
    rows = [len(sg.generate(pool, shard=(k, 3), **keywords)) for k in range(3)]
    assert sum(rows) == len(sg.generate(pool, **keywords))


# Sorts


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, (1 << 16) + 1, *([] if STAND_IN else [(1 << 20) - 1, 1 << 24])])
@pytest.mark.parametrize("span_us", [3, 600_000_000, 1 << 34])
def test_sorts_agree(n: int, span_us: int, device: CudaDevice, cupy: Any) -> None:
    bits = position_bits(span_us, n)
    position = np.arange(n)
    word = (position * 2654435761 % span_us) << bits | position
    word[:: max(2, n // 7)] = OUTSIDE
    with device.current(), device.memory():
        found = device.sort(cupy.asarray(word), *sort_bits(span_us, bits))
        assert np.array_equal(found.get(), np.sort(word))


def test_rows_are_the_same_with_every_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    number, pool = CupyBackend().device.number, tiny_pool("multimodal", 6)
    workload = sg.stream(pool, rate=40.0, duration=3600, backend="numpy")
    expected = Trace.concat(list(workload))
    for sort in ("cupy", "auto"):
        monkeypatch.setenv("SERVEGEN_GPU_SORT", sort)
        assert same(Trace.concat(list(replace(workload, backend=CupyBackend([CudaDevice(number)])))), expected)


# Slabs that stay, and streams


def test_slabs_stay_on_the_device(cupy: Any) -> None:
    pool, keywords = tiny_pool("multimodal"), {"duration": 1800, "seed": 2}
    slabs = list(sg.stream(pool, backend="cupy", device=True, **keywords))
    expected = sg.generate(pool, backend="numpy", **keywords)
    assert isinstance(slabs[0]["arrival_us"], cupy.ndarray)
    assert same(Trace.concat([on_host(slab) for slab in slabs]), expected)
    again = cupy.from_dlpack(slabs[0]["arrival_us"])
    assert again.data.ptr == slabs[0]["arrival_us"].data.ptr
    assert slabs[0]["arrival_us"].__dlpack_device__() == (2, CupyBackend().device.number)


@pytest.mark.parametrize("category", ["reason", "multimodal"])
def test_reductions_leave_rows_on_the_device(cupy: Any, category: str) -> None:
    where: list[Any] = []

    def long(xp: Any, rows: Any) -> dict[str, Any]:
        where.append((xp, type(rows["input_tokens"])))
        return {"long": (rows["input_tokens"] > 1000).sum()}

    names = ("input_tokens_peak_10s", "output_tokens_p90", "gap_cv", "client_gap_p50_s", "top_client_share")
    more = (
        ("image_tokens_p50", "video_tokens_p50", "video_tokens_mean")
        if category == "multimodal"
        else ("concurrency_peak", "wait_p50")
    )
    asked = (*sg.metrics(names + more, 1800), sg.Reduction("long", step=long))
    pool = tiny_pool(category, 5, rate_rps=3.0)
    budget = 4096 * CupyBackend().bytes_per_request(category)
    found = sg.reduce(pool, asked, duration=1800, backend="cupy", memory=budget)
    assert len(where) > 1
    assert set(where) == {(cupy, cupy.ndarray)}
    expected = sg.reduce(sg.generate(pool, duration=1800, backend="numpy"), asked)
    for name, state in expected.items():
        for key, values in state.items():
            np.testing.assert_array_equal(found[name][key], values, f"{name} {key}")


def test_torch_takes_a_column_without_a_copy(cupy: Any) -> None:
    torch = pytest.importorskip("torch")
    (slab, *_) = sg.stream(tiny_pool(), backend="cupy", device=True, duration=1800)
    column = torch.from_dlpack(slab["arrival_us"])
    assert column.data_ptr() == slab["arrival_us"].data.ptr
    assert np.array_equal(column.cpu().numpy(), slab["arrival_us"].get())


def test_streams_of_the_reader_beside_each_other(cupy: Any) -> None:
    pools = [tiny_pool("language"), tiny_pool("reason")]
    expected = [joined(pool, backend="numpy", duration="12h", memory="2GB") for pool in pools]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in pools]
    budget = 4096 * CupyBackend().bytes_per_request("reason")
    slabs = [iter(sg.stream(pool, backend="cupy", device=True, duration="12h", memory=budget)) for pool in pools]
    found: list[list[Trace]] = [[], []]
    for turn in itertools.count():
        which = turn % 2
        with streams[which]:
            slab = next(slabs[which], None)
            if slab is None:
                break
            streams[which].synchronize()
            found[which].append(on_host(slab))
    for which in range(2):
        with streams[which]:
            for slab in slabs[which]:
                streams[which].synchronize()
                found[which].append(on_host(slab))
        assert len(found[which]) > 3
        assert same(Trace.concat(found[which]), expected[which])


def test_traces_to_the_host_beside_each_other() -> None:
    pools = [tiny_pool("language"), tiny_pool("multimodal")]
    budget = 4096 * CupyBackend().bytes_per_request("multimodal")
    both = [sg.stream(pool, backend="cupy", duration="12h", memory=budget) for pool in pools]
    slabs = list(itertools.zip_longest(*both))
    for which, pool in enumerate(pools):
        ours = Trace.concat([pair[which] for pair in slabs if pair[which] is not None])
        assert same(ours, joined(pool, backend="numpy", duration="12h"))


def test_all_devices_make_the_rows_of_one(cupy: Any) -> None:
    numbers = cuda_driver.chosen_devices(cupy)
    if len(numbers) < 2:
        pytest.skip("one device")
    pool = tiny_pool("reason", 6)
    workload = replace(sg.stream(pool, rate=40.0, duration="2h", backend="numpy"), max_requests=8192)
    expected = Trace.concat(list(workload))
    for count in range(1, len(numbers) + 1):
        backend = CupyBackend(numbers[:count])
        assert same(Trace.concat(list(replace(workload, backend=backend))), expected)


# Memory


def test_memory_is_limited_and_given_back(device: CudaDevice, cupy: Any) -> None:
    pool = sg.population("deepseek-r1", clients=1000, seed=1).with_conversations(None)
    workload = sg.stream(pool, rate=100_000 * LARGE, duration=1800, backend="numpy")
    workload = replace(workload, backend=CupyBackend([device]), max_requests=int(1.1e8 * LARGE))
    with device.current():
        before = cupy.cuda.runtime.memGetInfo()[0]
        peak = rows = 0
        for slab in workload:
            peak = max(peak, device.pool.total_bytes())
            rows += len(slab)
            del slab
        budget = workload.max_requests * workload.backend.bytes_per_request("reason")
        assert rows > 170_000_000 * LARGE
        assert 0 < peak <= budget
        assert device.pool.used_bytes() == 0
        workload.backend.release()
        assert device.pool.total_bytes() == 0
        assert cupy.cuda.runtime.memGetInfo()[0] >= before - (64 << 20)


def test_slabs_are_halved_where_memory_is_short(device: CudaDevice) -> None:
    pool = tiny_pool("reason", 6)
    workload = sg.stream(pool, rate=5000.0 * LARGE * (20 if STAND_IN else 1), duration=1800, backend="numpy")
    expected = Trace.concat(list(workload))
    with device.current():
        device.pool.set_limit(size=4 << 20 if STAND_IN else 256 << 20)
    slabs = list(replace(workload, backend=CupyBackend([device]), max_requests=1 << 30))
    assert len(slabs) > 1
    assert same(Trace.concat(slabs), expected)


def test_full_device_memory_is_said(device: CudaDevice) -> None:
    with device.current():
        device.pool.set_limit(size=1 << 16)
    workload = replace(sg.stream(tiny_pool(), duration=1800, backend="numpy"), backend=CupyBackend([device]))
    with pytest.raises(OptionError, match="device memory"):
        list(workload)
    with device.current():
        device.pool.set_limit(size=0)
    assert len(Trace.concat(list(workload))) > 0  # and the device is as good as before


def test_a_reader_who_leaves_early_gives_memory_back(device: CudaDevice) -> None:
    workload = sg.stream(tiny_pool(), duration="12h", backend="numpy")
    slabs = iter(replace(workload, backend=CupyBackend([device]), max_requests=4096))
    next(slabs)
    slabs.close()  # type: ignore[attr-defined]
    device.release()
    with device.current():
        assert device.pool.total_bytes() == 0


# Processes


CODE = """
import sys, servegen_gpu as sg
sys.path.insert(0, sys.argv[1])
from profiles import tiny_pool
print(len(sg.generate(tiny_pool(), duration=1800, backend="cupy")))
"""


def child(folder: Path) -> subprocess.Popen[str]:
    """A process that builds the kernels, and CUB's sort, into caches of its own."""
    here = Path(__file__).parent
    own = {"CUPY_CACHE_DIR": str(folder / "kernels"), "SERVEGEN_GPU_CACHE": str(folder / "cub")}
    if STAND_IN:
        fake_cupy.for_children(folder.parent / "children")
        own["PYTHONPATH"] = os.pathsep.join((str(here.parent), str(folder.parent / "children")))
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(here)],
        env=os.environ | own, cwd=here.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    said = [process.communicate() for process in [child(tmp_path), child(tmp_path)]]
    assert said[0][0] == said[1][0] != "", said


@pytest.mark.skipif(STAND_IN, reason="the stand-in keeps no kernels")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "set CUPY_CACHE_DIR" in child(tmp_path).communicate()[1]


@pytest.mark.skipif(STAND_IN, reason="the stand-in keeps no kernels")
def test_a_file_in_the_place_of_the_cache_is_said(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("")
    said = child(tmp_path).communicate()[1]
    assert "set CUPY_CACHE_DIR" in said, said


def test_auto_takes_the_device() -> None:
    assert sg.stream(tiny_pool(), duration=600).backend.name == "cupy"
    assert np.all(np.diff(flat(sg.generate(tiny_pool(), duration=600))["arrival_us"]) >= 0)
