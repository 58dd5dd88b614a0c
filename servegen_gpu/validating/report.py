"""What is found in a file: kinds of problems, each with its first lines and how many rows are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["refused by the program", "silently wrong", "suspicious"]
REFUSED: Severity = "refused by the program"
SILENT: Severity = "silently wrong"
SUSPICIOUS: Severity = "suspicious"
SEVERITIES: tuple[Severity, ...] = (REFUSED, SILENT, SUSPICIOUS)

SHOWN = 60
"""Characters of a value."""
LINES = 5
"""First lines that are named of each kind."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem.

    Attributes
    ----------
    line : int
        First line with it, from 1; in a Parquet file the first row, from 0. 0 where it concerns the whole file.
    key : str
        Key or column.
    value : str
        What stands there.
    wrong : str
        What is wrong with it.
    fix : str
        What to do.
    severity : {"refused by the program", "silently wrong", "suspicious"}
    rows : int
        How many rows have it.
    lines : tuple of int
        The first few of them.
    """

    line: int
    key: str
    value: str
    wrong: str
    fix: str
    severity: Severity
    rows: int
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What a program would make of a file.

    Attributes
    ----------
    path : str
    program : str
        Program and kind of file, such as ``"aiperf:mooncake_trace"``.
    guessed : bool
        Whether the kind was told from the file.
    rows : int
        Requests that could be read; turns of sessions count each.
    problems : tuple of Problem
        The worst first, then in order of lines.
    notes : tuple of str
        What to tell the program that is not its default.
    unit : {"line", "row"}
        What the numbers of lines count.
    """

    path: str
    program: str
    guessed: bool
    rows: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    unit: str = "line"

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {"clean": self.clean}

    def __str__(self) -> str:
        guess = " (told from the file)" if self.guessed else ""
        count = len(self.problems)
        found = f"{count} kind{'s' * (count != 1)} of problem" if count else "nothing wrong"
        text = [f"{self.path} for {self.program}{guess}: {self.rows:,} requests, {found}"]
        for severity in SEVERITIES:
            alike = [problem for problem in self.problems if problem.severity == severity]
            text += [f"\n{severity}:"] * bool(alike)
            text += [line for problem in alike for line in self._lines(problem)]
        text += [f"note: {note}" for note in self.notes]
        return "\n".join(text)

    def _lines(self, problem: Problem) -> Iterable[str]:
        many = (
            f" ({problem.rows:,} {'rows' if problem.rows > 1 else 'row'})" if problem.line or problem.rows > 1 else ""
        )
        key = f"{problem.key}: " if problem.key else ""
        yield f"  {key}{problem.wrong}{many}"
        more = ", …" if problem.rows > len(problem.lines) else ""
        numbers = ", ".join(map(str, problem.lines)) + more
        at = f"{self.unit}{'s' if len(problem.lines) > 1 else ''} {numbers}: " if problem.lines else ""
        yield f"    {at}{problem.value}" if at or problem.value else "    in the whole file"
        yield f"    {problem.fix}"


@dataclass
class _Kind:
    key: str
    wrong: str
    fix: str
    severity: Severity
    value: str
    rows: int = 0
    lines: list[int] = field(default_factory=list)


class Findings:
    """Collects what is found. Memory does not grow with the number of rows."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(
        self,
        lines: Iterable[int],
        key: str,
        wrong: str,
        fix: str,
        severity: Severity,
        value: Callable[[int], str] | str,
        rows: int | None = None,
    ) -> None:
        """Note rows of one kind.

        Parameters
        ----------
        lines : sequence of int
            Their lines, ascending; a few are enough if `rows` says how many there are.
        key, wrong, fix, severity : str
            As in `Problem`; the first two tell kinds apart.
        value : callable or str
            What stands in the i-th of `lines`; called for the first one only.
        rows : int, optional
        """
        known = [*map(int, lines)]
        count = len(known) if rows is None else rows
        if not count:
            return
        kind = self._kinds.get((key, wrong))
        if kind is None or (known and kind.lines and known[0] < kind.lines[0]):
            shown = cut(value if isinstance(value, str) else value(0), 2 * SHOWN)
            if kind is None:
                kind = self._kinds[key, wrong] = _Kind(key, wrong, fix, severity, shown)
            kind.value = shown
        kind.rows += count
        kind.lines = sorted([*kind.lines, *known[:LINES]])[:LINES]

    def problems(self) -> tuple[Problem, ...]:
        """All kinds, the worst first, then in order of lines."""
        made = [
            Problem(
                kind.lines[0] if kind.lines else 0,
                kind.key,
                kind.value,
                kind.wrong,
                kind.fix,
                kind.severity,
                kind.rows,
                tuple(kind.lines),
            )
            for kind in self._kinds.values()
        ]
        return tuple(sorted(made, key=lambda problem: (SEVERITIES.index(problem.severity), problem.line)))


def cut(text: str, most: int = SHOWN) -> str:
    """A value short enough to be shown, on one line."""
    plain = "".join(c if c.isprintable() else "�" for c in text[: most + 1])
    return plain if len(plain) <= most else plain[: most - 1] + "…"
