"""Renames that are one step: of two directories, or of several files that belong together.

Linux and macOS can exchange two names. Files that belong together have no such call: a *journal* beside them,
``.servegen-pair-NAME``, says what is to be renamed once all of it is on the disk. Whoever finds a journal whose maker
has gone makes the renames that are missing, so there is never a trace with the provenance of another.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from servegen_gpu.disk.temporary import NAME, is_at, lock

JOURNAL = ".servegen-pair-"
MOST_BYTES = 1 << 16
Renames = Sequence[tuple[str, str]]


def rename_all(parent: Path, renames: Renames) -> None:
    """Rename files of one directory, as one step; all of them are on the disk already.

    Parameters
    ----------
    parent : Path
    renames : sequence of (str, str)
        Old and new names. The last new one is that of the whole, under which a reader asks for it.

    Raises
    ------
    OSError
        If one of them cannot be; those before it were made.
    """
    if len(renames) == 1:
        os.replace(parent / renames[0][0], parent / renames[0][1])
        sync_directory(parent)
        return
    path = _journal_of(parent / renames[-1][1])
    journal, begun = _new_journal(path), False
    try:
        os.write(journal, json.dumps(list(renames)).encode() + b"\n")
        os.fsync(journal)
        sync_directory(parent)
        begun = True
        _make(parent, renames)
        sync_directory(parent)
    except KeyboardInterrupt:
        if begun:  # half a step is worse than a late one
            _make(parent, renames)
        raise
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(journal)


def settle(path: Path) -> None:
    """Make the renames of a file or directory, and of what belongs to it, that a killed process left undone.

    Does nothing if there are none, or if they are those of another user. Waits for a process that is making them.
    """
    real = Path(os.path.realpath(path))
    _settle(_journal_of(real))


def settle_all(folder: Path) -> None:
    """`settle` all that is in a folder."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(JOURNAL):
                _settle(folder / name)


def _settle(path: Path) -> bool:
    """Make the renames of a journal, if there is one; False where this user cannot."""
    try:
        journal = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # as a rule
        return True
    except OSError:
        return False
    try:
        about = os.fstat(journal)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            return False
        lock(journal)
        if is_at(journal, path):  # else it was done meanwhile
            _make(path.parent, _read(journal, path.name.removeprefix(JOURNAL)))
            path.unlink()
            sync_directory(path.parent)
        return True
    except OSError:
        return False
    finally:
        os.close(journal)


def _journal_of(path: Path) -> Path:
    return path.with_name(JOURNAL + path.name)


def _new_journal(path: Path) -> int:
    """A journal that nobody else has, open and locked."""
    while True:
        try:
            journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            if not _settle(path):
                raise OSError(f"the unfinished work of {path.name}, which you cannot finish") from None
            continue
        lock(journal)
        if is_at(journal, path):
            return journal
        os.close(journal)


def _read(journal: int, name: str) -> Renames:
    """The renames of a journal; none if it was not written to its end, or is no journal of this name."""
    text = os.pread(journal, MOST_BYTES, 0)
    if not text.endswith(b"\n"):
        return []
    with suppress(ValueError, TypeError):
        renames = [(str(old), str(new)) for old, new in json.loads(text)]
        if all(_may(old, new, name) for old, new in renames):
            return renames
    return []


def _may(old: str, new: str, name: str) -> bool:
    """Whether a journal may say so: a temporary name is on one side, and names of the whole on the other."""
    temporary, final = (old, new) if NAME.fullmatch(old) else (new, old)
    return NAME.fullmatch(temporary) is not None and final.startswith(name) and "/" not in final


def _make(parent: Path, renames: Renames) -> None:
    """Make the renames that were not made yet."""
    for old, new in renames:
        if NAME.fullmatch(new) and os.path.lexists(parent / new):
            continue
        with suppress(FileNotFoundError):
            os.replace(parent / old, parent / new)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; False where the system or the file system has no such call.

    Raises
    ------
    OSError
        If it has, and they cannot.
    """
    call = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    if call is None:
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), call, None)
    if function is None:
        return False
    here = {"linux": -100, "darwin": -2}[sys.platform]  # AT_FDCWD
    swap = 2  # RENAME_EXCHANGE, and RENAME_SWAP
    if function(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(swap)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM):
        return False  # EPERM: what a sandbox says of a call that it does not know
    raise OSError(number, os.strerror(number), str(other))


def sync_directory(path: Path) -> None:
    """Make a rename last; not every system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
