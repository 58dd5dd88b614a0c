"""Where a trace goes: arguments and last words of all commands that write one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from servegen_gpu.trace import Trace


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "-o", "--output", required=True, metavar="PATH", help=".parquet, .csv, .jsonl, or a directory of Parquet parts"
    )
    parser.add_argument("--format", help="file format, if the suffix does not tell")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def write(slabs: Iterable[Trace], options: argparse.Namespace, begun: float, backend: str = "") -> None:
    """Write a trace and say how long it took since `begun`; at what pace, if a backend sampled it."""
    from servegen_gpu.formats import write_stream

    written = write_stream(slabs, options.output, options.format)
    if options.quiet:
        return
    spent_s = time.perf_counter() - begun
    files = f" in {written.files} files" if written.files > 1 else ""
    pace = f", {written.rows / spent_s / 1e6:.2f} million requests/s on {backend}" if backend else ""
    print(f"{options.output}: {written.rows:,} requests, {written.bytes / 1e6:,.1f} MB{files}; {spent_s:.2f} s{pace}")
