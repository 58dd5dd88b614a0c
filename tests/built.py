"""What tests compile, once for all: the workers of one run of pytest and their child processes share a folder."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from servegen_gpu.backends.native.kept import cached_library, keep, locked

SHARED = "SERVEGEN_GPU_TESTS_BUILT"
"""The variable with the folder; tests/conftest.py sets it, and removes the folder in the end."""


@functools.cache
def _own() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="servegen_gpu-test-")


def folder() -> Path:
    """The folder that is shared, or one of this process alone."""
    return Path(os.environ.get(SHARED) or _own().name)


def built(kind: str, key: object, make: Callable[[Path], object]) -> Path:
    """What `make` writes to the path that it is given, made once for a key; whoever comes meanwhile waits for it."""
    target = folder() / f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}" / "made"
    with locked(target.parent):
        if not target.exists():
            partial = target.with_suffix(".part")
            make(partial)
            partial.replace(target)
    return target


def compiled(kind: str, command: Sequence[str], source: Path | str) -> Path:
    """A shared library that a compiler, told its flags, makes of a file or a text of C++."""

    def make(target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="servegen_gpu-test-") as name:
            file = source if isinstance(source, Path) else Path(name, "text.cpp")
            if isinstance(source, str):
                file.write_text(source)
            subprocess.run([*command, "-shared", "-fPIC", str(file), "-o", str(target)], check=True)

    return built(kind, (command, source), make)


def quick_compiler(at: Path) -> str:
    """A C++ compiler that does not optimize, in a folder: for libraries whose speed does not matter."""
    found = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
    script = at / "quick-c++"
    script.write_text(f'#!/bin/sh\nexec {shutil.which(found)} "$@" -O0\n')
    script.chmod(0o755)
    return str(script)


def with_native(cache: Path, library: Path) -> Path:
    """A cache of the package that has the compiled kernels already."""
    target = cached_library(cache)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keep(library, target)
    return cache
