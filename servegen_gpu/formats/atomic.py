"""Files that appear complete or not at all.

Everything is written under a temporary name in the directory of the target, flushed to the disk, and only then renamed:
all files that belong together in one step (`servegen_gpu.disk.commit`). Any exception, Ctrl-C included, removes it; a
killed process leaves a hidden ``.servegen-*.tmp``, which the next writer into the directory removes, and never a half
file under the final name.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from servegen_gpu.digest import Digest
from servegen_gpu.disk import explained, new_temporary, settle, sweep
from servegen_gpu.disk.commit import rename_all
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
    opened : int
        Descriptor of the file; the sink has one of its own.
    target : Path
        Its final name, for messages.

    Attributes
    ----------
    size : int
        Bytes written so far.
    digest : Digest
        Of the rows among them, as whoever writes them counts them.
    beside : dict of str to bytes
        Files that belong to it and get their names in one step with it: by what their names have behind its own.
    """

    def __init__(self, opened: int, target: Path) -> None:
        self.target = target
        self.size = 0
        self.digest = Digest()
        self.beside: dict[str, bytes] = {}
        self._file = io.FileIO(os.dup(opened), "wb")
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

    It has the mode, and as far as possible the owner, of the file that it replaces. Devices and pipes, such as
    ``/dev/null`` and ``/dev/stdout``, are written straight: also where the shell has made ``/dev/stdout`` a file, which
    is then not replaced but written on. Messages name `shown`.
    """
    shown = shown or path
    with ExitStack() as stack:
        if is_special(path):
            sink = stack.enter_context(_special(path, shown))
            yield sink
            sink.finish()
            return
        if os.path.isdir(path):  # unlike Path.is_dir, silent where it may not look
            raise OutputError(
                "a file to write", f"the directory {path}", 'name a file, or end the path in "/" for parts'
            )
        real = Path(os.path.realpath(path))
        settle(real)
        sweep(real.parent)
        actual, sink = stack.enter_context(_staged(real, shown))
        yield sink
        sink.finish()
        renames = []
        for suffix, data in sink.beside.items():
            other = real.with_name(real.name + suffix)
            name, more = stack.enter_context(_staged(other, other, real))
            more.write(data)
            more.finish()
            renames.append((name, other.name))
        with explained(shown, sink.size):
            rename_all(real.parent, [*renames, (actual, real.name)])


@contextmanager
def _special(path: Path, shown: Path) -> Iterator[Sink]:
    """What is written straight."""
    number = descriptor(path)
    with explained(shown):
        opened = os.dup(number) if number is not None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        sink = Sink(opened, shown)
        os.close(opened)
    try:
        yield sink
    finally:
        sink.release()


@contextmanager
def _staged(target: Path, shown: Path, *like: Path) -> Iterator[tuple[str, Sink]]:
    """A file under a temporary name in the directory of its target, and that name."""
    with ExitStack() as stack:
        with explained(shown):
            made = stack.enter_context(new_temporary(target.parent, like=(target, *like, shown)))
            sink = Sink(made.descriptor, shown)
        stack.callback(sink.release)
        yield made.path.name, sink


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
