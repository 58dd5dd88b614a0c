"""Temporary files and directories, and the removal of those that killed processes left behind.

A name says who makes it: ``.servegen-MACHINE-PID-RANDOM.tmp``, where MACHINE stands for the running kernel (its boot
id, which containers share). The maker holds a lock (``flock``) on it until it has its final name. A kernel frees the
locks of a dead process, whatever became of its number, so a temporary whose lock can be had belongs to nobody.

Locks of other machines are seen on most network file systems, but not on all. So what another machine made, or this one
before it was started again, and what lies where there are no locks, goes only after three days without a write.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing removed
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"\.servegen-(?:([0-9a-f]{8})-)?\d+-[0-9a-f]{8}\.(?:tmp|spill)")
"""Older versions left out the machine."""
SPILL = ".spill"
"""Ends the names of directories that never get another one."""
OWN = re.compile(
    r"part-\d+\.(parquet|json)|manifest\.json|profile\.toml|names\.csv|pool\.npz|(turns|environment)[\w-]*\.csv"
    r"|chunk-\d+-(trace\.csv|dataset\.json)|\.servegen-.*",
    re.ASCII,
)
"""What is removed of a directory that a killed process left: it may be an older one, with files of others in it."""
YOUNG_S = 3 * 86_400.0
AT_ONCE = 64
"""Descriptors that are open at once."""


@dataclass(frozen=True)
class Temporary:
    """A file or directory under a temporary name.

    Attributes
    ----------
    path : Path
    descriptor : int
        Of the open file, or directory; it holds the lock.
    """

    path: Path
    descriptor: int


@contextmanager
def new_temporary(
    parent: Path, mode: int = 0o666, *, like: Iterable[Path] = (), directory: bool = False, suffix: str = ".tmp"
) -> Iterator[Temporary]:
    """A new file or directory in `parent`, of this process alone; removed at the end if it still has its name.

    A file has the mode, and as far as this user may the owner, of the first of the files `like` that is there.
    """
    older = next(filter(None, map(_regular, like)), None)
    made = _made(parent, mode if older is None else older.st_mode & 0o777, directory, suffix)
    if older is not None:
        with suppress(OSError):
            os.fchown(made.descriptor, older.st_uid, older.st_gid)
        with suppress(OSError):
            os.fchmod(made.descriptor, stat.S_IMODE(older.st_mode))
    try:
        yield made
    finally:
        there = is_at(made.descriptor, made.path)  # else it has another name, and this one is gone or something else's
        os.close(made.descriptor)  # first, as to look into a directory takes one
        if there:
            _remove_all(made.path)


def _regular(path: Path) -> os.stat_result | None:
    """What is known of a file that is there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about if stat.S_ISREG(about.st_mode) else None


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for what does not fit into memory, in the system's place for temporary files."""
    parent = Path(tempfile.gettempdir())
    sweep(parent)
    with new_temporary(parent, 0o700, directory=True, suffix=SPILL) as made:
        yield made.path


def _made(parent: Path, mode: int, directory: bool, suffix: str) -> Temporary:
    while True:
        path = parent / f".servegen-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"
        if directory:
            os.mkdir(path, mode)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                os.rmdir(path)
                raise
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        lock(descriptor)
        if is_at(descriptor, path):  # nobody took it for a leftover before it was locked
            return Temporary(path, descriptor)
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed processes of this user left in a folder; what a process is still making stays.

    A folder that cannot be read, or a leftover that cannot be removed, is passed over.
    """
    if fcntl is None:
        return
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if NAME.fullmatch(entry.name)]
    except OSError:
        return
    for at in range(0, len(found), AT_ONCE):
        _sweep(folder, found[at : at + AT_ONCE])


def _sweep(folder: Path, paths: list[Path]) -> None:
    from servegen_gpu.disk.commit import settle_all

    held = [(path, descriptor) for path in paths if (descriptor := _leftover(path)) is not None]
    try:
        if held:
            settle_all(folder)  # what was to be renamed is renamed, and no leftover
        for path, descriptor in held:
            if is_at(descriptor, path):
                _remove(path)
    finally:
        for _, descriptor in held:
            os.close(descriptor)


def _leftover(path: Path) -> int | None:
    """The descriptor of a temporary that nobody makes any more, locked; None if it is none, or may be in use."""
    try:
        about = path.lstat()
        kind = stat.S_IFMT(about.st_mode)
        if about.st_uid != os.geteuid() or kind not in (stat.S_IFREG, stat.S_IFDIR):
            return None
        named = NAME.fullmatch(path.name)
        young = time.time() - about.st_mtime < YOUNG_S
        if young and (named is None or named[1] != _machine()):
            return None
        access = os.O_RDONLY if kind == stat.S_IFDIR else os.O_RDWR
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        pass
    except OSError:
        if not young:
            return descriptor
    os.close(descriptor)
    return None


def _remove(path: Path) -> None:
    with suppress(OSError):
        if not path.is_dir():
            path.unlink()
        elif path.name.endswith(SPILL):
            _remove_all(path)
        else:
            remove_own(path, lambda file: OWN.fullmatch(file.name) is not None)


def _remove_all(path: Path) -> None:
    """Remove a file, or a directory with what is in it, with one descriptor for each of its levels."""
    with suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
        for name in os.listdir(path):
            _remove_all(path / name)
        path.rmdir()


def remove_own(folder: Path, own: Callable[[Path], bool]) -> None:
    """Remove what is our own of a folder, and the folder if nothing else is in it."""
    for file in list(folder.iterdir()):
        if own(file):
            with suppress(OSError):
                file.unlink()
    with suppress(OSError):
        folder.rmdir()


def lock(descriptor: int) -> None:
    """Wait for the lock of an open file and take it, where the file system has locks."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


@functools.cache
def _machine() -> str:
    """Eight digits for the running kernel, or for the name of the machine."""
    try:
        known = Path("/proc/sys/kernel/random/boot_id").read_text()
    except (FileNotFoundError, PermissionError):
        known = platform.node()
    return hashlib.sha256(known.encode()).hexdigest()[:8]
