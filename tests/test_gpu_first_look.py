"""Every line of bench/gpu_first_look.py and of the CuPy baselines, at tiny sizes over the stand-in for CuPy."""

from __future__ import annotations

import json
import os
import py_compile
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cupy
import pytest
from cuda_host import COMPILER
from profiles import REPOSITORY
from test_cuda_sort import nvcc_in

from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda.device import open_device

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")

BENCH = REPOSITORY / "bench"
PLAIN = """
import runpy, sys
script, *libraries = sys.argv[1:]
sys.path += libraries  # without an editable installation, which a .pth file would bring
sys.path[0], sys.argv = script.rsplit("/", 1)[0], [script, "--help"]
runpy.run_path(script, run_name="__main__")
"""
"""A script as `python script --help` runs it where the package is not installed."""


@pytest.fixture
def first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, with two devices and an nvcc that the host plays, for its children too."""
    fake_cupy.install(monkeypatch, devices=2)
    fake_cupy.for_children(tmp_path / "children")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "children"))
    monkeypatch.setenv("NVCC", str(nvcc_in(tmp_path)))
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "auto")
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    import gpu_first_look

    yield gpu_first_look
    for name in set(sys.modules) - before:
        if name.startswith("gpu_") or name in ("common", "problem"):
            del sys.modules[name]
    open_device.cache_clear()


def looked(script: ModuleType, folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit status and figures."""
    target = folder / "figures.json"
    sizes = ["--tiny", "--requests", "30000", "--disk-requests", "20000", "--disk", str(folder)]
    status = script.main([*sizes, "--json", str(target), *more])
    return status, json.loads(target.read_text())


def test_every_line_runs(first_look: ModuleType, tmp_path: Path) -> None:
    status, found = looked(first_look, tmp_path)
    failed = [row for name in first_look.PARTS for row in found[name] if "failed" in row]
    assert not failed
    assert status == 0
    skipped = [row["what"] for name in first_look.PARTS for row in found[name] if "skipped" in row]
    assert set(skipped) <= {"torch_sort", "torch_alone"}
    machine = found["machine"]
    assert machine["devices"] == ["Stand-in", "Stand-in"]
    assert {"cuda_driver", "cuda_runtime", "cupy", "nvcc", "commit", "date", "cpu", "python"} <= set(machine)
    assert machine["nvcc"] == "release 0.0, played"
    assert "sorts with CUB" in machine["backend"]

    assert [row["equal"] for row in found["check"]] == [True, True]
    end_to_end = {row["what"]: row for row in found["end_to_end"]}
    assert list(end_to_end) == [
        "on the device", "to the host, alone", "to the host", "to Parquet, alone", "from nothing to Parquet"
    ]  # fmt: skip
    for row in end_to_end.values():
        assert row["requests"] > 10_000
        assert row["bytes"] > 0
        assert row["requests_per_s"] == pytest.approx(row["requests"] / row["seconds"])
        assert ("of_ceiling" in row) == ("Parquet" not in row["what"])  # the disk is measured later
    rules = {(row["sort"], row["counts"]) for row in found["stages"]}
    assert rules == {("CUB", "renewal"), ("CUB", "exact"), ("cupy.sort", "renewal")}
    kernels = {row["what"] for row in found["stages"]}
    assert {"gap", "tick", "word", "record", "row", "all else"} < kernels
    assert sum(name.startswith("sort of bits") for name in kernels) >= 1
    assert {row["what"] for row in found["devices"]} == {"1 device(s)", "2 device(s)"}
    rows = {row["what"]: row for row in found["baselines"]}
    assert list(rows) == ["cupy_argsort", "cupy_packed_sort", "torch_sort", "torch_alone", "numpy_script"]
    for name in ("cupy_argsort", "cupy_packed_sort"):
        assert abs(rows[name]["requests"] - 30_000) < 1000
        assert rows[name]["peak_bytes"] > 0
    assert {"cupy.sort uint32", "cupy.argsort float64"} <= {row["what"] for row in found["sorts"]}
    assert "cub, keys of 8 bytes, values of 0, bits 28 to 58" in {row["what"] for row in found["sorts"]}
    assert len(found["draws"]) == 1 + 2 * 3 + 2


def test_it_runs_from_a_plain_source_tree(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", PLAIN, str(BENCH / "gpu_first_look.py"), *site.getsitepackages()]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: gpu_first_look.py")


def test_a_part_that_fails_or_takes_too_long_leaves_the_others_alone(
    first_look: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(look: Any) -> Iterator[dict[str, Any]]:
        yield {"what": "first", "ms": 1.0}
        raise ValueError("second")

    def sleeps(look: Any) -> Iterator[dict[str, Any]]:
        yield {"what": "first", "ms": 1.0}
        time.sleep(10)

    def reads(look: Any) -> Iterator[dict[str, Any]]:
        yield {"what": "so far", "parts": list(json.loads((tmp_path / "figures.json").read_text()))}

    monkeypatch.setattr(first_look, "PARTS", {"a": (fails, 9), "b": (sleeps, 0.05), "c": (reads, 9), "d": (fails, 0)})
    status, found = looked(first_look, tmp_path, "--only", "a,b,c,d")
    assert status == 1
    assert found["a"] == [{"what": "first", "ms": 1.0}, {"failed": "ValueError: second"}]
    assert found["b"] == [{"what": "first", "ms": 1.0}, {"skipped": "the rest: more than 0 s"}]
    assert {"a", "b"} <= set(found["c"][0]["parts"])
    assert "over" in found["d"][0]["skipped"]
    with pytest.raises(SystemExit):
        first_look.main(["--only", "nonsense"])


def test_nothing_is_timed_on_a_device_that_makes_other_rows(
    first_look: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpu_traces.np.array_equal", lambda *_: False)
    status, found = looked(first_look, tmp_path, "--only", "check,stages")
    assert status == 1
    assert [row["failed"] for row in found["check"]] == ["other rows than NumPy's"] * 2
    assert "stages" not in found
    assert "nothing is timed" in capsys.readouterr().err


def test_no_device_and_no_nvcc_are_said(
    first_look: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    status, found = looked(first_look, tmp_path, "--only", "sorts,stages")
    assert status == 0
    assert "NVCC is /nowhere/nvcc" in found["sorts"][-1]["skipped"]
    assert "NVCC is /nowhere/nvcc" in found["machine"]["nvcc"]
    assert {row["sort"] for row in found["stages"]} == {"cupy.sort"}
    open_device.cache_clear()
    monkeypatch.setattr(cuda_driver, "has_cupy", lambda: False)
    capsys.readouterr()
    assert first_look.main(["--tiny"]) == 2
    assert "no module named cupy" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted((BENCH / "baselines").glob("*.py")), ids=lambda path: path.stem)
def test_baselines_are_python(script: Path, tmp_path: Path) -> None:
    # those with torch are run only where there is a device and torch
    assert py_compile.compile(str(script), cfile=str(tmp_path / "compiled.pyc"), doraise=True)
    assert os.path.getsize(tmp_path / "compiled.pyc")
