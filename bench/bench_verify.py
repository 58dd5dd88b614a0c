"""A trace written and verified by digest, by slices and as a whole: see README.md. Every case is a process."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import add_json, child, ours, write_json

WORKLOADS = ("deepseek-r1", "m-large")
DURATION_S = 3600
CHECKS = {"digest": ("--digest",), "sample 1%": ("--sample", "1%"), "whole": ()}


def measured(what: str, words: Sequence[str | Path]) -> dict[str, Any]:
    """A command, and what it took."""
    done = child([sys.executable, "-m", "servegen_gpu", *map(str, words)], env=ours())
    figures = {"what": what, "seconds": round(done.wall_s, 1), "cpu_s": round(done.cpu_s, 1)}
    rows, compared = _rows(done.output) if words[0] == "verify" else (0, 0)
    return figures | {"peak_mb": round(done.peak_mb)} | ({"rows": rows, "made_again": compared} if rows else {})


def _rows(said: str) -> tuple[int, int]:
    """How many rows a trace has, and how many of them were made again."""
    counts = [int(each.replace(",", "")) for each in re.findall(r"[\d,]+(?= of | rows)", said.split(": ", 1)[1])]
    return counts[-1], 0 if "recorded" in said else counts[0]


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--requests", type=float, default=1e8, help="about so many in an hour (6 to 13 bytes each on the disk)"
    )
    parser.add_argument("--workloads", nargs="*", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--checks", nargs="*", choices=CHECKS, default=tuple(CHECKS))
    parser.add_argument("--directory", type=Path, help="where to put files (default: the temporary one)")
    add_json(parser)
    options = parser.parse_args()
    results = []
    for workload in options.workloads:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            out = f"{scratch}/out/"
            rate = ("--rate", f"{options.requests / DURATION_S:g}", "--duration", f"{DURATION_S}s")
            steps = {"generate": ("generate", workload, *rate, "-o", out)}
            steps |= {f"verify, {name}": ("verify", out, *CHECKS[name]) for name in options.checks}
            for what, words in steps.items():
                results.append({"workload": workload, "requests": options.requests} | measured(what, words))
                print(results[-1], flush=True)
    write_json(options.json, {"cases": results})


if __name__ == "__main__":
    main()
