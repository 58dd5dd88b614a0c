"""ServeGen and `servegen_gpu.compat` side by side: one script, run under either set of imports. See README.md.

Every measurement is a process of its own; the two sides take turns, and a ratio is that of one turn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_servegen import Case, compare, digest
from common import add_json, checkout_dir, child, data_dir, m_large_dir, need, ours, timed, write_json

SIDES = {"first": "servegen", "second": "servegen_gpu.compat"}

# What runs in the child processes: the same code on both sides


def generate(package: str, category: str, model: str, rate: float, start_s: int, duration_s: int) -> dict[str, Any]:
    """A list of requests, in memory."""
    clientpool, construct, utils, types = modules(package)
    view = clientpool.ClientPool(types.Category(category), model).span(start_s, start_s + duration_s)
    rate_fn = utils.get_constant_rate_fn(view, rate)
    requests, took = timed(lambda: construct.generate_workload(view, rate_fn, duration=duration_s, seed=7))
    ordered = all(a.timestamp <= b.timestamp for a, b in pairwise(requests))
    if not ordered or abs(len(requests) - rate * duration_s) > 0.005 * rate * duration_s:
        sys.exit(f"expected {rate * duration_s:,.0f} sorted requests from {package}, got {len(requests):,}")
    return {"requests": len(requests), **took}


def ask(package: str, category: str, model: str, question: str) -> dict[str, Any]:
    """Something about the windows of a pool."""
    clientpool, _, _, types = modules(package)
    pool = clientpool.ClientPool(types.Category(category), model)
    asked = {
        "load": lambda: clientpool.ClientPool(types.Category(category), model).clients,
        "hour": lambda: pool.span(72_000, 75_600).get(),
        "get": lambda: pool.get(),
        "cv": lambda: pool.filter_by_cv(0.5, 1.5).get(),
        "mean": lambda: pool.span(0, 86_400).filter_by_avg_input_len(100, 1000).get(),
        "condition": lambda: pool.filter(lambda window: window.rate is not None and window.rate > 1).get(),
        "cdfs": lambda: pool.span(0, 86_400).get_cdfs(),
    }
    found, took = timed(asked[question])
    return {"found": len(found), **took}


def modules(package: str) -> tuple[Any, ...]:
    return tuple(import_module(f"{package}.{name}") for name in ("clientpool", "construct", "utils", "workload_types"))


WORKERS: dict[str, Callable[..., dict[str, Any]]] = {"generate": generate, "ask": ask}

# What starts them


def measure(worker: str, package: str, data: Path, checkout: Path, scratch: Path, *arguments: Any) -> dict[str, Any]:
    """A worker in a process of its own, which finds ``data`` in its working directory on either side."""
    link = scratch / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(data, target_is_directory=True)
    here = str(Path(__file__).resolve().parent)
    env = {"PYTHONPATH": os.pathsep.join((here, str(checkout), ours()["PYTHONPATH"])), "SERVEGEN_DATA": ""}
    words = [worker, json.dumps([package, *arguments])]
    done = child([sys.executable, str(Path(__file__).resolve()), "--worker", *words], cwd=scratch, env=env)
    return {**done.json(), "process_cpu_s": done.cpu_s, "peak_mb": round(done.peak_mb)}


def cases(data: Path, checkout: Path, scratch: Path, rounds: int) -> list[Case]:
    """All comparisons that the data at hand allows."""

    def case(name: str, where: Path, worker: str, *arguments: Any, floor: float) -> Case:
        def side(package: str) -> dict[str, Any]:
            return measure(worker, package, where, checkout, scratch, *arguments)

        return Case(name, lambda: side(SIDES["first"]), lambda: side(SIDES["second"]), rounds, floor=floor)

    hour = (1000, 36_000, 3600)
    made = [
        case("generate r1, 1,000 req/s, 1 h", data, "generate", "reason", "deepseek-r1", *hour, floor=3),
        case("generate mm-image, 1,000 req/s, 1 h", data, "generate", "multimodal", "mm-image", *hour, floor=3),
    ]
    if m_large := m_large_dir():
        m = ("language", "m-large")
        made += [
            case("generate m-large, 1,000 req/s, 1 h", m_large, "generate", *m, *hour, floor=3),
            case("m-large, load", m_large, "ask", *m, "load", floor=5),
            case("m-large, windows of an hour", m_large, "ask", *m, "hour", floor=100),
            case("m-large, all windows", m_large, "ask", *m, "get", floor=3),
            case("m-large, windows by cv", m_large, "ask", *m, "cv", floor=10),
            case("m-large, windows of a day by mean input", m_large, "ask", *m, "mean", floor=100),
            case("m-large, windows by a function", m_large, "ask", *m, "condition", floor=2),
            case("m-large, CDFs of a day", m_large, "ask", *m, "cdfs", floor=20),
        ]
    return made


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn each")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker[0]](*json.loads(options.worker[1]))))
        return
    data = need(data_dir(), "profiles (SERVEGEN_DATA)")
    checkout = need(checkout_dir(), "checkout of alibaba/ServeGen (SERVEGEN_CHECKOUT)")
    with tempfile.TemporaryDirectory() as scratch:
        every = cases(data, checkout, Path(scratch), 1 if options.quick else 3)
        print(f"{'':<42} {'servegen':>10} {'ours':>10}  ratio (min–max), of processor time  peak memory of both")
        results = [compare(case) for case in every if options.only in case.name]
    write_json(options.json, {"servegen_sources": digest(checkout), "cases": results})


if __name__ == "__main__":
    main()
