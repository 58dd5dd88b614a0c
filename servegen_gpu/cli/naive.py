"""Naive baselines on the command line: ``servegen-gpu generate WORKLOAD --naive gamma``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from servegen_gpu.baselines.naive import naive
from servegen_gpu.cli import pools, reading
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.request.families import FAMILIES, WITH_SHAPE
from servegen_gpu.trace import Trace


def add(parser: Parser) -> None:
    """Add the options."""
    baseline = parser.group("naive baseline")
    baseline.add_argument(
        "--naive",
        choices=("poisson", *FAMILIES),
        metavar="FAMILY",
        help=f"instead of clients, one renewal process with pooled lengths: poisson, {' or '.join(WITH_SHAPE)}; "
        "WORKLOAD may then be a trace file, too",
    )
    baseline.add_argument("--naive-cv", type=float, metavar="CV", help="of its inter-arrival times (default: fitted)")
    baseline.add_argument(
        "--naive-lengths",
        metavar="SPAN",
        help="over what lengths are pooled: whole (the default), window, or a time such as 6h",
    )
    reading.add(parser)


def wanted(options: argparse.Namespace) -> bool:
    """Whether a naive baseline is asked for; refuses its details without it."""
    if options.naive is None:
        for name in ("naive_cv", "naive_lengths"):
            if getattr(options, name) is not None:
                fix = f"choose --naive {' or '.join(WITH_SHAPE)}"
                raise OptionError(f"--naive with --{name.replace('_', '-')}", "none", fix)
    return options.naive is not None


def pool_of(options: argparse.Namespace) -> tuple[ClientPool, tuple[str, ...]]:
    """The clients that are asked for, or their baseline, and notes on them."""
    as_one = wanted(options)
    if as_one and pools.is_trace(options):
        return of_trace(options)
    pool, notes = pools.pool_of(options)
    if not as_one:
        return pool, notes
    pool, chosen = of(pool, options)
    return pool, notes + chosen


def of_trace(options: argparse.Namespace) -> tuple[ClientPool, tuple[str, ...]]:
    """The baseline of a trace file, which is read slab by slab."""
    refuse_clients(options)
    chosen = of(reading.slabs(options.workload, options), options)
    options.foreign = None  # its clients are not those of the trace to be written
    return chosen


def refuse_clients(options: argparse.Namespace) -> None:
    """Refuse options that choose clients, where there is a trace."""
    names = ("population", "clients", "resample", "only", "largest", "smallest", "clones", "conversations")
    given = [name for name in (*names, "environment") if getattr(options, name) is not None]
    if given := given + ["where"] * bool(options.where):
        raise OptionError("a trace without options of clients", f"--{given[0]}", "leave it out")


def of(source: ClientPool | Iterable[Trace], options: argparse.Namespace) -> tuple[ClientPool, tuple[str, ...]]:
    """The baseline of clients or of a trace, and a note on what was chosen."""
    over = options.naive_lengths or "whole"
    pool = naive(
        source,
        family=options.naive,
        cv="fit" if options.naive_cv is None else options.naive_cv,
        lengths_over=over,
    )
    fitted = options.naive_cv is None and options.naive in WITH_SHAPE
    cv = f"CV {pool.cv.max():g}{' (fitted)' if fitted else ''}"
    pooled = {"whole": "together", "window": "of a window"}.get(over, f"of {over}")
    return pool, (f"naive baseline: one {options.naive} process, {cv}, lengths of all requests {pooled}",)
