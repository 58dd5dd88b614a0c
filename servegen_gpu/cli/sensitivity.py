"""The command ``sensitivity``: what metrics of a workload depend on."""

from __future__ import annotations

import argparse
from typing import Any

from servegen_gpu.cli import pools, sampling, studied
from servegen_gpu.cli.progress import Progress


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "sensitivity",
        summary="what a metric depends on: tornado, Morris, Sobol",
        example="servegen-gpu sensitivity m-small --vary rate=0.8:1.2 --vary burstiness=0.5:2:log",
        description="Vary parameters of a workload, with the same random numbers everywhere, and say which of them "
        "move its metrics, and by how much.",
        usage="servegen-gpu sensitivity WORKLOAD --vary NAME=LOW:HIGH [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(made)
    sampling.add(made, counts="renewal", duration="1h")
    made.group("method").add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="a parameter and its range, such as rate=0.8:1.2, or burstiness=0.5:2:log; repeat for more",
    )
    made.group("method").add_argument(
        "--method",
        default="tornado",
        help="tornado, one at a time (default); morris, one at a time from many places; sobol, shares of the variance",
    )
    studied.add_metrics(made)
    made.group("method").add_argument(
        "--replicas", type=int, default=20, metavar="N", help="of every point (default: 20)"
    )
    made.group("method").add_argument(
        "--samples", type=int, metavar="N", help="trajectories of morris (default: 20), rows of sobol (128)"
    )
    studied.add_results(made, "Parquet file of the table, for `report`")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.studies.sensitivity import METRICS, sensitivity

    studied.check_output(options)
    pool, notes = pools.pool_of(options)
    studied.print_notes(options, notes)
    keywords = sampling.keywords(options)
    keywords["duration"] = keywords["duration"] or "1h"
    shown = Progress(options, "points")
    try:
        found = sensitivity(
            pool,
            options.vary,
            studied.metrics(options) or METRICS,
            options.method,
            replicas=options.replicas,
            samples=options.samples,
            confidence=options.confidence,
            assumed=studied.assumed(options),
            progress=shown,
            **keywords,
        )
    finally:
        shown.end()
    if options.json:
        studied.print_json(found.to_dict())
    else:
        print(found)
    if options.output is not None:
        found.write(options.output, overwrite=options.overwrite)
    return 0
