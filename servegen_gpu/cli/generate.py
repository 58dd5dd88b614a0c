"""The command ``generate``: from clients to a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import servegen_gpu as sg
from servegen_gpu.backends import note_of_numpy
from servegen_gpu.cli import cutting, files, naive, parts, pools, sampling
from servegen_gpu.cli.progress import Progress
from servegen_gpu.errors import OptionError


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    make = commands.add_parser(
        "generate",
        summary="make a trace",
        description="Make a trace of a workload and write it to a file.",
        example="servegen-gpu generate deepseek-r1 --rate 20 --duration 10m -o trace.parquet",
        usage="servegen-gpu generate WORKLOAD -o PATH [options]; --help lists them",
    )
    make.set_defaults(run=run)
    pools.add(make)
    files.add(make)
    naive.add(make)
    cutting.add(make)
    sampling.add(make)
    make.group("rules").add_argument(
        "--squeeze-turns", action="store_true", help="divide inter-turn times by --scale, too (naive upsampling)"
    )
    make.group("random numbers").add_argument(
        "--replica", type=int, default=0, help="independent repetition of the same seed (default: 0)"
    )
    make.group("ids of blocks").add_argument(
        "--hash-ids", type=int, metavar="TOKENS", help="add ids of the inputs' blocks of so many tokens"
    )
    make.group("ids of blocks").add_argument(
        "--system-tokens",
        type=int,
        metavar="N",
        help="of every client's system prompt, for --hash-ids (default: the workload's own)",
    )
    parts.add(make)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    begun = time.perf_counter()
    pool, notes = naive.pool_of(options)
    keywords = sampling.keywords(options) | {"replica": options.replica, "shard": options.shard}
    if options.squeeze_turns:
        if options.scale is None or options.rate is not None or options.peak is not None:
            got = "none" if options.scale is None else "--rate" if options.peak is None else "--peak"
            raise OptionError("--scale alone with --squeeze-turns", got, "say by --scale how much, and nothing else")
        pool = pool.rescaled(keywords.pop("scale"), "naive")
    keywords |= cutting.keywords(options)
    if options.hash_ids is None and options.system_tokens is not None:
        raise OptionError("--hash-ids with --system-tokens", "--system-tokens alone", "add --hash-ids 512")
    prompts = options.system_tokens
    if options.hash_ids is not None and prompts is None:
        prompts = pool.system_prompts()
    if parts.wanted(options):
        return parts.run(pool, keywords, options, prompts or 0, notes)
    workload = sg.stream(pool, **keywords)
    if not options.quiet:
        if workload.backend.name == "numpy" and options.backend == "auto":
            notes += (note_of_numpy(),)
        for note in notes + workload.notes:
            print(f"note: {note}", file=sys.stderr)
    slabs = cutting.cut(_with_progress(workload, Progress(options, "requests")), options)
    if options.hash_ids is not None:
        slabs = sg.hash_slabs(slabs, options.hash_ids, system_tokens=prompts or 0)
    files.write(slabs, options, begun, workload.backend.name)
    return 0


def _with_progress(workload: sg.Workload, shown: Progress) -> Iterator[sg.Trace]:
    """The slabs, with a line that says how far they are."""
    expected = workload.expected_requests / workload.shard[1]
    if workload.cut.requests is not None:
        expected = min(expected, workload.cut.requests)
    rows = 0
    try:
        for slab in workload.uncut():
            rows += len(slab)
            shown(rows, expected)
            yield slab
    finally:
        shown.end()
