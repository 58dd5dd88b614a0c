"""Compiled libraries in the user's cache directory: made once, whole, and of nobody else.

What is loaded runs as the user. So a library is looked at before: its bytes must have the digest that lies beside it,
and it and the directories above it must be the user's own, where nobody else may write.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from servegen_gpu.backends.native.build import BuildError, compile_library, compiler, kernels_dir, own_name
from servegen_gpu.cache_dir import distrusted
from servegen_gpu.disk import new_temporary, scratch_directory, settle, sweep
from servegen_gpu.disk.commit import rename_all

DIGEST = ".sha256"
"""Ends the name of the file that has the digest of a library."""
ELSEWHERE = "set SERVEGEN_GPU_CACHE to a directory that can"
OWN_CACHE = "set SERVEGEN_GPU_CACHE to a directory of your own, where nobody else may write"


def cached_library(cache: Path) -> Path:
    """Where the library of these sources and this compiler belongs in a cache directory, whether or not it is there."""
    try:
        cxx = compiler()
        made = os.stat(cxx[0])
        key = repr((cxx, made.st_size, made.st_mtime_ns))
    except (BuildError, OSError):
        key = "no compiler"
    return cache / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}" / own_name()


def build_into(cache: Path) -> Path:
    """The library in a cache directory, compiled unless it is there; a second process waits for the first."""
    return kept(cached_library(cache), lambda target: compile_library(kernels_dir(), target))


def kept(target: Path, make: Callable[[Path], object]) -> Path:
    """A library of the cache, which `make` writes to the path that it is given, unless it is there and whole.

    Raises
    ------
    BuildError
        If it cannot be made or kept, or if others could have changed it.
    """
    with locked(target.parent):
        if why := distrusted(target):
            raise BuildError(why, OWN_CACHE)
        if not is_whole(target):
            with scratch_directory() as apart:
                made = apart / target.name
                make(made)
                keep(made, target)
    return target


def is_whole(library: Path) -> bool:
    """Whether a library is there, with the bytes that were written."""
    settle(library)
    try:
        return _digest(library) == library.with_name(library.name + DIGEST).read_text()
    except (OSError, ValueError):
        return False


def keep(library: Path, target: Path) -> None:
    """Copy a library to where it belongs, and its digest; processes that use an older one keep it."""
    folder = target.parent
    try:
        sweep(folder)
        with new_temporary(folder, 0o700) as copy, new_temporary(folder, 0o600) as beside:
            shutil.copyfile(library, copy.path)
            os.write(beside.descriptor, _digest(library).encode())
            for made in (copy, beside):
                os.fsync(made.descriptor)
            rename_all(folder, [(beside.path.name, target.name + DIGEST), (copy.path.name, target.name)])
    except OSError as error:
        raise _unwritable(folder, error) from None


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _unwritable(folder: Path, error: OSError) -> BuildError:
    return BuildError(f"{folder} cannot be written ({error.strerror or error})", ELSEWHERE)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; without file locks, the last of several builds stays."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        import fcntl
    except ImportError:
        os.close(lock)
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do: children forked meanwhile have the file open
        os.close(lock)
