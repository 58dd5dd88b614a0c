"""What can go wrong, said in three parts: what was expected, what came, what to do."""

from __future__ import annotations


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
