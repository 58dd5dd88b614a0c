"""Kinds that are no files but words and values: options of the command line, arguments of Python, and schedules."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
from profiles import tiny_pool

import servegen_gpu as sg
from fuzz import hostile
from fuzz.case import command
from fuzz.clients import BACKEND, CLIENTS, TURNS
from fuzz.invariants import check_count, check_trace
from fuzz.kind import Good, Place, kind, must

# --- schedules

SCHEDULES = {
    "steps.csv": b"# load of May\ntime_s,rate_rps\n0,5\n30,8.5\n60,2\n",
    "linear.csv": b"# linear\n0,5\n30,8\n600,2\n",
    "list.json": b'[{"time_s": 0, "rate_rps": 5}, {"time_s": 30, "rate_rps": 8.5}]',
    "lists.json": b'{"kind": "linear", "times_s": [0, 45, 600], "rates_rps": [5, 8, 2]}',
}


@cache
def _pool() -> sg.ClientPool:
    return tiny_pool(clients=2, windows=6, window_s=60, silent=False)  # counts of whole windows are stated


@kind("schedule", lambda: [Good({name: data}) for name, data in SCHEDULES.items()])
def _schedule(place: Place) -> None:
    path = next(place.here.iterdir())
    schedule = sg.read_schedule(path)
    must(np.isfinite(schedule.times_s).all() and np.isfinite(schedule.rates_rps).all(), "a knot that is none")
    must((np.diff(schedule.times_s) > 0).all() and (schedule.rates_rps >= 0).all(), "knots that are none")
    workload = sg.stream(_pool(), rate=schedule, duration=60, backend=BACKEND)
    if workload.expected_requests < 1e5:  # a rate may well be large
        trace = workload.joined()
        check_trace(trace)
        check_count(len(trace), workload.expected_requests)


# --- options of `generate`

GENERATE: dict[str, tuple[str, ...]] = {
    "--rate": ("1e12", "1e13", "1e-12", "5", "{here}/none.csv", "1e308"),
    "--scale": ("1e-300", "1e12", "1e300", "2"),
    "--peak": ("1e-9", "1e12", "3"),
    "--start": ("10h", "-1h", "1e15", "400d", "1e303"),
    "--duration": ("0", "1e-9", "1e303", "1e15", "-1s", "10s", "1ms", "1us", "1 s"),
    "--seed": ("18446744073709551615", "18446744073709551616", "-1"),
    "--replica": ("4294967295", "4294967296"),
    "--shard": ("2/3", "0/3", "4/3", "1/0", "1/1000000000", "999999999/999999999"),
    "--only": ("0", "0-1", "1-0", "0,0", "9999999999", "-"),
    "--where": ("cv=1:", "cv=nan:", "rate_rps=:1e400", "cv", "none=1:2", "p95_input_tokens=5:1", "=1:2"),
    "--largest": ("1", "0", "100"),
    "--smallest": ("1", "-1"),
    "--clones": ("1", "3", "0", "10000000000"),
    "--resample": ("3", "0", "100000000000"),
    "--clients-seed": ("3",),
    "--counts": ("exact", "renewal", "servegen"),
    "--dependence": ("copula", "comonotone"),
    "--rank-correlation": ("input_tokens:output_tokens=0.5", "input_tokens:output_tokens=2", "a:b=0", "="),
    "--occupancy": ("window",),
    "--empty": ("skip",),
    "--past-end": ("end",),
    "--warmup": ("0", "-1", "1e303", "1h"),
    "--memory": ("64MB", "1", "0", "-1GB", "1e303", "1e30TB", "nan"),
    "--requests": ("10", "0", "-1", "1000000000000000000000"),
    "--max-input": ("10", "0", "-1", "99999999999"),
    "--max-output": ("10", "0"),
    "--over": ("drop", "cap"),
    "--conversations": ("{here}/turns.toml", "none", "m-large"),
    "--environment": ("none", "{here}/none.toml"),
    "--format": ("csv", "mooncake", "none"),
    "--ids": ("dense",),
    "--encoding": ("plain",),
    "--hash-ids": ("512", "0", "-1", "1"),
    "--system-tokens": ("0", "-5", "99999999999"),
    "--block-tokens": ("0", "16"),
    "--window": ("0", "60s", "nan"),
    "--naive": ("gamma", "poisson", "weibull"),
    "--naive-cv": ("3", "0", "nan", "1e300"),
    "--naive-lengths": ("window", "1h", "0", "whole"),
    "--backend": ("native", "none"),
}


@cache
def _generate() -> list[Good]:
    made = []
    clients = {"clients.toml": CLIENTS[2][: CLIENTS[2].index(b"[turns]")], "turns.toml": TURNS[2]}
    for more in ((), ("--counts=renewal", "--rate=3"), ("--requests=50", "--max-input=4")):
        words = ("generate", "{here}/clients.toml", "--output={out}/trace.parquet", "--backend=numpy", "--duration=20s")
        made.append(Good(clients, (*words, "--memory=64MB", *more), ()))
    return made


@kind("generate-options", _generate, hostile_words=GENERATE, share=0.7)
def _run_generate(place: Place) -> None:
    if too_much(place.words):
        return
    command(place.words)
    path = place.out / "trace.parquet"
    must(path.exists() or list(place.out.iterdir()), "status 0 and no output")
    if path.is_file():
        try:
            trace = sg.read_trace(path)
        except sg.ServeGenError:
            must(any(word.startswith("--format") for word in place.words), "an output that cannot be read")
            return
        check_trace(trace)


MANY = ("--clones", "--resample", "--requests", "--replicas")


def too_much(words: tuple[str, ...]) -> bool:
    """Whether a command line rightly asks for more than a case has time for; those rates and times are legal."""
    from servegen_gpu.errors import ServeGenError
    from servegen_gpu.options import rps, seconds

    stated = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        span_s = seconds("duration", stated.get("--duration", "20s"))
        rate = max(rps(stated.get(name, "0")) or 0.0 for name in ("--rate", "--scale", "--peak"))
        many = max(rps(stated.get(name, "0")) or 0.0 for name in MANY)  # "1k"
    except (ServeGenError, ValueError):
        return False
    return 1e4 < span_s * max(rate, 8.0) < 1e20 or 1e4 < many < 1e10 or span_s > 3e4


# --- arguments of Python

ARGUMENTS = (
    *("rate", "scale", "peak", "start", "duration", "requests", "max_input", "max_output", "over", "seed", "replica"),
    *("counts", "dependence", "rank_correlation", "occupancy", "empty", "past_end", "warmup", "memory", "shard"),
    *("backend", "device"),
)


@kind("stream-arguments", lambda: [Good(words=("{here}",))], hostile_words={"seed": ()})
def _arguments(place: Place) -> None:
    """The one word that is mutated seeds the choice of values: objects are no words."""
    random = Random(" ".join(place.words[1:]).encode("utf-8", "surrogatepass"))
    stated: dict[str, Any] = {"duration": 10, "rate": 5, "backend": BACKEND}
    for _ in range(random.choice((1, 1, 2)) if len(place.words) > 1 else 0):
        name = random.choice(ARGUMENTS)
        stated[name] = hostile.python_value(random)
    if stated.get("scale") is not None or stated.get("peak") is not None:
        stated["rate"] = None
    workload = sg.stream(_pool(), **stated)
    must(np.isfinite(workload.expected_requests), "no finite number of requests")
    if workload.expected_requests < 1e4 and workload.backend.name == "numpy":
        trace = workload.joined()
        check_trace(trace)


SPEC = (
    *("rate", "arrivals", "shape", "cv", "input_tokens", "output_tokens", "reason_ratio", "text_tokens"),
    *("image_count", "rank_correlation", "context_tokens", "count", "name"),
)


@kind("client-arguments", lambda: [Good(words=("{here}",))], hostile_words={"seed": ()})
def _client_arguments(place: Place) -> None:
    random = Random(" ".join(place.words[1:]).encode("utf-8", "surrogatepass"))
    stated: dict[str, Any] = {"rate": 1.0, "input_tokens": 100, "output_tokens": 10}
    for _ in range(random.choice((1, 1, 2)) if len(place.words) > 1 else 0):
        stated[random.choice(SPEC)] = hostile.python_value(random)
    made = sg.client(**stated)
    if made.count < 1000:
        pool = sg.pool([made], window_s=60, period=600)
        check_trace(sg.generate(pool, rate=5, duration=10, empty="skip", backend=BACKEND))
