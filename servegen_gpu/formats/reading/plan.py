"""What is read from a source: its format, and which column means what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.formats.reading.layout import ALIASES, LAYOUTS, TABLE, Layout
from servegen_gpu.formats.reading.names import USUAL, find, normal, split_unit, usual
from servegen_gpu.formats.reading.sources import Source

FORMATS = (*dict.fromkeys((*LAYOUTS, *ALIASES, TABLE.name)),)
"""What can be asked for by name."""
NO_TRACES = {"vllm-custom": "prompts without times", "aiperf-rates": "rates without requests"}
"""Formats that this package writes and nobody can make a trace of."""

ROLES = {"input": "input_tokens", "output": "output_tokens", "reason": "reason_tokens"}
"""Short names of columns that a user may give."""
STATED = ("time", "client", "session", "hash_ids", *ROLES)
NEEDED = ("time", "input_tokens", "output_tokens")
OPTIONS = {"time": "--time", "input_tokens": "--input-tokens", "output_tokens": "--output-tokens"}


@dataclass(frozen=True)
class Plan:
    """What to read.

    Attributes
    ----------
    layout : Layout
    columns : dict of str to str
        Columns by what they mean.
    reads : tuple of str
        Which columns of the file to read.
    unit : str, optional
        Of times, where a user or a name says so.
    guessed : tuple of str
        What was told by usual names, for the note.
    ignored : tuple of str
        Columns that are not read.
    """

    layout: Layout
    columns: dict[str, str]
    reads: tuple[str, ...]
    unit: str | None
    guessed: tuple[str, ...]
    ignored: tuple[str, ...]


def plan(source: Source, format: str | None, columns: Mapping[str, str] | None, unit: str | None) -> Plan:
    """The format of a source and its columns.

    Parameters
    ----------
    source : Source
    format : str, optional
        A name of `FORMATS`; left out, or "auto", the columns tell.
    columns : mapping of str to str, optional
        Columns of the file by what they mean, a name of `STATED` or of a column of traces; they come before those of
        the format.
    unit : str, optional
        Of times.

    Raises
    ------
    OptionError
        If the format is not known or not that of the file, or a column is missing.
    """
    stated = _stated(source, columns)
    layout = _layout(source, format, stated)
    for name in layout.reads:
        if name not in source.columns:
            raise _missing(source, layout, name)
    if layout.name == "servegen-gpu" and unit not in (None, layout.unit):
        got = f"unit {unit!r} for {source.name}"
        raise OptionError("microseconds in a column arrival_us of this package", got, "leave the unit out")
    named = {role: find((*layout.makes, *source.columns), names) for role, names in layout.columns.items()}
    found = {role: name for role, name in named.items() if name is not None}
    guessed = []
    if layout is TABLE:
        for role in USUAL:
            if role not in stated and (names := usual(source.columns, role)):
                found[role] = names[0]
                if names[0] != role or len(names) > 1:
                    guessed.append(f"{role} from {names[0]!r}" + (f" (not {names[1]!r})" if len(names) > 1 else ""))
    found |= stated
    for role in NEEDED:
        if role not in found and not (role == "time" and "delay" in found):
            raise _missing(source, layout, role)
    if unit is None and (layout is TABLE or "time" in stated):
        unit = split_unit(found["time"])[1]
    used = (name for name in layout.uses if name in source.columns)
    of_file = tuple(
        dict.fromkeys([*layout.reads, *used, *(name for name in found.values() if name not in layout.makes)])
    )
    ignored = tuple(name for name in source.columns if name not in of_file)
    return Plan(layout, found, of_file, unit, tuple(guessed), ignored)


def _stated(source: Source, columns: Mapping[str, str] | None) -> dict[str, str]:
    if not isinstance(columns, Mapping | None):
        raise OptionError("columns as {meaning: column}", repr(columns)[:60], "change columns")
    check_there(source, columns or {})
    stated = {}
    for role, column in (columns or {}).items():
        name = ROLES.get(role, role)
        if name not in {*STATED, *ROLES.values()} and not name.endswith("_tokens"):
            raise unknown("meanings of columns", role, STATED, "change columns")
        stated[name] = column
    return stated


def check_there(source: Source, columns: Mapping[str, str]) -> None:
    """Refuse columns by what they mean that a source does not have, or has twice."""
    for role, column in columns.items():
        if source.columns.count(column) != 1:
            listed = ", ".join(source.columns)[:200]
            raise OptionError(f"one column {column!r} for {role}", f"{source.name}: {listed}", "name another")


def _layout(source: Source, format: str | None, stated: dict[str, str]) -> Layout:
    if format not in (None, "auto"):
        if format in NO_TRACES:
            got = f"{NO_TRACES[format]} in {source.name}, as {format} has them"
            raise OptionError("requests with their times", got, "read the trace that it was made from")
        if format not in FORMATS:
            raise unknown("a format", format, FORMATS, "change the format")
        if format == TABLE.name:
            return TABLE
        name, changed = ALIASES.get(format, (format, {}))
        return replace(LAYOUTS[name], name=format, sure=True, **changed)  # type: ignore[arg-type]
    if "time" in stated:
        return TABLE
    there = {normal(name) for name in source.columns}
    return next((layout for layout in LAYOUTS.values() if there >= {normal(n) for n in layout.needs}), TABLE)


def _missing(source: Source, layout: Layout, role: str) -> OptionError:
    listed = ", ".join(source.columns)[:200]
    if layout is TABLE:
        what, fix = f"a column of {role}", f"name it: {OPTIONS.get(role, role)} COLUMN (columns=)"
    else:
        what, fix = f"{role!r} in the format {layout.name}", "name another format, or the columns"
    return OptionError(what, f"{source.name} with the columns {listed}", fix)
