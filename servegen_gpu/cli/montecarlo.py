"""The command ``montecarlo``: many replicas of a workload in figures."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from servegen_gpu.cli import naive, pools, sampling, stopping, studied
from servegen_gpu.cli.progress import Progress

if TYPE_CHECKING:
    from servegen_gpu.studies.stopping import Watch
    from servegen_gpu.studies.study import Study


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    made = commands.add_parser(
        "montecarlo",
        summary="many replicas in figures: peaks, quantiles, how sure they are",
        example="servegen-gpu montecarlo m-small --rate 20 --replicas 200 --metrics requests_peak_10s",
        description="Make many replicas of a workload, keep figures of each and no request, and say what chance, and "
        "parameters that are uncertain, make of them.",
        usage="servegen-gpu montecarlo WORKLOAD [options]; --help lists them",
    )
    made.set_defaults(run=run)
    pools.add(made)
    naive.add(made)
    sampling.add(made, counts="renewal", duration="1h")
    made.group("method").add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="in all (default: 200), or of each draw with --vary (default: 10); at most so many with --until (10,000)",
    )
    studied.add_metrics(made)
    made.group("method").add_argument(
        "--vary",
        action="append",
        metavar="NAME=LOW:HIGH",
        help="a parameter that is uncertain, such as rate=0.8:1.2, or burstiness=0.5:2:log; repeat for more",
    )
    made.group("method").add_argument("--draws", type=int, metavar="N", help="of the parameters (default: 100)")
    made.group("method").add_argument(
        "--until",
        action="append",
        metavar="RULE",
        help="stop when means are known to 1%%, one of them (requests_peak_10s:1%%), or when a question is decided: "
        "'requests_peak_10s<=900@95%%'; repeat for more, which must all be met",
    )
    made.group("many machines").add_argument(
        "--on", choices=("here", "ray"), default="here", help="who makes the replicas (default: here)"
    )
    made.group("many machines").add_argument(
        "--workers", type=int, metavar="N", help="tasks at a time on Ray (default: all processors)"
    )
    studied.add_results(made, "Parquet file of all replicas; one that is there goes on where it stopped")
    made.group("figures").add_argument(
        "--against", metavar="STUDY", help="a study of the same seed: differences, pair by pair"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.studies.monte_carlo import METRICS, Interrupted, monte_carlo
    from servegen_gpu.studies.study import Study

    studied.check_output(options)
    other = None if options.against is None else Study.read(options.against)
    names = [name.strip() for some in options.metrics or () for name in some.split(",") if name.strip()]
    if other is not None:
        other.pairs_with(options.seed, names or METRICS)  # now, not after hours
    pool, notes = _pool(options)
    keywords = sampling.keywords(options)
    keywords["duration"] = keywords["duration"] or "1h"
    shown = Progress(options, "replicas")
    interrupted: Interrupted | None = None
    try:
        study = monte_carlo(
            pool,
            replicas=options.replicas,
            metrics=studied.metrics(options) or METRICS,
            assumed=studied.assumed(options),
            vary=options.vary,
            draws=options.draws,
            until=options.until,
            path=options.output,
            overwrite=options.overwrite,
            confidence=options.confidence,
            on=options.on,
            workers=options.workers,
            progress=lambda done, most, watch: shown(done, most, lambda: _known(watch)),
            **keywords,
        )
    except Interrupted as stopped:
        interrupted, study = stopped, stopped.study
    finally:
        shown.end()
    studied.print_notes(options, notes + study.notes)
    _print(study, other, options.json)
    if interrupted is None:
        return 0
    kept = f"{options.output} has them: run the same command to go on" if options.output else "above is what they say"
    print(f"servegen-gpu: interrupted; {interrupted}, {kept}", file=sys.stderr)
    return stopping.status()


def _pool(options: argparse.Namespace) -> tuple[Any, tuple[str, ...]]:
    """Clients, or their naive baseline."""
    if not naive.wanted(options):
        return pools.pool_of(options)
    if pools.is_trace(options):
        return naive.of_trace(options)
    pool, notes = pools.pool_of(options)
    baseline, chosen = naive.of(pool, options)
    return baseline, notes + chosen


def _print(study: Study, other: Study | None, as_json: bool) -> None:
    """The study, and what it differs from another."""
    from servegen_gpu.studies.table import differences_of

    if as_json:
        found = study.to_dict()
        if other is not None:
            rows = study.against(other).to_dict(orient="index")
            found["against"] = {
                str(name): {str(key): value if math.isfinite(value) else None for key, value in row.items()}
                for name, row in rows.items()
            }
        studied.print_json(found)
        return
    print(replace(study, notes=()))  # they are on standard error
    if other is not None:
        print(f"\n{differences_of(study, other)}")


def _known(watch: Watch) -> str:
    """How many of the rules are met."""
    met = [verdict.met for verdict in watch.verdicts()]
    return f"; {sum(met)} of {len(met)} known" if met else ""
