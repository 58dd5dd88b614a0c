"""The command ``provision``: how many servers a workload needs, and what a naive generator would have bought."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from servegen_gpu.cli import naive, pools, reading, sampling
from servegen_gpu.clients.saved.profile import is_profile
from servegen_gpu.errors import OptionError
from servegen_gpu.request.families import FAMILIES
from servegen_gpu.trace import Trace

PROGRESS_EVERY_S = 0.2
OF_POOLS = ("rate", "scale", "peak", "start", "duration", "warmup")


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "provision",
        help="how many servers hold an objective, with which confidence",
        description="Serve replicas of a workload, or one trace, by a model of servers, and say how many instances "
        "hold an objective: as a whole, over time, and with which confidence.",
        usage="servegen-gpu provision TRACE|WORKLOAD --slo BOUNDS --server PROFILE [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(made, f"{pools.WORKLOAD_HELP}; or {reading.TRACE}")
    reading.add(made)
    sampling.add(made, counts="renewal", duration="1h")
    made.add_argument("--slo", required=True, metavar="BOUNDS", help="such as ttft=2.25s,tbt=500ms, or one of them")
    made.add_argument("--at", default="p99", metavar="P", help="quantile that keeps to the bounds (default: p99)")
    made.add_argument("--server", required=True, metavar="PROFILE", help="see `servegen-gpu servers`; or a TOML file")
    made.add_argument(
        "--naive",
        nargs="?",
        const="gamma",
        choices=("poisson", *FAMILIES),
        metavar="FAMILY",
        help="beside it, what one renewal process with pooled lengths needs: gamma (the default), poisson, …",
    )
    made.add_argument("--replicas", type=int, default=200, metavar="N", help="of the workload (default: 200)")
    made.add_argument("--routing", default="least-loaded", metavar="HOW", help="or round-robin, or session-affine")
    made.add_argument("--window", default="10m", metavar="TIME", help="of instances over time (default: 10m)")
    made.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of intervals (default: 0.95)")
    made.add_argument("-o", "--output", metavar="PATH", help="Parquet file of what every replica needs, for `report`")
    made.add_argument("--json", action="store_true", help="as JSON")
    made.add_argument("--quiet", action="store_true", help="neither progress nor notes")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.studies.provision import provision

    if options.output is not None and not options.output.lower().endswith(".parquet"):
        raise OptionError("an output that ends in .parquet", repr(options.output), "change --output")
    of_trace = naive.is_trace(options) and not is_profile(options.workload)
    notes: tuple[str, ...] = ()
    keywords: dict[str, Any] = {"seed": options.seed}
    if of_trace:
        source: Any = _trace(options)
    else:
        source, notes = pools.pool_of(options)
        keywords |= sampling.keywords(options)
    shown = _Progress(sys.stderr.isatty() and not options.quiet)
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
    if options.output is not None:
        found.write(options.output)
    if not options.quiet:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) if options.json else found)
    return 0


def _trace(options: argparse.Namespace) -> Trace:
    """The trace, whole; options of clients and of sampling say nothing of it."""
    naive.refuse_clients(options)
    if given := [name for name in OF_POOLS if getattr(options, name) is not None]:
        raise OptionError("a trace without a rate and a time of its own", f"--{given[0]}", "leave it out")
    return Trace.concat(list(reading.slabs(options.workload, options)))


class _Progress:
    """A line on a terminal: how many replicas are done."""

    def __init__(self, show: bool) -> None:
        self.show, self.shown, self.begun = show, 0.0, time.perf_counter()

    def __call__(self, done: int, most: int) -> None:
        now = time.perf_counter()
        if self.show and now - self.shown > PROGRESS_EVERY_S:
            self.shown = now
            left_s = (now - self.begun) * (most - done) / done
            line = f"{done:,} of {most:,} replicas, {left_s:.0f} s left"
            print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self.shown:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
