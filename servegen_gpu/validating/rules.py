"""What a program demands of a file: the words in which `servegen_gpu.validating.programs` says it.

Where a field is a `Severity` or None, it is how bad a row is that breaks the rule; None means that the program minds
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from servegen_gpu.validating.pieces import Head, Piece
from servegen_gpu.validating.report import REFUSED, SUSPICIOUS, Findings, Severity

Check = Callable[[Piece, Findings], None]
"""A rule of one program alone."""


@dataclass(frozen=True)
class Time:
    """The key of times.

    Attributes
    ----------
    key : str
    unit_s : float
        One of its units in seconds.
    needed : Severity or None
        A row without a time.
    order : Severity or None
        A row earlier than the row before.
    late : Severity or None
        A first row that is not near 0.
    option : str
        How the program is told another unit; empty if it cannot be.
    date : bool
        Dates instead of numbers.
    """

    key: str
    unit_s: float
    needed: Severity | None = REFUSED
    order: Severity | None = None
    late: Severity | None = None
    option: str = ""
    date: bool = False


@dataclass(frozen=True)
class Tokens:
    """The key of a number of tokens.

    Attributes
    ----------
    key : str
    least : int
    below : Severity or None
        A number from 0 on below `least`; negative ones are refused.
    means : str
        What the program makes of it.
    needed : Severity or None
        A row without it.
    wrong : Severity
        Something that is no whole number.
    """

    key: str
    least: int = 1
    below: Severity | None = REFUSED
    means: str = "the program refuses it"
    needed: Severity | None = REFUSED
    wrong: Severity = REFUSED


@dataclass(frozen=True)
class Ids:
    """The key of ids of blocks.

    Attributes
    ----------
    key : str
    block_tokens : int
        By default of the program.
    option : str
        How the program is told another size.
    needed : Severity or None
        A row without ids.
    short, long : Severity or None
        Fewer, more ids than the input has blocks.
    without, cut : str
        What the program makes of rows without ids, and with too few.
    negative : Severity or None
    bits : int
        Ids of more bits are cut.
    two_sizes : Severity or None
        The same id for a full block and for a part of one.
    """

    key: str = "hash_ids"
    block_tokens: int = 512
    option: str = ""
    needed: Severity | None = None
    short: Severity | None = None
    long: Severity | None = None
    without: str = "the program refuses it"
    cut: str = "the program refuses it"
    negative: Severity | None = None
    bits: int = 64
    two_sizes: Severity | None = None


@dataclass(frozen=True)
class Sessions:
    """What ties turns together.

    Attributes
    ----------
    key : str
        The same in all turns of a session; with `parent`, of the turn alone.
    history : {"appended", "within"}
        The program puts earlier turns in front of the input, or the input has them.
    text : bool
        Must be a JSON string.
    parent : str
        Key of the turn before; empty if turns share `key`.
    order : Severity or None
        A turn earlier than the turn before it in the file.
    first : Severity or None
        A first turn without a time.
    """

    key: str = "session_id"
    history: Literal["appended", "within"] = "within"
    text: bool = True
    parent: str = ""
    order: Severity | None = None
    first: Severity | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a whole file when notes are made: rows, and tokens of a block (0 without ids)."""

    rows: int
    block_tokens: int


@dataclass(frozen=True)
class Program:
    """One kind of file of one program.

    Attributes
    ----------
    name : str
        ``"program:kind"``, or ``"program"`` if it has one.
    what : str
    reads : tuple of str
        Kinds of files: jsonl, csv, parquet.
    told_by : tuple of str
        Keys that tell this kind from the program's others; all must be there.
    suffixes : tuple of str
        The file's name must end in one of them; empty for any.
    columns : tuple of str
        Names that a CSV or Parquet file must have, beside those of `time`, `input`, `output`.
    places : dict of int to str
        Columns that are read by position, and what must be there.
    nested : str
        Key of the list of requests in a line; empty if a line is a request.
    lenient : bool
        Text that means a number is taken for one, and 128.0 for 128.
    marked, blank : Severity or None
        A byte order mark; a blank line.
    broken : Severity
        A line that cannot be read.
    checks, outer : tuple of Check
        Rules of this program alone, for rows and for lines with a nested list.
    also : tuple of str
        Keys that `checks` look at.
    notes : callable
        What to tell the program that is not its default.
    max_tokens : int
        Most of input and output together by default; 0 without limit.
    too_long : Severity
        A request over that.
    """

    name: str
    what: str
    reads: tuple[str, ...] = ("jsonl",)
    told_by: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    places: dict[int, str] = field(default_factory=dict)
    nested: str = ""
    lenient: bool = False
    marked: Severity | None = REFUSED
    blank: Severity | None = None
    broken: Severity = REFUSED
    time: Time | None = None
    input: Tokens | None = None
    output: Tokens | None = None
    ids: Ids | None = None
    sessions: Sessions | None = None
    checks: tuple[Check, ...] = ()
    outer: tuple[Check, ...] = ()
    also: tuple[str, ...] = ()
    notes: Callable[[Facts], list[str]] = lambda _: []
    max_tokens: int = 0
    too_long: Severity = SUSPICIOUS

    def fits(self, head: Head) -> bool:
        """Whether a file looks like this kind."""
        return head.kind in self.reads and all(name in head.names for name in self.told_by)

    def keys(self) -> set[str]:
        """All keys that are looked at."""
        parts = (self.time, self.input, self.output, self.ids, self.sessions)
        parents = {self.sessions.parent} if self.sessions else set()
        return {part.key for part in parts if part} | parents | {*self.columns, *self.also} | {self.nested}
