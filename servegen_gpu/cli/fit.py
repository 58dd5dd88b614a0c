"""The command ``fit``: from a log to clients, saved as a profile; and how like the log they are."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegen_gpu.blocks import distinct
from servegen_gpu.cli import reading, save
from servegen_gpu.cli.progress import Progress
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from servegen_gpu.comparing.comparison import Comparison

MIN_COUNT = 10
MOST_REPLICAS, FEWEST_REPLICAS, MOST_ROWS = 100, 5, 5_000_000
"""Of --holdout: rare bursts decide, so few replicas say little."""


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    held = commands.add_parser(
        "fit",
        summary="find clients that send requests like those of a log",
        example="servegen-gpu fit log.csv --holdout 0.5 -o mine",
        description="Find clients that send requests like those of a log, and save them as a profile: a workload of "
        "all other commands. The profile holds no request of the log.",
        usage="servegen-gpu fit LOG -o PROFILE [options]; --help lists them",
    )
    held.set_defaults(run=run)
    held.group("workload").add_argument("log", metavar="LOG", help=reading.TRACE)
    held.group("output").add_argument(
        "-o", "--output", metavar="PROFILE", help="directory: new, or an older profile to replace"
    )
    held.group("method").add_argument(
        "--clients",
        choices=("auto", "ids", "latent", "one"),
        default="auto",
        help="the log's own, clusters of requests that are alike, or one (default: its own if it names several)",
    )
    held.group("method").add_argument(
        "--latent", type=int, default=8, metavar="N", help="most latent clients (default: 8)"
    )
    held.group("method").add_argument(
        "--no-environment", action="store_true", help="do not look for what moves all clients together"
    )
    held.group("method").add_argument("--no-sessions", action="store_true", help="do not look for conversations")
    held.group("method").add_argument(
        "--lengths",
        choices=("counts", "knots", "parametric", "exponential", "auto"),
        default="counts",
        help="as counted; 256 bins and the exact top 1 %%; Pareto and log-normal; exponential; auto: the paper's forms",
    )
    held.group("method").add_argument(
        "--counts",
        choices=("random", "measured"),
        default="random",
        help="of windows: random around their rates, or those of the log",
    )
    held.group("method").add_argument(
        "--min-count",
        type=int,
        default=MIN_COUNT,
        metavar="K",
        help=f"fewest requests behind every length, client and window (default: {MIN_COUNT}; 1 keeps all)",
    )
    held.group("method").add_argument(
        "--keep-ids", action="store_true", help="keep the log's numbers of clients, with --min-count 1"
    )
    held.group("output").add_argument(
        "--keep-names",
        action="store_true",
        help="save what the log calls its clients, beside the profile; by default it shows keyed hashes of them",
    )
    held.group("output").add_argument("--name", help="of the workload (default: the log's)")
    held.group("checks").add_argument(
        "--holdout",
        type=float,
        metavar="PART",
        help="fit the first part of the log, such as 0.5, and compare it with the rest",
    )
    held.group("checks").add_argument(
        "--replicas", type=int, metavar="N", help="that --holdout compares (default: 100, fewer of long logs)"
    )
    held.group("output").add_argument("--json", action="store_true", help="the report as JSON")
    held.group("output").add_argument("--quiet", action="store_true", help="no notes")
    save.add_layout(held)
    reading.add(held)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.clients.saved.profile import save_profile
    from servegen_gpu.fitting.fit import fit_with_report

    _check(options)
    log = Trace.concat(list(_read(options)))
    keywords: dict[str, Any] = {
        "clients": options.clients,
        "most_latent": options.latent,
        "environment": not options.no_environment,
        "sessions": not options.no_sessions,
        "lengths_as": options.lengths,
        "counts": options.counts,
        "keep_ids": options.keep_ids,
        "name": options.name or Path(options.log).name.split(".")[0],
    }
    if options.output is not None:
        pool, report = fit_with_report(log, min_count=options.min_count, **keywords)
        names = _names(log, options) if report.step == "ids" else None
        save_profile(
            pool,
            options.output,
            layout=options.layout,
            fit=report.describe(),
            names=names,
            keep_names=options.keep_names,
            overwrite=options.overwrite,
        )
        if not options.json and not options.quiet:
            print(report)
    found = _hold_out(log, options, keywords) if options.holdout is not None else None
    if options.json:
        fitted = {} if options.output is None else report.describe()
        compared = {} if found is None else found.to_dict()
        both = {"fit": fitted, "holdout": compared} if fitted and compared else fitted or compared
        print(json.dumps(both, indent=2, allow_nan=False))
    elif found is not None:
        print(found.table())
    if options.output is not None and not options.quiet:
        print(
            f"{options.output}: {len(pool):,} clients; servegen-gpu generate {options.output} -o trace.parquet",
            file=sys.stderr,
        )
    return 0


def _read(options: argparse.Namespace) -> Iterator[Trace]:
    """The slabs of the log, with a line that says how far it is read."""
    shown, rows = Progress(options, "requests"), 0
    try:
        for slab in reading.slabs(options.log, options):
            rows += len(slab)
            shown(rows, None)
            yield slab
    finally:
        shown.end()


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be refused before the log is read and anything is written."""
    from servegen_gpu.clients.saved.profile import check_target

    if options.output is None and options.holdout is None:
        raise OptionError("-o PROFILE, or --holdout", "neither", "say where the clients go")
    if options.output in ("", "-"):
        raise OptionError("a directory for the profile", repr(options.output), "name one: -o PROFILE")
    if options.output is not None:
        check_target(Path(options.output), options.overwrite)
    if options.holdout is not None and not 0 < options.holdout < 1:
        raise OptionError("--holdout above 0 and below 1", f"{options.holdout:g}", "such as 0.5")
    if options.replicas is not None and options.replicas < 1:
        raise OptionError("--replicas of at least 1", f"{options.replicas}", "change --replicas")


def _names(log: Trace, options: argparse.Namespace) -> list[str] | None:
    """What the log calls its clients, in the order of their ids, if it does so by names."""

    foreign = getattr(options, "foreign", None)
    names = foreign.names("client") if foreign is not None else []
    return [str(names[client]) for client in distinct(log["client"]).tolist()] if names else None


def _hold_out(log: Trace, options: argparse.Namespace, keywords: dict[str, Any]) -> Comparison:
    """Fit a part, and say how like the rest its replicas are."""
    from servegen_gpu.comparing.compare import compare
    from servegen_gpu.fitting.fit import fit

    arrival_us = log["arrival_us"]
    begin_us, end_us = int(arrival_us[0]), int(arrival_us[-1]) + 1
    cut_s = (begin_us + (end_us - begin_us) * options.holdout) / 1e6
    first, rest = log.between(begin_us / 1e6, cut_s), log.between(cut_s, end_us / 1e6)
    if min(len(first), len(rest)) < 2:
        got = f"{len(first):,} and {len(rest):,}"
        raise OptionError("requests on both sides of --holdout", got, "change it, or give a longer log")
    pool = fit(first, min_count=1, **keywords)
    replicas = options.replicas or max(min(MOST_REPLICAS, MOST_ROWS // len(rest)), FEWEST_REPLICAS)
    return compare(rest, pool, naive=True, replicas=replicas)
