"""The compiled kernels for tests: built once per session where they are not installed."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built import folder

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.backends.native.build import EXTENSIONS, BuildError
from servegen_gpu.backends.native.kept import build_into
from servegen_gpu.backends.native.library import Library, find_library


@functools.cache
def _library_path() -> Path | str:
    """The library, or why there is none."""
    if found := find_library():
        return found
    try:
        return build_into(folder())
    except BuildError as error:
        return str(error)


@functools.cache
def library(extension: str | None = None) -> Library:
    """The library with one vector extension (the best by default); skips the test where it cannot run."""
    path = _library_path()
    if isinstance(path, str):
        pytest.skip(f"no compiled kernels: {path}")
    best = Library(path)
    if extension is None:
        return best
    if extension not in best.extensions():
        pytest.skip(f"this machine has no {extension}")
    return Library(path, extension)


each_extension = pytest.mark.parametrize("extension", EXTENSIONS)


def native(pool: sg.ClientPool, extension: str | None = None, **keywords: Any) -> Trace:
    """What the native backend makes of it, all slabs together."""
    backend = NativeBackend(library(extension))
    slabs = [slab.columns for slab in replace(sg.stream(pool, backend="numpy", **keywords), backend=backend)]
    return Trace.concat([Trace(columns) for columns in slabs])


def plain(pool: sg.ClientPool, **keywords: Any) -> Trace:
    """What the NumPy backend makes of it."""
    return Trace.concat(list(sg.stream(pool, backend="numpy", **keywords)))


def words(n: int, seed: int) -> np.ndarray:
    """Words of a simple sequence, with the edges first."""
    edges = np.array([0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint64)
    mixed = (np.arange(seed, seed + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return np.concatenate((edges, mixed))[:n].astype(np.uint32)
