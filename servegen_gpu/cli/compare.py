"""The command ``compare``: a log and other traces in figures, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from servegen_gpu.cli import files, reading
from servegen_gpu.errors import OptionError

OUTPUTS = (".json", ".svg", ".csv", ".txt")


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    held = commands.add_parser(
        "compare",
        summary="how alike two traces are, or a log and replicas of a model",
        example="servegen-gpu compare log.csv trace.parquet --only dispersion,peaks",
        description="Figures of a log and of other traces side by side, each with what the log's own chance allows, "
        "and a verdict: inside, near or outside.",
        usage="servegen-gpu compare LOG TRACE [TRACE ...] [options]",
    )
    held.set_defaults(run=run)
    held.group("workload").add_argument("log", metavar="LOG", help=f"the reference: {reading.TRACE}")
    held.group("workload").add_argument(
        "others", metavar="TRACE", nargs="+", help="what is held against it; several are replicas of a model"
    )
    held.group("naive baseline").add_argument(
        "--naive", action="store_true", help="hold the log's naive baseline against it, too"
    )
    held.group("naive baseline").add_argument(
        "--replicas", type=int, default=20, metavar="N", help="of the naive baseline (default: 20)"
    )
    held.group("figures").add_argument(
        "--only",
        action="append",
        metavar="FIGURES",
        help="some figures, by name, group or pattern: dispersion, peak_10s, *_ks; separated by commas",
    )
    held.group("output").add_argument("--json", action="store_true", help="as JSON")
    held.group("output").add_argument("--quiet", action="store_true", help="no notes on how files were read")
    files.add_overwrite(held)
    held.group("output").add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="PATH",
        help="write it, too: .json, .svg (a plot), .csv or .txt; repeat for more",
    )
    reading.add(held)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.comparing.compare import chosen, compare
    from servegen_gpu.formats.atomic import new_file
    from servegen_gpu.formats.own import refuse_foreign

    if wrong := [path for path in options.output if not path.lower().endswith(OUTPUTS)]:
        raise OptionError(f"an output that ends in {', '.join(OUTPUTS)}", repr(wrong[0]), "change --output")
    only = [name.strip() for names in options.only or () for name in names.split(",")] or None
    chosen(only)  # before files are read
    for path in options.output:
        refuse_foreign(Path(path), options.overwrite)
    traces = [reading.File(path, options) for path in (options.log, *options.others)]
    found = compare(traces[0], traces[1:], naive=options.naive, only=only, replicas=options.replicas)
    for path in options.output:
        refuse_foreign(Path(path), options.overwrite)  # others may have put it there meanwhile
        suffix = Path(path).suffix.lower()
        with new_file(Path(path)) as sink:
            sink.write(_as(found, suffix).encode())
    print(found.to_json(indent=2) if options.json else found.table())
    return 0


def _as(found: Any, suffix: str) -> str:
    """The comparison as the text of a file."""
    if suffix == ".json":
        return str(found.to_json(indent=2)) + "\n"
    if suffix == ".svg":
        return str(found.svg())
    return str(found.to_pandas().to_csv()) if suffix == ".csv" else str(found.table()) + "\n"
