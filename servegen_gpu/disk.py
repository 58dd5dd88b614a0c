"""What a disk refuses, in words, and directories that appear complete or not at all.

A directory is filled under a temporary name beside its own, and only then renamed. Any exception, Ctrl-C included,
removes it; a killed process leaves a hidden ``.servegen-*.tmp`` and never half a directory under the final name.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from servegen_gpu.errors import OutputError


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """An empty directory that takes its name when the block ends well.

    The caller has made sure that what is there now, if anything, may go.
    """
    actual = hidden_beside(path)
    target = Path(os.path.realpath(path))
    older = hidden_beside(path)
    with explained(path):
        os.mkdir(actual)
    try:
        yield actual
        with explained(path):
            if target.exists():
                os.rename(target, older)
            try:
                os.rename(actual, target)
            except BaseException:
                if older.exists():
                    os.rename(older, target)
                raise
            sync_directory(target.parent)
    finally:
        shutil.rmtree(actual, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


@contextmanager
def explained(path: Path, written: int = 0) -> Iterator[None]:
    """Turn an `OSError` of the block, but for a broken pipe, into an `OutputError` that says what to do."""
    try:
        yield
    except (OutputError, BrokenPipeError):  # a reader that has gone is no fault
        raise
    except OSError as error:
        raise _explanation(error, path, written) from error


def _explanation(error: OSError, path: Path, written: int) -> OutputError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    where = f"{reason.lower()}: {path}"
    after = f"{where}, after {written:,} bytes"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return OutputError("enough free space", after, "free some, write to another disk, or ask for less")
        case errno.EFBIG:
            fix = 'raise the limit (ulimit -f), or end the path in "/" to write a directory of parts'
            return OutputError("a file within the size limit", after, fix)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return OutputError("a place where you may write", where, "change the permissions or the path")
        case errno.ENOENT | errno.ENOTDIR:
            return OutputError("an existing directory to write into", where, f"create {path.parent} first")
        case _:
            return OutputError("a file that can be written", after if written else where, "check the path and the disk")


def hidden_beside(path: Path) -> Path:
    """A fresh hidden name beside the file that `path` leads to (links followed)."""
    parent = Path(os.path.realpath(path)).parent
    return parent / f".servegen-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def check_place(path: Path) -> None:
    """Refuse a place where no file can be written: before hours of work, not after.

    Raises
    ------
    OutputError
        If there is no such directory, or nothing may be written into it.
    """
    with explained(path):
        probe = hidden_beside(path)
        probe.touch()
        probe.unlink()


def sync_directory(path: Path) -> None:
    """Make a rename last; not every system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
