"""A CUDA device through CuPy: whether one is there, kernels built for it, memory of our own, copies to the host.

CuPy is imported when a device is opened and never before. It compiles with NVRTC, which it brings, and keeps what it
compiled by source, architecture and compiler in ``$CUPY_CACHE_DIR``, written so that processes do not disturb each
other.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.cuda_job import words
from servegen_gpu.backends.loader import one_text
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Ragged

OPTIONS = ("--fmad=false", "-std=c++17")
THREADS = 256
GET_CUPY = 'pip install "servegen-gpu[cuda13]", or [cuda12] for an older driver'
NO_DEVICE, INSUFFICIENT_DRIVER = 100, 35


class NoDriver(Exception):
    """Why no device can be used: what is missing, and what to do."""


def driver_version() -> int:
    """CUDA version of the driver, such as 13000, once it shows a device; found without importing CuPy."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        raise NoDriver(f"no NVIDIA driver ({name} is not there)", "install the driver") from None
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status not in (0, NO_DEVICE):
        raise NoDriver(f"a driver that does not start (CUDA error {status})", "see whether nvidia-smi works")
    if not count.value:
        raise NoDriver("a driver that shows no device", "see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it")
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def has_cupy() -> bool:
    """Whether some CuPy is installed."""
    return importlib.util.find_spec("cupy") is not None


def import_cupy() -> Any:
    """CuPy, or why it cannot be had."""
    if not has_cupy():
        raise OptionError("CuPy for backend 'cupy'", "no module named cupy", GET_CUPY)
    try:
        import cupy
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise _no_cache(error) from None
    except Exception as error:
        raise OptionError("a CuPy that loads", _first_line(error), f"install it again: {GET_CUPY}") from None
    if cupy.cuda.runtime.is_hip:
        raise OptionError("CuPy built for CUDA", "CuPy built for ROCm", GET_CUPY)
    return cupy


class CudaDevice:
    """The current CUDA device.

    Attributes
    ----------
    xp : module
        CuPy.
    pool : cupy.cuda.MemoryPool
        Memory of the slabs; nothing of it is held once a trace is done.
    """

    def __init__(self) -> None:
        self.xp = import_cupy()
        self._check()
        self.out_of_memory = self.xp.cuda.memory.OutOfMemoryError
        self.pool = self.xp.cuda.MemoryPool()
        self._pinned = self.xp.cuda.PinnedMemoryPool()
        self._copies = self.xp.cuda.Stream(non_blocking=True)
        self._kernels: dict[str, Any] = {}
        self._module = self._compiled()

    def describe(self) -> str:
        """Name of the device, versions of driver and CuPy."""
        runtime = self.xp.cuda.runtime
        name = runtime.getDeviceProperties(self.xp.cuda.Device().id)["name"].decode()
        return f"{name}, driver for CUDA {_version(runtime.driverGetVersion())}, CuPy {self.xp.__version__}"

    def launch(self, kernel: str, job: Mapping[str, Any], n: int) -> None:
        """Start a kernel of kernels/slab.cu for n threads on the current stream."""
        if kernel not in self._kernels:
            self._kernels[kernel] = self._module.get_function(f"sg_{kernel}")
        told = self.xp.asarray(words(job, lambda array: int(array.data.ptr)))
        self._kernels[kernel]((-(-n // THREADS),), (THREADS,), (told, np.int64(n)))

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Arrays made in here come from the device's own pool."""
        with self.xp.cuda.using_allocator(self.pool.malloc):
            yield

    def release(self) -> None:
        """Give back all memory that no array uses."""
        self.pool.free_all_blocks()
        self._pinned.free_all_blocks()

    def start_copy(self, columns: dict[str, Any]) -> Copy:
        """Begin to copy columns to the host, beside whatever the device does next."""
        return Copy(columns, self.xp, self._copies, self._host)

    def _host(self, like: Any) -> NDArray[Any]:
        """Page-locked memory for an array, or plain memory where no more can be locked."""
        if not like.size:
            return np.empty(0, like.dtype)
        try:
            held = self._pinned.malloc(like.nbytes)
        except self.xp.cuda.runtime.CUDARuntimeError:
            return np.empty(like.shape, like.dtype)
        return np.ndarray(like.shape, like.dtype, held)

    def _check(self) -> None:
        runtime = self.xp.cuda.runtime
        try:
            version = driver_version()
        except NoDriver as error:
            why, fix = error.args
            raise OptionError("a CUDA device", why, f"{fix}, or choose backend 'native' or 'numpy'") from None
        wanted = runtime.runtimeGetVersion()
        try:
            runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            if error.status != INSUFFICIENT_DRIVER:
                raise OptionError("a working CUDA device", _first_line(error), "check nvidia-smi") from None
            raise OptionError(
                f"a driver for CUDA {_version(wanted)}, which this CuPy is built for",
                f"one for CUDA {_version(version)}",
                "update the driver, or pip install the extra of its version: servegen-gpu[cuda12] or [cuda13]",
            ) from None

    def _compiled(self) -> Any:
        """The kernels, from CuPy's cache or compiled now."""
        module = self.xp.RawModule(code=one_text(), options=OPTIONS)
        try:
            module.compile()
        except self.xp.cuda.compiler.CompileException as error:
            raise OptionError(
                "kernels that NVRTC compiles", _first_line(error), "report this, or choose backend 'native'"
            ) from None
        except OSError as error:
            raise _no_cache(error) from None
        except (RuntimeError, ImportError) as error:  # NVRTC itself is missing, or of another CUDA
            raise OptionError(
                "NVRTC, which compiles the kernels",
                _first_line(error),
                "pip install nvidia-cuda-nvrtc for CUDA 13, nvidia-cuda-nvrtc-cu12 for CUDA 12",
            ) from None
        return module


class Copy:
    """Columns on their way to the host."""

    def __init__(self, columns: dict[str, Any], xp: Any, stream: Any, host: Any) -> None:
        self._from = columns
        ready = xp.cuda.Event(disable_timing=True)
        ready.record()
        stream.wait_event(ready)

        def start(array: Any) -> NDArray[Any]:
            to: NDArray[Any] = host(array)
            if array.size:
                kind = xp.cuda.runtime.memcpyDeviceToHost
                xp.cuda.runtime.memcpyAsync(to.ctypes.data, array.data.ptr, array.nbytes, kind, stream.ptr)
            return to

        self._arrays = {
            name: (start(c.offsets), start(c.values)) if isinstance(c, Ragged) else start(c)
            for name, c in columns.items()
        }
        self._done = xp.cuda.Event(disable_timing=True)
        self._done.record(stream)

    def finished(self) -> dict[str, Any]:
        """The columns on the host, once they are there."""
        self._done.synchronize()
        self._from = {}
        return {name: Ragged(*a) if isinstance(a, tuple) else a for name, a in self._arrays.items()}


@functools.cache
def open_device() -> CudaDevice:
    """The current CUDA device, opened once."""
    return CudaDevice()


def _no_cache(error: OSError) -> OptionError:
    where = error.filename or "CuPy's cache directory"
    return OptionError(
        "a cache directory for compiled kernels", f"{where}: {error.strerror}", "set CUPY_CACHE_DIR to a writable one"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), (lines or [type(error).__name__])[0])[:200]
