"""A device that the host plays: kernels/slab.cu compiled by g++, thread after thread, over NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from servegen_gpu.backends.cuda_job import words

KERNELS = Path(__file__).parent.parent / "kernels"
COMPILER = shutil.which("g++")
POISON = 0xA5
"""What fresh memory is filled with, so that what no kernel wrote shows."""


@functools.cache
def library() -> ctypes.CDLL:
    """slab.cu for the host."""
    assert COMPILER
    folder = Path(tempfile.mkdtemp(prefix="servegen_gpu-test-"))
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
    before = ["-include", str(KERNELS / "on_host.h")]
    target = folder / "slab.so"
    subprocess.run([COMPILER, "-x", "c++", *flags, *before, str(KERNELS / "slab.cu"), "-o", str(target)], check=True)
    loaded = ctypes.CDLL(str(target))
    shutil.rmtree(folder)
    return loaded


class PoisonedNumpy:
    """NumPy, but for memory that is not zero by chance."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(shape: Any, dtype: Any) -> np.ndarray:
        out = np.empty(shape, dtype)
        out.reshape(-1).view(np.uint8)[:] = POISON
        return out


class HostDevice:
    """Runs kernels on the host; `threads` a block."""

    xp: Any = PoisonedNumpy()

    def __init__(self, threads: int = 256) -> None:
        self.threads = threads
        self.launched: list[tuple[str, int]] = []
        self._library = library()

    def launch(self, kernel: str, job: dict[str, Any], n: int) -> None:
        self.launched.append((kernel, n))
        for value in job.values():
            assert isinstance(value, int | np.integer) or value.flags.c_contiguous
        told = words(job, lambda array: array.ctypes.data)
        function = ctypes.cast(getattr(self._library, f"sg_{kernel}"), ctypes.c_void_p)
        self._library.on_host(
            function, ctypes.c_void_p(told.ctypes.data), ctypes.c_int64(n), ctypes.c_int64(self.threads)
        )
