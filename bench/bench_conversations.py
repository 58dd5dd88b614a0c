"""Conversations from the command line: time and peak memory, with and without; see README.md.

Every run is a process of its own, with all that a first call pays for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import add_json, child, ours, write_json

DAY = "deepseek-r1 --clients 25913 --duration 24h"
FAST = "deepseek-r1 --rate 10000 --duration 40m --memory 1GB"
CASES = {
    "a day of 25,913 clients": DAY,
    "the same without conversations": f"{DAY} --conversations none",
    "an hour, which looks twelve hours back": "deepseek-r1",
    "10,000 req/s for 40 min, looking 20 min back": f"{FAST} --warmup 20m",
    "the same in 300 MB": f"{FAST} --warmup 20m --memory 300MB",
    "the same without": f"{FAST} --conversations none",
}


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    add_json(parser)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.parquet"
        for name, words in CASES.items():
            command = f"-m servegen_gpu generate {words} --backend {options.backend} -o {path}"
            done = child([sys.executable, *command.split()], env=ours())
            rows = int(done.output.split(": ")[-1].split(" requests")[0].replace(",", ""))
            figures = {"case": name, "command": words, "requests": rows, "wall_s": round(done.wall_s, 2)}
            figures |= {"peak_mb": round(done.peak_mb), "bytes_per_request": round(path.stat().st_size / rows, 2)}
            print(figures, flush=True)
            results.append(figures)
    write_json(options.json, {"cases": results})


if __name__ == "__main__":
    main()
