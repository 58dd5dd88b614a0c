"""This package and the first implementation side by side on the same work: see README.md.

Every measurement is a process of its own; the two sides take turns, and a ratio is that of one turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import Finished, add_json, checkout_dir, child, data_dir, m_large_dir, median, need, ours, timed, write_json

WINDOW_S = 600
BACKEND = "BENCH_BACKEND"
"""Environment variable that tells the children which backend of ours to use."""


@dataclass(frozen=True)
class Work:
    """What both sides generate."""

    workload: str
    category: str
    rate: float
    start_s: int
    duration_s: int
    clones: int = 1


@dataclass(frozen=True)
class Case:
    """A comparison: `floor` is the least ratio, `ceiling` the most seconds of ours, that we promise."""

    name: str
    first: Callable[[], dict[str, Any]]
    second: Callable[[], dict[str, Any]]
    rounds: int = 3
    floor: float | None = None
    ceiling: float | None = None


GENERATION = {
    "r1, 10,000 req/s, 600 s": (Work("deepseek-r1", "reason", 10_000, 0, 600), 8),
    "mm-image, 1,000 req/s, 1 h": (Work("mm-image", "multimodal", 1_000, 0, 3600), 25),
    "r1, 25,915 clients, 1,000 req/s, 600 s": (Work("deepseek-r1", "reason", 1_000, 36_000, 600, clones=355), 10),
}
COLD = Work("deepseek-r1", "reason", 100, 0, 3600)
REPEATS = 5
"""Calls of ours after the first, which also pays for the pages of its arrays."""

ALLOWED = {"first": 0.005, "second": 0.0005}
"""How far a count may be from its target: the first implementation loses requests of rare clients."""


# What runs in the child processes


def generate_first(work: Work) -> dict[str, Any]:
    """The checkout, from its working directory."""
    from servegen.construct import generate_workload

    pool = first_pool(work)
    view = pool.span(work.start_s, work.start_s + work.duration_s)
    rate_fn = dict.fromkeys(range(0, work.duration_s, WINDOW_S), work.rate)
    requests, took = timed(lambda: generate_workload(view, rate_fn, duration=work.duration_s, seed=7))
    times = [request.timestamp for request in requests]
    ordered = all(a <= b for a, b in pairwise(times))
    return {"requests": len(requests), "sorted": ordered, **took}


def first_pool(work: Work) -> Any:
    """A pool of the checkout; clones share data, and skip a validation that would take minutes."""
    from servegen import Category, ClientPool
    from servegen.clientpool import Client

    pool = ClientPool(Category(work.category), work.workload)
    if work.clones > 1:
        clients = {}
        for client in pool.clients.values():
            trace = {t: w and {**w, "rate": w["rate"] / work.clones} for t, w in client.trace.items()}
            for _ in range(work.clones):
                clients[len(clients)] = Client(len(clients), trace, client.dataset)
        pool.clients = clients
    return pool


def generate_second(work: Work) -> dict[str, Any]:
    """This package."""
    from servegen_gpu import generate, load_servegen  # names load their modules: outside of what is timed

    pool = load_servegen(os.environ["BENCH_DATA"], work.workload, cache=False)
    if work.clones > 1:
        pool = pool.clone(work.clones)
    options = {"rate": work.rate, "start": work.start_s, "duration": work.duration_s, "seed": 7}
    trace, took = timed(lambda: generate(pool, **options, backend=os.environ.get(BACKEND, "auto")))
    again = []
    for _ in range(REPEATS):
        del trace
        trace, next_took = timed(lambda: generate(pool, **options, backend=os.environ.get(BACKEND, "auto")))
        again.append(next_took["seconds"])
    took["again_s"] = median(again)
    arrival_us = trace["arrival_us"]
    ordered = bool((arrival_us[:-1] <= arrival_us[1:]).all())
    return {"requests": len(trace), "sorted": ordered, **took}


def load_first() -> dict[str, Any]:
    """Load m-large with the checkout."""
    from servegen import Category, ClientPool

    pool, took = timed(lambda: ClientPool(Category("language"), "m-large"))
    return {"clients": len(pool.clients), **took}


def load_second(cache: bool) -> dict[str, Any]:
    """Load m-large with this package."""
    from servegen_gpu import load_servegen

    directory = os.environ["BENCH_DATA"]
    pool, took = timed(lambda: load_servegen(directory, "m-large", missing="drop", cache=cache))
    return {"clients": len(pool), **took}


def import_first() -> dict[str, float]:
    """Import the checkout's generator."""
    return timed(lambda: __import__("servegen.construct"))[1]


