"""The command ``sensitivity``: what metrics of a workload depend on."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from servegen_gpu.cli import pools, sampling
from servegen_gpu.errors import OptionError

PROGRESS_EVERY_S = 0.2


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "sensitivity",
        help="what a metric depends on: tornado, Morris, Sobol",
        description="Vary parameters of a workload, with the same random numbers everywhere, and say which of them "
        "move its metrics, and by how much.",
        usage="servegen-gpu sensitivity WORKLOAD --vary NAME=LOW:HIGH [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(made)
    sampling.add(made, counts="renewal", duration="1h")
    made.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="a parameter and its range, such as rate=0.8:1.2, or burstiness=0.5:2:log; repeat for more",
    )
    made.add_argument(
        "--method",
        default="tornado",
        help="tornado, one at a time (default); morris, one at a time from many places; sobol, shares of the variance",
    )
    made.add_argument(
        "--metrics",
        action="append",
        metavar="NAMES",
        help="figures, separated by commas: requests_peak_10s, output_tokens_p99_10s, requests_idc_60s, …",
    )
    made.add_argument("--replicas", type=int, default=20, metavar="N", help="of every point (default: 20)")
    made.add_argument(
        "--samples", type=int, metavar="N", help="trajectories of morris (default: 20), rows of sobol (128)"
    )
    made.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of intervals (default: 0.95)")
    made.add_argument("-o", "--output", metavar="PATH", help="Parquet file of the table")
    made.add_argument("--json", action="store_true", help="as JSON")
    made.add_argument("--quiet", action="store_true", help="neither progress nor notes")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.studies.sensitivity import METRICS, sensitivity

    if options.output is not None and not options.output.lower().endswith(".parquet"):
        raise OptionError("an output that ends in .parquet", repr(options.output), "change --output")
    pool, notes = pools.pool_of(options)
    if not options.quiet:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    keywords = sampling.keywords(options)
    keywords["duration"] = keywords["duration"] or "1h"
    names = [name.strip() for some in options.metrics or () for name in some.split(",") if name.strip()]
    shown = _Progress(sys.stderr.isatty() and not options.quiet)
    try:
        found = sensitivity(
            pool,
            options.vary,
            names or METRICS,
            options.method,
            replicas=options.replicas,
            samples=options.samples,
            confidence=options.confidence,
            progress=shown,
            **keywords,
        )
    finally:
        shown.end()
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) if options.json else found)
    if options.output is not None:
        found.write(options.output)
    return 0


class _Progress:
    """A line on a terminal: how many points there are."""

    def __init__(self, show: bool) -> None:
        self.show, self.shown = show, 0.0

    def __call__(self, done: int, most: int) -> None:
        """Show it, a few times a second."""
        now = time.perf_counter()
        if not self.show or now - self.shown < PROGRESS_EVERY_S:
            return
        self.shown = now
        bar = "█" * round(30 * done / most) + "·" * (30 - round(30 * done / most))
        print(f"\r{bar}  {done:,} of {most:,} points"[:79].ljust(79), end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self.shown:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
