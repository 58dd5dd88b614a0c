"""Finding, building and refusing the compiled kernels, and what the backend does besides columns."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from built import quick_compiler
from native import library, native, plain
from profiles import REPOSITORY, tiny_pool
from traces import same

import servegen_gpu as sg
from servegen_gpu.backends import choose_backend, describe_backends, note_of_numpy
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.backends.host.cell_state import begin
from servegen_gpu.backends.native import backend as native_module
from servegen_gpu.backends.native import build as native_build
from servegen_gpu.backends.native import kept
from servegen_gpu.backends.native import library as native_library
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.backends.native.kept import cached_library, keep
from servegen_gpu.backends.native.library import Library, _say, find_library
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.packing import pack
from servegen_gpu.plan import Slab, cells_of, plan
from servegen_gpu.rates import Rate


@pytest.fixture
def there() -> None:
    """The library of all tests, before `nowhere` hides it; without a compiler the test is skipped."""
    library()


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """No library in the package and none in the cache."""
    monkeypatch.setattr(native_library, "packaged_library", lambda: tmp_path / "nothing")
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("SERVEGEN_GPU_ISA", raising=False)
    return tmp_path


def state() -> dict[str, str]:
    return next(row for row in describe_backends() if row["name"] == "native")


def refusal() -> OptionError:
    with pytest.raises(OptionError) as refused:
        choose_backend("native")
    return refused.value


def test_without_a_library_auto_is_numpy_and_nothing_is_built(nowhere):
    assert type(choose_backend("auto")) is NumpyBackend
    assert state()["state"] == "missing"
    assert "native.build" in state()["detail"]
    assert not (nowhere / "cache").exists()


def test_without_a_compiler(nowhere, monkeypatch):
    monkeypatch.setenv("PATH", str(nowhere))
    assert "no C++ compiler" in refusal().got
    assert "install one" in refusal().fix
    assert "'numpy'" in refusal().fix
    assert "and no C++ compiler" in note_of_numpy()


def test_generate_says_what_would_be_faster(nowhere, capsys):
    words = [
        "generate",
        "m-small",
        "--clients",
        "5",
        "--rate",
        "5",
        "--duration",
        "1m",
        "-o",
        str(nowhere / "t.parquet"),
    ]
    for more, said in ((["--backend", "numpy"], False), (["--quiet"], False), ([], True)):
        assert main([*words, *more]) == 0
        error = capsys.readouterr().err
        assert ("note: NumPy computes" in error and "run python -m servegen_gpu.backends.native.build" in error) == said


def test_with_a_compiler_that_fails(nowhere, monkeypatch):
    failing = nowhere / "c++"
    failing.write_text("#!/bin/sh\necho 'fatal error: no such thing' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    assert "no such thing" in refusal().got
    assert "CXX" in refusal().fix
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert "no-such-compiler" in refusal().got


def test_with_a_cache_that_cannot_be_written(nowhere, monkeypatch):
    (nowhere / "file").write_text("")
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(nowhere / "file"))
    assert "cannot be written" in refusal().got
    assert "SERVEGEN_GPU_CACHE" in refusal().fix


def test_a_library_that_is_none(nowhere, monkeypatch):
    broken = nowhere / "broken.so"
    broken.write_text("not a library")
    monkeypatch.setattr(native_library, "packaged_library", lambda: broken)
    assert "broken.so" in refusal().got
    assert type(choose_backend("auto")) is NumpyBackend


def test_two_processes_build_at_once(there, nowhere, monkeypatch):
    code = [sys.executable, "-m", "servegen_gpu.backends.native.build"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CXX": quick_compiler(nowhere)}
    monkeypatch.setenv("CXX", environment["CXX"])  # which the name of the folder tells of
    both = [subprocess.Popen(code, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    said = [process.communicate()[0].strip() for process in both]
    assert said[0] == said[1]
    library = Path(said[0])
    assert sorted(p.name for p in library.parent.iterdir()) == [library.name, f"{library.name}.sha256", "lock"]
    assert state()["state"] == "ready"
    assert type(choose_backend("auto")) is NativeBackend
    pool = tiny_pool("language")
    trace = sg.generate(pool, rate=5, duration=600, backend="native")
    assert same(trace, plain(pool, rate=5, duration=600))
    assert trace.header() == plain(pool, rate=5, duration=600).header()


def test_a_changed_source_is_another_library(tmp_path):
    before = native_build.library_name(REPOSITORY / "kernels")
    for source in (REPOSITORY / "kernels").iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert native_build.library_name(tmp_path) == before
    with (tmp_path / "lane.h").open("a") as header:
        header.write("//\n")
    assert native_build.library_name(tmp_path) != before


def test_an_unknown_vector_extension(monkeypatch):
    path = library().path
    with pytest.raises(OptionError, match="SERVEGEN_GPU_ISA"):
        Library(path, "mmx")
    monkeypatch.setenv("SERVEGEN_GPU_ISA", "baseline")
    assert Library(path).extension == "baseline"


def test_structures_have_the_size_that_c_gives_them():
    """Every field of SgJob is eight bytes wide, so that a forgotten one shows."""
    text = (REPOSITORY / "kernels" / "job.h").read_text().split("struct SgJob {")[1].split("};")[0]
    lines = [line.split("//")[0].strip().rstrip(";") for line in text.splitlines()]
    fields = [field.split()[-1].lstrip("*") for line in lines if line for field in line.split(",")]
    assert fields == [name for name, _ in native_library.Job._fields_]
    assert ctypes.sizeof(native_library.Job) == 8 * len(fields)


def test_other_python_threads_go_on():
    pool = tiny_pool("language", 9)
    expected = plain(pool, rate=300, duration=600, seed=1)
    found = {}
    work = [
        threading.Thread(target=lambda k=k: found.update({k: native(pool, rate=300, duration=600, seed=1)}))
        for k in range(3)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert all(same(found[k], expected) for k in range(3))


@pytest.fixture
def interruptible():
    """Ctrl-C means what it does at a terminal, even if the tests were started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_work():
    """As Ctrl-C does; what a later call makes is whole again."""
    backend, pool = NativeBackend(library()), tiny_pool("language", 9)
    packed, _ = pack(pool, Rate("constant", 100_000.0), start_s=0, end_s=600)
    slab = next(plan(packed, 1 << 30, slab_requests=1 << 30))
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):  # the whole slab would take seconds, even where it takes the least
        backend.sample_slab(packed, derive_key(0), slab)
    assert time.perf_counter() - begun < 1
    timer.join()
    assert same(native(pool, rate=300, duration=600), plain(pool, rate=300, duration=600))


