"""A device that fails, disappears, or has hardly any memory: one sentence, nothing half-written, no row lost."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import pytest
from cuda_host import COMPILER
from fake_cuda import Fault
from profiles import tiny_pool
from test_cuda_devices import nothing_is_held
from traces import joined, same

import servegen_gpu as sg
from servegen_gpu.backends import choose_backend
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import open_device
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")

SAID = r"expected a CUDA device that works until the trace is done, got .*{}.* on device \d; see nvidia-smi and the"
MANY = {"duration": "6h", "memory": "300kB"}
"""A trace of several slabs."""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    open_device.cache_clear()


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("what", ["launch", "copy", "synchronize", "record", "malloc"])
@pytest.mark.parametrize(("status", "name"), [(719, "LaunchFailure"), (214, "ECCUnc")])
def test_a_device_that_disappears_in_the_middle_of_a_trace(
    status: int, name: str, what: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp = fake_cupy.install(monkeypatch, devices=devices)
    slabs = iter(sg.stream(tiny_pool(), backend="cupy", **MANY))
    next(slabs)
    xp.cuda.faults = [Fault(what, status, after=1)]
    with pytest.raises(OptionError, match=SAID.format(name)):
        list(slabs)
    assert not xp.cuda.faults
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cuda")]
    if devices == 1:  # the next trace does not touch it
        started = len(xp.cuda.launched)
        with pytest.raises(OptionError, match=SAID.format(name)):
            joined(tiny_pool(), backend="cupy", duration=600)
        assert len(xp.cuda.launched) == started
        assert choose_backend("auto").name in ("native", "numpy")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "/"])
def test_nothing_is_half_written(
    suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    xp = fake_cupy.install(monkeypatch)
    target = f"{tmp_path}/trace" + (suffix if suffix == "/" else f".{suffix}")
    command = [
        "generate",
        "deepseek-r1",
        "--clients",
        "20",
        "--conversations",
        "none",
        "--rate",
        "3",
        "--duration",
        "3h",
    ]
    command += ["--memory", "400kB", "--backend", "cupy", "-o", target]
    assert main(command) == 0
    whole = {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()}
    launched = len(xp.cuda.launched)
    capsys.readouterr()
    xp.cuda.faults = [Fault("launch", 719, after=launched // 2)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert re.search(SAID.format("LaunchFailure"), said)
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()} == whole


def test_a_device_in_the_hands_of_a_reader_that_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    slabs = iter(sg.stream(tiny_pool(), backend="cupy", device=True, **MANY))
    next(slabs)
    xp.cuda.faults = [Fault("launch", 700)]
    with pytest.raises(OptionError, match=SAID.format("IllegalAddress")):
        list(slabs)


def test_a_call_that_fails_does_not_lose_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    xp.cuda.faults = [Fault("copy", 1)]
    with pytest.raises(OptionError, match=SAID.format("Unknown: details")):
        joined(tiny_pool(), backend="cupy", duration=1800)
    xp.cuda.lost.clear()
    assert len(joined(tiny_pool(), backend="cupy", duration=1800))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("what", ["malloc", "launch", "record", "copy"])
def test_memory_that_is_short_for_a_moment_loses_no_row(
    what: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp = fake_cupy.install(monkeypatch, devices=devices)
    pool, keywords = tiny_pool("reason", 6), {"rate": 5.0, "duration": 4800}
    expected = joined(pool, backend="numpy", **keywords)
    for number in range(devices):
        open_device(number)  # which launches kernels and needs memory itself
    for after in (0, 2, 7):
        CupyBackend().release()
        xp.cuda.faults = [Fault(what, 2, after)]
        slabs = list(sg.stream(pool, backend="cupy", memory="600kB", **keywords))
        assert after or not xp.cuda.faults
        assert same(Trace.concat(slabs), expected)


@pytest.mark.parametrize("free_bytes", [1 << 16, 1 << 18, 3 << 17, 1 << 19, 5 << 18, 3 << 19, 7 << 18])
def test_a_device_that_is_nearly_full_at_the_start(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch)
    full: Any = xp.cuda.MemoryPool()
    taken = full.malloc(xp.cuda.free_bytes(0) - free_bytes)
    pool, keywords = tiny_pool(), {"rate": 30.0, "duration": 1800}
    if free_bytes <= 1 << 19:  # too little to open the device, or for the smallest slab
        short = r"(free memory on the CUDA device|device memory for 4,096 requests).*nvidia-smi"
        with pytest.raises(OptionError, match=short):
            list(sg.stream(pool, backend="cupy", **keywords))
    else:
        slabs = list(sg.stream(pool, backend="cupy", **keywords))
        assert len(slabs) > 1
        assert same(Trace.concat(slabs), joined(pool, backend="numpy", **keywords))
        del slabs
    if free_bytes > 1 << 18:
        CupyBackend().device.release()
    del taken
    full.free_all_blocks()
    gc.collect()  # a device that did not open is in a circle of references
    assert xp.cuda.held_bytes() == 0 if free_bytes <= 1 << 18 else nothing_is_held(xp)
