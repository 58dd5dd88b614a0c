"""What we do on a CUDA device, and what a skilled user would write instead: parts of bench/gpu_first_look.py."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import REPOSITORY

import servegen_gpu as sg
from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from gpu_first_look import Look

HERE = Path(__file__).resolve().parent
Rows = Iterator[dict[str, Any]]


def bytes_of(trace: Trace) -> int:
    """Bytes of all columns."""
    parts = ((c.offsets, c.values) if isinstance(c, Ragged) else (c,) for c in trace.columns.values())
    return sum(array.nbytes for arrays in parts for array in arrays)


def check(look: Look) -> Rows:
    """Whether the device makes the rows of NumPy, before anything is timed."""
    for counts in ("exact", "renewal"):
        pool = sg.population("deepseek-r1", clients=500, seed=1).with_conversations(None)
        keywords: dict[str, Any] = {"rate": 100, "duration": 1800, "counts": counts, "seed": 3}
        ours = Trace.concat(list(replace(sg.stream(pool, backend="numpy", **keywords), backend=look.backend())))
        theirs = sg.generate(pool, backend="numpy", **keywords)
        equal = all(np.array_equal(ours[name], theirs[name]) for name in theirs.columns)
        found = {"what": f"rows of NumPy, {counts}", "requests": len(theirs), "equal": equal}
        yield found | ({} if equal else {"failed": "other rows than NumPy's"})


def end_to_end(look: Look) -> Rows:
    """The trace on the device, its way to the host alone, both together, writing alone, and all of it to disk."""
    rows = size = 0
    seconds = []
    for _ in range(3):
        begun, rows, size, peak = look.begin(), 0, 0, 0
        for slab in look.workload(stay=True):
            rows, size = rows + len(slab), size + bytes_of(slab)
            peak = max(peak, look.device.pool.total_bytes())
            del slab
        seconds.append(look.since(begun))
    yield look.figures("on the device", rows, size, seconds) | {"peak_device_bytes": peak}

    moved = 0.0
    for slab in look.workload(stay=True):
        begun = look.begin()
        look.device.start_copy(slab.columns).wait()
        moved += look.since(begun)
        del slab
    yield look.figures("to the host", rows, size, [moved]) | {"what": "to the host, alone"}

    seconds = []
    for _ in range(3):
        begun, rows = look.begin(), 0
        for slab in look.workload():
            rows += len(slab)
            del slab
        seconds.append(look.since(begun))
    yield look.figures("to the host", rows, size, seconds)
    yield from _to_disk(look)


def _to_disk(look: Look) -> Rows:
    from servegen_gpu.formats import write_stream

    wanted = min(look.requests, look.options.disk_requests)
    slabs = list(look.workload(requests=wanted))
    rows, size = sum(map(len, slabs)), sum(map(bytes_of, slabs))
    with tempfile.TemporaryDirectory(dir=look.options.disk) as folder:
        begun = look.begin()
        write_stream(iter(slabs), f"{folder}/alone/")
        yield look.figures("to disk", rows, size, [look.since(begun)]) | {"what": "to Parquet, alone"}
        del slabs
        begun = look.begin()
        written = write_stream(iter(look.workload(requests=wanted)), f"{folder}/trace/")
        seconds = look.since(begun)
        size = sum(path.stat().st_size for path in Path(folder, "trace").rglob("*.parquet"))
    yield look.figures("to disk", written.rows, size, [seconds]) | {"what": "from nothing to Parquet"}


class Watched(CudaDevice):
    """A device that times every kernel and every sort."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.times: list[tuple[str, Any, Any]] = []

    def launch(self, kernel: str, job: Any, n: int, shared_bytes: int = 0) -> None:
        """Start a kernel between two events."""
        begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        begin.record()
        super().launch(kernel, job, n, shared_bytes)
        end.record()
        self.times.append((kernel, begin, end))

    def sort(self, word: Any, begin_bit: int, end_bit: int) -> Any:
        """Sort between two events."""
        begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        begin.record()
        found = super().sort(word, begin_bit, end_bit)
        end.record()
        self.times.append((f"sort of bits {begin_bit} to {end_bit}", begin, end))
        return found


def watched(number: int, sort: str) -> Watched:
    """The device again, with one of its sorts."""
    before = os.environ.get("SERVEGEN_GPU_SORT")
    os.environ["SERVEGEN_GPU_SORT"] = sort
    try:
        return Watched(number)
    finally:
        del os.environ["SERVEGEN_GPU_SORT"]
        if before is not None:
            os.environ["SERVEGEN_GPU_SORT"] = before


def stages(look: Look) -> Rows:
    """Milliseconds of every kernel over the whole trace; what is left of the clock is scans, host and gaps."""
    for sort, counts in (("auto", "renewal"), ("auto", "exact"), ("cupy", "renewal")):
        device = watched(look.device.number, sort)
        name = "CUB" if device.cub else "cupy.sort"
        if sort == "cupy" and not look.device.cub:
            return  # that was the sort above
        for _ in range(2):  # the first warms up
            device.times.clear()
            begun, rows = look.begin(), 0
            for slab in look.workload(backend=CupyBackend([device], stay=True), counts=counts):
                rows += len(slab)
                del slab
            seconds = look.since(begun)
        sums: dict[str, float] = defaultdict(float)
        for kernel, begin, end in device.times:
            sums[kernel] += look.cp.cuda.get_elapsed_time(begin, end)
        of = {"counts": counts, "sort": name}
        for kernel, ms in sorted(sums.items(), key=lambda item: -item[1]):
            yield of | {"what": kernel, "ms": ms}
        yield of | {"what": "all else", "ms": 1e3 * seconds - sum(sums.values()), "requests": rows}
        del device


def devices(look: Look) -> Rows:
    """The trace to the host by one device, by two, by all."""
    numbers = cuda_driver.chosen_devices(look.cp)
    for count in sorted({1, 2, len(numbers)} & set(range(1, len(numbers) + 1))):
        backend = CupyBackend([open_device(number) for number in numbers[:count]])
        seconds = []
        for _ in range(3):
            begun, rows = look.begin(), 0
            for slab in look.workload(backend=backend):
                rows += len(slab)
                del slab
            seconds.append(look.since(begun))
        best = statistics.median(seconds)
        yield {"what": f"{count} device(s)", "requests": rows, "seconds": best, "requests_per_s": rows / best}


def baselines(look: Look) -> Rows:
    """Scripts by hand, each in a process of its own; NumPy with a hundredth of the requests."""
    few = str(look.sizes.clients)
    for name, requests, more in (
        ("cupy_argsort", look.requests, ["--clients", few]),
        ("cupy_packed_sort", look.requests, ["--clients", few]),
        ("torch_sort", look.requests, ["--clients", few]),
        ("torch_alone", look.requests, []),
        ("numpy_script", look.requests / 100, ["--clients", few]),
    ):
        command = [sys.executable, str(HERE / "baselines" / f"{name}.py"), "--requests", str(requests), *more]
        left = max(5.0, min(look.part_ends, look.ends) - time.monotonic())
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=environment, check=False)
        except subprocess.TimeoutExpired:
            yield {"what": name, "skipped": f"more than {left:.0f} s"}
            continue
        if "No module named 'torch'" in done.stderr:
            yield {"what": name, "skipped": "no torch"}
        elif done.returncode:
            yield {"what": name, "failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
        else:
            yield {"what": name, **json.loads(done.stdout.strip().splitlines()[-1])}
