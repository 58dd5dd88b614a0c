"""The command ``report``: a trace, a workload or a study as a page to look at."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import servegen_gpu as sg
from servegen_gpu.cli import files, naive, pools, reading, sampling
from servegen_gpu.errors import OptionError

OUTPUTS = (".html", ".htm")
NO_CHOICE = {"counts": "auto", "empty": "error"}
"""Defaults that leave the choice to `report`."""


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "report",
        summary="a page with numbers and pictures",
        example="servegen-gpu report trace.parquet -o page.html",
        description="Write a page with numbers and pictures of a trace, a workload or a study: one file that needs no "
        "network. Pictures need matplotlib.",
        usage="servegen-gpu report TRACE|WORKLOAD|STUDY [--against OTHER] -o PAGE.html [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(
        made,
        "a trace file, a directory of parts, a study's file, or a workload: its name, a TOML file of your own clients, "
        "a saved profile",
    )
    made.group("workload").add_argument("--against", metavar="OTHER", help="a trace or a workload to hold against it")
    files.add_overwrite(made)
    made.group("output").add_argument("-o", "--output", required=True, metavar="PAGE", help="the page, .html")
    sampling.add(made, duration="1h")
    made.group("random numbers").add_argument(
        "--replica", type=int, default=0, help="independent repetition of the same seed (default: 0)"
    )
    made.group("output").add_argument("--quiet", action="store_true", help="print nothing but errors")
    reading.add(made)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.reporting.report import report
    from servegen_gpu.studies.file import is_study

    begun = time.perf_counter()
    if not options.output.lower().endswith(OUTPUTS):
        raise OptionError("an output that ends in .html", repr(options.output), "change --output")
    study = is_study(options.workload)
    source = options.workload if study else _source(options)
    other = None
    if options.against is not None:
        other = _source(argparse.Namespace(**vars(options) | {"workload": options.against, "population": None}))
    stated = {}
    if isinstance(source, sg.ClientPool) or isinstance(other, sg.ClientPool):
        found = sampling.keywords(options) | {"replica": options.replica}
        stated = {name: value for name, value in found.items() if value not in (None, NO_CHOICE.get(name))}
    else:
        naive.refuse_clients(options)
        sampling.refuse(options)
    path = report(source, options.output, against=other, overwrite=options.overwrite, **stated)
    if not options.quiet:
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.2g} MB; {time.perf_counter() - begun:.2f} s")
    return 0


def _source(options: argparse.Namespace) -> Any:
    """A trace in a file, or the pool that is asked for."""
    if pools.is_trace(options):
        return reading.File(options.workload, options)
    pool, notes = pools.pool_of(options)
    if not options.quiet:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    return pool
