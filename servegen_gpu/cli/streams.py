"""The standard streams of the program: always open, plain in what they show, and heard when they fail."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from servegen_gpu.errors import OutputError, plain

KEPT = "\n\r\t"
"""Control characters that tables and bars of progress need."""


def prepare() -> None:
    """Make sure that there are standard streams, and that what is written to them is text that a terminal may have.

    A descriptor that the caller closed would be that of the next file that is opened, and words would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is this one; nothing can be written to the standard output, as asked
            os.set_inheritable(os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY), True)
    sys.stdout = _Stream(sys.stdout, 1, heard=True)
    sys.stderr = _Stream(sys.stderr, 2, heard=False)


class _Stream(io.TextIOWrapper):
    """A standard stream: control characters and what its encoding does not have are escaped.

    Parameters
    ----------
    stream : text stream or None
        The one of Python.
    number : int
        Of its descriptor.
    heard : bool
        An error is raised as an `OutputError`; otherwise what cannot be written is lost.
    """

    def __init__(self, stream: Any, number: int, heard: bool) -> None:
        raw = io.FileIO(number, "wb", closefd=False)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        live = not heard or raw.isatty()
        super().__init__(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=live)
        self._number, self._heard = number, heard

    def write(self, text: str) -> int:
        shown = plain(text, KEPT)
        try:
            super().write(shown)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Say it once: what is left would fail again when Python ends."""
        if isinstance(error, BrokenPipeError):
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._number)
        os.close(nowhere)
        if self._heard:
            reason = (error.strerror or str(error)).lower()
            raise OutputError("a standard output that takes what is written", reason, "write to a file instead")
