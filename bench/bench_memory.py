"""A hundred million requests in bounded memory: see README.md. Every case is a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import add_json, child, data_dir, need, ours, write_json

BUDGETS = ("2GB", "300MB")
CASES = {10_000: 10_000, 200_000: 500}
"""Seconds by requests per second: a hundred million requests, in many windows or as one that fits no budget."""


def write(data: Path, directory: Path, rate: int, seconds: int, memory: str) -> tuple[Path, dict[str, Any]]:
    """A Parquet file of r1 from the command line, and what it took."""
    path = directory / f"{rate}-{seconds}-{memory}.parquet"
    words = f"generate deepseek-r1 --rate {rate} --duration {seconds}s --memory {memory} --seed 7 -o {path}".split()
    env = ours() | {"SERVEGEN_GPU_CACHE": str(directory / "cache")}
    done = child([sys.executable, "-m", "servegen_gpu", *words, "--profiles", str(data)], env=env)
    rows = int(done.output.split(": ")[1].split(" requests")[0].replace(",", ""))
    figures = {
        "rate": rate,
        "seconds": seconds,
        "memory": memory,
        "requests": rows,
        "wall_s": round(done.wall_s, 2),
        "million_requests_per_s": round(rows / done.wall_s / 1e6, 2),
        "peak_mb": round(done.peak_mb),
        "bytes_per_request": round(path.stat().st_size / rows, 3),
    }
    return path, figures


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the requests")
    parser.add_argument("--directory", type=Path, help="where to put files of 600 MB (default: the temporary one)")
    add_json(parser)
    options = parser.parse_args()
    data = need(data_dir(), "profiles (SERVEGEN_DATA)")
    results = []
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        directory = Path(scratch)
        for rate, seconds in CASES.items():
            less = 10 if options.quick else 1
            path, figures = write(data, directory, rate // less, seconds // less, "1GB")
            path.unlink()
            print(figures, flush=True)
            results.append(figures)
        made = [write(data, directory, 20_000, 15 if options.quick else 900, memory) for memory in BUDGETS]
        same = len({digest(path) for path, _ in made}) == 1
    budgets = {"same_bytes": same, "files": [figures for _, figures in made]}
    print(budgets)
    write_json(options.json, {"cases": results, "budgets": budgets})
    if not same:
        sys.exit("expected the same file under every budget")


if __name__ == "__main__":
    main()
