"""The command ``save``: clients as a directory to share and edit."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import servegen_gpu as sg
from servegen_gpu.cli import files, pools
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.errors import OptionError


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    keep = commands.add_parser(
        "save",
        summary="save clients as a directory",
        example="servegen-gpu save m-large --largest 100 -o mine",
        description="Save clients as a directory that a person can read, share and edit, and that is a workload.",
        usage="servegen-gpu save WORKLOAD -o DIRECTORY [options]; --help lists them",
    )
    keep.set_defaults(run=run)
    pools.add(keep)
    keep.group("output").add_argument(
        "-o", "--output", required=True, metavar="DIRECTORY", help="new, or an older profile to replace"
    )
    add_layout(keep)


def add_layout(parser: Parser) -> None:
    """Add the arguments of all commands that save clients."""
    files.add_overwrite(parser)
    parser.group("output").add_argument(
        "--layout",
        choices=("auto", "servegen", "packed"),
        default="auto",
        help="two files a client as alibaba/ServeGen reads them, or one of arrays for any clients (default: the first "
        "if it holds all)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    if options.output in ("", "-"):
        raise OptionError("a directory for the profile", repr(options.output), "name one: -o DIRECTORY")
    pool, notes = pools.pool_of(options)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    sg.save_profile(pool, options.output, layout=options.layout, overwrite=options.overwrite)
    print(f"{options.output}: {len(pool):,} clients")
    return 0
