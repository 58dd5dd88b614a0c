"""Files of one trace, written and read in bounded memory: see README.md. Every case is a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import add_json, child, median, ours, timed, write_json


@dataclass(frozen=True)
class Case:
    """A file to write and to read.

    Attributes
    ----------
    file : str
        Its name.
    ids : str
        ``"hashed"`` or ``"dense"``: with ids of blocks of 512 tokens.
    encoding : str
        Of Parquet.
    format : str, optional
        Of another program.
    """

    file: str
    ids: str = ""
    encoding: str = "delta"
    format: str | None = None


CASES = {
    "parquet": Case("t.parquet"),
    "parquet plain": Case("t.parquet", encoding="plain"),
    "csv": Case("t.csv"),
    "csv.gz": Case("t.csv.gz"),
    "jsonl": Case("t.jsonl"),
    "jsonl.gz": Case("t.jsonl.gz"),
    "jsonl.zst": Case("t.jsonl.zst"),
    "parquet, ids": Case("t.parquet", "hashed"),
    "csv, ids": Case("t.csv", "hashed"),
    "jsonl, ids": Case("t.jsonl", "hashed"),
    "jsonl, dense ids": Case("t.jsonl", "dense"),
    "azure": Case("t.csv", format="azure"),
    "burstgpt": Case("t.csv", format="burstgpt"),
    "vidur": Case("t.csv", format="vidur"),
    "llmservingsim": Case("t.jsonl", format="llmservingsim"),
    "mooncake": Case("t.jsonl", "hashed", format="mooncake"),
    "dynamo": Case("t.jsonl", "hashed", format="dynamo"),
}
SLAB_S = 100
RATE_RPS = 5000


def slabs(rows: int, ids: str) -> Iterator[Any]:
    """A stream of requests, which is made once and comes again and again, later each time."""
    import servegen_gpu as sg

    slab = sg.generate(sg.population("m-small"), rate=RATE_RPS, duration=f"{SLAB_S}s", seed=7)
    slab = slab.with_hash_ids(512, system_tokens=600) if ids else slab
    slab = slab.with_dense_ids() if ids == "dense" else slab
    for at in range(0, rows, len(slab)):
        later = {"arrival_us": slab["arrival_us"] + at // len(slab) * SLAB_S * 1_000_000}
        yield sg.Trace.trusted(slab.columns | later, slab.provenance, at).rows(0, rows - at)


def in_child(what: str, case: Case, rows: int, path: Path) -> None:
    """What is measured; prints seconds as JSON."""
    import servegen_gpu as sg
    from servegen_gpu.formats import read_slabs

    if what == "write":
        stream = slabs(rows, case.ids)
        first = next(stream)  # with what it takes to make it

        def work() -> int:
            options = sg.ExportOptions(encoding=case.encoding)
            return sg.write(chained(first, stream), path, case.format, options).rows
    else:

        def work() -> int:
            return sum(map(len, read_slabs(path)))

    done, took = timed(work)
    if done != rows:
        sys.exit(f"expected {rows:,} rows, got {done:,}")
    print(json.dumps(took))


def chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """The stream as it was."""
    yield first
    yield from rest


def measured(name: str, case: Case, rows: int, repeat: int, directory: Path) -> dict[str, Any]:
    """Rates, medians of all repetitions, and peaks of memory."""
    path = directory / case.file
    figures: dict[str, Any] = {"file": name, "rows": rows}
    for what in ("write", "read"):
        command = [sys.executable, __file__, "--child", what, name, "--rows", str(rows), "--directory", str(directory)]
        done = [child(command, env=ours()) for _ in range(repeat)]
        seconds, cpu_s = (median([each.json()[key] for each in done]) for key in ("seconds", "cpu_s"))
        figures[f"{what}_million_rows_per_s"] = round(rows / seconds / 1e6, 2)
        figures[f"{what}_cpu_ns_per_row"] = round(cpu_s / rows * 1e9)
        figures[f"{what}_peak_mb"] = round(max(each.peak_mb for each in done))
    figures["bytes_per_row"] = round(path.stat().st_size / rows, 2)
    for made in directory.iterdir():
        made.unlink()
    return figures


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="requests in a file; a quarter of them with ids")
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--only", nargs="*", choices=CASES, help="these cases")
    parser.add_argument("--directory", type=Path, help="where to put files (default: the temporary one)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        what, name = options.child
        in_child(what, CASES[name], options.rows, options.directory / CASES[name].file)
        return
    results = []
    for name in options.only or CASES:
        rows = options.rows // 4 if CASES[name].ids else options.rows
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            figures = measured(name, CASES[name], rows, options.repeat, Path(scratch))
        print(figures, flush=True)
        results.append(figures)
    write_json(options.json, {"files": results})


if __name__ == "__main__":
    main()
