"""The command ``provision``: how many servers a workload needs, and what a naive generator would have bought."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from servegen_gpu.cli import naive, pools, reading, sampling, studied
from servegen_gpu.cli.progress import Progress
from servegen_gpu.request.families import FAMILIES
from servegen_gpu.trace import Trace


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "provision",
        summary="how many servers hold an objective, with which confidence",
        example="servegen-gpu provision m-small --rate 20 --slo ttft=2s --server llama-3-8b-a100",
        description="Serve replicas of a workload, or one trace, by a model of servers, and say how many instances "
        "hold an objective: as a whole, over time, and with which confidence.",
        usage="servegen-gpu provision TRACE|WORKLOAD --slo BOUNDS --server PROFILE [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(made, f"{pools.WORKLOAD_HELP}; or {reading.TRACE}")
    reading.add(made)
    sampling.add(made, counts="renewal", duration="1h")
    made.group("figures").add_argument(
        "--slo", required=True, metavar="BOUNDS", help="such as ttft=2.25s,tbt=500ms, or one of them"
    )
    made.group("figures").add_argument(
        "--at", default="p99", metavar="P", help="quantile that keeps to the bounds (default: p99)"
    )
    made.group("figures").add_argument(
        "--server", required=True, metavar="PROFILE", help="see `servegen-gpu servers`; or a TOML file"
    )
    made.group("naive baseline").add_argument(
        "--naive",
        nargs="?",
        const="gamma",
        choices=("poisson", *FAMILIES),
        metavar="FAMILY",
        help="beside it, what one renewal process with pooled lengths needs: gamma (the default), poisson, …",
    )
    made.group("method").add_argument(
        "--replicas", type=int, default=200, metavar="N", help="of the workload (default: 200)"
    )
    made.group("method").add_argument(
        "--routing", default="least-loaded", metavar="HOW", help="least-loaded (default), round-robin or session-affine"
    )
    made.group("figures").add_argument(
        "--window", default="10m", metavar="TIME", help="of instances over time (default: 10m)"
    )
    studied.add_results(made, "Parquet file of what every replica needs, for `report`")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.studies.provision import provision

    studied.check_output(options)
    of_trace = pools.is_trace(options)
    notes: tuple[str, ...] = ()
    keywords: dict[str, Any] = {"seed": options.seed}
    if of_trace:
        source: Any = _trace(options)
    else:
        source, notes = pools.pool_of(options)
        keywords |= sampling.keywords(options)
    shown = Progress(options, "replicas")
    try:
        found = provision(
            source,
            options.slo,
            options.server,
            at=options.at,
            replicas=options.replicas,
            naive=False if options.naive is None else options.naive,
            routing=options.routing,
            window_s=options.window,
            confidence=options.confidence,
            progress=shown,
            **keywords,
        )
    finally:
        shown.end()
    studied.print_notes(options, notes + found.notes)
    if options.json:
        studied.print_json(found.to_dict())
    else:
        print(replace(found, notes=()))  # they are on standard error
    if options.output is not None:
        found.write(options.output, overwrite=options.overwrite)
    return 0


def _trace(options: argparse.Namespace) -> Trace:
    """The trace, whole; options of clients and of sampling say nothing of it."""
    naive.refuse_clients(options)
    sampling.refuse(options)
    return Trace.concat(list(reading.slabs(options.workload, options)))
