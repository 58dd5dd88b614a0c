"""CUDA C++ to PTX without a device or driver: by NVRTC of the nvidia-cuda-nvrtc wheel, or else by nvcc."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

ARCHITECTURE = "compute_90"


@functools.cache
def nvrtc() -> ctypes.CDLL | None:
    """The library of the wheel, if it is installed."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(place).glob("*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    return None


NVCC = shutil.which("nvcc")
MISSING = "" if nvrtc() or NVCC else "no nvidia-cuda-nvrtc wheel (pip install '.[test]') and no nvcc"
"""Why there is no PTX; empty if there is."""


def ptx_of(text: str, options: Sequence[str]) -> str:
    """PTX of a text that includes nothing, compiled by whatever is there.

    Parameters
    ----------
    text : str
    options : sequence of str
        As for a device; the architecture is added.

    Raises
    ------
    RuntimeError
        With what the compiler says.
    """
    return by_nvrtc(text, options) if nvrtc() else by_nvcc(text, options)


def by_nvrtc(text: str, options: Sequence[str]) -> str:
    """PTX by NVRTC."""
    library = nvrtc()
    assert library
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    given = [option.encode() for option in (f"-arch={ARCHITECTURE}", *options)]
    status = library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    what = ("GetProgramLogSize", "GetProgramLog") if status else ("GetPTXSize", "GetPTX")
    getattr(library, f"nvrtc{what[0]}")(program, ctypes.byref(size))
    out = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtc{what[1]}")(program, out)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        raise RuntimeError(out.value.decode())
    return out.value.decode()


def by_nvcc(text: str, options: Sequence[str]) -> str:
    """PTX by nvcc."""
    assert NVCC
    with tempfile.TemporaryDirectory(prefix="servegen_gpu-test-") as folder:
        source, target = Path(folder, "kernels.cu"), Path(folder, "kernels.ptx")
        source.write_text(text)
        command = [NVCC, "--ptx", f"-arch={ARCHITECTURE}", *options, str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return target.read_text()
