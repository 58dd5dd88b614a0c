"""Files from users: nothing but files is opened, and small text files are bounded, UTF-8, and refused in words."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn, Protocol

OPEN_ALREADY = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/\d+")
"""What a shell has opened: to read it waits for nobody but who writes it."""


class NoFileError(OSError):
    """Something that is not a file; `strerror` says what it is."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        super().__init__(errno.EINVAL, what, os.fspath(path))

    def __str__(self) -> str:
        return f"{self.filename!r} is {self.strerror}"


def kind_of(mode: int) -> str:
    """What a mode of `os.stat` stands for; empty for a file."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "something else")


def open_file(path: str | os.PathLike[str], *, streams: bool = False) -> io.BufferedReader:
    """A file, opened for reading its bytes.

    Pipes and sockets would wait for somebody to write, and devices have no end, so neither is opened.

    Parameters
    ----------
    path : path
    streams : bool
        Take what the shell has opened, such as ``/dev/stdin`` and ``<(…)``, for callers who read once and so much.

    Raises
    ------
    OSError
        If there is none, it may not be read, or is not a file (`NoFileError`).
    ValueError
        If the path has a null character.
    """
    what = kind_of(os.stat(path).st_mode)
    if what and not (streams and what != "a directory" and OPEN_ALREADY.fullmatch(os.fspath(path))):
        raise NoFileError(path, f"{what}, not a file")
    return open(path, "rb")


class Refuse(Protocol):
    """Raises an error of three parts."""

    def __call__(self, expected: str, got: object, fix: str) -> NoReturn:
        """Raise it."""
        ...


def read_text(path: Path, what: str, most_bytes: int, refuse: Refuse, *, smaller: str, readable: str = "") -> str:
    """The text of a file, without a byte order mark.

    Parameters
    ----------
    path : Path
    what : str
        For messages, such as ``"TOML file"``.
    most_bytes : int
        No more than this is read.
    refuse : Refuse
        Told what is wrong with a file that cannot be read, is larger, or is no UTF-8.
    smaller : str
        What to do about a larger file.
    readable : str, optional
        What was expected instead of a file that cannot be read, if that is not just `what`.
    """
    try:
        with open_file(path, streams=True) as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        refuse(readable or f"a readable {what}", f"{path}: {error}", "check the path")
    if len(data) > most_bytes:
        refuse(f"a {what} of at most {most_bytes >> 20} MiB", f"{path} is larger", smaller)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        refuse(f"UTF-8 text in a {what}", f"{path}, line {line}: other bytes", "save it as text")


def few(values: Any, most: int = 8) -> str:
    """An array or a sequence in a few words, for `repr`: all numbers of a short one, the ends of a longer one."""
    shown = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in _ends(values, most)]
    if len(values) > most:
        shown.insert(most // 2, f"… {len(values) - most:,} more …")
    return f"[{', '.join(shown)}]"


def _ends(values: Any, most: int) -> list[Any]:
    ends = [values] if len(values) <= most else [values[: most // 2], values[len(values) - most // 2 :]]
    return [value for end in ends for value in (end.tolist() if hasattr(end, "tolist") else end)]
