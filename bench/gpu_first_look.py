"""One command, under ten minutes, on a machine with a CUDA device: what the device can do, and what we do with it.

    python bench/gpu_first_look.py [--requests 1e9] [--only sorts,stages] [--disk DIRECTORY]

Parts run in the order of `PARTS`; each writes its figures to the JSON file as soon as it has them, and one that fails
or that the time does not suffice for says so there. Times are of CUDA events where the device alone is asked for, else
of the clock after the device is done.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import REPOSITORY, machine

import servegen_gpu as sg
from servegen_gpu.backends.cuda import CupyBackend
from servegen_gpu.backends.cuda_device import OPTIONS, CudaDevice
from servegen_gpu.backends.loader import one_text
from servegen_gpu.errors import OptionError

HERE = Path(__file__).resolve().parent
BUDGET_S = 570
CLIENTS = 25_913
Part = Callable[["Look"], Iterator[dict[str, Any]]]


class Look:
    """The device, the options, and how things are timed."""

    def __init__(self, device: CudaDevice, options: argparse.Namespace) -> None:
        self.device, self.cp, self.options = device, device.xp, options
        self.requests = options.requests
        self.deadline = time.monotonic() + BUDGET_S

    def events_ms(self, work: Callable[[], Any], times: int = 5) -> float:
        """Median milliseconds of `work` on the device, after one call to warm up."""
        work()
        found = []
        for _ in range(times):
            begin, end = self.cp.cuda.Event(), self.cp.cuda.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            found.append(self.cp.cuda.get_elapsed_time(begin, end))
        return statistics.median(found)

    def free(self) -> None:
        """Give back the memory of the last part."""
        self.cp.get_default_memory_pool().free_all_blocks()
        self.device.release()

    def stream(self, **keywords: Any) -> Any:
        """The workload that all end-to-end figures are of: one hour, budget 16 GB."""
        pool = sg.population("deepseek-r1", clients=CLIENTS, seed=1)
        rate = keywords.pop("requests", self.requests) / 3600
        return sg.stream(pool, rate=rate, duration=3600, seed=7, backend="cupy", memory="16GB", **keywords)


# What the device can do


def copies(look: Look) -> Iterator[dict[str, Any]]:
    """Device memory, and page-locked memory over one and two streams."""
    cp, n = look.cp, 1 << 30
    a, b = cp.zeros(n, cp.uint8), cp.empty(n, cp.uint8)
    yield {"what": "device to device", "gb_per_s": 2 * n / look.events_ms(lambda: cp.copyto(b, a)) / 1e6}
    host = [cp.cuda.alloc_pinned_memory(n // 2) for _ in range(2)]
    for streams in (1, 2):
        chosen = [cp.cuda.Stream(non_blocking=True) for _ in range(streams)]

        def copy(chosen: list[Any] = chosen) -> float:
            begun = time.perf_counter()
            for i, half in enumerate(host):
                to = chosen[i % len(chosen)].ptr
                cp.cuda.runtime.memcpyAsync(half.ptr, a.data.ptr + i * n // 2, n // 2, 2, to)
            cp.cuda.Device().synchronize()
            return time.perf_counter() - begun

        copy()
        seconds = statistics.median(copy() for _ in range(5))
        yield {"what": f"to the host, {streams} stream(s)", "gb_per_s": n / seconds / 1e9}


def draws(look: Look) -> Iterator[dict[str, Any]]:
    """Philox words and Gamma gaps that stay in registers; reads of 32 bytes at random places."""
    cp, n = look.cp, 1 << 24
    module = cp.RawModule(code=one_text() + (HERE / "gpu_probe.cu").read_text(), options=OPTIONS)
    out, grid = cp.empty(1, cp.float64), ((n + 255) // 256,)

    def run(name: str, *given: Any) -> float:
        kernel = module.get_function(name)
        return look.events_ms(lambda: kernel(grid, (256,), given))

    words = 4 * 64 * n
    yield {"what": "philox words", "per_s": words / run("probe_philox", out, np.int64(n), np.int64(64)) * 1e3}
    for shape in (0.3, 0.8, 2.5):
        yield {"what": f"gamma {shape}", "per_s": n / run("probe_gamma", out, np.int64(n), np.float64(shape)) * 1e3}
    for mb, bits in ((2, 16), (256, 23)):
        table = cp.zeros((2 << bits) * 4, cp.uint32)
        ms = run("probe_gather", table, out, np.int64(n), np.uint32((1 << bits) - 1))
        yield {"what": f"random 32-byte reads of {mb} MB", "per_s": n / ms * 1e3}


def sorts(look: Look) -> Iterator[dict[str, Any]]:
    """CuPy's sorts, and CUB's with as many bits as matter where nvcc is there."""
    cp = look.cp
    for n in (1 << 24, 1 << 27, 1 << 30):
        for kind in (np.uint32, np.uint64, np.float64):
            keys = cp.random.default_rng(1).integers(0, 1 << 30, n, dtype=np.uint32).astype(kind)
            with_copy = look.events_ms(lambda keys=keys: keys.copy().sort(), 3)
            copied = look.events_ms(lambda keys=keys: keys.copy(), 3)
            ms = with_copy - copied
            yield {"what": f"cupy.sort {np.dtype(kind)}", "n": n, "ms": ms, "per_s": n / ms * 1e3}
            if kind is not np.uint32:
                ms = look.events_ms(lambda keys=keys: cp.argsort(keys), 3)
                peak = cp.get_default_memory_pool().total_bytes()
                yield {"what": f"cupy.argsort {np.dtype(kind)}", "n": n, "ms": ms, "per_s": n / ms * 1e3, "peak": peak}
            del keys
            look.free()
    yield from _cub(look)


def _cub(look: Look) -> Iterator[dict[str, Any]]:
    nvcc = shutil.which("nvcc")
    if not nvcc:
        yield {"what": "cub", "skipped": "no nvcc"}
        return
    cp = look.cp
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/cub_sort.so"
        flags = ["-O3", f"-arch=sm_{cp.cuda.Device().compute_capability}", "-shared", "-Xcompiler", "-fPIC"]
        subprocess.run([nvcc, *flags, str(HERE / "cub_sort.cu"), "-o", target], check=True, capture_output=True)
        library = ctypes.CDLL(target)
    for n in (1 << 24, 1 << 27, 1 << 30):
        for key, value, end_bits in ((4, 4, (24, 32)), (4, 8, (24, 32)), (8, 0, (58, 64)), (8, 8, (64,))):
            kind, top = (np.uint32, (1 << 32) - 1) if key == 4 else (np.uint64, (1 << 63) - 1)
            keys = cp.random.default_rng(1).integers(0, top, n, dtype=kind)
            memory = [keys.view(cp.uint8), *(cp.zeros(n * size, cp.uint8) for size in (key, value, value))]
            del keys
            pointers = [ctypes.c_void_p(m.data.ptr) if m.size else None for m in memory]
            for end_bit in end_bits:
                size = ctypes.c_size_t(0)

                def call(
                    scratch: Any, size: Any = size, key: int = key, value: int = value, end_bit: int = end_bit,
                    pointers: list[Any] = pointers, n: int = n,
                ) -> None:  # fmt: skip
                    status = library.cub_sort(
                        key, value, *pointers, ctypes.c_int64(n), end_bit, scratch, ctypes.byref(size)
                    )
                    assert status == 0, status

                call(None)
                scratch = cp.empty(size.value, cp.uint8)
                ms = look.events_ms(lambda call=call, scratch=scratch: call(ctypes.c_void_p(scratch.data.ptr)), 3)
                what = f"cub, keys of {key}, values of {value} bytes, {end_bit} bits"
                yield {"what": what, "n": n, "ms": ms, "per_s": n / ms * 1e3}
            del memory
            look.free()


def disk(look: Look) -> Iterator[dict[str, Any]]:
    """Writing to the directory of the traces, and encoding Parquet on all processors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = np.zeros(1 << 28, np.uint8)
    with tempfile.TemporaryDirectory(dir=look.options.disk) as folder:
        begun = time.perf_counter()
        with open(f"{folder}/x", "wb") as file:
            for _ in range(16):
                file.write(data)
            os.fsync(file.fileno())
        yield {
            "what": "disk, written and synchronised",
            "gb_per_s": 16 * len(data) / (time.perf_counter() - begun) / 1e9,
        }
    n, threads = 4_000_000, len(os.sched_getaffinity(0))
    columns = {"arrival_us": np.arange(n), **{name: np.arange(n, dtype=np.int32) % 2000 for name in "abc"}}
    table = pa.table(columns)

    def encode(_: int) -> None:
        pq.write_table(table, pa.BufferOutputStream(), use_dictionary=False, compression="none", write_statistics=False)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(encode, range(2 * threads)))
        seconds = time.perf_counter() - begun
    yield {"what": f"plain Parquet on {threads} threads", "rows_per_s": 2 * threads * n / seconds}


