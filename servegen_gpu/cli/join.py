"""The command ``join``: shares of a trace to the trace."""

from __future__ import annotations

import argparse
import time
from typing import Any

from servegen_gpu.cli import files


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    join = commands.add_parser(
        "join",
        summary="join the shares of a trace",
        example="servegen-gpu join 1.parquet 2.parquet -o trace.parquet",
        description="Join all shares of `generate --shard k/n` into the trace that `generate` writes without --shard.",
        usage="servegen-gpu join PART... -o PATH",
    )
    join.set_defaults(run=run)
    join.group("workload").add_argument(
        "parts", nargs="+", metavar="PART", help="all shares in any order, files or directories"
    )
    files.add(join)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.formats.join import join_files

    begun = time.perf_counter()
    files.write(join_files(options.parts), options, begun)
    return 0
