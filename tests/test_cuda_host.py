"""The CUDA driver without a device: kernels/slab.cu run thread by thread on the host against NumPy's columns."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_host import COMPILER, KERNELS, HostDevice, library, told
from profiles import tiny_pool
from test_golden import CASES
from traces import same

import servegen_gpu as sg
from servegen_gpu.backends.cuda import slab as cuda_slab
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.job import NAMES, TILE
from servegen_gpu.backends.cuda.lane import halves
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.law.philox import ROUNDS
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import plan
from servegen_gpu.request.families import GAMMA, LOGNORMAL
from servegen_gpu.request.schema import SCALAR_FIELDS
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")

SIZES = (0, 1, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025)


def on_host(workload: Workload, device: HostDevice | None = None, **changes: Any) -> list[Trace]:
    """The slabs of a workload from the cupy backend, with the host as its device."""
    return list(replace(workload, backend=CupyBackend([device or HostDevice()]), **changes))  # type: ignore[list-item]


def reference(pool: ClientPool, **keywords: Any) -> tuple[Workload, Trace]:
    """A workload, and its trace from NumPy."""
    workload = sg.stream(pool, backend="numpy", **keywords)
    return workload, Trace.concat(list(workload))


@pytest.mark.parametrize("name", CASES)
def test_columns_equal_numpy(name: str) -> None:
    pool, keywords = CASES[name]
    workload, expected = reference(pool, **keywords)
    assert same(Trace.concat(on_host(workload)), expected)


@pytest.mark.parametrize("contexts", [(0,), (100, 0, 2500, 1, 700)])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_clients_with_correlations_and_limits_of_their_own(category: str, contexts: tuple[int, ...]) -> None:
    for dependent in (True, False):
        pool = tiny_pool(category, 7, dependent=dependent, contexts=contexts)
        workload, expected = reference(pool, start=700, duration=2000, rate=2.0, seed=8)
        device = HostDevice()
        assert same(Trace.concat(on_host(workload, device)), expected)
        limited = category == "multimodal" and any(contexts)
        assert ("limit" in [kernel for kernel, _ in device.launched]) == limited
        slabs = on_host(workload, max_requests=512)  # parts of surveyed windows
        assert len(slabs) > 4
        assert same(Trace.concat(slabs), expected)


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_parts_of_surveyed_windows_equal_numpy(category: str, counts: str) -> None:
    pool = tiny_pool(category, 6, measured=counts != "renewal")
    keywords: dict[str, Any] = {"rate": 15.0, "duration": 1500, "start": 250, "counts": counts, "seed": 3}
    workload, expected = reference(pool, **keywords)
    slabs = list(plan(workload.packed, 4096))
    assert all(slab.surveyed for slab in slabs)
    assert same(Trace.concat(on_host(workload, max_requests=4096)), expected)


@pytest.mark.parametrize("threads", [32, 256])
@pytest.mark.parametrize("count", SIZES)
def test_sizes_around_warps_tiles_and_blocks(count: int, threads: int) -> None:
    pool = tiny_pool("reason", 1, 1, rate_rps=1.0, silent=False)
    workload = sg.stream(pool, backend="numpy", scale=count / 600 / pool.rate_rps[0, 0] + 1e-12, duration=600)
    expected = Trace.concat(list(workload))
    assert len(expected) == count
    assert same(Trace.concat(on_host(workload, HostDevice(threads))), expected)


def test_many_nearly_empty_cells_beside_a_large_one() -> None:
    pool = tiny_pool("language", 3, 2, silent=False).clone(400)
    workload, expected = reference(pool, scale=0.05, duration=1200, counts="renewal")
    assert same(Trace.concat(on_host(workload)), expected)


def test_words_too_narrow_for_time_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_slab, "WORD_BITS", 36)
    workload, expected = reference(tiny_pool("multimodal"), duration=3600)
    assert same(Trace.concat(on_host(workload)), expected)


def test_bursts_that_need_many_rounds() -> None:
    pool = tiny_pool("language", 4, 3, silent=False, measured=False, shape=0.05, family=GAMMA).clone(300)
    workload, expected = reference(pool, rate=5.0, duration=1800, seed=5)
    device = HostDevice()
    assert same(Trace.concat(on_host(workload, device)), expected)
    assert sum(kernel == "cross" for kernel, _ in device.launched) > 3


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
def test_lognormal_gaps(counts: str) -> None:
    pool = tiny_pool("reason", 6, 3, silent=False, family=LOGNORMAL, shape=1.4).clone(20)
    workload, expected = reference(pool, rate=5.0, duration=1800, counts=counts, seed=6)
    assert same(Trace.concat(on_host(workload)), expected)
    assert same(Trace.concat(on_host(workload, max_requests=512)), expected)


def test_slabs_are_halved_where_memory_is_short() -> None:
    workload, expected = reference(tiny_pool("reason", 6), rate=150.0, duration=1800)
    device = HostDevice(most_bytes=8 * 80_000)
    slabs = on_host(workload, device)
    assert len(slabs) > 6
    assert same(Trace.concat(slabs), expected)
    assert device.released > 1


def test_too_little_memory_is_said() -> None:
    workload, _ = reference(tiny_pool(), duration=1800)
    with pytest.raises(OptionError, match="device memory for 4,096 requests"):
        on_host(workload, HostDevice(most_bytes=100))


def test_halves_are_the_whole() -> None:
    workload, expected = reference(tiny_pool(), duration=3600)
    packed, key = workload.packed, workload.key
    (slab,) = plan(packed, 1 << 20)
    backend = CupyBackend([HostDevice()])  # type: ignore[list-item]
    first, second = halves(packed, slab)
    quarters = [*halves(packed, first), *halves(packed, second)]
    assert same(Trace.concat([Trace(backend.sample_slab(packed, key, part)) for part in quarters]), expected)
    single = replace(slab, windows=slab.windows[:1], expected=slab.expected)
    parts = halves(packed, single)
    assert [part.surveyed for part in parts] == [True, True]
    joined = Trace.concat([Trace(backend.sample_slab(workload.packed, workload.key, part)) for part in parts])
    assert same(joined, Trace(backend.sample_slab(workload.packed, workload.key, single)))


def test_a_trace_ends_when_a_reader_leaves_early() -> None:
    device = HostDevice()
    workload = sg.stream(tiny_pool(), backend="numpy", duration="12h")
    slabs = iter(replace(workload, backend=CupyBackend([device]), max_requests=4096))  # type: ignore[list-item]
    next(slabs)
    slabs.close()  # type: ignore[attr-defined]
    assert device.rested == 1


def test_an_empty_trace() -> None:
    workload = sg.stream(tiny_pool(), backend="numpy", scale=1e-9, duration=1800)
    assert len(Trace.concat(on_host(workload))) == 0


# Index arithmetic


def test_job_is_what_the_header_says() -> None:
    text = (KERNELS / "slab.h").read_text()
    body = re.sub(r"//.*", "", text[text.index("struct SlabJob {") : text.index("namespace SG_NAMESPACE")])
    names = []
    for declared in re.findall(r"([^;{}]+);", body):
        for name in declared.split(","):
            found = re.search(r"(\w+)(\[SG_NAMESPACE::SCALAR_FIELDS\])?\s*$", name)
            assert found
            if found[1] == "round_keys":
                names += [f"round_key{r}" for r in range(ROUNDS)]
            else:
                names += [f"{found[1]}{i}" for i in range(SCALAR_FIELDS)] if found[2] else [found[1]]
    assert tuple(names) == NAMES
    assert library().test_job_bytes() == 8 * len(NAMES)
    with pytest.raises(KeyError, match="no field nonsense"):
        told({"nonsense": 1})


@pytest.mark.parametrize("requests", [*SIZES, 2**31 - 1, 2**31, 2**31 + 1, 2**34])
def test_tiles_cover_the_requests(requests: int) -> None:
    tiles = cuda_slab.tiles_of(requests)
    assert tiles == library().test_tiles_of(ctypes.c_int64(requests)) == -(-requests // TILE)


@pytest.mark.parametrize("requests", SIZES[1:])
def test_every_request_finds_its_run(requests: int) -> None:
    of = np.sort((np.arange(requests) * 2654435761) % 97 % 40)  # runs of many lengths, some empty
    count = np.bincount(of, minlength=41)
    begin = np.concatenate(([0], np.cumsum(count)))
    tile_run = np.full(cuda_slab.tiles_of(requests) + 1, -1, np.int32)
    job = {"run_begin": begin, "runs": 41, "requests": requests, "tile_run": tile_run}
    HostDevice().launch("tile", job, len(tile_run))
    out, job_words = np.empty(4, np.int64), told(job)
    for request in range(requests):
        library().test_place(*(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a)
                               for a in (job_words, request, out)))  # fmt: skip
        assert out.tolist() == [of[request], begin[of[request]], of[request], request - begin[of[request]]]


def test_runs_beyond_two_to_the_31() -> None:
    begin = np.array([0, 5, 2**31 - 1, 2**31, 2**31, 2**33 + 7, 2**34], np.int64)
    for request, run in [(0, 0), (4, 0), (5, 1), (2**31 - 2, 1), (2**31 - 1, 2), (2**31, 4), (2**33, 4), (2**33 + 7, 5),
                         (2**34 - 1, 5)]:  # fmt: skip
        found = library().test_run_of(
            ctypes.c_void_p(begin.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(5), ctypes.c_int64(request)
        )
        assert found == run
    for request in (2**31 - 1, 2**31, 2**33 + 8):
        # an array that begins so far before the tile's entry that the entry is the array's only memory
        tile, entries, out = request // TILE, np.full(2, -1, np.int32), np.empty(4, np.int64)
        values = told({"run_begin": begin, "runs": 6, "requests": 2**34, "tile_run": entries})
        values[NAMES.index("tile_run")] -= np.uint64(4 * tile)
        at = ctypes.c_void_p(values.ctypes.data)
        for of in (tile, tile + 1):
            library().test_tile(at, ctypes.c_int64(of))
        library().test_place(at, ctypes.c_int64(request), ctypes.c_void_p(out.ctypes.data))
        run = int(np.searchsorted(begin, request, side="right")) - 1
        assert out.tolist() == [run, begin[run], run, request - begin[run]]


@pytest.mark.parametrize("element", [0, 255, 256, 2**31 - 1, 2**31, 2**34 + 3])
def test_threads_beyond_two_to_the_31(element: int) -> None:
    block, thread = divmod(element, 256)
    found = library().test_thread(ctypes.c_int64(block), ctypes.c_int64(256), ctypes.c_int64(thread))
    assert found == element
    assert block < 2**31  # blocks of a grid


@pytest.mark.parametrize(
    ("span_us", "count", "bits"),
    [
        (600_000_000, 0, 1),
        (600_000_000, 1, 1),
        (600_000_000, 2**27, 27),
        (600_000_000, 2**27 + 1, 28),
        (600_000_000, 2**32, 32),
        (600_000_000, 2**32 + 1, 0),
        (2**42, 2**20, 20),
        (2**42 + 1, 2**20, 0),
        (0, 0, 1),
    ],
)
def test_bits_of_positions(span_us: int, count: int, bits: int) -> None:
    assert cuda_slab.position_bits(span_us, count) == bits
    if bits:
        assert (max(span_us - 1, 0) << bits | max(count - 1, 0)) < cuda_slab.OUTSIDE


def test_order_of_doubles_as_integers() -> None:
    values = [-np.inf, -1e300, -708.5, -1.0, -5e-324, 0.0, 5e-324, 1.0, 709.0, np.inf]
    keys = [library().test_ordered(ctypes.c_double(x)) for x in values]
    assert keys == sorted(set(keys))
    assert keys[0] > 0
    assert [library().test_reordered(ctypes.c_double(x)) for x in values] == values
