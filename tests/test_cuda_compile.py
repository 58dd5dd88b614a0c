"""Every kernel compiles for the devices that we promise, without one being there; no register is spilled."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servegen_gpu.backends import choose_backend, cuda, cuda_device, describe_backends, loader
from servegen_gpu.backends.cuda_device import OPTIONS
from servegen_gpu.errors import OptionError

KERNELS = Path(__file__).parent.parent / "kernels"
ARCHITECTURES = ("sm_80", "sm_90")
NVCC = shutil.which("nvcc")


def nvrtc() -> ctypes.CDLL | None:
    """The library of the wheel that CuPy needs, if it is installed."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(place).glob("*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    return None


NVRTC = nvrtc()


def check(report: str) -> None:
    """No kernel of a compiler's report spills, and all are there."""
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    names = re.findall(r"Compiling entry function 'sg_(\w+)'", report)
    assert len(names) == len(spills) == len(kernel_names())
    assert sorted(names) == kernel_names()
    assert set(spills) == {("0", "0")}, report


def kernel_names() -> list[str]:
    """Kernels of slab.cu."""
    text = (KERNELS / "slab.cu").read_text()
    return sorted(re.findall(r"^SG_KERNEL\((\w+)\)", text, re.MULTILINE) + re.findall(r" sg_([a-z]\w*)\(", text))


@pytest.mark.skipif(not NVCC, reason="no nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_the_kernels(architecture: str, tmp_path: Path) -> None:
    command = [NVCC, "--cubin", f"-arch={architecture}", *OPTIONS, "-Xptxas", "-v", "-I", KERNELS, KERNELS / "slab.cu"]
    done = subprocess.run(
        [str(part) for part in [*command, "-o", tmp_path / "slab.cubin"]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    check(done.stderr)


@pytest.mark.skipif(not NVRTC, reason="no nvidia-cuda-nvrtc wheel")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_the_kernels_as_one_text(architecture: str) -> None:
    check(nvrtc_report(loader.one_text(), architecture))


@pytest.mark.skipif(not NVRTC, reason="no nvidia-cuda-nvrtc wheel")
def test_nvrtc_compiles_the_probes_of_the_benchmark() -> None:
    probes = KERNELS.parent / "bench" / "gpu_probe.cu"
    assert "probe_philox" in nvrtc_report(loader.one_text() + probes.read_text(), "sm_90")


def nvrtc_report(text: str, architecture: str) -> str:
    """What NVRTC says about a text that it compiles."""
    assert NVRTC
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = text.encode()
    assert NVRTC.nvrtcCreateProgram(ctypes.byref(program), source, b"slab.cu", 0, None, None) == 0
    given = [option.encode() for option in (f"-arch={architecture}", *OPTIONS, "-ftz=true", "--ptxas-options=-v")]
    status = NVRTC.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
    NVRTC.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    NVRTC.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    NVRTC.nvrtcGetCUBINSize(program, ctypes.byref(size))
    assert size.value > 10_000
    NVRTC.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode()


def test_no_contraction_is_asked_for() -> None:
    assert "--fmad=false" in OPTIONS
    assert not any("fast" in option for option in OPTIONS)


# Sources


def test_one_text_has_every_header_once() -> None:
    text = loader.one_text()
    assert "#include" not in text
    assert text.count("SG_DEVICE Words philox4x32(") == 1
    assert text.count("struct SlabJob {") == 1


def test_sources_inside_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "servegen_gpu"
    shutil.copytree(KERNELS, package / "kernels")
    monkeypatch.setattr(loader, "__file__", str(package / "backends" / "loader.py"))
    assert loader.kernels_dir() == package / "kernels"
    shutil.rmtree(package / "kernels")
    with pytest.raises(OptionError, match="kernel sources"):
        loader.kernels_dir()


# What is missing, in one sentence


def missing(
    monkeypatch: pytest.MonkeyPatch, *, status: int = 0, compiled: Exception | None = None, **runtime: Any
) -> str:
    """What opening a device says when CuPy is a stand-in with these faults."""

    class CUDARuntimeError(Exception):
        def __init__(self) -> None:
            super().__init__("cudaError: details")
            self.status = status

    class CompileException(Exception):
        pass

    def count() -> int:
        if status:
            raise CUDARuntimeError
        return 1

    def compile_() -> None:
        if compiled:
            raise compiled if not isinstance(compiled, SyntaxError) else CompileException("slab.cu(1): error: nonsense")

    given = {"is_hip": False, "runtimeGetVersion": lambda: 13000, "getDeviceCount": count} | runtime
    cuda_ = SimpleNamespace(
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, **given),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        compiler=SimpleNamespace(CompileException=CompileException),
        MemoryPool=SimpleNamespace,
        PinnedMemoryPool=SimpleNamespace,
        Stream=lambda **_: None,
    )
    module = SimpleNamespace(cuda=cuda_, RawModule=lambda **_: SimpleNamespace(compile=compile_))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(cuda_device, "has_cupy", lambda: True)
    if "driver" not in given:
        monkeypatch.setattr(cuda_device, "driver_version", lambda: 12040)
    with pytest.raises(OptionError) as caught:
        cuda_device.CudaDevice()
    return str(caught.value)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "which this CuPy is built for, got one for CUDA 12.4; update the driver" in missing(monkeypatch, status=35)
    assert "cudaError: details; check nvidia-smi" in missing(monkeypatch, status=999)
    assert "CuPy built for ROCm" in missing(monkeypatch, is_hip=True)
    assert "slab.cu(1): error: nonsense" in missing(monkeypatch, compiled=SyntaxError())
    denied = PermissionError(13, "Permission denied", "/nowhere")
    assert "/nowhere: Permission denied; set CUPY_CACHE_DIR" in missing(monkeypatch, compiled=denied)
    assert "pip install nvidia-cuda-nvrtc" in missing(monkeypatch, compiled=RuntimeError("no libnvrtc.so.13"))


def test_no_cupy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "has_cupy", lambda: False)
    cuda_device.open_device.cache_clear()
    with pytest.raises(OptionError, match=r"no module named cupy; pip install \"servegen-gpu\[cuda13\]\""):
        choose_backend("cupy")
    assert {row["name"]: row["state"] for row in describe_backends()}["cupy"] == "missing"


def test_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(cuda_device.NoDriver, match="no NVIDIA driver"):
        cuda_device.driver_version()
    assert not cuda.is_likely()


@pytest.mark.parametrize(
    ("status", "devices", "why"), [(999, 0, "CUDA error 999"), (100, 0, "no device"), (0, 0, "no device")]
)
def test_no_device_is_said(status: int, devices: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(at: Any) -> int:
        at._obj.value = devices
        return 0

    driver = SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    with pytest.raises(cuda_device.NoDriver, match=why):
        cuda_device.driver_version()


def test_auto_passes_over_a_device_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "is_likely", lambda: True)
    monkeypatch.setattr(cuda_device, "has_cupy", lambda: False)
    cuda_device.open_device.cache_clear()
    assert choose_backend("auto").name in ("native", "numpy")


def test_device_is_refused_by_backends_without_one() -> None:
    from profiles import tiny_pool

    import servegen_gpu as sg

    with pytest.raises(OptionError, match=r"device of its own.*got 'numpy'"):
        sg.stream(tiny_pool(), backend="numpy", device=True)


def test_importing_the_package_and_auto_without_a_driver_leave_cupy_alone() -> None:
    code = "import sys, servegen_gpu.backends as b; b.choose_backend('numpy'); sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=KERNELS.parent).returncode == 0
