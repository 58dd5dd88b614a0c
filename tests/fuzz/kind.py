"""Kinds of input, as a registry: a kind is where good inputs come from, and what is done with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Use = Callable[["Place"], object]
Given = Callable[[], Sequence["Good"]]


@dataclass(frozen=True, eq=False)
class Good:
    """A good input: files by their names in the case's directory, and words of a command line or the like.

    Attributes
    ----------
    files : dict of str to bytes
        A name may have directories, ``language/tiny/chunk-0-trace.csv``.
    words : tuple of str
        ``{here}`` and ``{out}`` stand for the directories of a case.
    change : tuple of str, optional
        Which files are mutated; all by default. Words are mutated only if their kind says so.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    change: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Place:
    """Where a case runs.

    Attributes
    ----------
    here, out : Path
        Directories of the input, and of all output: a use leaves files nowhere else.
    words : tuple of str
        Of the command line, mutated, and with directories for ``{here}`` and ``{out}``.
    """

    here: Path
    out: Path
    words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of input.

    Attributes
    ----------
    name : str
    given : callable
        Makes the good inputs, once a process.
    use : callable
        Uses one, and checks what comes of it: raises a `ServeGenError` or `Refused` where it is refused, and
        `WrongAcceptanceError` where the result cannot be right.
    hostile_words : dict of str to tuple of str
        Options whose values are mutated, each with values of its own beside those that every option gets.
    share : float
        Of the cases of a run, relative to other kinds: less for what is slow.
    """

    name: str
    given: Given
    use: Use
    hostile_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    share: float = 1.0


class Refused(Exception):
    """A command refused its input; the message is its last line."""


class WrongAcceptanceError(AssertionError):
    """A result that breaks an invariant: its input should have been refused."""


KINDS: dict[str, Kind] = {}
"""All kinds by name, filled by the modules that `all_kinds` imports."""


def kind(
    name: str, given: Given, *, hostile_words: dict[str, tuple[str, ...]] | None = None, share: float = 1.0
) -> Callable[[Use], Use]:
    """Register what is decorated as the use of a kind of input."""

    def register(use: Use) -> Use:
        assert name not in KINDS, name
        KINDS[name] = Kind(name, given, use, hostile_words or {}, share)
        return use

    return register


def all_kinds() -> dict[str, Kind]:
    """The registry, filled."""
    import importlib

    for module in MODULES:
        importlib.import_module(f"fuzz.{module}")
    return KINDS


MODULES = ("clients", "options", "studies", "traces")
"""Modules of this package that register kinds."""


def must(holds: object, what: str) -> None:
    """Raise where an invariant does not hold."""
    if not holds:
        raise WrongAcceptanceError(what)
