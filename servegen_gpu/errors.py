"""What can go wrong, said in three parts: what was expected, what came, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_IN_WORD, MOST_IN_PART = 200, 480
LIKE = 0.65  # of difflib: at 0.6, --json is like --reason, and --rate like --format
_WORD = re.compile(rf"\S{{{MOST_IN_WORD + 1},}}")


def printable(text: str) -> str:
    """Text of files and users as a terminal may have it: control characters as escapes, long values cut.

    Data may hold anything: line breaks, terminal escapes, signs that change the direction of writing, halves of
    surrogate pairs, values of megabytes. A cut value keeps its begin and its end, and says how long it was.
    """
    shown = plain(_cut(_WORD.sub(lambda word: _cut(word[0], MOST_IN_WORD), text), MOST_IN_PART))
    if len(shown) <= MOST_IN_PART:
        return shown
    return f"{shown[: MOST_IN_PART * 2 // 3]}… …{shown[-(MOST_IN_PART // 4) :]}"  # escapes are longer than signs


def plain(text: str, kept: str = "") -> str:
    """Text with escapes for all that is not printable, but for what is kept."""
    if text.translate({ord(sign): None for sign in kept}).isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in kept else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    begin, end = text[: most * 2 // 3], text[-(most // 4) :]
    return f"{begin}… ({len(text):,} characters) …{end}"


class ServeGenError(Exception):
    """Base of all errors that a user can cause or fix; its parts are made `printable`.

    Parameters
    ----------
    expected : str
        What was expected.
    got : str
        What came instead: the value, and where (file, line, client, window, field).
    fix : str
        What to do about it.
    """

    def __init__(self, expected: str, got: str, fix: str) -> None:
        self.expected, self.got, self.fix = printable(expected), printable(got), printable(fix)
        super().__init__(self.expected, self.got, self.fix)

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.got}; {self.fix}"


class ProfileError(ServeGenError):
    """A profile file or client pool that cannot be used."""


class RateError(ServeGenError):
    """A target rate that cannot be met or read."""


class OptionError(ServeGenError, ValueError):
    """An argument outside its range."""


class ColumnError(OptionError, KeyError):
    """A trace without a column that is asked for."""


class VariableError(OptionError):
    """An environment variable with a value that it cannot have: never passed over."""


class OutputError(ServeGenError):
    """A trace that could not be written."""


def unknown(what: str, name: object, known: Iterable[str], fix: str = "choose one of them") -> OptionError:
    """The error for a name that is none of the known ones: it lists them, and asks whether the nearest is meant.

    Parameters
    ----------
    what : str
        Such as ``"a format"``.
    name : object
        What came.
    known : iterable of str
    fix : str
        What to do if none is near.
    """
    names = tuple(known)
    near = nearest(name, names)
    return OptionError(f"{what} among {', '.join(names)}", repr(name)[:60], f"did you mean {near!r}?" if near else fix)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like another, if one is: what was probably meant."""
    import difflib  # only for messages

    names = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower()[:100], names, 1, LIKE) if isinstance(name, str) else []
    return names[near[0]] if near else None
