"""Processes and threads: workers of every kind give the parent's bits, and every module imports first."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
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


def in_workers(method: str, backend: str) -> set[int]:
    """What two workers say."""
    with multiprocessing.get_context(method).Pool(2) as workers:
        return set(workers.map_async(digest, [backend] * 3).get(PATIENCE_S))


def after_a_call(method: str, backend: str) -> None:
    """Workers after the parent has made its threads."""
    mine = digest(backend)
    assert in_workers(method, backend) == {mine}


def in_the_middle(method: str, backend: str) -> None:
    """Workers while another thread of the parent is sampling."""
    mine, done = digest(backend), threading.Event()

    def keep_sampling() -> None:
        while not done.is_set():
            digest(backend)

    busy = threading.Thread(target=keep_sampling)
    busy.start()
    try:
        for _ in range(3):
            assert in_workers(method, backend) == {mine}
    finally:
        done.set()
        busy.join()


def alone(scene: str, method: str, backend: str) -> None:
    """Play a scene in a fresh process: other libraries' threads, which may not survive a fork, are not in it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [sys.executable, __file__, scene, method, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_give_the_bits_of_the_parent(method: str, backend: str) -> None:
    alone("after_a_call", method, backend)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_fork_in_the_middle_of_sampling(backend: str) -> None:
    alone("in_the_middle", "fork", backend)


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_every_module_imports_first() -> None:
    package = REPOSITORY / "servegen_gpu"
    files = sorted(file.relative_to(REPOSITORY).with_suffix("") for file in package.rglob("*.py"))
    names = [".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"]
    command = [sys.executable, "-c", FIRST, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(names) > 100


if __name__ == "__main__":
    {"after_a_call": after_a_call, "in_the_middle": in_the_middle}[sys.argv[1]](*sys.argv[2:])
