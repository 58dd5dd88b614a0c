"""Clients fitted to logs of a million requests: seconds, their stages and peak memory. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import add_json, child, median, ours, timed, write_json

CASES = ("ids", "no ids", "conversations", "blocks", "one request each")
STAGES = (
    "with_sessions",
    "lengths",
    "_who",
    "models_of",
    "_shapes",
    "surroundings",
    "_families",
    "field_tables",
    "calibrated",
    "private",
    "_length_fits",
)
"""Of `fit_with_report`, in order; what is left is checks and the pool itself."""


def log_of(case: str, rows: int) -> Any:
    """A log of a day, in memory."""
    import servegen_gpu as sg

    if case == "one request each":
        rng = np.random.default_rng(0)
        columns = {
            "arrival_us": np.sort(rng.integers(0, 86_400_000_000, rows)),
            "client": rng.permutation(rows).astype(np.int32),
            "input_tokens": np.ceil(rng.lognormal(6, 1, rows)).astype(np.int32),
            "output_tokens": np.ceil(rng.exponential(200, rows)).astype(np.int32),
        }
        return sg.Trace(columns)
    talking = case in ("conversations", "blocks")
    pool = sg.population("deepseek-r1" if talking else "m-small")
    pool = pool if talking else pool.with_conversations(None)
    trace = sg.generate(pool, rate=rows / 86_400, duration="1d", seed=1)
    if case == "blocks":
        ids = sg.hash_ids(trace, block_tokens=512)
        columns = {name: c for name, c in trace.columns.items() if name not in ("client", "conversation", "turn")}
        return sg.Trace({name: c for name, c in columns.items() if name != "new_tokens"} | {"hash_ids": ids})
    if case == "no ids":
        return sg.Trace({name: c for name, c in trace.columns.items() if name != "client"}, trace.provenance)
    return trace


def in_child(case: str, rows: int) -> None:
    """Make a log, fit it, and print what it took as JSON."""
    from servegen_gpu.fitting import fit

    log = log_of(case, rows)
    stages: dict[str, float] = {}

    def noted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            begun = time.perf_counter()
            made = work(*arguments, **keywords)
            stages[name] = stages.get(name, 0.0) + time.perf_counter() - begun
            return made

        return call

    for name in STAGES:
        setattr(fit, name, noted(name, getattr(fit, name)))
    (_, report), took = timed(lambda: fit.fit_with_report(log))
    shares = {name.strip("_"): round(stages[name], 2) for name in STAGES if name in stages}
    print(
        json.dumps({"requests": len(log), "step": report.step, "profiles": report.profiles, **took, "stages": shares})
    )


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each log, about; ten times as many clients")
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        in_child(options.child, options.rows)
        return
    results = []
    for case in options.case or CASES:
        rows = options.rows * (10 if case == "one request each" else 1)
        command = [sys.executable, __file__, "--rows", str(rows), "--child", case]
        done = [child(command, env=ours()) for _ in range(options.repeat)]
        found = [each.json() for each in done]
        figures = (
            {"case": case}
            | found[0]
            | {
                "seconds": round(median([each["seconds"] for each in found]), 2),
                "cpu_s": round(median([each["cpu_s"] for each in found]), 2),
                "peak_mb": round(max(each.peak_mb for each in done)),
            }
        )
        print(figures, flush=True)
        results.append(figures)
    write_json(options.json, {"fits": results})


if __name__ == "__main__":
    main()
