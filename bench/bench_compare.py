"""Two traces of ten million requests compared: seconds, processor time and peak memory. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import add_json, child, median, ours, timed, write_json


def in_child(what: str, paths: list[Path], rows: int) -> None:
    """Make traces of a day, or compare them, or take the figures of a short one; print what it took as JSON."""
    import servegen_gpu as sg

    if what == "make":
        for replica, path in enumerate(paths):
            workload = sg.stream(sg.population("m-small"), rate=rows / 86_400, duration="1d", replica=replica)
            sg.write(workload, path)
        return
    if what == "compare":
        found, took = timed(lambda: sg.compare(*paths))
        print(json.dumps({"rows": round(found.log.requests + found.other.requests), **took}))
        return
    from servegen_gpu.comparing.figures import figures_of

    trace = sg.generate(sg.population("m-small"), rate=rows / 3600, duration="1h")
    dict(figures_of(trace).values)
    _, took = timed(lambda: [dict(figures_of(trace).values) for _ in range(100)])
    print(json.dumps({"rows": len(trace), **{name: value / 100 for name, value in took.items()}}))


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of each trace, about")
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--directory", type=Path, help="where to put files (default: the temporary one)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        in_child(options.child[0], [Path(path) for path in options.child[1:]], options.rows)
        return
    results = []
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        paths = [str(Path(scratch) / f"{name}.parquet") for name in "ab"]
        command = [sys.executable, __file__, "--rows"]
        child([*command, str(options.rows), "--child", "make", *paths], env=ours())
        for case, arguments in (
            ("two traces, Parquet, from file to table", [str(options.rows), "--child", "compare", *paths]),
            ("figures of one trace in memory, without distances", ["9000", "--child", "figures"]),
        ):
            done = [child([*command, *arguments], env=ours()) for _ in range(options.repeat)]
            found = [each.json() for each in done]
            figures = {
                "case": case,
                "requests": found[0]["rows"],
                "seconds": round(median([each["seconds"] for each in found]), 4),
                "cpu_s": round(median([each["cpu_s"] for each in found]), 4),
                "peak_mb": round(max(each.peak_mb for each in done)),
            }
            print(figures, flush=True)
            results.append(figures)
    write_json(options.json, {"comparisons": results})


if __name__ == "__main__":
    main()