# What we do


class Watched(CudaDevice):
    """A device that times every kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[str, Any, Any]] = []

    def launch(self, kernel: str, job: Any, n: int) -> None:
        """Start a kernel between two events."""
        begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        begin.record()
        super().launch(kernel, job, n)
        end.record()
        self.times.append((kernel, begin, end))


def stages(look: Look) -> Iterator[dict[str, Any]]:
    """Milliseconds of every kernel over the whole trace; what is left of the clock is sort, scan, host and gaps."""
    from dataclasses import replace

    device = Watched()
    workload = replace(look.stream(device=True), backend=CupyBackend(device, stay=True))
    for _ in range(2):  # the first builds and warms up
        device.times.clear()
        look.cp.cuda.Device().synchronize()
        begun, rows = time.perf_counter(), 0
        for slab in workload:
            rows += len(slab)
            del slab
        look.cp.cuda.Device().synchronize()
        seconds = time.perf_counter() - begun
    sums: dict[str, float] = defaultdict(float)
    for kernel, begin, end in device.times:
        sums[kernel] += look.cp.cuda.get_elapsed_time(begin, end)
    for kernel, ms in sorted(sums.items(), key=lambda item: -item[1]):
        yield {"what": kernel, "ms": ms}
    yield {"what": "all else", "ms": 1e3 * seconds - sum(sums.values()), "requests": rows}


def end_to_end(look: Look) -> Iterator[dict[str, Any]]:
    """The trace on the device, on the host, and on disk."""
    for what, keywords in (("on the device", {"device": True}), ("to the host", {})):
        seconds, peak = [], 0
        for _ in range(3):
            workload = look.stream(**keywords)
            pool = workload.backend.device.pool
            look.cp.cuda.Device().synchronize()
            begun, rows = time.perf_counter(), 0
            for slab in workload:
                rows += len(slab)
                peak = max(peak, pool.total_bytes())
                del slab
            look.cp.cuda.Device().synchronize()
            seconds.append(time.perf_counter() - begun)
        best = statistics.median(seconds)
        yield {"what": what, "requests": rows, "seconds": best, "all_seconds": seconds, "requests_per_s": rows / best,
               "bytes_per_s": 24 * rows / best, "peak_device_bytes": peak}  # fmt: skip
    from servegen_gpu.formats import write_stream

    wanted = min(look.requests, look.options.disk_requests)
    with tempfile.TemporaryDirectory(dir=look.options.disk) as folder:
        begun = time.perf_counter()
        summary = write_stream(look.stream(requests=wanted), f"{folder}/trace/")
        seconds = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    yield {"what": "to Parquet", "requests": wanted, "seconds": seconds, "requests_per_s": wanted / seconds,
           "bytes": size, "summary": str(summary)}  # fmt: skip


def baselines(look: Look) -> Iterator[dict[str, Any]]:
    """Scripts by hand, each in a process of its own; NumPy with a hundredth of the requests."""
    for name, requests in (
        ("cupy_argsort", look.requests),
        ("cupy_packed_sort", look.requests),
        ("torch_sort", look.requests),
        ("numpy_script", look.requests / 100),
    ):
        command = [sys.executable, str(HERE / "baselines" / f"{name}.py"), "--requests", str(requests)]
        left = max(5.0, look.deadline - time.monotonic())
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=environment, check=False)
        except subprocess.TimeoutExpired:
            yield {"what": name, "skipped": f"more than {left:.0f} s"}
            continue
        if done.returncode:
            yield {"what": name, "failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
        else:
            yield {"what": name, **json.loads(done.stdout.strip().splitlines()[-1])}


PARTS: dict[str, Part] = {
    "end_to_end": end_to_end,
    "stages": stages,
    "baselines": baselines,
    "copies": copies,
    "draws": draws,
    "sorts": sorts,
    "disk": disk,
}


def main() -> int:
    """Run the parts; 2 without a device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=float, default=1e9)
    parser.add_argument(
        "--disk-requests", type=float, default=2e8, help="requests of the trace that is written to disk"
    )
    parser.add_argument("--disk", type=Path, default=None, help="directory for it")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "gpu_first_look.json")
    options = parser.parse_args()
    try:
        device = CudaDevice()
    except OptionError as error:
        print(f"gpu_first_look: {error}", file=sys.stderr)
        return 2
    runtime = device.xp.cuda.runtime
    found: dict[str, Any] = {
        "machine": machine() | {
            "device": device.describe(),
            "device_memory": runtime.memGetInfo()[1],
            "cuda_driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
            "cupy": device.xp.__version__,
        },
        "requests": options.requests,
    }  # fmt: skip
    look = Look(device, options)
    for name in options.only.split(","):
        rows: list[dict[str, Any]] = []
        found[name] = rows
        begun = time.monotonic()
        if begun > look.deadline:
            rows.append({"skipped": f"{BUDGET_S} s were over"})
            continue
        try:
            for row in PARTS[name](look):
                rows.append(row)
                print(name, json.dumps(row), flush=True)
        except Exception as error:  # the other parts go on
            rows.append({"failed": f"{type(error).__name__}: {error}"[:500]})
            print(name, rows[-1], flush=True)
        look.free()
        found.setdefault("part_seconds", {})[name] = time.monotonic() - begun
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"figures in {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
