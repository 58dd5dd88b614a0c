"""Files that appear complete or not at all.

Everything is written under a temporary name in the directory of the target, flushed to the disk, and only then renamed.
Any exception, Ctrl-C included, removes it; a killed process leaves a hidden ``.servegen-*.tmp`` and never a half file
under the final name.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from servegen_gpu.digest import Digest
from servegen_gpu.disk import explained, hidden_beside, sync_directory
from servegen_gpu.errors import OutputError

PIECE_BYTES = 1 << 18
"""Written at once. For more, Linux takes large pages, and those are what a virtual machine may have given back to its
host: to get them again takes five times as long as the writing."""

STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}

FLUSH_BYTES = 1 << 26
"""So much is flushed to the disk while more is written."""


class Sink:
    """A file being written; errors of the disk come out as `OutputError`.

    Parameters
    ----------
    actual : Path
        File to write, under its temporary name.
    target : Path
        Its final name, for messages.
    fresh : bool
        Make a new file, never open an existing one.

    Attributes
    ----------
    size : int
        Bytes written so far.
    digest : Digest
        Of the rows among them, as whoever writes them counts them.
    """

    def __init__(self, actual: Path, target: Path, fresh: bool = True) -> None:
        self.target = target
        self.size = 0
        self.digest = Digest()
        with explained(target):
            number = descriptor(actual)
            self._file = io.FileIO(actual if number is None else os.dup(number), "xb" if fresh else "wb")
        # devices and pipes cannot be flushed to a disk
        self._on_disk = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="servegen-flush")
        self._flush: Future[None] | None = None
        self._flush_at = FLUSH_BYTES

    def write(self, data: Any) -> None:
        """Write all of `data`; the disk may take it in several bites."""
        view = memoryview(data).cast("B")
        size = len(view)
        with explained(self.target, self.size):
            while len(view):
                view = view[self._file.write(view[:PIECE_BYTES]) :]
            self.size += size
            self._flush_early()

    def _flush_early(self) -> None:
        """Let the disk work while more is being made."""
        if not self._on_disk or self.size < self._flush_at or (self._flush is not None and not self._flush.done()):
            return
        if self._flush is not None:
            self._flush.result()
        self._flush = self._flusher.submit(os.fsync, self._file.fileno())
        self._flush_at = self.size + FLUSH_BYTES

    def finish(self) -> None:
        """Flush to the disk and close; a second call does nothing."""
        if self._file.closed:
            return
        with explained(self.target, self.size):
            if self._flush is not None:
                self._flush.result()
            if self._on_disk:
                os.fsync(self._file.fileno())
            self._file.close()

    def release(self) -> None:
        """Close without flushing more; a flush that has begun still needs the file."""
        self._flusher.shutdown()
        with suppress(OSError):
            self._file.close()


@contextmanager
def new_file(path: Path, shown: Path | None = None) -> Iterator[Sink]:
    """A file that takes its name, or the place of an older one, when the block ends well.

    Devices and pipes, such as ``/dev/null`` and ``/dev/stdout``, are written straight: also where the shell has made
    ``/dev/stdout`` a file, which is then not replaced but written on. Messages name `shown`.
    """
    shown = shown or path
    if is_special(path):
        sink = Sink(path, shown, fresh=False)
        try:
            yield sink
            sink.finish()
        finally:
            sink.release()
        return
    if os.path.isdir(path):  # unlike Path.is_dir, silent where it may not look
        raise OutputError("a file to write", f"the directory {path}", 'name a file, or end the path in "/" for parts')
    actual = hidden_beside(path)
    sink = Sink(actual, shown)
    try:
        yield sink
        sink.finish()
        with explained(shown, sink.size):
            os.replace(actual, os.path.realpath(path))
            sync_directory(actual.parent)
    finally:
        # After the rename there is nothing left under the temporary name.
        sink.release()
        with suppress(OSError):
            actual.unlink(missing_ok=True)


def descriptor(path: Path) -> int | None:
    """Number of the open file that a path such as ``/dev/stdout`` or ``/dev/fd/3`` stands for, else None.

    To open such a path would truncate the file, or begin at its start.
    """
    if (name := path.as_posix()) in STREAMS:
        return STREAMS[name]
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", name)
    return int(found[1]) if found else None


def is_special(path: Path) -> bool:
    """True for devices, pipes, sockets and what is open already: what must never be renamed over."""
    if descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
