"""To how many requests, and to which lengths: arguments of all commands that write a trace."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from servegen_gpu.cli.arguments import Parser
from servegen_gpu.cutting import OVERS, Cut
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace

KEYWORDS = ("requests", "max_input", "max_output", "over")


def add(parser: Parser) -> None:
    """Add the arguments."""
    cuts = parser.group("cuts")
    parser.group("rate and time").add_argument(
        "--requests", type=int, metavar="N", help="exactly the first N requests (counted after --over drop)"
    )
    cuts.add_argument("--max-input", type=int, metavar="TOKENS", help="most tokens of an input")
    cuts.add_argument("--max-output", type=int, metavar="TOKENS", help="most tokens of an output")
    cuts.add_argument(
        "--over",
        choices=OVERS,
        help="cap requests above these (the default; reasoning, text and new tokens follow), or drop them and what "
        "follows in their conversation",
    )


def wanted(options: argparse.Namespace) -> bool:
    """Whether anything is to be cut."""
    return any(getattr(options, name) is not None for name in KEYWORDS)


def keywords(options: argparse.Namespace) -> dict[str, int | str | None]:
    """The arguments as keywords of `servegen_gpu.stream`."""
    return {name: getattr(options, name) for name in KEYWORDS[:-1]} | {"over": options.over or "cap"}


def cut(slabs: Iterator[Trace], options: argparse.Namespace) -> Iterator[Trace]:
    """The slabs as the arguments ask for them, and at their end a note on what became of how many requests."""
    if options.over is not None and options.max_input is None and options.max_output is None:
        raise OptionError("--max-input or --max-output with --over", "none of them", "say how many tokens are too many")
    chosen = Cut(options.requests, options.max_input, options.max_output, options.over or "cap")
    return _noting(slabs, chosen, options.quiet) if chosen.limits else chosen(slabs)


def _noting(slabs: Iterator[Trace], chosen: Cut, quiet: bool) -> Iterator[Trace]:
    limiter = chosen.limiter()
    rows = 0
    for slab in chosen(slabs, limiter):
        rows += len(slab)
        yield slab
    above = f"{limiter.inputs:,} inputs and {limiter.outputs:,} outputs above the limits"
    if limiter.dropped and not rows:
        raise OptionError("requests within --max-input and --max-output", f"none, {above}", "raise them")
    if not quiet:
        left_out = f": {limiter.dropped:,} requests left out" if chosen.drops else ", capped"
        print(f"note: {above}{left_out}", file=sys.stderr)
