"""Compile the kernels as CuPy does and disassemble them: NVRTC or nvcc, and nvdisasm, from wheels or the path."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from servegen_gpu.backends.cuda.device import OPTIONS
from servegen_gpu.backends.cuda.loader import PRELUDE
from servegen_gpu.errors import OptionError

ARCHITECTURE = "sm_90"
LOOK = ("-lineinfo",)  # adds tables of lines, changes no instruction
INSTALL = "pip install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm, or set $NVCC and $NVDISASM"

_USED = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers([^\n]*)", re.DOTALL
)


@dataclass(frozen=True)
class Resources:
    """What a kernel takes of a multiprocessor: registers and stack of a thread, static shared memory of a block."""

    registers: int
    stack_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """A compiled text: the cubin, resources by kernel, and which compiler made it."""

    cubin: bytes
    resources: dict[str, Resources]
    compiler: str


def in_wheels(pattern: str) -> Iterator[Path]:
    """Files of installed ``nvidia-*`` wheels."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(place).glob(pattern))


def nvrtc_path() -> Path | None:
    """NVRTC of a wheel."""
    return next(in_wheels("*/lib/libnvrtc.so.*"), None)


def nvcc_path() -> str | None:
    """``$NVCC``, or the one on the path."""
    return os.environ.get("NVCC") or shutil.which("nvcc")


def nvdisasm_path() -> str | None:
    """``$NVDISASM``, the one of a wheel, or the one on the path."""
    return os.environ.get("NVDISASM") or next(map(str, in_wheels("*/bin/nvdisasm")), None) or shutil.which("nvdisasm")


def compiled(text: str) -> Compiled:
    """The text of all kernels, compiled with NVRTC, or with nvcc where that is missing.

    Raises
    ------
    OptionError
        There is no compiler, or it refuses the text.
    """
    if library := nvrtc_path():
        return _by_nvrtc(text, ctypes.CDLL(str(library)))
    if nvcc := nvcc_path():
        return _by_nvcc(text, nvcc)
    raise OptionError("a compiler for CUDA, NVRTC or nvcc", "neither", INSTALL)


def _by_nvrtc(text: str, nvrtc: ctypes.CDLL) -> Compiled:
    program, size, major, minor = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"slab.cu", 0, None, None)
    given = [o.encode() for o in (f"-arch={ARCHITECTURE}", *OPTIONS, *LOOK, "--ptxas-options=-v")]
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    compiler, said = f"NVRTC {major.value}.{minor.value}", log.value.decode()
    if status:
        raise _refused(compiler, said)
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Compiled(cubin.raw, _resources(said), compiler)


def _by_nvcc(text: str, nvcc: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "slab.cu"), Path(folder, "slab.cubin")
        own = re.sub(r"^(typedef|#define INT64_MAX).*", "", PRELUDE, flags=re.MULTILINE)  # nvcc has the system's types
        source.write_text(text.replace(PRELUDE, "#include <stdint.h>" + own), encoding="utf-8")
        command = [nvcc, "--cubin", f"-arch={ARCHITECTURE}", *OPTIONS, *LOOK, "-Xptxas", "-v", "-o", cubin, source]
        said = _said([str(part) for part in command], "nvcc")
        release = re.search(r"release ([\d.]+)", _said([nvcc, "--version"], "nvcc"))
        return Compiled(cubin.read_bytes(), _resources(said), f"nvcc {release[1] if release else '?'}")


def _said(command: list[str], name: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise OptionError(f"{name} at {command[0]}", error.strerror or str(error), INSTALL) from None
    if done.returncode:
        raise _refused(name, done.stderr or done.stdout)
    return done.stdout + done.stderr


def _refused(compiler: str, said: str) -> OptionError:
    line = next((line for line in said.splitlines() if "error" in line), said.strip()[:200])
    return OptionError(f"kernels that {compiler} compiles for {ARCHITECTURE}", line, "correct the text")


def _resources(said: str) -> dict[str, Resources]:
    return {
        name: Resources(int(registers), int(stack), sum(map(int, re.findall(r"(\d+) bytes smem", rest))))
        for name, stack, registers, rest in _USED.findall(said)
    }


def disassembled(cubin: bytes) -> tuple[str, str]:
    """The code of a cubin with its lines of source, and the disassembler's version.

    Raises
    ------
    OptionError
        There is no nvdisasm, it is something else, or it cannot read this cubin.
    """
    tool = nvdisasm_path()
    if not tool:
        raise OptionError("a disassembler, nvdisasm", "none in $NVDISASM, wheels or the path", INSTALL)
    try:
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise OptionError("a disassembler, nvdisasm", f"{error.strerror} of {tool}", INSTALL) from None
    version = re.search(r"NVIDIA \(R\) CUDA disassembler.*?release ([\d.]+)", done.stdout, re.DOTALL)
    if not version:
        first = next(iter(done.stdout.splitlines()), f"exit status {done.returncode}")
        raise OptionError("a disassembler, nvdisasm", f"{tool}, which says {first!r}", INSTALL)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "slab.cubin")
        file.write_bytes(cubin)
        done = subprocess.run([tool, "-gi", "-c", str(file)], capture_output=True, text=True, check=False)
    if done.returncode or ".text." not in done.stdout:
        said = next(iter(done.stderr.splitlines()), f"exit status {done.returncode} and no code")
        raise OptionError(f"nvdisasm that reads {ARCHITECTURE}", f"{said} from version {version[1]}", INSTALL)
    return done.stdout, f"nvdisasm {version[1]}"
