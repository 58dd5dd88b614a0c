"""The sort of a slab's words by the bits that matter: the bits, the library, finding and building it."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from cuda_host import COMPILER
from profiles import tiny_pool
from test_golden import CASES
from traces import joined, same

from servegen_gpu.backends import describe_backends
from servegen_gpu.backends.cuda import sort as cuda_sort
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import open_device
from servegen_gpu.backends.cuda.slab import OUTSIDE, WORD_BITS, position_bits
from servegen_gpu.backends.cuda.sort import sort_bits
from servegen_gpu.backends.native.build import BuildError
from servegen_gpu.errors import OptionError

HERE = Path(__file__).parent
KERNELS = HERE.parent / "kernels"
NVCC = shutil.which("nvcc")
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no g++ to play nvcc")

PLAYED = """#!/bin/sh
# nvcc, played by g++
[ "$1" = --version ] && echo "release 0.0, played" && exit
echo called >> "$0.calls"
sleep {seconds}
for word; do case $word in *.cu) source=$word ;; esac; last=$word; done
exec {compiler} -x c++ -std=c++17 -O0 -shared -fPIC -I {headers} "$source" -o "$last"
"""


def nvcc_in(folder: Path, text: str = PLAYED, seconds: float = 0) -> Path:
    """A script that is found as nvcc."""
    path = folder / "nvcc"
    path.write_text(text.format(compiler=COMPILER, headers=HERE / "cub_on_host", seconds=seconds))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an nvcc, and a cache that tests share."""
    folder = tmp_path_factory.mktemp("cub")
    nvcc_in(folder)
    return folder


@pytest.fixture
def cub(built_once: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_cupy.StandIn]:
    """Two devices, and an nvcc that the host plays."""
    xp = fake_cupy.install(monkeypatch, devices=2)
    monkeypatch.setenv("NVCC", str(built_once / "nvcc"))
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(built_once / "cache"))
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "cub")
    yield xp
    open_device.cache_clear()
    cuda_sort.built.cache_clear()


# Which bits


@pytest.mark.parametrize(
    ("span_us", "bits_of_position", "bits"),
    [
        (600_000_000, 25, (25, 55)),  # a window of 600 s: 30 bits, four passes of eight
        (3_600_000_000, 25, (25, 57)),
        (1, 1, (1, 2)),
        (0, 1, (1, 2)),  # all are dropped
        ((1 << 30) - 1, 7, (7, 37)),
        (1 << 30, 7, (7, 38)),  # the last time, 2**30 - 1, has 30 ones: a dropped word needs one more
        (1 << 42, 20, (20, 63)),
    ],
)
def test_bits_of_a_sort(span_us: int, bits_of_position: int, bits: tuple[int, int]) -> None:
    assert sort_bits(span_us, bits_of_position) == bits


@pytest.mark.parametrize("span_us", [1, 2, 3, 4, 255, 256, 1000, 1 << 20, (1 << 20) - 1, 600_000_000, 1 << 40])
def test_those_bits_order_words_as_all_bits_do(span_us: int) -> None:
    n = 4097
    bits = position_bits(span_us, n)
    time_us = (np.arange(n) * 2654435761) % span_us
    time_us[[5, 9]] = span_us - 1
    word = time_us << bits | np.arange(n)
    word[::11] = OUTSIDE
    begin, end = sort_bits(span_us, bits)
    assert 0 < end <= WORD_BITS + 1
    key = word >> begin & ((1 << (end - begin)) - 1)
    assert np.array_equal(word[np.argsort(key, kind="stable")], np.sort(word))
    fewer = word >> begin & ((1 << (end - begin - 1)) - 1)
    if span_us & (span_us - 1) == 0 and span_us > 1:  # without the highest bit, a dropped word equals the last time
        assert not np.array_equal(word[np.argsort(fewer, kind="stable")], np.sort(word))


# The library


@needs_compiler
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 100_000])
@pytest.mark.parametrize("span_us", [100, 600_000_000, 1 << 33])
def test_the_library_sorts_as_cupy_does(n: int, span_us: int, cub: fake_cupy.StandIn) -> None:
    device = open_device(1)
    bits = position_bits(span_us, n)
    time_us = (np.arange(n) * 2654435761) % span_us
    word = time_us << bits | np.arange(n)
    word[::5] = OUTSIDE
    with device.current(), device.memory():
        ours = device.sort(cub.asarray(word), *sort_bits(span_us, bits))
        assert device.cub is not None
        assert len(device.cub(cub.empty(0, np.int64), 0, 8)) == 0
    assert np.array_equal(ours.get(), np.sort(word))


@needs_compiler
@pytest.mark.parametrize("name", list(CASES)[::9])
def test_columns_are_the_same_with_cub(name: str, cub: fake_cupy.StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, keywords = CASES[name]
    with_cub = joined(pool, backend="cupy", **keywords)
    assert open_device(0).cub
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "cupy")
    open_device.cache_clear()
    assert same(with_cub, joined(pool, backend="cupy", **keywords))
    assert not open_device(0).cub
    assert same(with_cub, joined(pool, backend="numpy", **keywords))


