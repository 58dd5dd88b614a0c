"""Whether a CUDA device can be used here: driver, CuPy and the devices asked for; what is missing in one sentence each.

Nothing here starts a device. CuPy is imported when one is opened and never before.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import warnings
from typing import Any

from servegen_gpu.errors import OptionError, VariableError

GET_CUPY = 'pip install "servegen-gpu[cuda13]", or [cuda12] for a driver older than CUDA 13'
OR_ELSE = "or choose backend 'native' or 'numpy'"
NO_DEVICE, INSUFFICIENT_DRIVER, OUT_OF_MEMORY, UNAVAILABLE = 100, 35, 2, 46
"""Errors of the CUDA driver and runtime."""

LOST = frozenset({UNAVAILABLE, NO_DEVICE, 101, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 999})
"""Errors after which a process can do nothing more on a device: a fault of a kernel or of the device, a timeout."""

_PACKAGE = re.compile(r"cupy(-cuda\d+x|-rocm-[\d-]+)?")


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


def cupy_packages() -> list[str]:
    """Installed packages that bring a module named cupy: at most one is as it should be."""
    import importlib.metadata

    names = {str(found.metadata["Name"] or "").lower() for found in importlib.metadata.distributions()}
    return sorted(name for name in names if _PACKAGE.fullmatch(name))


def import_cupy() -> Any:
    """CuPy, or why it cannot be had."""
    if not has_cupy():
        raise OptionError("CuPy for backend 'cupy'", "no module named cupy", GET_CUPY)
    if len(packages := cupy_packages()) > 1:  # they write over each other's files
        raise OptionError(
            "one CuPy", f"{' and '.join(packages)} together", f"pip uninstall {' '.join(packages)}, then {GET_CUPY}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it has to say about its surroundings, we say
            import cupy
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise no_cache(error) from None
    except Exception as error:
        raise OptionError("a CuPy that loads", first_line(error), f"install it again: {GET_CUPY}") from None
    if cupy.cuda.runtime.is_hip:
        raise OptionError("CuPy built for CUDA", "CuPy built for ROCm", GET_CUPY)
    return cupy


def check_driver(xp: Any) -> None:
    """Refuse a driver that is missing, shows no device, or is older than what CuPy is built for."""
    runtime = xp.cuda.runtime
    try:
        version = driver_version()
    except NoDriver as error:
        why, fix = error.args
        raise OptionError("a CUDA device", why, f"{fix}, {OR_ELSE}") from None
    wanted = runtime.runtimeGetVersion()
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if error.status != INSUFFICIENT_DRIVER:
            raise no_device(error) from None
        # the other way round, an old CuPy with a new driver, works
        older = f'pip uninstall {" ".join(cupy_packages()) or "cupy"}, then pip install "servegen-gpu[cuda12]"'
        raise OptionError(
            f"a driver for CUDA {version_text(wanted)}, which this CuPy is built for",
            f"one for CUDA {version_text(version)}",
            f"update the driver, or {older}" if 12000 <= version < 13000 <= wanted else f"update the driver, {OR_ELSE}",
        ) from None


def usable_devices() -> tuple[int, ...]:
    """Numbers of the devices that share a trace, once CuPy and driver are as they should be."""
    xp = import_cupy()
    check_driver(xp)
    return chosen_devices(xp)


def chosen_devices(xp: Any) -> tuple[int, ...]:
    """Numbers of the devices that share a trace: all that CUDA shows, or ``$SERVEGEN_GPU_DEVICES``, such as ``0,2``."""
    count, wanted = int(xp.cuda.runtime.getDeviceCount()), os.environ.get("SERVEGEN_GPU_DEVICES", "").strip()
    if not wanted:
        return tuple(range(count))
    numbers = tuple(int(part) if part.strip().isdecimal() else count for part in wanted.split(","))
    if max(numbers) >= count or len(set(numbers)) < len(numbers):
        raise VariableError(
            f"SERVEGEN_GPU_DEVICES as different numbers from 0 to {count - 1}, as CUDA_VISIBLE_DEVICES leaves them",
            repr(wanted),
            "change or unset it",
        )
    return numbers


def no_device(error: Any) -> OptionError:
    """What to say where a device does not start."""
    status = getattr(error, "status", None)
    if status == OUT_OF_MEMORY or isinstance(error, MemoryError):
        return OptionError(
            "free memory on the CUDA device",
            f"none ({first_line(error)})",
            f"see with nvidia-smi who has it, choose another device with CUDA_VISIBLE_DEVICES, {OR_ELSE}",
        )
    if status == UNAVAILABLE:
        return OptionError(
            "a CUDA device that this process may use",
            first_line(error),
            f"end the process that has it alone (nvidia-smi), {OR_ELSE}",
        )
    return OptionError("a working CUDA device", first_line(error), f"check nvidia-smi, {OR_ELSE}")


def failed(error: Any, number: int) -> OptionError:
    """What to say where a device fails at work."""
    return OptionError(
        "a CUDA device that works until the trace is done",
        f"{first_line(error)} on device {number}",
        f"see nvidia-smi and the system's log (Xid), start again, {OR_ELSE}",
    )


def no_cache(error: OSError) -> OptionError:
    """What to say where CuPy cannot keep what it compiled."""
    where = error.filename or "CuPy's cache directory"
    return OptionError(
        "a cache directory for compiled kernels", f"{where}: {error.strerror}", "set CUPY_CACHE_DIR to a writable one"
    )


def version_text(number: int) -> str:
    """A version as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


def first_line(error: BaseException) -> str:
    """The line of a message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), (lines or [type(error).__name__])[0])[:200]
