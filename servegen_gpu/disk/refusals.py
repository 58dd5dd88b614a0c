"""What a disk refuses, in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servegen_gpu.errors import OutputError


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
        case errno.EMFILE | errno.ENFILE:
            return OutputError("one more file that may be open", where, "raise the limit (ulimit -n)")
        case _:
            return OutputError("a file that can be written", after if written else where, "check the path and the disk")


def check_place(path: Path) -> None:
    """Refuse a place where no file can be written: before hours of work, not after.

    Raises
    ------
    OutputError
        If there is no such directory, or nothing may be written into it.
    """
    from servegen_gpu.disk.temporary import new_temporary

    with explained(path), new_temporary(Path(os.path.realpath(path)).parent):
        pass
