"""A trace in parts: arguments of ``generate`` for many processes and machines, and its last words."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegen_gpu.cli import stopping
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.cli.progress import Progress
from servegen_gpu.cli.summary import Totals, as_text, figures, size
from servegen_gpu.digest import Digest
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import WriteSummary

if TYPE_CHECKING:
    from servegen_gpu.distributing.distribute import Distributed


def add(parser: Parser) -> None:
    """Add the arguments."""
    group = parser.group("many machines")
    group.description = "parts of one trace in one directory, made once each"
    group.add_argument(
        "--shard",
        default="1/1",
        metavar="K/N",
        help="the k-th of n shares of the trace; with --parts, of the parts; auto: the number that SLURM, Kubernetes "
        "or Open MPI gave this task",
    )
    group.add_argument(
        "--parts",
        type=int,
        metavar="N",
        help="write N parts into the directory, or store (s3://…), that -o names; what is finished there is kept",
    )
    group.add_argument("--on", choices=("here", "ray"), default="here", help="who makes them (default: here)")
    group.add_argument("--workers", type=int, metavar="N", help="how many at a time (default: one; on Ray, all it has)")


def wanted(options: argparse.Namespace) -> bool:
    """Whether the trace is to be made in parts."""
    if options.parts is not None or options.shard == "auto":
        return True
    if options.on != "here" or options.workers is not None:
        given = "--workers" if options.on == "here" else "--on"
        raise OptionError(f"--parts N with {given}", f"{given} alone", "say how many parts")
    return False


def run(
    pool: Any, keywords: dict[str, Any], options: argparse.Namespace, system_tokens: Any, notes: Sequence[str]
) -> int:
    """Make the parts that this process is to make; returns the exit status."""
    from servegen_gpu.distributing.distribute import Interrupted, distributed
    from servegen_gpu.distributing.schedulers import scheduled

    begun = time.perf_counter()
    _check_output(options)
    shard, parts = keywords.pop("shard"), options.parts
    if shard == "auto":
        share = scheduled(os.environ, parts)
        shard, parts = (share.task, share.tasks), share.parts
    shown = Progress(options, "parts")
    try:
        made = distributed(
            pool,
            options.output,
            parts,
            on=options.on,
            workers=options.workers,
            shard=shard,
            hash_ids=options.hash_ids,
            system_tokens=system_tokens,
            encoding=options.encoding,
            progress=lambda done, most, rows: shown(done, most, lambda: f"{rows:,} requests"),
            **keywords,
        )
    except Interrupted as stopped:
        print(f"servegen-gpu: interrupted; {stopped}: run the same command to go on", file=sys.stderr)
        return stopping.status()
    finally:
        shown.end()
    if options.json:
        print(json.dumps(asdict(made) | {"seconds": time.perf_counter() - begun}, indent=2))
    elif not options.quiet:
        there = () if made.made else ("all parts were there",)
        for note in (*notes, *made.notes, *there):
            print(f"note: {note}", file=sys.stderr)
        print(_last_words(made, options, time.perf_counter() - begun))
    return 0


def _check_output(options: argparse.Namespace) -> None:
    """Refuse what a trace in parts cannot be."""
    path = options.output
    if path == "-" or Path(path.rstrip("/")).suffix.lower() in (".parquet", ".csv", ".jsonl", ".gz", ".zst"):
        raise OptionError("a directory, or the address of one, for parts", repr(path), "such as -o out/")
    if options.format not in (None, "parquet"):
        got = f"--format {options.format}"
        raise OptionError("parts in Parquet", got, f"make the parts, then: servegen-gpu join {path} -o FILE {got}")
    if options.ids == "dense":
        fix = "make the parts, then number them: servegen-gpu join DIRECTORY --ids dense"
        raise OptionError("hashed ids in parts, which are made apart", "--ids dense", fix)


def _last_words(made: Distributed, options: argparse.Namespace, spent_s: float) -> str:
    if made.digest is None:
        own = f"this task's {made.finished:,} of {made.parts:,} parts are finished"
        return f"{options.output}: {own}, {made.rows:,} requests, {size(made.bytes)}; {spent_s:.2f} s"
    digest = Digest.parse(made.digest, made.rows)
    written = WriteSummary(made.rows, made.bytes, Path(options.output), made.parts, digest)
    origin = getattr(options, "origin", "")
    found = figures(written, Totals(provenance=made.provenance), options.output, spent_s, origin, "")
    return as_text(found, next_steps=True)
