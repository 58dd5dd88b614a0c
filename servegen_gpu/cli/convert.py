"""The command ``convert``: a trace in another format."""

from __future__ import annotations

import argparse
import time
from typing import Any

from servegen_gpu.cli import cutting, files


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    convert = commands.add_parser(
        "convert",
        help="write a trace in another format",
        description="Write a trace as another program reads it, and say how that program replays it.",
        usage="servegen-gpu convert TRACE --to FORMAT -o PATH [options]; --help lists them",
    )
    convert.set_defaults(run=run)
    convert.add_argument("trace", metavar="TRACE", help="a trace file or a directory of parts")
    files.add(convert, "--to")
    cutting.add(convert)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.formats import read_slabs

    begun = time.perf_counter()
    files.write(cutting.cut(read_slabs(options.trace), options), options, begun)
    return 0
