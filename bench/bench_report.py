"""Reports of ten million requests, from file to page: seconds, processor time and peak memory. See README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import add_json, child, median, ours, write_json


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of each trace, about")
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--directory", type=Path, help="where to put files (default: the temporary one)")
    add_json(parser)
    options = parser.parse_args()
    command = [sys.executable, "-m", "servegen_gpu"]
    results = []
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        paths = [str(Path(scratch) / f"{name}.parquet") for name in "ab"]
        page = str(Path(scratch) / "page.html")
        for replica, path in enumerate(paths):
            made = ["--rate", str(options.rows / 3600), "--duration", "1h", "--replica", str(replica), "-o", path]
            child([*command, "generate", "m-small", *made], env=ours())
        workload = ["m-small", "--rate", str(options.rows / 3600), "--duration", "1h"]
        for case, arguments in (
            ("a trace, from Parquet to page", [paths[0]]),
            ("two traces, from Parquet to page", [paths[0], "--against", paths[1]]),
            ("a workload, sampled on the way", workload),
        ):
            done = [child([*command, "report", *arguments, "-o", page], env=ours()) for _ in range(options.repeat)]
            figures = {
                "case": case,
                "requests": options.rows * (2 if "two" in case else 1),
                "seconds": round(median([each.wall_s for each in done]), 2),
                "cpu_s": round(median([each.cpu_s for each in done]), 2),
                "peak_mb": round(max(each.peak_mb for each in done)),
                "page_mb": round(Path(page).stat().st_size / 1e6, 2),
            }
            print(figures, flush=True)
            results.append(figures)
    write_json(options.json, {"reports": results})


if __name__ == "__main__":
    main()
