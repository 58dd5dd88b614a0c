"""What a CUDA device, its host and its disk can do at best: parts of bench/device_check.py."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.backends.cuda.device import OPTIONS
from servegen_gpu.backends.cuda.loader import one_text
from servegen_gpu.backends.cuda.sort import FLAGS, nvcc
from servegen_gpu.backends.native.build import BuildError
from servegen_gpu.law.variates import gap_constants
from servegen_gpu.request.families import GAMMA

if TYPE_CHECKING:
    from device_check import Look

HERE = Path(__file__).resolve().parent
Rows = Iterator[dict[str, Any]]


def copies(look: Look) -> Rows:
    """Device memory, and page-locked memory over one and two streams: the ceilings of all that follows."""
    cp, n = look.cp, look.sizes.copy_bytes
    a, b = cp.zeros(n, cp.uint8), cp.empty(n, cp.uint8)
    gb_per_s = 2 * n / look.events_ms(lambda: cp.copyto(b, a)) / 1e6
    yield {"what": "device to device, read and written", "gb_per_s": gb_per_s}
    host = [cp.cuda.alloc_pinned_memory(n // 2) for _ in range(2)]
    for streams in (1, 2):
        chosen = [cp.cuda.Stream(non_blocking=True) for _ in range(streams)]

        def copy(chosen: list[Any] = chosen) -> float:
            begun = time.perf_counter()
            for i, half in enumerate(host):
                to = chosen[i % len(chosen)].ptr
                kind = cp.cuda.runtime.memcpyDeviceToHost
                cp.cuda.runtime.memcpyAsync(half.ptr, a.data.ptr + i * n // 2, n // 2, kind, to)
            for stream in chosen:
                stream.synchronize()
            return time.perf_counter() - begun

        copy()
        gb_per_s = n / statistics.median(copy() for _ in range(look.sizes.times)) / 1e9
        yield {"what": f"to the host, page-locked, {streams} stream(s)", "gb_per_s": gb_per_s}


def draws(look: Look) -> Rows:
    """Philox words and Gamma gaps that stay in registers; reads of 32 bytes at random places."""
    cp, n = look.cp, look.sizes.draws
    module = cp.RawModule(code=one_text() + (HERE / "device_probe.cu").read_text(), options=OPTIONS)
    out, grid = cp.empty(1, cp.float64), ((n + 255) // 256,)

    def run(name: str, *given: Any) -> float:
        kernel = module.get_function(name)
        return look.events_ms(lambda: kernel(grid, (256,), given))

    words = 4 * look.sizes.draw_rounds * n
    ms = run("probe_philox", out, np.int64(n), np.int64(look.sizes.draw_rounds))
    yield {"what": "philox words", "per_s": words / ms * 1e3}
    for shape in (0.3, 0.8, 2.5):
        constants = vars(gap_constants(np, GAMMA, np.float64(shape))).values()
        ms = run("probe_gamma", out, np.int64(n), *map(np.float64, constants))
        yield {"what": f"gamma gaps of shape {shape}, float64, the law's bits", "per_s": n / ms * 1e3}
        ms = run("probe_gamma_f32", out, np.int64(n), np.float32(shape))
        yield {"what": f"gamma gaps of shape {shape}, float32, the device's functions", "per_s": n / ms * 1e3}
    for bits in look.sizes.gather_bits:
        table = cp.zeros((2 << bits) * 4, cp.uint32)
        ms = run("probe_gather", table, out, np.int64(n), np.uint32((1 << bits) - 1))
        yield {"what": f"random 32-byte reads of {table.nbytes / 1e6:.0f} MB", "per_s": n / ms * 1e3}


def sorts(look: Look) -> Rows:
    """CuPy's sorts, and CUB's with as many bits as matter where nvcc is there."""
    cp = look.cp
    for n in look.sizes.sorts:
        for kind in (np.uint32, np.uint64, np.float64):
            keys = cp.random.default_rng(1).integers(0, 1 << 30, n, dtype=np.uint32).astype(kind)
            with_copy = look.events_ms(lambda keys=keys: keys.copy().sort())
            copied = look.events_ms(lambda keys=keys: keys.copy())
            ms = max(with_copy - copied, 1e-6)
            yield {"what": f"cupy.sort {np.dtype(kind)}", "n": n, "ms": ms, "per_s": n / ms * 1e3}
            if kind is not np.uint32:
                ms = look.events_ms(lambda keys=keys: cp.argsort(keys))
                peak = cp.get_default_memory_pool().total_bytes()
                what = f"cupy.argsort {np.dtype(kind)}"
                yield {"what": what, "n": n, "ms": ms, "per_s": n / ms * 1e3, "peak_bytes": peak}
            del keys
            look.free()
    yield from _cub(look)


CUB = (
    *((4, 4, 0, end_bit) for end_bit in (24, 32)),
    *((4, 8, 0, end_bit) for end_bit in (24, 32)),
    *((8, 0, begin_bit, end_bit) for begin_bit, end_bit in ((28, 58), (0, 58), (0, 64))),
    *((8, 8, 0, end_bit) for end_bit in (24, 32, 64)),
)
"""Bytes of a key and of a value, first bit, and the bit past the last; 28 to 58 are those of a slab of 600 s."""


def _cub(look: Look) -> Rows:
    cp = look.cp
    try:
        compiler = nvcc()
    except BuildError as error:
        yield {"what": "cub", "skipped": str(error)}
        return
    with tempfile.TemporaryDirectory() as folder:
        target, architecture = f"{folder}/cub_sort.so", f"-arch=sm_{cp.cuda.Device().compute_capability}"
        command = [compiler, *FLAGS, architecture, str(HERE / "cub_sort.cu"), "-o", target]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        library = ctypes.CDLL(target)
    for n in look.sizes.sorts:
        for key, value, begin_bit, end_bit in CUB:
            kind, top = (np.uint32, (1 << 32) - 1) if key == 4 else (np.uint64, (1 << 63) - 1)
            keys = cp.random.default_rng(1).integers(0, top, n, dtype=kind)
            memory = [keys.view(cp.uint8), *(cp.zeros(n * size, cp.uint8) for size in (key, value, value))]
            pointers = [ctypes.c_void_p(m.data.ptr) if m.size else None for m in memory]
            size = ctypes.c_size_t(0)

            def call(
                scratch: Any, key: int = key, value: int = value, bits: tuple[int, int] = (begin_bit, end_bit),
                pointers: list[Any] = pointers, n: int = n, size: Any = size,
            ) -> None:  # fmt: skip
                status = library.cub_sort(key, value, *pointers, ctypes.c_int64(n), *bits, scratch, ctypes.byref(size))
                if status:
                    raise RuntimeError(f"CUDA error {status} of CUB")

            call(None)
            scratch = cp.empty(max(1, size.value), cp.uint8)
            ms = look.events_ms(lambda call=call, scratch=scratch: call(ctypes.c_void_p(scratch.data.ptr)))
            what = f"cub, keys of {key} bytes, values of {value}, bits {begin_bit} to {end_bit}"
            yield {"what": what, "n": n, "ms": ms, "per_s": n / ms * 1e3, "scratch_bytes": size.value}
            del keys, memory, scratch
            look.free()


def disk(look: Look) -> Rows:
    """Writing to the directory of the traces, and encoding Parquet on all processors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = np.zeros(look.sizes.disk_bytes // 16, np.uint8)
    with tempfile.TemporaryDirectory(dir=look.options.disk) as folder:
        begun = time.perf_counter()
        with open(f"{folder}/x", "wb") as file:
            for _ in range(16):
                file.write(data)
            os.fsync(file.fileno())
        seconds = time.perf_counter() - begun
    yield {"what": "disk, written and synchronised", "gb_per_s": 16 * len(data) / seconds / 1e9}
    n, threads = look.sizes.encode_rows, len(os.sched_getaffinity(0))
    columns = {"arrival_us": np.arange(n), **{name: np.arange(n, dtype=np.int32) % 2000 for name in "abc"}}
    table = pa.table(columns)

    def encode(_: int) -> None:
        pq.write_table(table, pa.BufferOutputStream(), use_dictionary=False, compression="none", write_statistics=False)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(encode, range(2 * threads)))
        seconds = time.perf_counter() - begun
    yield {"what": f"plain Parquet on {threads} threads", "rows_per_s": 2 * threads * n / seconds}
