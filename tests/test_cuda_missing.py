"""What is missing for the cupy backend is said in one sentence, with what to do; no other backend takes its place."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cupy
import pytest
from cuda_host import COMPILER
from fake_cuda import CompileException, CUDADriverError
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu.backends import choose_backend, describe_backends
from servegen_gpu.backends.cuda import backend as cuda
from servegen_gpu.backends.cuda import device as cuda_device
from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError

REPOSITORY = Path(__file__).parent.parent

needs_compiler = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    cuda_device.open_device.cache_clear()
    yield
    cuda_device.open_device.cache_clear()


def said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> str:
    """What the commands say; `generate --backend cupy` fails with it, `auto` goes on without, `backends` lists it."""
    target = tmp_path / "trace.csv"
    command = ["generate", "deepseek-r1", "--clients", "20", "--rate", "2", "--duration", "60s", "-o", str(target)]
    assert main([*command, "--backend", "cupy"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert not target.exists()
    assert main(command) == 0
    assert "on cupy" not in capsys.readouterr().out
    target.unlink()
    assert main(["backends", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "cupy"]
    assert row["state"] == "missing"
    assert row["detail"].removeprefix("got ") in message
    return message


Case = tuple[dict[str, Any], str]
CASES: dict[str, Case] = {
    "driver too old for CUDA 13": (
        {"status": 35, "driver": 12040},
        "expected a driver for CUDA 13.0, which this CuPy is built for, got one for CUDA 12.4; update the driver, or "
        'pip uninstall cupy-cuda13x, then pip install "servegen-gpu[cuda12]"',
    ),
    "driver too old for anything": (
        {"status": 35, "driver": 11080, "runtime": 12000},
        "got one for CUDA 11.8; update the driver, or choose backend 'native' or 'numpy'",
    ),
    "driver of a new 13": ({"status": 35, "driver": 13000, "runtime": 14000}, "for CUDA 13.0; update the driver, or"),
    "device that does not work": ({"status": 999}, "a working CUDA device, got cudaErrorUnknown: details; check"),
    "device memory full": (
        {"start_status": 2},
        "expected free memory on the CUDA device, got none (cudaErrorMemoryAllocation: out of memory); see with "
        "nvidia-smi who has it, choose another device with CUDA_VISIBLE_DEVICES, or choose backend",
    ),
    "device of somebody else": ({"start_status": 46}, "that this process may use, got cudaErrorDevicesUnavailable"),
    "module does not load": ({"compiled": CUDADriverError("no kernel image")}, "CUDA device, got no kernel image"),
    "kernels that do not compile": (
        {"compiled": CompileException("slab.cu(1): error: nonsense")},
        "kernels that NVRTC compiles, got slab.cu(1): error: nonsense; report this, or choose backend 'native'",
    ),
    "no NVRTC": (
        {"compiled": RuntimeError("no libnvrtc.so.13")},
        "expected NVRTC, which compiles the kernels, got no libnvrtc.so.13; pip install nvidia-cuda-nvrtc",
    ),
    "no NVRTC to import": ({"compiled": ImportError("libnvrtc.so.12: cannot open")}, "got libnvrtc.so.12: cannot open"),
    "cache that cannot be written": (
        {"compiled": PermissionError(13, "Permission denied", "/nowhere")},
        "expected a cache directory for compiled kernels, got /nowhere: Permission denied; set CUPY_CACHE_DIR",
    ),
    "disk full": ({"compiled": OSError(28, "No space left on device")}, "got CuPy's cache directory: No space left"),
    "CuPy for ROCm": ({"is_hip": True}, "expected CuPy built for CUDA, got CuPy built for ROCm"),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_what_is_missing_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    faults, message = CASES[name]
    fake_cupy.install(monkeypatch, **faults)
    assert message in said(capsys, tmp_path)


@needs_compiler
def test_an_older_cupy_with_a_newer_driver_works(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, driver=13000, runtime=12090)
    assert choose_backend("cupy").name == "cupy"
    assert choose_backend("auto").name == "cupy"


def test_no_cupy_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_driver, "has_cupy", lambda: False)
    assert 'no module named cupy; pip install "servegen-gpu[cuda13]", or [cuda12]' in said(capsys, tmp_path)


@needs_compiler
def test_two_cupys_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = [SimpleNamespace(metadata={"Name": name}) for name in ("numpy", "CuPy", "cupy-cuda13x", "cupy-xarray")]
    packages = cuda_driver.cupy_packages
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(cuda_driver, "cupy_packages", packages)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: named)
    message = said(capsys, tmp_path)
    assert "expected one CuPy, got cupy and cupy-cuda13x together; pip uninstall cupy cupy-cuda13x, then pip" in message


def test_a_cupy_that_does_not_load_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(cuda_driver, "cupy_packages", lambda: [])
    message = said(capsys, tmp_path)
    assert (
        "expected a CuPy that loads, got libcudart.so.13: cannot open shared object file; install it again" in message
    )


@needs_compiler
def test_no_driver_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    version = cuda_driver.driver_version
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(cuda_driver, "driver_version", version)
    load = ctypes.CDLL

    def without(name: str, *given: Any, **named: Any) -> Any:
        if "cuda" in str(name):
            raise OSError(name)
        return load(name, *given, **named)

    monkeypatch.setattr(ctypes, "CDLL", without)
    assert not cuda.is_likely()
    assert "expected a CUDA device, got no NVIDIA driver (libcuda.so.1 is not there); install" in said(capsys, tmp_path)


@pytest.mark.parametrize(
    ("status", "devices", "why"),
    [
        (999, 0, "CUDA error 999"),
        (100, 0, "shows no device; see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it"),
        (0, 0, "shows no device"),
    ],
)
def test_no_device_is_said(status: int, devices: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(at: Any) -> int:
        at._obj.value = devices
        return 0

    driver = SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count)
    monkeypatch.setattr(cuda_driver, "has_cupy", lambda: True)
    monkeypatch.setattr(cuda_driver, "import_cupy", lambda: SimpleNamespace(cuda=SimpleNamespace(runtime=None)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    with pytest.raises(OptionError, match=why):
        choose_backend("cupy")
    assert not cuda.is_likely()


@needs_compiler
def test_auto_passes_over_a_device_that_makes_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(cuda_device.CudaDevice, "sort", lambda self, word, *_: word)  # no order at all
    assert choose_backend("auto").name in ("native", "numpy")
    assert choose_backend("cupy").name == "cupy"


def test_device_is_refused_by_backends_without_one() -> None:
    with pytest.raises(OptionError, match=r"device of its own.*got 'numpy'"):
        sg.stream(tiny_pool(), backend="numpy", device=True)


def test_importing_the_package_and_auto_without_a_driver_leave_cupy_alone() -> None:
    code = "import sys, servegen_gpu.backends as b; b.choose_backend('numpy'); sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=REPOSITORY).returncode == 0


def test_every_backend_says_how_to_get_it() -> None:
    for row in describe_backends():
        assert row["state"] in ("ready", "missing")
        assert row["state"] == "ready" or any(word in row["detail"] for word in ("install", "run ", "set "))