def _import_ours() -> None:
    from servegen_gpu import generate, load_servegen  # noqa: F401  the package itself is next to nothing


def import_second() -> dict[str, float]:
    """Import this package."""
    return timed(_import_ours)[1]


def look(path: str) -> dict[str, Any]:
    """What is in a file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    arrival = pq.read_table(path, columns=["arrival_us"])["arrival_us"].combine_chunks()
    ordered = pc.all(pc.less_equal(arrival[:-1], arrival[1:])).as_py()
    return {"requests": len(arrival), "sorted": ordered, "bytes": Path(path).stat().st_size}


WORKERS: dict[str, Callable[..., dict[str, Any]]] = {
    worker.__name__: worker
    for worker in (generate_first, generate_second, load_first, load_second, import_first, import_second, look)
}


# What starts them


def run(worker: Callable[..., dict[str, Any]], data: Path, checkout: Path, scratch: Path, *arguments: Any) -> Finished:
    """A worker in a process of its own; the checkout finds ``data`` in its working directory."""
    link = scratch / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(data, target_is_directory=True)
    here = str(Path(__file__).resolve().parent)
    env = {"PYTHONPATH": os.pathsep.join((here, str(checkout), ours()["PYTHONPATH"])), "BENCH_DATA": str(data)}
    env |= {"SERVEGEN_GPU_CACHE": str(scratch / "cache")}
    words = [worker.__name__, json.dumps([asdict(a) if isinstance(a, Work) else a for a in arguments])]
    return child([sys.executable, str(Path(__file__).resolve()), "--worker", *words], cwd=scratch, env=env)


def work_in_child(name: str, arguments: str) -> None:
    """The body of a child process."""
    values = [Work(**a) if isinstance(a, dict) else a for a in json.loads(arguments)]
    print(json.dumps(WORKERS[name](*values)))


def checked(figures: dict[str, Any], work: Work, side: str) -> dict[str, Any]:
    """The figures, after a look at what was made."""
    target = work.rate * work.duration_s
    if not figures["sorted"] or abs(figures["requests"] - target) > ALLOWED[side] * target:
        sys.exit(f"expected {target:,.0f} sorted requests from the {side} side, got {figures}")
    return figures


def cases(data: Path, checkout: Path, scratch: Path, rounds: int) -> list[Case]:
    """All comparisons that the data at hand allows."""

    def measure(worker: Callable[..., dict[str, Any]], where: Path, *arguments: Any) -> dict[str, Any]:
        done = run(worker, where, checkout, scratch, *arguments)
        process = {"wall_s": done.wall_s, "process_cpu_s": done.cpu_s}
        return {**done.json(), **process, "peak_mb": round(done.peak_mb)}

    def generation(name: str, work: Work, floor: float) -> Case:
        return Case(
            name,
            lambda: checked(measure(generate_first, data, work), work, "first"),
            lambda: checked(measure(generate_second, data, work), work, "second"),
            rounds,
            floor=floor,
        )

    def cold_first() -> dict[str, Any]:
        figures = checked(measure(generate_first, data, COLD), COLD, "first")
        return {**figures, "seconds": figures["wall_s"], "cpu_s": figures["process_cpu_s"]}

    def cold_second() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=scratch) as empty:
            path = Path(empty) / "t.parquet"
            words = f"generate {COLD.workload} --rate {COLD.rate} --duration 1h --seed 7 -o {path}".split()
            words += ["--backend", os.environ.get(BACKEND, "auto")]
            env = ours() | {"SERVEGEN_GPU_CACHE": str(Path(empty) / "cache")}
            command = [sys.executable, "-m", "servegen_gpu", *words, "--profiles", str(data)]
            done = child(command, cwd=scratch, env=env)
            found = measure(look, data, str(path))
        if abs(found["requests"] - 360_000) > 40:
            sys.exit(f"expected 360,000 ± 40 requests, got {found}")
        took = {"seconds": done.wall_s, "cpu_s": done.cpu_s, "peak_mb": round(done.peak_mb)}
        return {**checked(found, COLD, "second"), **took}

    made = [generation(name, work, floor) for name, (work, floor) in GENERATION.items()]
    made.append(Case("command line, r1, 100 req/s, 1 h, cold", cold_first, cold_second, rounds, ceiling=2.5))
    if m_large := m_large_dir():
        known: list[dict[str, Any]] = []

        def load() -> dict[str, Any]:
            known.append(measure(load_first, m_large))
            return known[-1]

        def remembered() -> dict[str, Any]:
            """As measured for the case before: it has no cache, and takes 17 s."""
            return known.pop(0) if known else load()

        made.append(Case("load m-large", load, lambda: measure(load_second, m_large, False), rounds, ceiling=2.0))
        cached = lambda: measure(load_second, m_large, True)  # noqa: E731
        made.append(Case("load m-large from the cache", remembered, cached, rounds, ceiling=0.3))
    imports = (lambda: measure(import_first, data)), (lambda: measure(import_second, data))
    made.append(Case("import", *imports, max(rounds, 5) if rounds > 1 else 1, ceiling=0.3))
    return made


def compare(case: Case) -> dict[str, Any]:
    """Take turns, and say how it went."""
    if "cache" in case.name:
        case.second()  # fills it
    load_before = os.getloadavg()[0]
    turns = [(case.first(), case.second()) for _ in range(case.rounds)]
    cpu_ratios = [first["cpu_s"] / second["cpu_s"] for first, second in turns]
    ratios = [first["seconds"] / second["seconds"] for first, second in turns]
    ours_s = [second["seconds"] for _, second in turns]
    result = {
        "case": case.name,
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "cpu_ratio": {"median": median(cpu_ratios), "min": min(cpu_ratios), "max": max(cpu_ratios)},
        "servegen": _side([first for first, _ in turns]),
        "servegen_gpu": _side([second for _, second in turns]),
        "rounds": case.rounds,
        "load_average_before": round(load_before, 1),
    }
    if all("again_s" in second for _, second in turns):
        again = [second["again_s"] for _, second in turns]
        of_again = [first["seconds"] / second["again_s"] for first, second in turns]
        result["again"] = {"median_s": median(again), "ratio": median(of_again)}
    met = True
    if case.floor is not None:
        result["least_ratio"], met = case.floor, result["ratio"]["median"] >= case.floor
    if case.ceiling is not None:
        result["most_s"], met = case.ceiling, median(ours_s) < case.ceiling
    result["met"] = met
    again_text = "  again {median_s:.3f} s, {ratio:.1f}x".format(**result["again"]) if "again" in result else ""
    first, second = result["servegen"], result["servegen_gpu"]
    wanted = f">= {case.floor:g}x" if case.floor else f"< {case.ceiling:g} s"
    print(
        f"{case.name:<42} {first['median_s']:8.3f} s {second['median_s']:8.3f} s  {median(ratios):6.1f}x "
        f"({min(ratios):.1f}–{max(ratios):.1f}), cpu {median(cpu_ratios):5.1f}x  "
        f"{first['peak_mb']:6,} MB {second['peak_mb']:6,} MB  "
        f"{wanted}: {'met' if met else 'MISSED'}" + again_text,
        flush=True,
    )
    return result


def _side(turns: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {name: turns[-1][name] for name in ("requests", "clients", "bytes") if name in turns[-1]}
    seconds = [turn["seconds"] for turn in turns]
    cpu = {"cpu_s": [turn["cpu_s"] for turn in turns]}
    return {
        "median_s": median(seconds),
        "seconds": seconds,
        **cpu,
        "peak_mb": max(turn["peak_mb"] for turn in turns),
        **counts,
    }


def digest(checkout: Path) -> str:
    """Which ServeGen it was: SHA-256 over its modules."""
    hasher = hashlib.sha256()
    for path in sorted((checkout / "servegen").glob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:12]


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn each")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name")
    parser.add_argument("--backend", default="auto", help="ours: auto, numpy, native (default: auto)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.worker:
        work_in_child(*options.worker)
        return
    os.environ[BACKEND] = options.backend
    data = need(data_dir(), "profiles (SERVEGEN_DATA)")
    checkout = need(checkout_dir(), "checkout of alibaba/ServeGen (SERVEGEN_CHECKOUT)")
    with tempfile.TemporaryDirectory() as scratch:
        every = cases(data, checkout, Path(scratch), 1 if options.quick else 3)
        chosen = [case for case in every if options.only in case.name]
        print(f"{'':<42} {'servegen':>10} {'ours':>10}  ratio (min–max), of processor time  peak memory of both")
        results = [compare(case) for case in chosen]
    write_json(options.json, {"servegen_sources": digest(checkout), "backend": options.backend, "cases": results})


if __name__ == "__main__":
    main()
