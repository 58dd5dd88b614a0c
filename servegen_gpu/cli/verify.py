"""The command ``verify``: whether a trace is what its provenance says."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from servegen_gpu.cli import naive, pools
from servegen_gpu.clients.pool import ClientPool

DIFFERS = 1
"""Exit status if a trace is another one."""

CLIENTS = (
    *("workload", "population", "profiles", "clients", "resample", "only", "largest", "smallest", "clones"),
    *("conversations", "environment", "naive", "naive_cv", "naive_lengths"),
)
"""Options that say which clients, None by default."""
WORKLOAD = (
    "what the trace was made of, with the options of clients that `generate` had; not needed for a built-in workload "
    "with at most --clients N"
)


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    check = commands.add_parser(
        "verify",
        summary="make a trace again, or slices of it, and compare",
        example="servegen-gpu verify trace.parquet --sample 1%",
        description="Make a trace again from its provenance, and compare every row and the recorded digest. "
        "Exit status: 0 identical, 1 another one, 2 cannot be verified.",
        usage="servegen-gpu verify TRACE [WORKLOAD] [options]",
    )
    check.set_defaults(run=run)
    check.group("workload").add_argument(
        "trace", metavar="TRACE", help="a file that generate wrote, a share, or a directory of parts or of all shares"
    )
    pools.add(check, WORKLOAD)
    naive.add(check)
    check.group("rate and time").add_argument(
        "--rate", metavar="FILE", help="the schedule it was made with, if it has more than 100 knots"
    )
    check.group("checks").add_argument(
        "--sample", metavar="SHARE", help="such as 1%%: read and make only slices of the trace, about so much of it"
    )
    check.group("checks").add_argument(
        "--digest", action="store_true", help="compare its digest with the recorded one, and make nothing again"
    )
    check.group("performance").add_argument("--backend", default="auto", help="what computes: never changes the trace")
    check.group("performance").add_argument("--memory", default="2GB", help="budget for sampling (default: 2GB)")
    check.group("output").add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.verifying.verify import verify

    verified = verify(
        options.trace,
        _pool(options),
        sample=options.sample,
        rate=options.rate,
        digest_only=options.digest,
        backend=options.backend,
        memory=options.memory,
    )
    if not options.quiet:
        print(verified)
    return 0 if verified.identical else DIFFERS


def _pool(options: argparse.Namespace) -> ClientPool | None:
    """The clients that are asked for, if any are."""
    stated = options.where or options.clients_seed or options.released
    if not stated and all(getattr(options, name) is None for name in CLIENTS):
        return None
    pool, notes = naive.pool_of(options)
    for note in notes if not options.quiet else ():
        print(f"note: {note}", file=sys.stderr)
    return pool
