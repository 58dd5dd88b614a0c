"""bench/device_check.sh and its parts, every line at tiny sizes over the stand-in for CuPy."""

from __future__ import annotations

import json
import os
import py_compile
import re
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cupy
import pytest
from built import with_native
from cuda_host import COMPILER
from native import library
from profiles import REPOSITORY
from test_cuda_sort import nvcc_in

from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda.device import open_device

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")

BENCH = REPOSITORY / "bench"
SCRIPT = BENCH / "device_check.sh"
TINY = ["--tiny", "--requests", "9000"]
PLAIN = """
import runpy, sys
script, *libraries = sys.argv[1:]
sys.path += libraries  # without an editable installation, which a .pth file would bring
sys.path[0], sys.argv = script.rsplit("/", 1)[0], [script, "--help"]
runpy.run_path(script, run_name="__main__")
"""
"""A script as `python script --help` runs it where the package is not installed."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CuPy for child processes, an nvcc, and a cache that has the compiled kernels."""
    folder = tmp_path_factory.mktemp("machine")
    fake_cupy.for_children(folder / "children")
    nvcc_in(folder)
    with_native(folder / "cache", library().path)
    return folder


@pytest.fixture
def played(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices and an nvcc that the host plays, for child processes too."""
    fake_cupy.install(monkeypatch, devices=2)
    monkeypatch.setenv("PYTHONPATH", str(machine / "children"))
    monkeypatch.setenv("NVCC", str(machine / "nvcc"))
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(machine / "cache"))
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "auto")


@pytest.fixture
def check(played: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program of the parts as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    import device_check

    yield device_check
    for name in set(sys.modules) - before:
        if name.startswith("device_") or name in ("common", "problem"):
            del sys.modules[name]
    open_device.cache_clear()


def looked(program: ModuleType, folder: Path, part: str, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and rows of a part."""
    status = program.main([part, str(folder), *TINY, *more])
    return status, rows_of(folder, part)


def rows_of(folder: Path, part: str) -> list[dict[str, Any]]:
    """Rows of a part."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines() if line]
    return [row for row in rows if row["part"] == part]


def test_the_script_and_the_program_have_the_same_parts(check: ModuleType) -> None:
    named = set(re.findall(r"^ *(?:part|timed) \d+ (\w+)$", SCRIPT.read_text(), re.MULTILINE))
    assert named == set(check.PARTS) - {"devices", "disk"}  # for machines with several devices, and disks worth it


@pytest.mark.parametrize("part", ["ticks", "rows", "large", "jax"])
def test_rows_are_right(check: ModuleType, tmp_path: Path, part: str) -> None:
    if part == "jax":
        pytest.importorskip("jax")
    status, rows = looked(check, tmp_path, part)
    assert status == 0
    assert [row["equal"] for row in rows[:-1]] == [True] * (len(rows) - 1)
    assert len(rows) > 2
    assert set(rows[-1]) == {"part", "seconds"}


@pytest.mark.parametrize("part", ["ticks", "rows"])
def test_other_rows_than_numpys_are_a_failure(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from servegen_gpu.backends.cuda.device import CudaDevice

    launch = CudaDevice.launch

    def other(self: Any, kernel: str, job: Any, *more: Any) -> None:
        launch(self, kernel, job, *more)
        if kernel in ("draw", "gap"):  # the last bit of one request's ticks
            ticks = job["ticks"].host
            ticks[len(ticks) // 2] ^= 1 << (0 if part == "ticks" else 55)

    open_device(0)  # which looks at its ticks itself
    monkeypatch.setattr(CudaDevice, "launch", other)
    status, rows = looked(check, tmp_path, part)
    assert status == 1
    assert False in [row.get("equal") for row in rows]
    assert "failed" in rows[-1]


def test_figures_of_traces(check: ModuleType, tmp_path: Path) -> None:
    status, rows = looked(check, tmp_path, "traces")
    assert status == 0
    for name in ("language, renewal", "language, exact", "deepseek-r1, renewal"):
        (row,) = [row for row in rows if row.get("what") == name]
        assert row["requests"] == pytest.approx(9000, rel=0.1)
        assert row["requests_per_s"] == pytest.approx(1e12 / row["ms_per_1e9"])
        assert 0 < row["peak_device_bytes"] < check.BUDGET_BYTES
        (kernels,) = [row for row in rows if row.get("what") == f"{name}, kernels"]
        assert {"draw", "time", "scatter", "arrange"} <= set(kernels["ms_per_1e9"])


@pytest.mark.parametrize("part", ["system", "host", "to_disk", "copies", "draws", "sorts", "disk", "devices"])
def test_every_other_part_runs(check: ModuleType, tmp_path: Path, part: str) -> None:
    status, rows = looked(check, tmp_path, part, "--disk", str(tmp_path))
    assert status == 0, rows
    if part == "system":
        assert rows[0]["devices"] == ["Stand-in", "Stand-in"]
        assert rows[0]["nvcc"] == "release 0.0, played"
        assert "sorts with CUB" in rows[0]["backend"]
    if part == "to_disk":
        assert rows[0]["ratio"] == pytest.approx(rows[0]["seconds"] / rows[0]["writing_alone_seconds"])
    if part == "sorts":
        assert "cub, keys of 8 bytes, values of 0, bits 28 to 58" in {row.get("what") for row in rows}
    if part == "devices":
        assert [row.get("what") for row in rows] == ["1 device(s)", "2 device(s)", None]


def test_baselines(check: ModuleType, tmp_path: Path) -> None:
    status, rows = looked(check, tmp_path, "baselines")
    assert status == 0
    skipped = [row["what"].split()[0] for row in rows[:-1] if "skipped" in row]
    assert set(skipped) <= {"torch_sort", "torch_alone"}
    for row in rows[:-1]:
        if row["what"].startswith("cupy"):
            assert row["requests"] == pytest.approx(9000, rel=0.1)
            assert row["peak_bytes"] > 0


def test_no_device_and_no_nvcc_are_said(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    assert "NVCC is /nowhere/nvcc" in looked(check, tmp_path, "system")[1][0]["nvcc"]
    assert "NVCC is /nowhere/nvcc" in looked(check, tmp_path, "sorts")[1][-2]["skipped"]
    open_device.cache_clear()
    monkeypatch.setattr(cuda_driver, "has_cupy", lambda: False)
    status, rows = looked(check, tmp_path, "ticks")
    assert status == 2
    assert "no module named cupy" in rows[-1]["failed"]


def script(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The script's end, with more in its environment."""
    environment = os.environ | {"PYTHON": sys.executable, "DEVICE_CHECK_OPTIONS": " ".join(TINY)} | more
    return subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_script_goes_on_after_parts_that_fail(played: None, tmp_path: Path) -> None:
    done = script("first", str(tmp_path / "out"), DEVICE_CHECK_PARTS="system ticks tests", PYTEST_ADDOPTS="--nonsense")
    assert done.returncode == 1, done.stdout
    assert done.stdout.endswith("failed: tests\n")
    found = json.loads((tmp_path / "out" / "device.json").read_text())
    assert found["machine"]["devices"] == ["Stand-in"]
    assert all(row["equal"] for row in found["ticks"][:-1])
    assert found["tests"] == [{"failed": "4"}]
    assert len(list((tmp_path / "out").iterdir())) <= 8


def test_nothing_is_timed_where_the_device_is_not_right(played: None, tmp_path: Path) -> None:
    done = script("second", str(tmp_path), DEVICE_CHECK_PARTS="ticks traces", SERVEGEN_GPU_SORT="nonsense")
    assert done.returncode == 1
    assert "traces is left out" in done.stdout
    assert {
        row["part"] for row in map(json.loads, filter(None, (tmp_path / "rows.jsonl").read_text().splitlines()))
    } == {"ticks"}


def test_a_part_that_was_killed_is_named(check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for status in ("124", "139"):
        with (tmp_path / "rows.jsonl").open("a") as file:
            file.write('{"part": "traces", "wh')  # in the middle of a line
        assert check.main(["ended", str(tmp_path), "--name", f"part{status}", "--status", status]) == 0
    assert check.main(["summary", str(tmp_path)]) == 1
    assert "failed: part124, part139" in capsys.readouterr().out
    assert json.loads((tmp_path / "device.json").read_text())["part124"] == [{"failed": "took too long"}]


def test_a_device_that_does_not_open_is_named(played: None, tmp_path: Path) -> None:
    done = script("first", str(tmp_path), DEVICE_CHECK_PARTS="system", SERVEGEN_GPU_SORT="nonsense")
    assert done.returncode == 1
    assert done.stdout.endswith("failed: system\n")
    done = script("first", str(tmp_path), DEVICE_CHECK_PARTS="system", DEVICE_CHECK_OPTIONS="--nonsense")
    assert done.stdout.endswith("failed: system\n")
    assert len(rows_of(tmp_path, "system")) == 1  # of this run alone


@pytest.mark.parametrize("arguments", [(), ("third", "folder"), ("first",), ("first", "/proc/nowhere")])
def test_bad_arguments(arguments: tuple[str, ...]) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_no_rows_are_said(check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["summary", str(tmp_path)]) == 2
    assert "no rows in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        check.main(["nonsense", str(tmp_path)])


def test_it_runs_from_a_plain_source_tree(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", PLAIN, str(BENCH / "device_check.py"), *site.getsitepackages()]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: device_check.py")


@pytest.mark.parametrize("script", sorted((BENCH / "baselines").glob("*.py")), ids=lambda path: path.stem)
def test_baselines_are_python(script: Path, tmp_path: Path) -> None:
    # those with torch are run only where there is a device and torch
    assert py_compile.compile(str(script), cfile=str(tmp_path / "compiled.pyc"), doraise=True)
    assert os.path.getsize(tmp_path / "compiled.pyc")
