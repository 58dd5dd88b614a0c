"""Every kernel compiles for the devices that we promise, without one being there; what registers spill is listed."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ptx.compile import nvrtc

from servegen_gpu.backends.cuda import loader
from servegen_gpu.backends.cuda.device import OPTIONS
from servegen_gpu.errors import OptionError

KERNELS = Path(__file__).parent.parent / "kernels"
PROBES = KERNELS.parent / "bench" / "device_probe.cu"
ARCHITECTURES = ("sm_80", "sm_90")
NVCC = shutil.which("nvcc")
SPILLED = {  # bytes stored and loaded at most: the registers that would hold them halve the warps of a multiprocessor
    "draw": (32, 60),  # on an H200 1.3 accesses in 406 instructions of 32 requests
    "scatter": (20, 24),  # 2.0 in 259
    "gap": (4, 4),  # by NVRTC 13.5: a word of a thread that may draw again
}
"""What is kept in memory for want of registers; the other kernels keep nothing there."""

NVRTC = nvrtc()


def check(report: str) -> None:
    """All kernels are in a compiler's report, and none spills more than it may."""
    found = re.findall(
        r"Compiling entry function 'sg_(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", report, re.DOTALL
    )
    spilled = {name: (int(stores), int(loads)) for name, stores, loads in found}
    assert sorted(spilled) == kernel_names()
    more = {name: of for name, of in spilled.items() if any(map(int.__gt__, of, SPILLED.get(name, (0, 0))))}
    assert not more


def kernel_names() -> list[str]:
    """Kernels of slab.cu."""
    text = (KERNELS / "slab.cu").read_text()
    return sorted(re.findall(r"^SG_(?:EACH\(|KERNEL\(.*?\) sg_)(\w+)", text, re.MULTILINE))


def test_a_spill_beyond_the_list_is_refused() -> None:
    report = "".join(
        f"Compiling entry function 'sg_{name}'\n{{{name}[0]}} bytes spill stores, {{{name}[1]}} bytes spill loads\n"
        for name in kernel_names()
    )
    none = dict.fromkeys(kernel_names(), (0, 0))
    check(report.format(**none | SPILLED))
    for name, of in (("draw", (36, 60)), ("draw", (32, 64)), ("time", (0, 4))):
        with pytest.raises(AssertionError, match=name):
            check(report.format(**none | {name: of}))
    with pytest.raises(AssertionError):
        check(report.replace("sg_time", "sg_tome").format(**none))


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


@pytest.mark.skipif(not NVCC, reason="no nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_the_probes_of_the_benchmark(architecture: str, tmp_path: Path) -> None:
    source = tmp_path / "probes.cu"
    source.write_text(f'#include "slab.cu"\n{PROBES.read_text()}')
    command = [
        NVCC,
        "--cubin",
        f"-arch={architecture}",
        *OPTIONS,
        "-I",
        KERNELS,
        source,
        "-o",
        tmp_path / "probes.cubin",
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.skipif(not NVRTC, reason="no nvidia-cuda-nvrtc wheel")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_the_kernels_as_one_text(architecture: str) -> None:
    check(nvrtc_report(loader.one_text(), architecture))


@pytest.mark.skipif(not NVRTC, reason="no nvidia-cuda-nvrtc wheel")
def test_nvrtc_compiles_the_probes_of_the_benchmark() -> None:
    assert "probe_philox" in nvrtc_report(loader.one_text() + PROBES.read_text(), "sm_90")


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
    assert text.count("struct RoundKeys {") == 1
    assert text.count("struct SlabJob {") == 1


def test_sources_inside_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "servegen_gpu"
    shutil.copytree(KERNELS, package / "kernels")
    monkeypatch.setattr(loader, "__file__", str(package / "backends" / "cuda" / "loader.py"))
    assert loader.kernels_dir() == package / "kernels"
    shutil.rmtree(package / "kernels")
    with pytest.raises(OptionError, match="kernel sources"):
        loader.kernels_dir()