@needs_compiler
def test_an_error_of_cub_is_not_a_wrong_order(cub: fake_cupy.StandIn) -> None:
    sort = open_device(0).cub
    assert sort
    with pytest.raises(RuntimeError, match="CUDA error 1 of"):
        sort(cub.asarray(np.arange(9)), 5, 5)
    with pytest.raises(RuntimeError, match="CUDA error 101"):
        cuda_sort.CubSort(cub, 9, cuda_sort.built("sm_90"))(cub.asarray(np.arange(9)), 0, 8)


# Finding and building


def said(monkeypatch: pytest.MonkeyPatch) -> str:
    """What `servegen-gpu backends` says when the library cannot be had; with ``cub`` it is an error."""
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "cub")
    open_device.cache_clear()
    with pytest.raises(OptionError, match="SERVEGEN_GPU_SORT=cub asks for") as caught:
        CupyBackend()
    assert "unset it" in caught.value.fix
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "auto")
    (row,) = [row for row in describe_backends() if row["name"] == "cupy"]
    assert row["state"] == "ready"
    pool = tiny_pool()
    assert same(joined(pool, backend="cupy", duration=1200), joined(pool, backend="numpy", duration=1200))
    return row["detail"]


@needs_compiler
def test_what_keeps_cub_away_is_said(cub: fake_cupy.StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    assert "sorts with cupy.sort (CUB has fewer passes, but: NVCC is /nowhere/nvcc" in said(monkeypatch)
    monkeypatch.setenv(
        "NVCC", str(nvcc_in(tmp_path, "#!/bin/sh\necho 'sort.cu(5): error: no such header' >&2; exit 1\n"))
    )
    assert "sort.cu(5): error: no such header; install the CUDA toolkit" in said(monkeypatch)
    monkeypatch.setenv("NVCC", str(nvcc_in(tmp_path, '#!/bin/sh\nfor word; do :; done\necho nonsense > "$word"\n')))
    assert "invalid ELF header" in said(monkeypatch) or "file too short" in said(monkeypatch)
    nvcc_in(tmp_path)
    (tmp_path / "file").write_text("")
    cuda_sort.built.cache_clear()
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "file"))
    assert "set SERVEGEN_GPU_CACHE to a directory that can" in said(monkeypatch)


@needs_compiler
def test_a_library_of_another_order_is_not_used(cub: fake_cupy.StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_sort.CubSort, "__call__", lambda self, word, begin, end: word)
    assert "another order than cupy.sort" in said(monkeypatch)


def test_no_nvcc_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NVCC", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(BuildError, match="there is no nvcc; install the CUDA toolkit"):
        cuda_sort.nvcc()
    monkeypatch.setattr(shutil, "which", lambda name: name if name == str(tmp_path / "bin" / "nvcc") else None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_sort.nvcc() == str(tmp_path / "bin" / "nvcc")


def test_a_choice_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "thrust")
    with pytest.raises(OptionError, match="SERVEGEN_GPU_SORT among auto, cub, cupy, got 'thrust'"):
        cuda_sort.open_sort(xp, 0)


CHILD = """
import sys
from servegen_gpu.backends.cuda.sort import built
print(built("sm_90"))
"""


@needs_compiler
def test_two_processes_build_once(tmp_path: Path) -> None:
    nvcc = nvcc_in(tmp_path, seconds=0.3)
    environment = os.environ | {"NVCC": str(nvcc), "SERVEGEN_GPU_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", CHILD]
    begun = [
        subprocess.Popen(command, env=environment, cwd=HERE.parent, text=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    paths = [process.communicate()[0] for process in begun]
    assert paths[0] == paths[1]
    assert Path(paths[0].strip()).is_file()
    assert Path(f"{nvcc}.calls").read_text() == "called\n"
    assert not list((tmp_path / "cache").rglob("*.part"))


@needs_compiler
def test_another_compiler_architecture_or_text_is_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NVCC", str(nvcc_in(tmp_path)))
    paths = {cuda_sort.built("sm_90"), cuda_sort.built("sm_80")}
    nvcc_in(tmp_path, PLAYED + "# another\n")
    cuda_sort.built.cache_clear()
    paths.add(cuda_sort.built("sm_90"))
    copy = tmp_path / "kernels"
    shutil.copytree(KERNELS, copy)
    (copy / "sort.cu").write_text((copy / "sort.cu").read_text() + "// another\n")
    monkeypatch.setattr(cuda_sort, "kernels_dir", lambda: copy)
    cuda_sort.built.cache_clear()
    paths.add(cuda_sort.built("sm_90"))
    cuda_sort.built.cache_clear()
    assert len(paths) == 4


@pytest.mark.skipif(not NVCC, reason="no nvcc")
def test_nvcc_builds_the_library_and_it_loads_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("SERVEGEN_GPU_SLOW_TESTS"):
        pytest.skip("CUB takes nvcc 12 s: SERVEGEN_GPU_SLOW_TESTS=1 builds it")
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path))
    monkeypatch.delenv("NVCC", raising=False)
    cuda_sort.built.cache_clear()
    for architecture in ("sm_80", "sm_90"):
        library = ctypes.CDLL(str(cuda_sort.built(architecture)))
        size, in_other, nothing = ctypes.c_size_t(0), ctypes.c_int(0), ctypes.c_void_p(0)
        status = library.sg_sort(
            0, nothing, nothing, ctypes.c_int64(9), 0, 8, nothing, ctypes.byref(size), ctypes.byref(in_other), nothing
        )
        assert status in (0, 35, 100)  # a device, or a driver that is too old or shows none
    cuda_sort.built.cache_clear()
