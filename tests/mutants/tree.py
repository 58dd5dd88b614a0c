"""A copy of the repository, in which files are changed and tests run."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mutants.sample import REPOSITORY

MEMORY_BYTES = 8 << 30
BROKEN = 70
"""Status of a child that could not even run the tests."""
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Hypothesis is imported already, and has no assertion to rewrite."""
WALL = 8
"""Seconds that may pass for each of CPU time: a test that waits for ever takes none."""


class Tree:
    """A copy of the repository beside a cache for its compiled kernels.

    Parameters
    ----------
    folder : Path
        Where both are made.
    """

    def __init__(self, folder: Path) -> None:
        self._files = folder / "tree"
        self._caches = {False: folder / "cache", True: folder / "cache-of-mutant"}
        self._said = folder / "said.txt"
        self._stamp = int(time.time()) + 10_000
        shutil.rmtree(self._files, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (REPOSITORY / name).is_file():
                (self._files / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, self._files / name)
        compiler = folder / "quick-c++"
        compiler.write_text(f'#!/bin/sh\nexec {shutil.which("c++")} "$@" -O1\n')
        compiler.chmod(0o755)
        own = {"PYTHONPATH": self._files, "CXX": compiler, "SERVEGEN_GPU_THREADS": 2}
        self._environment = {name: str(value) for name, value in own.items()}
        self.built(mutated=False)

    def write(self, file: str, text: str) -> None:
        """Change a file, with a time of its own: bytecode of another text of the same size is not taken for it."""
        path = self._files / file
        path.write_text(text, encoding="utf-8")
        self._stamp += 10
        os.utime(path, (self._stamp, self._stamp))

    def built(self, mutated: bool) -> bool:
        """Whether the kernels compile; tests find them in the cache from now on."""
        cache = self._caches[mutated]
        self._environment["SERVEGEN_GPU_CACHE"] = str(cache)
        if cache.exists() and not mutated:
            return True
        shutil.rmtree(cache, ignore_errors=True)
        command = [sys.executable, "-m", "servegen_gpu.backends.native.build"]
        return self._in_child(lambda: subprocess.run(command, check=False).returncode, 120)[0] == 0

    def tests(self, tests: Sequence[str], cpu_s: float, fresh: bool = False) -> tuple[int | None, str]:
        """Status and output of pytest, up to the first test that fails; no status where it takes too long.

        pytest and what the package imports are loaded already: the child of a fork begins with the first test. A fresh
        process loads everything again, and has the threads and the main module that tests of processes expect.
        """
        import pytest

        arguments = self._said.with_name("tests.txt")
        arguments.write_text("\n".join(tests), encoding="utf-8")
        options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=line", *QUIET, f"@{arguments}"]
        command = [sys.executable, "-m", "pytest", *options]
        work = partial(subprocess.call, command) if fresh else partial(pytest.main, options)
        return self._in_child(lambda: int(work()), cpu_s)

    def _in_child(self, work: Callable[[], int], cpu_s: float) -> tuple[int | None, str]:
        pid = os.fork()
        if not pid:
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
                said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(said, 1)
                os.dup2(said, 2)
                os.chdir(self._files)
                os.environ.update(self._environment)
                sys.path[:] = [str(self._files), *(path for path in sys.path if not path.startswith(str(REPOSITORY)))]
                status = work()
                sys.stdout.flush()
                os._exit(status)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(BROKEN)
        until = time.monotonic() + WALL * cpu_s
        pause_s = 0.05
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None, "hangs"
            time.sleep(pause_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # processes that tests left behind
        status = os.waitstatus_to_exitcode(done[1])
        text = self._said.read_text(errors="replace")
        if status == BROKEN:
            raise RuntimeError(text)
        return None if status == -signal.SIGKILL else status, text
