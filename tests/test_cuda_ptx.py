"""The CUDA backend with every kernel run by its PTX, against NumPy: rows, and the 62 bits of every tick.

`ptx/` says what of a device this covers and what it does not. In small here; SERVEGEN_GPU_SLOW_TESTS=1 runs all tests
of the CUDA backend that way, with two orders of threads. So does, one file at a time:

    SERVEGEN_GPU_PTX=SEED pytest tests/test_cuda_host.py

Rows cannot see a multiplication that was contracted with an addition: ticks have 62 bits, and times keep 32 of them at
most. So ticks are compared, and a build with ``--fmad=true`` is planted, which they find and rows do not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cuda_ptx
import numpy as np
import pytest
from cuda_host import COMPILER, HostDevice
from profiles import tiny_pool
from ptx.compile import MISSING
from ptx.device import LaunchError, PtxModule
from ptx.parse import Unknown
from test_cuda_host import on_host, reference
from test_golden import CASES
from traces import same

import servegen_gpu as sg
from servegen_gpu.backends.cuda.job import BLOCK, TASK, THREADS, TOGETHER
from servegen_gpu.backends.cuda.lane import DeviceGaps
from servegen_gpu.backends.cuda.slab import SlabSampler
from servegen_gpu.backends.host.arrivals import NumpyGaps, ticks_of, whole
from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, CellState, Runs, begin
from servegen_gpu.backends.host.gaps import log_gaps
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import Slab, cells_of, plan
from servegen_gpu.request.families import GAMMA
from servegen_gpu.rules import CountRule
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER or bool(MISSING), reason=MISSING or "no g++ to run PTX")

HERE = Path(__file__).parent
SEEDS = (1, 2)
each_seed = pytest.mark.parametrize("seed", SEEDS)


class PtxDevice(HostDevice):
    """A host that runs kernels by their PTX, and keeps what they told of ticks.

    Parameters
    ----------
    seed : int
        Of the order of threads.
    kernels : PtxModule, optional
        In place of the backend's own, those that are there.
    """

    def __init__(self, seed: int, kernels: PtxModule | None = None) -> None:
        super().__init__()
        self.seed, self.kernels = seed, kernels
        self.kept: list[dict[str, Any]] = []

    def run(self, kernel: str, job: np.ndarray, n: int, shared_bytes: int) -> None:
        threads = BLOCK.get(kernel, THREADS) if kernel in TOGETHER else self.threads
        own = self.kernels and f"sg_{kernel}" in self.kernels.kernels
        kernels = self.kernels if own else cuda_ptx.module()
        cuda_ptx.launch(kernels, kernel, job, n, threads, shared_bytes, self.seed)

    def launch(self, kernel: str, job: Mapping[str, Any], n: int, shared_bytes: int = 0) -> None:
        super().launch(kernel, job, n, shared_bytes)
        if kernel == "time":
            names = ("ticks", "task_begin", "run_count", "run_cell", "run_first", "cell_client", "cell_number")
            self.kept.append({name: np.copy(job[name]) for name in names if name in job})


# Rows


@each_seed
@pytest.mark.parametrize("name", list(CASES)[::6])
def test_rows_equal_numpy(name: str, seed: int) -> None:
    pool, keywords = CASES[name]
    workload, expected = reference(pool, **keywords | {"duration": 1200})
    assert len(expected) > 300
    assert same(Trace.concat(on_host(workload, PtxDevice(seed))), expected)


@each_seed
@pytest.mark.parametrize("count", [1, TASK - 1, TASK, TASK + 1, 255, 257, 1025])
def test_sizes_around_warps_tasks_and_blocks(count: int, seed: int) -> None:
    pool = tiny_pool("reason", 1, 1, rate_rps=1.0, silent=False)
    workload, expected = reference(pool, scale=count / 600 / pool.rate_rps[0, 0] + 1e-12, duration=600)
    assert len(expected) == count
    assert same(Trace.concat(on_host(workload, PtxDevice(seed))), expected)


@each_seed
def test_parts_of_surveyed_windows(seed: int) -> None:
    pool = tiny_pool("multimodal", 4, 1, dependent=True, contexts=(100, 0, 2500))
    workload, expected = reference(pool, rate=3.0, duration=600, seed=8)
    slabs = on_host(workload, PtxDevice(seed), max_requests=512)
    assert len(slabs) > 2
    assert same(Trace.concat(slabs), expected)


# Ticks


def known(workload: Workload) -> tuple[Slab, CellState]:
    """The one slab of a workload, and what NumPy finds of its cells."""
    (slab,) = plan(workload.packed, 1 << 20)
    state = begin(workload.packed, workload.key, cells_of(workload.packed, slab.windows))
    whole(state, 1 << 20)
    return slab, state


def numpy_ticks(state: CellState, runs: Runs) -> np.ndarray:
    """Ticks of every request, int64[requests]."""
    cell, ordinal = runs.requests()
    ticks = ticks_of(state, log_gaps(state.law, cell, ordinal), cell)
    return np.where((ordinal == 0) & (state.rule[cell] == CountRule.RENEWAL), state.first_ticks[cell], ticks)


def sums_in_tasks(ticks: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Sums inside every task of every run, never beyond the window, uint64[tasks, TASK]."""
    tasks = -(-count // TASK)
    place = np.arange(len(ticks)) + np.repeat(np.cumsum(tasks * TASK - count) - (tasks * TASK - count), count)
    out = np.zeros((tasks.sum(), TASK), np.uint64)
    out.reshape(-1)[place] = ticks.astype(np.uint64)
    for i in range(1, TASK):
        out[:, i] = np.minimum(out[:, i - 1] + out[:, i], np.uint64(WINDOW_TICKS))
    return out


def workload_of(counts: str, clients: int = 6, **keywords: Any) -> Workload:
    """Clients of every family, with shapes from 0.02 to 3, unless others are asked for; one window."""
    pool = tiny_pool("language", clients, 1, rate_rps=4.0, silent=False, **keywords)
    workload: Workload = sg.stream(pool, backend="numpy", duration=600, counts=counts, seed=9)
    return workload


def sums_apart(workload: Workload, device: PtxDevice) -> float:
    """The share of sums of ticks that are not NumPy's, where whole windows are sampled task by task."""
    slab, state = known(workload)
    SlabSampler(device).whole(workload.packed, workload.key, slab)  # type: ignore[arg-type]
    assert device.kept
    of_cell = {at: i for i, at in enumerate(zip(state.law.client.tolist(), state.law.window.tolist(), strict=True))}
    apart = []
    for told in device.kept:
        client, window = told["cell_client"].tolist(), told["cell_number"].tolist()
        cell = np.array([of_cell[at] for at in zip(client, window, strict=True)])
        count = told["run_count"]
        cell, first = cell[told.get("run_cell", slice(None))], told.get("run_first", np.zeros_like(count))
        ticks = numpy_ticks(state, Runs(cell, first, count, np.zeros_like(count)))
        expected = sums_in_tasks(ticks, count)
        apart.append((told["ticks"].reshape(expected.shape).view(np.uint64) != expected).ravel())
    return float(np.concatenate(apart).mean())


def ticks_apart(workload: Workload, device: PtxDevice) -> float:
    """The share of requests whose ticks are not NumPy's, by the kernels of surveys: every request is a run."""
    _, state = known(workload)
    count = np.where(state.count > 0, state.count, 500)
    zero, one = np.zeros_like(count), np.ones_like(count)
    cell, ordinal = Runs(np.arange(len(count)), one, count, zero).requests()
    zero, one = np.zeros(len(cell), np.int64), np.ones(len(cell), np.int64)
    runs = Runs(cell.astype(np.int64), ordinal.astype(np.int64), one, zero)
    ours = DeviceGaps(SlabSampler(device), workload.packed).totals(state, runs)  # type: ignore[arg-type]
    return float((ours != NumpyGaps().totals(state, runs)).mean())


@each_seed
@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
def test_ticks_equal_numpy(counts: str, seed: int) -> None:
    workload = workload_of(counts)
    assert ticks_apart(workload, PtxDevice(seed)) == 0
    assert sums_apart(workload, PtxDevice(seed)) == 0


def test_contraction_shows_in_ticks_and_not_in_rows() -> None:
    contracted = PtxModule(cuda_ptx.text_of(fmad=True), contractible=True, optimize=0)
    workload = workload_of("renewal", 2, family=GAMMA, shape=0.4)
    assert 0.02 < ticks_apart(workload, PtxDevice(1, contracted)) < 0.3
    assert sums_apart(workload, PtxDevice(1, contracted)) > 0.02
    assert same(Trace.concat(on_host(workload, PtxDevice(1, contracted))), Trace.concat(list(workload)))


def test_a_text_that_may_be_contracted_is_refused() -> None:
    with pytest.raises(
        Unknown, match=r"PTX line \d+: may be contracted: compile with --fmad=false: (add|mul|sub)\.f64"
    ):
        PtxModule(cuda_ptx.text_of(fmad=True))


# Barriers

BARRIER = re.compile(r"^\s+(?:bar|barrier)(?:\.cta)?\.sync.*$", re.MULTILINE)


def kernel_of(text: str, at: int) -> str:
    """The kernel that a place of PTX is in."""
    return re.findall(r"\.entry (\w+)\(", text[:at])[-1]


def check_barrier(text: str, found: re.Match[str]) -> None:
    """A kernel without one of its barriers is found to race, or to read what is not there yet."""
    kernel = kernel_of(text, found.start())
    without = PtxModule(text[: found.start()] + text[found.end() :], optimize=0, only={kernel})
    # correlated fields, and bursts that the first round does not end
    pool = tiny_pool("language", 12, 1, rate_rps=1.0, silent=False, family=GAMMA, shape=0.05, dependent=True)
    workload, expected = reference(pool, duration=600, counts="renewal", seed=0)
    with pytest.raises(LaunchError, match=rf"^{kernel}: .*(race at byte|nobody has written)"):
        on_host(workload, PtxDevice(1, without))
    assert same(Trace.concat(on_host(workload, PtxDevice(1))), expected)


def test_a_barrier_that_is_left_out_is_found() -> None:
    text = cuda_ptx.text_of()
    found = [found for found in BARRIER.finditer(text) if kernel_of(text, found.start()) == "sg_arrange"]
    check_barrier(text, found[len(found) // 2])


def test_every_barrier_is_needed() -> None:
    if not os.environ.get("SERVEGEN_GPU_SLOW_TESTS"):
        pytest.skip("compiles a kernel for each: SERVEGEN_GPU_SLOW_TESTS=1 tries all")
    text = cuda_ptx.text_of()
    for found in BARRIER.finditer(text):
        check_barrier(text, found)


# In full


@each_seed
@pytest.mark.parametrize("name", ["test_cuda_host.py", "test_cuda_devices.py", "test_gpu.py"])
def test_all_of_the_backend(name: str, seed: int) -> None:
    if not os.environ.get("SERVEGEN_GPU_SLOW_TESTS"):
        pytest.skip("a minute each: SERVEGEN_GPU_SLOW_TESTS=1 runs them")
    environment = os.environ | {
        "SERVEGEN_GPU_PTX": str(seed),
        "SERVEGEN_GPU_STAND_IN": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
