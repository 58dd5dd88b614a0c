"""A device that the host plays: kernels/slab.cu compiled by g++ over NumPy arrays.

With SERVEGEN_GPU_PTX=SEED in the environment, kernels run by their PTX instead (ptx/), in an order by that seed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cuda_ptx
import numpy as np
from built import compiled

from servegen_gpu.backends.cuda.job import BLOCK, THREADS, TOGETHER, words
from servegen_gpu.backends.cuda.tables import WorkloadTables
from servegen_gpu.backends.per_workload import PerWorkload

HERE = Path(__file__).parent
KERNELS = HERE.parent / "kernels"
COMPILER = shutil.which("g++")
SEED = 20261127
"""Of the order in which fibers run."""

POISON = 0xA5
"""What fresh memory is filled with, so that what no kernel wrote shows."""

ONE_AT_A_TIME = threading.Lock()
"""Kernels on the host have one place for the indices of a thread and for what a block shares; a trace of conversations
samples its two streams in threads of their own."""


@functools.cache
def library() -> ctypes.CDLL:
    """slab.cu for the host."""
    return typed(on_host("slab", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"))


@functools.cache
def probes() -> ctypes.CDLL:
    """slab.cu and the probes of bench/ for the host."""
    return on_host("probes", "-O1", "-ffp-contract=off", "-DPROBES")


def on_host(kind: str, *flags: str) -> ctypes.CDLL:
    """What g++ makes of cuda_host.cpp, which includes slab.cu, with these flags."""
    assert COMPILER
    command = [COMPILER, "-std=c++17", *flags, "-I", str(KERNELS)]
    return ctypes.CDLL(str(compiled(kind, command, HERE / "cuda_host.cpp")))


def typed(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of what it returns."""
    for name in ("test_tiles_of", "test_run_of", "test_thread", "test_job_bytes"):
        getattr(loaded, name).restype = ctypes.c_int64
    loaded.test_ordered.restype, loaded.test_reordered.restype = ctypes.c_uint64, ctypes.c_double
    return loaded


def run(loaded: ctypes.CDLL, kernel: str, job: np.ndarray, n: int, threads: int, shared_bytes: int) -> None:
    """Run a kernel for n threads, one after another or, where they work together, as fibers."""
    if kernel in TOGETHER:
        threads = BLOCK.get(kernel, THREADS)
    if seed := os.environ.get("SERVEGEN_GPU_PTX"):
        cuda_ptx.launch(cuda_ptx.module(), kernel, job, n, threads, shared_bytes, int(seed))
        return
    function = ctypes.cast(getattr(loaded, f"sg_{kernel}"), ctypes.c_void_p)
    given = (function, ctypes.c_void_p(job.ctypes.data), ctypes.c_int64(n))
    with ONE_AT_A_TIME:
        if kernel in TOGETHER:
            loaded.on_host_together(*given, ctypes.c_int64(threads), ctypes.c_uint64(SEED))
        else:
            loaded.on_host(*given, ctypes.c_int64(threads))


class PoisonedNumpy:
    """NumPy, but for memory that is never zero by chance, and of which there may be too little."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        """Poisoned memory."""
        out = np.empty(shape, dtype)
        if out.nbytes > self.most_bytes:
            raise MemoryError
        out.reshape(-1).view(np.uint8)[:] = POISON
        return out


def told(job: Mapping[str, Any]) -> np.ndarray:
    """A job as kernels read it."""
    return words(job, lambda array: array.ctypes.data)


class HostDevice:
    """What `CudaDevice` offers, on the host.

    Parameters
    ----------
    threads : int
        A block.
    most_bytes : int
        What one array may take before memory is short.
    """

    most_threads = 1024

    def __init__(self, threads: int = 256, most_bytes: int = 1 << 40) -> None:
        self.xp: Any = PoisonedNumpy(most_bytes)
        self.threads = threads
        self.launched: list[tuple[str, int]] = []
        self.released = self.rested = 0
        self.tables: PerWorkload[WorkloadTables] = PerWorkload(self.release)

    def launch(self, kernel: str, job: Mapping[str, Any], n: int, shared_bytes: int = 0) -> None:
        """Run a kernel for n threads."""
        self.launched.append((kernel, n))
        for value in job.values():
            assert isinstance(value, int | np.integer) or value.flags.c_contiguous
        self.run(kernel, told(job), n, shared_bytes)

    def run(self, kernel: str, job: np.ndarray, n: int, shared_bytes: int) -> None:
        """Run a kernel from the job as kernels read it."""
        run(library(), kernel, job, n, self.threads, shared_bytes)

    def sort(self, word: np.ndarray, begin_bit: int, end_bit: int) -> np.ndarray:
        """A stable sort of the bits that it is told of, and of no others."""
        key = word.view(np.uint64) >> np.uint64(begin_bit) & np.uint64((1 << (end_bit - begin_bit)) - 1)
        sorted_ = word[np.argsort(key, kind="stable")]
        word[:] = -1  # used up
        return sorted_

    @contextmanager
    def memory(self) -> Iterator[None]:
        """There is only one kind of memory."""
        yield

    current = table_memory = memory

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """It is there."""
        return array

    def reserve(self, size: int) -> None:
        """The host has it."""

    def rest(self) -> None:
        """Count how often a trace is done."""
        self.rested += 1

    def release(self) -> None:
        """Count how often memory is given back."""
        self.released += 1

    def start_copy(self, columns: dict[str, Any]) -> HostCopy:
        """A copy that is there at once."""
        return HostCopy(columns)


class HostCopy:
    """Columns that need not travel."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns

    def wait(self) -> None:
        """It is there."""

    def finished(self) -> dict[str, Any]:
        """The columns."""
        return self._columns
