"""Replicas of an hour reduced to loads of 10 seconds: seconds, processor time, peak memory. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from common import REPOSITORY, add_json, child, data_dir, median, ours, timed, write_json

LOADS = ("requests_peak_10s", "input_tokens_peak_10s", "output_tokens_peak_10s")
ROWS = ("concurrency_peak", "top_client_share", "gap_cv", "output_tokens_p99")
CASES = (
    ("released exact", "loads", 1000),
    ("released renewal", "loads", 100),
    ("released renewal", "loads", 1000),
    ("released renewal", "loads", 5000),
    ("released renewal", "traces", 1000),
    ("released renewal", "rows", 1000),
    ("m-small", "loads", 200),
    ("deepseek-r1 alone", "loads", 200),
    ("deepseek-r1", "loads", 100),
)
"""Workload, what is made of it, and how many replicas."""

BYTE_MS = 1e9 / 4.23e12 * 1e3
"""A byte of a billion requests to or from the memory of an H200, as in sass_budget.py."""

BYTES = 2 * 28
"""Of a request whose input and output are summed: read, widened to int64, read and written as running sums."""

SLAB, SLAB_MS = 1 << 25, 1.0
"""Requests of a slab, and what the host does for each of them beside: assumed."""


def workload_of(name: str) -> tuple[Any, dict[str, Any]]:
    """A pool, and how it is sampled."""
    import servegen_gpu as sg

    if name.startswith("released"):
        return sg.load_servegen(data_dir(), "deepseek-r1"), {"counts": name.split()[1]}
    pool = sg.population(name.split()[0])
    return (pool.with_conversations(None) if name.endswith("alone") else pool), {}


def in_child(name: str, what: str, replicas: int) -> None:
    """Reduce replicas, or make their traces and reduce those; print what it took as JSON."""
    import servegen_gpu as sg

    pool, keywords = workload_of(name)
    workload = sg.stream(pool, duration="1h", **keywords)
    asked = sg.metrics(ROWS if what == "rows" else LOADS, 3600)

    def work(count: int) -> None:
        if what == "traces":
            for replica in range(count):
                sg.reduce(sg.generate(workload.packed, replica=replica), asked).figures()
            return
        for found in sg.reduce_replicas(workload.packed, asked, replicas=range(count)):
            found.figures()

    work(2)
    _, took = timed(lambda: work(replicas))
    print(json.dumps({"requests": round(workload.expected_requests * replicas), **took}))


def predicted() -> dict[str, Any]:
    """What 3.6 billion requests take on an H200: instructions counted, bytes that move, and an assumption."""
    sass = json.loads((REPOSITORY / "bench" / "results" / "sass.json").read_text())
    billions = 3.6
    sampled = {row["case"]: row["ms_per_billion"] for row in sass["predicted_ms"]}["deepseek-r1 default"]
    ms = billions * (sampled + BYTES * BYTE_MS) + billions * 1e9 / SLAB * SLAB_MS
    return {"case": "one trace on an H200, predicted", "requests": round(billions * 1e9), "seconds": round(ms / 1e3, 2)}


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        in_child(options.child[0], options.child[1], int(options.child[2]))
        return
    results = []
    for name, what, replicas in CASES:
        if name.startswith("released") and data_dir() is None:
            continue
        command = [sys.executable, __file__, "--child", name, what, str(replicas)]
        done = [child(command, env=ours()) for _ in range(options.repeat)]
        found = [each.json() for each in done]
        figures = {
            "case": f"{name}, {what}",
            "replicas": replicas,
            "requests": found[0]["requests"],
            "seconds": round(median([each["seconds"] for each in found]), 2),
            "cpu_s": round(median([each["cpu_s"] for each in found]), 2),
            "peak_mb": round(max(each.peak_mb for each in done)),
        }
        print(figures, flush=True)
        results.append(figures)
    print(predicted(), flush=True)
    write_json(options.json, {"reductions": [*results, predicted()]})


if __name__ == "__main__":
    main()
