"""Errors as users of ServeGen expect them: ValueErrors, which begin with ServeGen's own sentence where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from servegen_gpu.errors import ServeGenError


class InputError(ServeGenError, ValueError):
    """An argument, a client or a file that cannot be used.

    Parameters
    ----------
    expected, got, fix : str
        The three parts of a `servegen_gpu.ServeGenError`.
    what : str
        ServeGen's own sentence, which tests look for.
    """

    def __init__(self, expected: str, got: str, fix: str, what: str = "") -> None:
        super().__init__(expected, got, fix)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: {super().__str__()}" if self.what else super().__str__()


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Turn errors of the package into ones that are also ValueErrors."""
    try:
        yield
    except ServeGenError as error:
        if isinstance(error, ValueError):
            raise
        raise InputError(error.expected, error.got, error.fix) from error


def few(values: Sequence[Any]) -> str:
    """A list in a message: the first ten of it."""
    shown = ", ".join(repr(value) for value in values[:10])
    return f"[{shown}{f', … {len(values):,} in all' if len(values) > 10 else ''}]"
