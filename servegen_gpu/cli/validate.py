"""The command ``validate``: what a program would make of a file."""

from __future__ import annotations

import argparse
import json
from typing import Any

PROBLEMS = 1
"""Exit status if something is wrong with the file."""


def add(commands: Any) -> None:
    """Add the command to the subparsers of the program."""
    check = commands.add_parser(
        "validate",
        summary="check a file against what a program demands",
        example="servegen-gpu validate trace.jsonl --for mooncake",
        description="Check anybody's file against what a program demands, and say line, value and fix. "
        "Exit status: 0 nothing wrong, 1 problems, 2 not a file that can be read.",
        usage="servegen-gpu validate FILE --for PROGRAM[:KIND] [options]",
    )
    check.set_defaults(run=run)
    check.group("workload").add_argument(
        "file", metavar="FILE", help="JSON lines, CSV or Parquet; text also in gzip or zstd"
    )
    check.group("checks").add_argument(
        "--for",
        dest="program",
        required=True,
        metavar="PROGRAM[:KIND]",
        help="aiperf, dynamo, dynamo-delta, guidellm, vllm, sglang, …; an unknown one lists all",
    )
    check.group("checks").add_argument(
        "--block-tokens", type=int, metavar="N", help="tokens of a block, if the program will be told"
    )
    check.group("checks").add_argument(
        "--max-model-len", type=int, metavar="N", help="most tokens of input and output together"
    )
    check.group("checks").add_argument(
        "--time-scale", type=float, default=1.0, metavar="X", help="what the program will multiply times by"
    )
    check.group("output").add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from servegen_gpu.validating import validate

    report = validate(
        options.file,
        options.program,
        block_tokens=options.block_tokens,
        max_model_len=options.max_model_len,
        time_scale=options.time_scale,
    )
    print(json.dumps(report.as_json(), indent=2) if options.json else report)
    return 0 if report.clean else PROBLEMS
