"""Where a trace goes: arguments and last words of all commands that write one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from servegen_gpu.cli import reading
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.cli.summary import Totals, as_json, as_text, figures
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace


def add(parser: Parser, format_option: str = "--format") -> None:
    """Add the arguments; the option for the format may have another name."""
    output = parser.group("output")
    output.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help=".parquet, .csv or .jsonl (text also .gz or .zst), a directory of Parquet parts, or - for standard output",
    )
    output.add_argument(
        *dict.fromkeys((format_option, "--format")),
        dest="format",
        help="file format, if the suffix does not tell, or if another program is to read it: mooncake, aiperf, …; "
        "see servegen-gpu formats",
    )
    output.add_argument(
        "--encoding",
        choices=("delta", "plain"),
        default="delta",
        help="of Parquet: small and fast (delta, the default), or for readers that know no delta encodings (plain)",
    )
    output.add_argument(
        "--ids",
        choices=("hashed", "dense"),
        default="hashed",
        help="ids of conversations and blocks: 63 bits that stay the same in every slice (hashed, the default), or "
        "0, 1, 2, … as they appear, below 2**53 (dense)",
    )
    add_overwrite(parser)
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument("--json", action="store_true", help="the words at the end as JSON")
    export = parser.group("formats of other programs")
    export.add_argument(
        "--block-tokens", type=int, metavar="N", help="tokens of a block, where ids of blocks are added"
    )
    export.add_argument(
        "--deltas", default="exact", metavar="KIND", help="later turns without a delta: exact or nearest"
    )
    export.add_argument("--tokenizer", metavar="DIR", help="of Hugging Face, for literal prompts and to replay")
    export.add_argument("--model", default="MODEL", help="of the server, in the command that replays")
    export.add_argument("--url", default="http://localhost:8000", help="of the server, in the command that replays")
    export.add_argument("--window", default="60s", metavar="TIME", help="of the rates in aiperf-rates (default: 60s)")
    export.add_argument("--replay-command", action="store_true", help="print that command and nothing else")


def add_overwrite(parser: Parser) -> None:
    """Add the argument of all commands that write files."""
    parser.group("output").add_argument(
        "--overwrite", action="store_true", help="replace a file of others, too; what this program wrote is replaced"
    )


def refuse_input(options: argparse.Namespace, output: str) -> None:
    """Refuse an output that is an input: what is not read as a trace cannot be made again from what is written."""
    for name, value in vars(options).items():
        inputs = isinstance(value, str) and name not in ("output", "trace")
        if inputs and os.path.isfile(value) and os.path.isfile(output) and os.path.samefile(value, output):
            raise OptionError("an output that is no input", f"{output} as {name}, too", "name another file")


def write(slabs: Iterable[Trace], options: argparse.Namespace, begun: float, backend: str = "") -> None:
    """Write a trace and say how long it took since `begun`; at what pace, if a backend sampled it.

    The words go to the standard error where the trace goes to the standard output.
    """
    from servegen_gpu.exports import EXPORTS
    from servegen_gpu.exports import write as write_trace
    from servegen_gpu.exports.export import ExportOptions
    from servegen_gpu.formats.atomic import descriptor, is_special
    from servegen_gpu.options import seconds

    stated = {
        name: getattr(options, name) for name in ("block_tokens", "deltas", "tokenizer", "model", "url", "encoding")
    }
    if (dense := options.ids == "dense") and not options.quiet:
        print("note: dense ids keep every different id in memory, 32 to 64 bytes each", file=sys.stderr)
    if options.replay_command and options.format not in EXPORTS:
        got = options.format or f"the package's own, {options.output!r}"
        raise OptionError("a format of another program with --replay-command", got, "see servegen-gpu formats")
    output = "/dev/stdout" if options.output == "-" else options.output
    said = sys.stderr if descriptor(Path(output)) == 1 else sys.stdout
    chosen = ExportOptions(**stated, dense_ids=dense, window_s=seconds("--window", options.window))
    refuse_input(options, output)
    totals = Totals()
    written = write_trace(totals.through(slabs), output, options.format, chosen, overwrite=options.overwrite)
    named = reading.keep_names(options, output)
    if options.replay_command:
        print(written.replay, file=said)
        return
    spent_s = time.perf_counter() - begun
    found = figures(written, totals, options.output, spent_s, getattr(options, "origin", ""), backend)
    if options.json:
        print(as_json(found | {"notes": [*written.notes, *named]}), file=said)
        return
    if options.quiet:
        return
    for note in (*written.notes, *named):
        print(f"note: {note}", file=sys.stderr)
    print(as_text(found, next_steps=said is sys.stdout and not is_special(Path(output))), file=said)
