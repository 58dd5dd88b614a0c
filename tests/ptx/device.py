"""Kernels of a CUDA text, launched on the CPU by their PTX."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import threading
from collections.abc import Container, Sequence
from pathlib import Path

from built import compiled

from ptx.compile import ptx_of
from ptx.parse import Variable
from ptx.translate import translate

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
FLAGS = ("-std=c++20", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-tree-pta", "-U_FORTIFY_SOURCE", "-w")
OPTIONS = ("--fmad=false", "-std=c++17")

Dim = int | tuple[int, int] | tuple[int, int, int]
Argument = int | bytes


class LaunchError(RuntimeError):
    """What a device would trip over, or hang at."""


class PtxModule:
    """Kernels by name.

    Parameters
    ----------
    ptx : str
    contractible : bool, optional
        Take additions and multiplications that ptxas may contract.
    optimize : int, optional
        0 compiles in half the time, for kernels that run little.
    only : container of str, optional
        Kernels to take; by default all.
    """

    def __init__(
        self, ptx: str, *, contractible: bool = False, optimize: int = 1, only: Container[str] | None = None
    ) -> None:
        assert COMPILER
        text, self.kernels = translate(ptx, contractible=contractible, only=only)
        path = compiled("ptx", [COMPILER, *FLAGS, f"-O{optimize}", "-I", str(HERE)], text)
        with tempfile.TemporaryDirectory(prefix="servegen_gpu-test-") as folder:
            # the machine is a global of the library, so that every module has one of its own
            self._library = ctypes.CDLL(shutil.copy(path, Path(folder, "kernels.so")))
        self._library.ptx_failure.restype = ctypes.c_char_p
        self._lock = threading.Lock()  # for the one machine

    def launch(
        self, kernel: str, grid: Dim, block: Dim, arguments: Sequence[Argument], *,
        shared_bytes: int = 0, seed: int = 1, together: int = 1,
    ) -> None:  # fmt: skip
        """Run a kernel to its end.

        Parameters
        ----------
        kernel : str
        grid, block : int or tuple of int
        arguments : sequence of int or bytes
            An int stands for a pointer or any integer.
        shared_bytes : int, optional
            What the launch adds to the kernel's own shared memory.
        seed : int, optional
            Of the order of blocks and threads.
        together : int, optional
            Blocks that run at once.

        Raises
        ------
        LaunchError
        """
        shape = self.kernels[kernel]
        held = params(shape.params, arguments)
        dims = [(ctypes.c_uint32 * 3)(*(of if isinstance(of, tuple) else (of,)), *(1, 1, 1)[: 3 - _axes(of)])
                for of in (grid, block)]  # fmt: skip
        sizes = (ctypes.c_uint32(shape.shared_bytes), ctypes.c_uint32(shared_bytes))
        with self._lock:
            status = self._library.ptx_launch(
                kernel.encode(), held, *dims, *sizes, ctypes.c_uint64(seed), ctypes.c_uint32(together)
            )
            if status:
                raise LaunchError(f"{kernel}: {self._library.ptx_failure().decode()}")

    def move_seeds(self, by: int) -> None:
        """Move what approximate instructions give by some units of the 20 bits that are known."""
        self._library.ptx_move_seeds(ctypes.c_int64(by))


def _axes(of: Dim) -> int:
    return len(of) if isinstance(of, tuple) else 1


def params(declared: Sequence[Variable], arguments: Sequence[Argument]) -> ctypes.Array[ctypes.c_char]:
    """Arguments as a kernel reads them, each at a multiple of its alignment; 16 bytes more than needed."""
    if len(declared) != len(arguments):
        raise LaunchError(f"{len(arguments)} arguments for {len(declared)} parameters")
    out = b""
    for variable, argument in zip(declared, arguments, strict=True):
        if isinstance(argument, int):
            data = (argument % (1 << 8 * variable.bytes)).to_bytes(variable.bytes, "little")
        else:
            data = argument
        if len(data) != variable.bytes:
            raise LaunchError(f"{len(data)} bytes for {variable.name}, which has {variable.bytes}")
        out += bytes(-len(out) % variable.align) + data
    return ctypes.create_string_buffer(out, len(out) + 16)


def cuda(text: str, *, options: Sequence[str] = OPTIONS, contractible: bool = False) -> PtxModule:
    """Kernels of a CUDA text."""
    return PtxModule(ptx_of(text, options), contractible=contractible)
