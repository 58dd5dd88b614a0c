"""Processes and threads: workers of every kind give the parent's bits, and every module imports first."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from native import library
from profiles import REPOSITORY

PATIENCE_S = 90
"""Several times what any of these needs on a busy machine: what takes longer hangs."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def said_by(*command: object) -> list[str]:
    """Lines that a command prints; it is ended with all its children where it hangs."""
    environment = os.environ | {"SERVEGEN_GPU_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    own = {"env": environment, "cwd": REPOSITORY, "start_new_session": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *map(str, command)], **own, **pipes) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{command[1:]} hangs")
        finally:
            with contextlib.suppress(ProcessLookupError):  # none of them is left
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    return out.splitlines()


WORKERS = Path(__file__).with_name("workers.py")
WAYS = {"spawn": 4, "forkserver": 4, "threads": 9, "fork": 4, "nested": 3, "sampling": 5, "joblib": 7, "dataloader": 10}
"""How many traces each makes."""
LIBRARIES = {"joblib": "joblib", "dataloader": "torch"}


@pytest.mark.parametrize(
    ("way", "backend"),
    [*((way, backend) for backend in ("numpy", "native") for way in WAYS), ("threads", "jax")],  # JAX does not fork
)
def test_workers_give_the_bits_of_the_parent(way: str, backend: str) -> None:
    if way in LIBRARIES and importlib.util.find_spec(LIBRARIES[way]) is None:
        pytest.skip(f"{LIBRARIES[way]} is not installed")
    if backend == "native":
        library()  # skips where there is none
    if backend == "jax":
        pytest.importorskip("jax", reason='JAX is not installed: pip install "servegen-gpu[jax]"')
    said = said_by(WORKERS, way, backend)
    assert len(said) == WAYS[way]
    assert len(set(said)) == 1


@pytest.mark.parametrize("held", ["property", "build"])
def test_a_lock_that_another_thread_held_at_the_fork_comes_free(held: str) -> None:
    said = said_by(WORKERS, held)
    assert len(said) == 2
    assert len(set(said)) == 1


FIRST = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [known for known in sys.modules if known.partition(".")[0] == "servegen_gpu"]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError as error:
        if error.name not in ("jax", "jaxlib", "cupy"):
            print(name, error)
print("all tried")
"""


def test_every_module_imports_first() -> None:
    files = sorted(file.relative_to(REPOSITORY).with_suffix("") for file in (REPOSITORY / "servegen_gpu").rglob("*.py"))
    names = [".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"]
    assert len(names) > 100
    assert said_by("-c", FIRST, *names) == ["all tried"]
