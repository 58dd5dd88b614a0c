"""The command ``scale``: a trace cut in time, thinned, rescaled, and cut in lengths and in number, in this order."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from servegen_gpu import scaling
from servegen_gpu.cli import cutting, files, reading
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    scale = commands.add_parser(
        "scale",
        summary="change the rate of a trace, or cut it",
        example="servegen-gpu scale trace.parquet --factor 2 -o denser.parquet",
        description="Cut a trace in time (--from, --to), thin it (--thin), rescale its time (--factor), cap or drop "
        "long requests (--max-input, --max-output), and keep the first ones (--requests): in this order, each only if "
        "asked for.",
        usage="servegen-gpu scale TRACE -o PATH [options]; --help lists them",
    )
    scale.set_defaults(run=run)
    scale.group("workload").add_argument("trace", metavar="TRACE", help=reading.TRACE)
    files.add(scale)
    reading.add(scale)
    scale.group("rate and time").add_argument(
        "--from", dest="start", metavar="TIME", help="requests from this time of the trace, such as 10m"
    )
    scale.group("rate and time").add_argument(
        "--to", dest="end", metavar="TIME", help="requests before this time of the trace, such as 20m"
    )
    scale.group("rate and time").add_argument(
        "--thin", type=float, metavar="SHARE", help="keep this share of the conversations (of the requests without)"
    )
    scale.group("random numbers").add_argument(
        "--seed", type=int, default=0, help="which of them --thin keeps (default: 0)"
    )
    scale.group("rate and time").add_argument(
        "--factor", type=float, metavar="X", help="X times the rate, in an X-th of the time"
    )
    scale.group("rate and time").add_argument(
        "--method",
        choices=scaling.METHODS,
        help="scale the time between conversations (itt, the default; in memory), or all times (naive)",
    )
    scale.group("rate and time").add_argument(
        "--tails",
        choices=scaling.TAILS,
        help="turns past the end under itt: keep (default) or cut them",
    )
    cutting.add(scale)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    begun = time.perf_counter()
    rates = (options.start, options.end, options.thin, options.factor)
    if all(value is None for value in rates) and not cutting.wanted(options):
        known = "--factor, --thin, --from, --to, --requests, --max-input or --max-output"
        raise OptionError(known, "none of them", "say what to change")
    if options.factor is None and (options.method or options.tails):
        raise OptionError("--factor with --method or --tails", "none", "say how much denser")
    slabs: Iterator[Trace] = reading.slabs(options.trace, options)
    if options.start is not None or options.end is not None:
        slabs = _some(scaling.between(slabs, options.start, options.end), options)
    if options.thin is not None:
        slabs = scaling.thin(slabs, options.thin, seed=options.seed)
    if options.factor is not None:
        slabs = scaling.rescale(slabs, options.factor, options.method or "itt", tails=options.tails or "keep")
    files.write(cutting.cut(slabs, options), options, begun)
    return 0


def _some(slabs: Iterator[Trace], options: argparse.Namespace) -> Iterator[Trace]:
    """The slabs of a slice, which must not be empty: more likely a time was meant differently."""
    first = next(slabs)
    if not len(first):
        span = f"--from {options.start or 0} --to {options.end or 'the end'}"
        raise OptionError(f"requests in {options.trace} at the times asked for", f"none ({span})", "change the times")
    return chain([first], slabs)
