"""A device that draws other gaps is refused when it is opened, though its rows are the law's."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import cuda_host
import fake_cuda
import fake_cupy
import pytest
from cuda_host import COMPILER, HostDevice
from profiles import tiny_pool
from traces import joined, same

from servegen_gpu.backends import choose_backend
from servegen_gpu.backends.cuda import check
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.errors import OptionError

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


def test_ticks_are_those_of_numpy() -> None:
    device: Any = HostDevice()
    assert check.ticks_that_differ(device, each=20_000, seed=3) == 0


@pytest.fixture(scope="module")
def contracted() -> ctypes.CDLL:
    """The kernels with multiply-adds of one rounding: what ``--fmad=true`` makes of them."""
    return cuda_host.typed(cuda_host.on_host("contracted", "-O2", "-mfma", "-ffp-contract=fast"))


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or " fma " not in Path("/proc/cpuinfo").read_text(), reason="no multiply-add"
)
def test_contracted_multiply_adds_are_refused(contracted: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(fake_cuda, "library", lambda: contracted)
    with pytest.raises(
        OptionError, match=r"gaps to the last bit, got [\d,]+ other ticks among 5,120 \(driver for CUDA"
    ):
        CupyBackend()
    assert choose_backend("auto").name in ("native", "numpy")
    pool, keywords = tiny_pool(), {"rate": 5.0, "duration": 1800, "counts": "exact"}
    backend = CupyBackend([CudaDevice(0)])  # unchecked
    monkeypatch.setattr("servegen_gpu.pipeline.choose_backend", lambda _: backend)
    rows = joined(pool, **keywords)
    monkeypatch.undo()
    assert same(rows, joined(pool, backend="numpy", **keywords))  # rows do not tell
    open_device.cache_clear()
