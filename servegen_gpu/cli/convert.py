"""The command ``convert``: a trace in another format."""

from __future__ import annotations

import argparse
import time
from typing import Any

from servegen_gpu.cli import cutting, files, reading


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    convert = commands.add_parser(
        "convert",
        summary="write a trace in another format",
        example="servegen-gpu convert trace.parquet --to mooncake -o trace.jsonl",
        description="Write a trace as another program reads it, and say how that program replays it.",
        usage="servegen-gpu convert TRACE --to FORMAT -o PATH [options]; --help lists them",
    )
    convert.set_defaults(run=run)
    convert.group("workload").add_argument("trace", metavar="TRACE", help=reading.TRACE)
    files.add(convert, "--to")
    cutting.add(convert)
    reading.add(convert)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    begun = time.perf_counter()
    files.write(cutting.cut(reading.slabs(options.trace, options), options), options, begun)
    return 0
