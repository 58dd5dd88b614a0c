"""The kernels of slab.cu by their PTX, in place of those that g++ makes of the same text for cuda_host.py."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from ptx.compile import nvrtc, ptx_of
from ptx.device import PtxModule

from servegen_gpu.backends.cuda.device import OPTIONS
from servegen_gpu.backends.cuda.loader import kernels_dir, one_text


def text_of(source: str = "slab.cu", fmad: bool = False) -> str:
    """PTX of a source with the backend's options; with `fmad`, multiplications and additions may be contracted."""
    options = [f"--fmad={str(fmad).lower()}" if "fmad" in option else option for option in OPTIONS]
    if nvrtc():
        return ptx_of(one_text(source), options)
    return ptx_of(f'#include "{source}"\n', [*options, f"-I{kernels_dir()}"])


@functools.cache
def module(source: str = "slab.cu") -> PtxModule:
    """All kernels of a source, compiled once."""
    return PtxModule(text_of(source))


def launch(
    kernels: PtxModule, kernel: str, job: np.ndarray[Any, Any], n: int, threads: int, shared_bytes: int, seed: int
) -> None:
    """A kernel for n threads: the job by address or by value, as the kernel takes it, and n."""
    by_value = kernels.kernels[f"sg_{kernel}"].params[0].count > 1
    arguments = [job.tobytes() if by_value else job.ctypes.data, n]
    kernels.launch(f"sg_{kernel}", -(-n // threads), threads, arguments, shared_bytes=shared_bytes, seed=seed)
