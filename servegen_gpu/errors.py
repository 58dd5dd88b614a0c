"""What can go wrong, said in three parts: what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class ServeGenError(Exception):
    """Base of all errors that a user can cause or fix.

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
        super().__init__(expected, got, fix)
        self.expected = expected
        self.got = got
        self.fix = fix

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.got}; {self.fix}"


class ProfileError(ServeGenError):
    """A profile file or client pool that cannot be used."""


class RateError(ServeGenError):
    """A target rate that cannot be met or read."""


class OptionError(ServeGenError, ValueError):
    """An argument outside its range."""


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
    near = difflib.get_close_matches(name.lower()[:100], names, 1, 0.6) if isinstance(name, str) else []
    return names[near[0]] if near else None