def test_a_flag_that_is_set_stops_before_anything_is_drawn():
    backend = NativeBackend(library())
    packed, _ = pack(tiny_pool("language"), Rate("constant", 100.0), start_s=0, end_s=600)
    state = begin(packed, derive_key(0), cells_of(packed, np.zeros(1, np.int64)))
    task, _, stop = native_module._task(packed, Slab(np.zeros(1, np.int64), 0, 600, 60_000.0), state)
    stop[0] = 1
    with pytest.raises(KeyboardInterrupt):
        backend.library.call("sg_draw", ctypes.byref(task), None, ctypes.byref(ctypes.c_void_p()), stop=stop)


def test_bytes_per_request_are_enough():
    backend = NativeBackend(library())
    assert 0 < backend.bytes_per_request("language") < backend.bytes_per_request("multimodal")
    assert np.iinfo(np.int32).max > backend.bytes_per_request("multimodal")


# What is in the cache is not believed


@pytest.fixture
def kept_library(nowhere, monkeypatch) -> Path:
    """The library of all tests, in a cache of this test's own."""
    monkeypatch.setenv("CXX", quick_compiler(nowhere))
    target = cached_library(nowhere / "cache")
    target.parent.mkdir(mode=0o700, parents=True)
    keep(library().path, target)
    _say.cache_clear()
    assert find_library() == target
    return target


@pytest.mark.parametrize("damage", ["cut", "changed", "no digest"])
def test_a_damaged_library_is_not_loaded_but_made_again(kept_library, monkeypatch, damage):
    data = kept_library.read_bytes()
    if damage == "no digest":
        kept_library.with_name(kept_library.name + ".sha256").unlink()
    else:
        kept_library.unlink()  # a process that has it loaded has it mapped
        kept_library.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-1] + b"x")
    assert find_library() is None
    monkeypatch.setattr(kept, "compile_library", lambda kernels, target: target.write_bytes(data))
    assert type(choose_backend("auto")) is NativeBackend
    assert kept_library.read_bytes() == data
    assert find_library() == kept_library


def of_another_user(path: Path) -> None:
    if os.geteuid():
        pytest.skip("gives files to another user")
    os.chown(path, 12_345, 12_345)


FAULTS = {
    "its library is another user's": lambda path: of_another_user(path),
    "its folder is another user's": lambda path: of_another_user(path.parent),
    "the cache is another user's": lambda path: of_another_user(path.parents[1]),
    "others may write the library": lambda path: path.chmod(0o702),
    "others may write the cache": lambda path: path.parents[1].chmod(0o777),
    "a group may write the cache": lambda path: (path.parents[1].chmod(0o770), os.chown(path.parents[1], -1, 12_345)),
    "a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_others_could_write_is_not_loaded(kept_library, caplog, fault):
    if "group" in fault and os.geteuid():
        pytest.skip("gives files to another group")
    FAULTS[fault](kept_library)
    assert type(choose_backend("auto")) is NumpyBackend
    assert type(choose_backend("auto")) is NumpyBackend
    (said,) = caplog.messages
    assert said.startswith("note: compiled kernels are not loaded, because ")
    assert said.endswith("set SERVEGEN_GPU_CACHE to a directory of your own, where nobody else may write")
    assert "SERVEGEN_GPU_CACHE" in refusal().fix


def test_a_sticky_directory_above_is_fine(kept_library):
    kept_library.parents[2].chmod(0o1777)
    assert find_library() == kept_library


def test_a_lock_is_no_link(nowhere):
    folder = nowhere / "cache"
    folder.mkdir()
    (folder / "lock").symlink_to(nowhere / "planted")
    with pytest.raises(native_build.BuildError, match="cannot be written"), kept.locked(folder):
        pass
    assert not (nowhere / "planted").exists()


def test_a_pool_of_a_cache_of_another_user_is_not_believed(nowhere):
    from servegen_gpu.clients.released import cache

    pool = tiny_pool("language")
    cache.store_pool("k", pool, [])
    found = cache.load_pool("k")
    assert found is not None
    of_another_user(nowhere / "cache" / "k.npz")
    assert cache.load_pool("k") is None
