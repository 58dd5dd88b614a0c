"""Directories that appear complete or not at all, also in the place of an older one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from servegen_gpu.disk.commit import exchange, rename_all, settle, sync_directory
from servegen_gpu.disk.refusals import explained
from servegen_gpu.disk.temporary import new_temporary, remove_own, sweep

KEPT = ".kept"
"""Ends the name of a file of others whose name the new directory has already."""


@contextmanager
def new_directory(path: Path, own: Callable[[Path], bool]) -> Iterator[Path]:
    """An empty directory that takes its name when the block ends well.

    It is filled under a temporary name beside its own. A process that is killed leaves the older directory or the new
    one, whole. Files of others in the older one, also those that came while the block ran, go over into the new one.

    Parameters
    ----------
    path : Path
        The caller has made sure that what is there now, if anything, may be replaced.
    own : callable
        Whether a file of the older directory goes with it, rather than over into the new one.
    """
    target = Path(os.path.realpath(path))
    settle(target)
    sweep(target.parent)
    with ExitStack() as stack:
        with explained(path):
            mode = target.stat().st_mode & 0o777 if target.is_dir() else 0o777
            actual = stack.enter_context(new_temporary(target.parent, mode, directory=True)).path
        yield actual
        with explained(path):
            _sync(actual)
            if not _renamed(actual, target):
                _like(target, actual)
                _put(actual, target, own)
            sync_directory(target.parent)


def _renamed(actual: Path, target: Path) -> bool:
    """Rename a directory; False where another one is in the way."""
    if target.is_dir():
        return False
    try:
        os.rename(actual, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _put(actual: Path, target: Path, own: Callable[[Path], bool]) -> None:
    """Put a new directory in the place of an older one."""
    if exchange(actual, target):
        _clear(actual, target, own)
        return
    with new_temporary(target.parent, directory=True) as older:
        older.path.rmdir()  # the name is what is wanted
    try:
        rename_all(target.parent, [(target.name, older.path.name), (actual.name, target.name)])
    except OSError:
        if not target.exists():
            os.rename(older.path, target)
        raise
    _clear(older.path, target, own)


def _clear(older: Path, target: Path, own: Callable[[Path], bool]) -> None:
    """Let files of others go over into the new directory, and remove the older one."""
    for file in list(older.iterdir()):
        if own(file):
            continue
        place = target / file.name
        while os.path.lexists(place):
            place = place.with_name(place.name + KEPT)
        os.rename(file, place)
    remove_own(older, own)


def _like(older: Path, actual: Path) -> None:
    """Give a directory the owner and the mode of the one that it replaces, as far as this user may."""
    about = older.stat()
    with suppress(OSError):
        os.chown(actual, about.st_uid, about.st_gid)
    with suppress(OSError):
        shutil.copymode(older, actual)


def _sync(folder: Path) -> None:
    """Flush what a directory has to the disk."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_directory(folder)
