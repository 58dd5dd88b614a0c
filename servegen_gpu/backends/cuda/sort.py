"""Sorting a slab's words on the device by the bits that matter: kernels/sort.cu, built with nvcc where there is one.

A word is a time above a position (kernels/slab.h), and words come in the order of positions; a stable sort of the time
alone puts them in the order of whole words. A window of 600 s has 30 bits of time: four passes of a radix sort instead
of eight. `cupy.sort` sorts whole words to the same order, and serves where the library cannot be built.
``SERVEGEN_GPU_SORT`` is ``auto`` (default), ``cub`` (an error where it cannot be had) or ``cupy``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from servegen_gpu.backends.cuda.loader import kernels_dir
from servegen_gpu.backends.native.build import BuildError, run
from servegen_gpu.backends.native.kept import kept
from servegen_gpu.cache_dir import cache_dir
from servegen_gpu.errors import OptionError, VariableError

CHOICES = ("auto", "cub", "cupy")
FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC")
GET_NVCC = "install the CUDA toolkit of the driver's version, or set NVCC to its nvcc"
TRIED = 5000
"""Words of the sort that a fresh library is tried on."""


def sort_bits(span_us: int, position_bits: int) -> tuple[int, int]:
    """First bit, and the bit past the last, that order a slab's words.

    Parameters
    ----------
    span_us : int
        Times are below it. It has bits enough for a time of all ones above them, which the word of a dropped request
        has: it sorts last.
    position_bits : int
        Low bits of a word, in whose order words come.
    """
    return position_bits, position_bits + max(1, span_us.bit_length())


class CudaSortError(RuntimeError):
    """An error of CUDA in the library's sort.

    Attributes
    ----------
    status : int
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA error {status} of cub::DeviceRadixSort")
        self.status = status


class CubSort:
    """The sort of the library.

    Parameters
    ----------
    xp : module
        CuPy.
    number : int
        The device; it must be current when the sort is called.
    path : Path
    """

    def __init__(self, xp: Any, number: int, path: Path) -> None:
        self._xp, self._number = xp, number
        self._sort = ctypes.CDLL(str(path)).sg_sort
        self._sort.restype = ctypes.c_int

    def __call__(self, word: Any, begin_bit: int, end_bit: int) -> Any:
        """Words in order of the bits from `begin_bit` on and below `end_bit`; those that came are used up."""
        xp, n = self._xp, len(word)
        if not n:
            return word
        other = xp.empty(n, word.dtype)
        size, in_other = ctypes.c_size_t(0), ctypes.c_int(0)
        stream = ctypes.c_void_p(xp.cuda.get_current_stream().ptr)
        buffers = [ctypes.c_void_p(array.data.ptr) for array in (word, other)]

        def call(scratch: Any) -> None:
            status = self._sort(
                self._number, *buffers, ctypes.c_int64(n), begin_bit, end_bit, scratch,
                ctypes.byref(size), ctypes.byref(in_other), stream,
            )  # fmt: skip
            if status:
                raise CudaSortError(status)

        call(None)
        scratch = xp.empty(max(1, size.value), xp.uint8)  # nothing at all would ask for its size again
        call(ctypes.c_void_p(scratch.data.ptr))
        return other if in_other.value else word


def open_sort(xp: Any, number: int) -> tuple[CubSort | None, str]:
    """The library's sort for a device that is current, built and tried; or None, and why.

    Raises
    ------
    OptionError
        If ``SERVEGEN_GPU_SORT`` is ``cub`` and it cannot be had, or nothing that there is.
    """
    wanted = os.environ.get("SERVEGEN_GPU_SORT") or "auto"
    if wanted not in CHOICES:
        raise VariableError(f"SERVEGEN_GPU_SORT among {', '.join(CHOICES)}", repr(wanted), "change or unset it")
    if wanted == "cupy":
        return None, "as SERVEGEN_GPU_SORT says"
    try:
        sort = CubSort(xp, number, built(f"sm_{xp.cuda.Device(number).compute_capability}"))
        if not _agrees(xp, sort):
            raise BuildError("a library of another order than cupy.sort", f"report this; {GET_NVCC}")
        return sort, ""
    except (BuildError, RuntimeError, OSError) as error:
        why, fix = error.args if isinstance(error, BuildError) else (str(error), GET_NVCC)
        if wanted == "cub":
            raise OptionError("CUB's sort, which SERVEGEN_GPU_SORT=cub asks for", why, f"{fix}, or unset it") from None
        return None, f"CUB has fewer passes, but: {why}; {fix}"


def _agrees(xp: Any, sort: CubSort) -> bool:
    """Whether a library sorts as CuPy does: it may be of another CUDA than the driver."""
    position_bits, span_us = 13, 1 << 20
    position = xp.arange(TRIED, dtype=xp.int64)
    word = (position * 7919 % span_us) << position_bits | position
    word[::7] = 2**63 - 1  # dropped
    expected = word.copy()
    expected.sort()
    return bool((sort(word, *sort_bits(span_us, position_bits)) == expected).all())


def nvcc() -> str:
    """CUDA's compiler: ``$NVCC``, on the path, in ``$CUDA_HOME`` or ``$CUDA_PATH``, or where toolkits go."""
    if own := os.environ.get("NVCC"):
        if found := shutil.which(own):
            return found
        raise BuildError(f"NVCC is {own}, which cannot be run", GET_NVCC)
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    for place_of in ("nvcc", *(str(Path(home, "bin", "nvcc")) for home in homes if home)):
        if found := shutil.which(place_of):
            return found
    raise BuildError("there is no nvcc", GET_NVCC)


@functools.cache
def built(architecture: str) -> Path:
    """The library for an architecture, such as ``sm_90``, in the cache directory, compiled unless it is there.

    A second process waits for the first.
    """
    compiler, source = nvcc(), kernels_dir() / "sort.cu"
    try:
        made, text = os.stat(compiler), source.read_bytes()
        folder = cache_dir()
    except (OSError, RuntimeError) as error:
        raise BuildError(str(error), "set SERVEGEN_GPU_CACHE to a directory, install servegen-gpu again") from None
    key = repr((compiler, made.st_size, made.st_mtime_ns, FLAGS, architecture, text))
    target = folder / f"cub-{hashlib.sha256(key.encode()).hexdigest()[:16]}" / f"sort-{architecture}.so"
    command = [compiler, *FLAGS, f"-arch={architecture}", str(source), "-o"]
    return kept(target, lambda made_here: run([*command, str(made_here)], GET_NVCC))
