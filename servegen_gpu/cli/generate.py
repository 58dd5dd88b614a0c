"""The command ``generate``: from clients to a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import servegen_gpu as sg
from servegen_gpu.cli import cutting, files, naive, pools
from servegen_gpu.errors import OptionError
from servegen_gpu.rules import COUNT_RULES, EMPTIES, OCCUPANCIES, PAST_ENDS

PROGRESS_EVERY_S = 0.2
SAMPLING_OPTIONS = (
    *("rate", "scale", "peak", "start", "duration", "seed", "replica"),
    *("counts", "dependence", "occupancy", "empty", "past_end", "warmup", "backend", "memory", "shard"),
)


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    make = commands.add_parser(
        "generate",
        help="make a trace",
        description="Make a trace and write it to a file.",
        usage="servegen-gpu generate WORKLOAD -o PATH [options]; --help lists them",
    )
    make.set_defaults(run=run)
    pools.add(make)
    files.add(make)
    naive.add(make)
    cutting.add(make)
    make.add_argument("--rate", metavar="RPS|FILE", help="target total rate in req/s, or a schedule (CSV or JSON)")
    make.add_argument("--scale", type=float, metavar="X", help="multiply the clients' own rates instead")
    make.add_argument(
        "--squeeze-turns", action="store_true", help="divide inter-turn times by --scale, too (naive upsampling)"
    )
    make.add_argument("--peak", type=float, metavar="RPS", help="scale own rates down to this in the busiest window")
    make.add_argument("--start", metavar="TIME", help="on the profiles' time axis, such as 10h (default: their begin)")
    make.add_argument(
        "--duration", metavar="TIME", help="such as 600s, 1h or 7d (default: 1h, or what --requests take)"
    )
    make.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (default: 0)")
    make.add_argument("--replica", type=int, default=0, help="independent repetition of the same seed (default: 0)")
    make.add_argument("--counts", choices=COUNT_RULES, default="auto", help="how many requests a client sends")
    make.add_argument(
        "--dependence",
        choices=sg.DEPENDENCE_KINDS,
        default="auto",
        help="between the fields of one request: every client's own (auto, the default), or one kind for all",
    )
    make.add_argument(
        "--rank-correlation",
        action="append",
        default=[],
        metavar="A:B=RHO",
        help="Spearman correlation of two fields under --dependence copula; repeat for more pairs",
    )
    make.add_argument("--occupancy", choices=OCCUPANCIES, default="profile", help="keep bursts short, or spread them")
    make.add_argument("--empty", choices=EMPTIES, default="error", help="windows where nobody is active")
    make.add_argument("--past-end", choices=PAST_ENDS, default="wrap", help="repeat whole days, or stop")
    make.add_argument(
        "--warmup",
        metavar="TIME",
        help="how long before the start conversations may have begun (default: as long as they last)",
    )
    make.add_argument("--backend", default="auto", help="what computes: see `servegen-gpu backends`")
    make.add_argument("--memory", default="2GB", help="budget for sampling (default: 2GB); never changes the trace")
    make.add_argument("--shard", default="1/1", metavar="K/N", help="the k-th of n shares of the trace")
    make.add_argument("--hash-ids", type=int, metavar="TOKENS", help="add ids of the inputs' blocks of so many tokens")
    make.add_argument(
        "--system-tokens",
        type=int,
        metavar="N",
        help="of every client's system prompt, for --hash-ids (default: the workload's own)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    begun = time.perf_counter()
    as_one = naive.wanted(options)
    from_trace = as_one and naive.is_trace(options)
    pool, notes = naive.of_trace(options) if from_trace else pools.pool_of(options)
    if as_one and not from_trace:
        pool, chosen = naive.of(pool, options)
        notes += chosen
    keywords = {name: getattr(options, name) for name in SAMPLING_OPTIONS}
    if options.squeeze_turns:
        if options.scale is None or options.rate is not None or options.peak is not None:
            got = "none" if options.scale is None else "--rate" if options.peak is None else "--peak"
            raise OptionError("--scale alone with --squeeze-turns", got, "say by --scale how much, and nothing else")
        pool = pool.rescaled(keywords.pop("scale"), "naive")
    keywords |= cutting.keywords(options)
    workload = sg.stream(pool, rank_correlation=_correlations(options.rank_correlation), **keywords)
    if not options.quiet:
        for note in notes + workload.notes:
            print(f"note: {note}", file=sys.stderr)
    slabs = cutting.cut(_with_progress(workload, sys.stderr.isatty() and not options.quiet), options)
    if options.hash_ids is not None:
        stated = pool.system_prompts() if options.system_tokens is None else options.system_tokens
        slabs = sg.hash_slabs(slabs, options.hash_ids, system_tokens=stated or 0)
    elif options.system_tokens is not None:
        raise OptionError("--hash-ids with --system-tokens", "--system-tokens alone", "add --hash-ids 512")
    files.write(slabs, options, begun, workload.backend.name)
    return 0


def _correlations(pairs: Sequence[str]) -> dict[str, float] | None:
    """Rank correlations from ``a:b=rho`` arguments, or None without any."""
    stated = {}
    for pair in pairs:
        fields, _, rho = pair.partition("=")
        try:
            number = float(rho)
        except ValueError:
            raise OptionError("--rank-correlation as FIELD:FIELD=RHO", repr(pair), "change it") from None
        if fields in stated:
            raise OptionError("--rank-correlation once for a pair", repr(pair), "leave out one of them")
        stated[fields] = number
    return stated or None


def _with_progress(workload: sg.Workload, show: bool) -> Iterator[sg.Trace]:
    """The slabs, with a line that says how far they are."""
    begun = shown = time.perf_counter()
    expected = workload.expected_requests / workload.shard[1]
    if workload.cut.requests is not None:
        expected = min(expected, workload.cut.requests)
    rows = 0
    for slab in workload.uncut():
        rows += len(slab)
        now = time.perf_counter()
        if show and now - shown > PROGRESS_EVERY_S:
            shown = now
            part = min(rows / expected, 1.0) if expected else 1.0
            bar = "█" * round(30 * part) + "·" * (30 - round(30 * part))
            pace = rows / (now - begun) / 1e6
            print(f"\r{bar} {part:4.0%}  {rows:,} requests  {pace:.1f} M/s ", end="", file=sys.stderr, flush=True)
        yield slab
    if show and shown > begun:
        print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
