"""How fast a CUDA device makes traces, and what a skilled user would write instead: parts of bench/device_check.py."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import REPOSITORY
from device_workloads import WORKLOADS

from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from device_check import Look

HERE = Path(__file__).resolve().parent
Rows = Iterator[dict[str, Any]]


def bytes_of(trace: Trace) -> int:
    """Bytes of all columns."""
    parts = ((c.offsets, c.values) if isinstance(c, Ragged) else (c,) for c in trace.columns.values())
    return sum(array.nbytes for arrays in parts for array in arrays)


class Watched(CudaDevice):
    """A device that times every kernel and every sort."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.times: list[tuple[str, Any, Any]] = []

    def launch(self, kernel: str, job: Any, n: int, shared_bytes: int = 0) -> None:
        """Start a kernel between two events."""
        with self._timed(kernel):
            super().launch(kernel, job, n, shared_bytes)

    def sort(self, word: Any, begin_bit: int, end_bit: int) -> Any:
        """Sort between two events."""
        with self._timed(f"sort of {end_bit - begin_bit} bits"):
            return super().sort(word, begin_bit, end_bit)

    def _timed(self, what: str) -> Any:
        return _Timed(self, what)


class _Timed:
    """Two events around what is inside."""

    def __init__(self, device: Watched, what: str) -> None:
        self._device, self._what = device, what
        self._begin, self._end = device.xp.cuda.Event(), device.xp.cuda.Event()

    def __enter__(self) -> None:
        self._begin.record()

    def __exit__(self, *_: object) -> None:
        self._end.record()
        self._device.times.append((self._what, self._begin, self._end))


def traces(look: Look) -> Rows:
    """Traces that stay on the device: once to warm up, then timed; and every kernel by events, in a run of its own."""
    for name, counts in WORKLOADS:
        made = look.workload(name, counts=counts, stay=True)
        seconds, rows, size, peak, slabs = [], 0, 0, 0, 0
        for _ in range(1 + look.sizes.times):
            begun, rows, size, peak, slabs = look.begin(), 0, 0, 0, 0
            for slab in made:
                rows, size, slabs = rows + len(slab), size + bytes_of(slab), slabs + 1
                peak = max(peak, look.device.pool.total_bytes())
                del slab
            seconds.append(look.since(begun))
        middle = statistics.median(seconds[1:])
        found = {"what": f"{name}, {counts}", "requests": rows, "slabs": slabs, "ms_per_1e9": 1e12 * middle / rows}
        found |= {"requests_per_s": rows / middle, "bytes": size, "peak_device_bytes": peak, "all_seconds": seconds}
        yield found
        look.free()
        yield {"what": f"{name}, {counts}, kernels", "ms_per_1e9": _kernels(look, name, counts)}
        look.free()


def _kernels(look: Look, name: str, counts: str) -> dict[str, float]:
    """Milliseconds of every kernel for a billion requests, the longest first; scans and waits are not among them."""
    device = Watched(look.device.number)
    made = look.workload(name, counts=counts, stay=True, device=device)
    rows = 0
    for _ in range(2):  # the first warms up
        device.times.clear()
        rows = sum(len(slab) for slab in made)
    sums: dict[str, float] = defaultdict(float)
    for kernel, begin, end in device.times:
        end.synchronize()
        sums[kernel] += look.cp.cuda.get_elapsed_time(begin, end)
    device.release()
    return {kernel: round(1e9 * ms / rows, 3) for kernel, ms in sorted(sums.items(), key=lambda item: -item[1])}


def host(look: Look) -> Rows:
    """The trace to the host: sampled beside the copies, and the copies alone."""
    for name, counts in WORKLOADS[::2]:
        made = look.workload(name, counts=counts)
        seconds, rows, size = [], 0, 0
        for _ in range(2):
            begun, rows, size = look.begin(), 0, 0
            for slab in made:
                rows, size = rows + len(slab), size + bytes_of(slab)
                del slab
            seconds.append(look.since(begun))
        moved = 0.0
        for slab in look.workload(name, counts=counts, stay=True):
            begun = look.begin()
            look.device.start_copy(slab.columns).wait()
            moved += look.since(begun)
            del slab
        yield {"what": f"{name}, {counts}, to the host", "requests": rows, "bytes": size, "seconds": seconds[-1],
               "first_seconds": seconds[0], "gb_per_s": size / seconds[-1] / 1e9,
               "copies_alone_gb_per_s": size / moved / 1e9}  # fmt: skip
        look.free()


def to_disk(look: Look) -> Rows:
    """Parquet: what writing the slabs takes alone, and from nothing to files."""
    from servegen_gpu.formats import write_stream

    slabs = list(look.workload("language", look.sizes.disk_rows, "renewal"))
    rows = sum(map(len, slabs))
    with tempfile.TemporaryDirectory(dir=look.options.disk) as folder:
        begun = look.begin()
        write_stream(iter(slabs), f"{folder}/alone/")
        alone = look.since(begun)
        del slabs
        begun = look.begin()
        written = write_stream(iter(look.workload("language", look.sizes.disk_rows, "renewal")), f"{folder}/trace/")
        seconds = look.since(begun)
        size = sum(path.stat().st_size for path in Path(folder, "trace").rglob("*.parquet"))
    yield {"what": "language, renewal, to Parquet", "requests": written.rows, "bytes": size, "seconds": seconds,
           "writing_alone_seconds": alone, "ratio": seconds / alone, "requests_per_s": rows / seconds}  # fmt: skip


def devices(look: Look) -> Rows:
    """The trace to the host by one device, by two, by all."""
    numbers = cuda_driver.chosen_devices(look.cp)
    for count in sorted({1, 2, len(numbers)} & set(range(1, len(numbers) + 1))):
        made = look.workload("deepseek-r1")
        backend = CupyBackend([open_device(number) for number in numbers[:count]])
        seconds, rows = [], 0
        for _ in range(look.sizes.times):
            begun = look.begin()
            rows = sum(map(len, _with(made, backend)))
            seconds.append(look.since(begun))
        middle = statistics.median(seconds)
        yield {"what": f"{count} device(s)", "requests": rows, "seconds": middle, "requests_per_s": rows / middle}


def _with(made: Any, backend: CupyBackend) -> Any:
    from dataclasses import replace

    return replace(made, backend=backend)


def baselines(look: Look) -> Rows:
    """Scripts by hand, each in a process of its own; NumPy with a hundredth of the requests."""
    few = ["--clients", str(look.sizes.clients)]
    for name, requests, more in (
        ("cupy_argsort", look.requests, ["--workload", "language", *few]),
        ("cupy_packed_sort", look.requests, ["--workload", "language", *few]),
        ("cupy_packed_sort", look.requests, ["--workload", "deepseek-r1", *few]),
        ("torch_sort", look.requests, ["--workload", "language", *few]),
        ("torch_alone", look.requests, []),
        ("numpy_script", look.requests / 100, ["--workload", "language", *few]),
    ):
        command = [sys.executable, str(HERE / "baselines" / f"{name}.py"), "--requests", str(requests), *more]
        path = os.pathsep.join(filter(None, (str(REPOSITORY), str(HERE), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path}
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        what = {"what": " ".join([name, *more[1:2]]), "all_s": round(time.monotonic() - begun, 1)}
        if "No module named 'torch'" in done.stderr:
            yield what | {"skipped": "no torch"}
        elif done.returncode:
            yield what | {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
        else:
            yield what | json.loads(done.stdout.strip().splitlines()[-1])
