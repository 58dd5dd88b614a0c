"""Traces to read: arguments of all commands that take one, whoever wrote it."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from servegen_gpu.cli.arguments import Parser
from servegen_gpu.trace import Trace

TRACE = "a trace file of ours or of others (CSV, JSON lines, Parquet), or a directory of parts"
COLUMNS = {
    "time": ("--time",),
    "input": ("--input-tokens", "--input"),
    "output": ("--output-tokens",),
    "client": ("--client",),
    "session": ("--session",),
    "reason": ("--reason-tokens", "--reason"),
}
"""Options by what a column means. ``--output`` names the file in commands that write one."""


def add(parser: Parser, *output: str) -> None:
    """Add the arguments; `output` are more names of the option for the column of output tokens."""
    group = parser.group("traces of others")
    group.description = "what is left out, names and values of the file tell"
    for meaning, names in COLUMNS.items():
        more = output if meaning == "output" else ()
        group.add_argument(
            *names,
            *more,
            dest=f"column_{meaning}",
            metavar="COL",
            help=f"column of {WHAT[meaning]}, where names and values do not tell",
        )
    group.add_argument("--unit", metavar="UNIT", help="of times: s, ms, us, ns, or iso for dates")
    group.add_argument("--missing", default="error", metavar="WHAT", help="rows without a value: error or drop")
    group.add_argument("--read-as", metavar="FORMAT", help="format of the file, such as mooncake, azure or table")


WHAT = {
    "time": "times",
    "input": "input tokens",
    "output": "output tokens",
    "client": "ids of clients",
    "session": "ids of conversations",
    "reason": "reasoning tokens",
}


def slabs(path: str, options: argparse.Namespace) -> Iterator[Trace]:
    """The slabs of a trace; what was assumed, repaired and left out is said first, unless nothing is to be printed."""
    from servegen_gpu.formats import open_foreign, own_slabs

    stated = {meaning: getattr(options, f"column_{meaning}") for meaning in COLUMNS}
    columns = {meaning: column for meaning, column in stated.items() if column is not None} or None
    foreign = open_foreign(path, options.read_as, columns=columns, unit=options.unit, missing=options.missing)
    if foreign is None:
        return own_slabs(path, options.read_as)
    options.foreign = foreign
    found = foreign.slabs()
    if not getattr(options, "quiet", False):
        print(f"note: {foreign.note}", file=sys.stderr)
    return found


class File:
    """A trace in a file, read anew whenever it is iterated over; how it was read is said once."""

    def __init__(self, path: str, options: argparse.Namespace) -> None:
        self.path, self.options = path, argparse.Namespace(**vars(options))
        self.name = Path(path).name or path

    def __iter__(self) -> Iterator[Trace]:
        found = slabs(self.path, self.options)
        self.options.quiet = True
        return found


def keep_names(options: argparse.Namespace, output: str) -> tuple[str, ...]:
    """Write what ids of clients and sessions are called in the file that was read, beside the `output` if it is a file.

    Returns
    -------
    tuple of str
        Where, for the user.
    """
    from servegen_gpu.formats.atomic import is_special, new_file
    from servegen_gpu.formats.own import refuse_foreign

    foreign, said = getattr(options, "foreign", None), []
    for of in ("client",) if options.ids == "dense" else ("client", "session"):  # dense ids number sessions anew
        names = foreign.names(of) if foreign is not None else []
        if names and not is_special(Path(output)):
            path = Path(f"{output.rstrip('/')}.{of}s.csv")
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("id", of), *enumerate(names)])
            refuse_foreign(path, options.overwrite)
            with new_file(path) as sink:
                sink.write(text.getvalue().encode())
            said.append(f"{of}s by their number: {path}")
    return tuple(said)
