"""Files of others read slab by slab: rates, processor time and peak memory. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import add_json, child, median, ours, timed, write_json


def _csv(path: Path, rows: int, *, dates: bool) -> None:
    """Azure's columns, or a plain table with seconds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.exponential(0.01, rows))
    lengths = rng.integers(1, 8000, rows), rng.integers(1, 900, rows)
    names = (
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens") if dates else ("timestamp", "input_tokens", "output_tokens")
    )
    dated = np.datetime64("2024-01-01", "us") + (seconds * 1e6).astype("timedelta64[us]")
    times = pa.array(dated) if dates else pa.array(np.round(seconds, 6))
    table = pa.table(dict(zip(names, (times, *lengths), strict=True)))
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="none"))


def _mooncake(path: Path, rows: int) -> None:
    """Mooncake's columns: 7,680 tokens of input and 15 ids on average, as in its published synthetic trace."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 15_361, rows)
    with path.open("w") as file:
        for at, tokens in enumerate(inputs.tolist()):
            ids = list(range(at, at - (-tokens // 512)))
            row = {"timestamp": at * 7, "input_length": tokens, "output_length": at % 900, "hash_ids": ids}
            file.write(json.dumps(row) + "\n")


CASES: dict[str, tuple[str, int, Callable[[Path, int], None]]] = {
    "table of seconds, CSV": ("seconds.csv", 1, lambda path, rows: _csv(path, rows, dates=False)),
    "Azure, CSV": ("dates.csv", 1, lambda path, rows: _csv(path, rows, dates=True)),
    "Mooncake, JSON lines": ("mooncake.jsonl", 5, _mooncake),
}
"""A file, how many times fewer rows it has, and what makes it."""


def in_child(what: str, path: Path, rows: int) -> None:
    """Make a file, or read it and print rows and seconds as JSON; memory counts from the parent's, which is small."""
    if what != "read":
        CASES[what][2](path, rows)
        return
    from servegen_gpu.formats import read_slabs

    found, took = timed(lambda: sum(map(len, read_slabs(path))))
    print(json.dumps({"rows": found, **took}))


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of CSV files; a fifth of JSON lines")
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--directory", type=Path, help="where to put files (default: the temporary one)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        in_child(options.child[0], Path(options.child[1]), options.rows)
        return
    results = []
    for name, (file, fewer, _) in CASES.items():
        rows = options.rows // fewer
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            path = Path(scratch) / file
            command = [sys.executable, __file__, "--rows", str(rows), "--child"]
            child([*command, name, str(path)], env=ours())
            done = [child([*command, "read", str(path)], env=ours()) for _ in range(options.repeat)]
            size = path.stat().st_size
        found = [each.json() for each in done]
        if any(each["rows"] != rows for each in found):
            sys.exit(f"expected {rows:,} rows, got {found}")
        seconds, cpu_s = (median([each[key] for each in found]) for key in ("seconds", "cpu_s"))
        figures = {
            "file": name,
            "rows": rows,
            "bytes_per_row": round(size / rows, 1),
            "million_rows_per_s": round(rows / seconds / 1e6, 2),
            "cpu_ns_per_row": round(cpu_s / rows * 1e9),
            "peak_mb": round(max(each.peak_mb for each in done)),
        }
        print(figures, flush=True)
        results.append(figures)
    write_json(options.json, {"files": results})


if __name__ == "__main__":
    main()
