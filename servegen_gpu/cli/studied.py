"""What commands of studies share: arguments, a line of progress, and the table at the end."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegen_gpu.cli import files
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.disk import check_place
from servegen_gpu.errors import OptionError

if TYPE_CHECKING:
    from servegen_gpu.reducing.metrics import Assumed

SLO, AT = "ttft=2s", "p99"


def add_metrics(parser: Parser) -> None:
    """Add which figures are measured, and what those of service assume."""
    figures = parser.group("figures")
    figures.add_argument(
        "--metrics",
        action="append",
        metavar="NAMES",
        help="figures, separated by commas: requests_peak_10s, output_tokens_p99_10s, requests_idc_60s, ttft_p99, …",
    )
    figures.add_argument(
        "--server",
        metavar="PROFILE",
        help="that ttft_p99, instances and kv_tokens_peak assume: see `servegen-gpu servers`; or a TOML file",
    )
    figures.add_argument("--instances", type=int, metavar="N", help="of the server, for ttft_p99 and the like (1)")
    figures.add_argument("--slo", metavar="BOUNDS", help=f"that `instances` hold, such as ttft=2.25s,tbt=500ms ({SLO})")
    figures.add_argument("--at", default=AT, metavar="P", help=f"quantile that keeps to the bounds (default: {AT})")


def add_results(parser: Parser, what: str) -> None:
    """Add how sure and where to; `what` says what the file has."""
    output = parser.group("output")
    parser.group("method").add_argument(
        "--confidence", type=float, default=0.95, metavar="P", help="of intervals (default: 0.95)"
    )
    output.add_argument("-o", "--output", metavar="PATH", help=what)
    files.add_overwrite(parser)
    output.add_argument("--json", action="store_true", help="as JSON")
    output.add_argument("--quiet", action="store_true", help="neither progress nor notes")


def check_output(options: argparse.Namespace) -> None:
    """Refuse an output that no study can be written to, before anything is sampled."""
    from servegen_gpu.formats.own import refuse_foreign

    if options.output is None:
        return
    if not options.output.lower().endswith(".parquet"):
        raise OptionError("an output that ends in .parquet", repr(options.output), "change --output")
    check_place(Path(options.output))
    refuse_foreign(Path(options.output), options.overwrite)


def metrics(options: argparse.Namespace) -> list[str]:
    """Names of the figures; none where nothing is said."""
    return [name.strip() for some in options.metrics or () for name in some.split(",") if name.strip()]


def assumed(options: argparse.Namespace) -> Assumed | None:
    """What figures of service assume; None where nothing is said."""
    from servegen_gpu.reducing.metrics import Assumed

    stated = {"server": options.server, "instances": options.instances, "slo": options.slo}
    said = {name: value for name, value in stated.items() if value is not None}
    return Assumed.of(**said, at=options.at) if said or options.at != AT else None


def print_notes(options: argparse.Namespace, notes: tuple[str, ...]) -> None:
    """Notes to standard error, unless they are not wanted."""
    if not options.quiet:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def print_json(found: dict[str, Any]) -> None:
    """What a study found, for machines."""
    print(json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False))
