"""Processes and threads: workers of every kind give the parent's bits, and every module imports first."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from native import library
from profiles import REPOSITORY

import servegen_gpu as sg

PATIENCE_S = 60
SPEC = {"rate": 300.0, "duration": 600, "seed": 3}


def digest(backend: str) -> int:
    """Of a trace with conversations that is sampled in several blocks."""
    trace = sg.generate(sg.population("deepseek-r1", clients=50), backend=backend, **SPEC)
    return int(
        sum((trace[name].astype(np.uint64) * np.arange(1, len(trace) + 1, dtype=np.uint64)).sum() for name in trace)
    )


@pytest.fixture(params=["numpy", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        library()  # skips where there is none
    return request.param


def from_processes(method: str, work: Callable[[str], int], backend: str) -> list[int]:
    """What two workers say; they are ended where they hang."""
    with multiprocessing.get_context(method).Pool(2) as workers:
        return workers.map_async(work, [backend] * 3).get(PATIENCE_S)


# Python 3.12 warns of forks with live threads: that they must not hang is what is tested here
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_give_the_bits_of_the_parent(method: str, backend: str) -> None:
    mine = digest(backend)  # the parent's threads live on
    assert set(from_processes(method, digest, backend)) == {mine}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_fork_in_the_middle_of_sampling(backend: str) -> None:
    mine, done = digest(backend), threading.Event()

    def keep_sampling() -> None:
        while not done.is_set():
            digest(backend)

    busy = threading.Thread(target=keep_sampling)
    busy.start()
    try:
        for _ in range(3):
            assert set(from_processes("fork", digest, backend)) == {mine}
    finally:
        done.set()
        busy.join()


def test_threads_give_the_bits_of_one(backend: str) -> None:
    mine = digest(backend)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(digest, [backend] * 8)) == {mine}


FIRST = """
import importlib, os, sys, numpy, scipy.special, pandas, pyarrow
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if error.name in ("jax", "jaxlib", "cupy"):
                os._exit(0)
            print(name, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_every_module_imports_first() -> None:
    package = REPOSITORY / "servegen_gpu"
    files = sorted(file.relative_to(REPOSITORY).with_suffix("") for file in package.rglob("*.py"))
    names = [".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"]
    command = [sys.executable, "-c", FIRST, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(names) > 100
