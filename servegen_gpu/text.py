"""Small text files from users: bounded, UTF-8, and refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Protocol


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
        with path.open("rb") as file:
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
