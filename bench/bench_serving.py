"""The server model: one trace by several numbers of instances; instances that replicas need. See README.md."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import add_json, median, timed, write_json

import servegen_gpu as sg
from servegen_gpu.serving import stepwise
from servegen_gpu.serving.job import job_of
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import instances_needed_each, simulate

REQUESTS, RATE_RPS = 8819, 2.57


def bursty(seed: int) -> sg.Trace:
    """As many requests as Azure's published hour of code, as long inputs and short outputs, in bursts."""
    rng = np.random.default_rng(seed)
    arrival_us = np.cumsum(1e6 * rng.gamma(0.1, 10 / RATE_RPS, REQUESTS)).astype(np.int64)
    inputs, outputs = rng.lognormal(7.2, 0.95, REQUESTS).astype(np.int32), rng.geometric(1 / 28, REQUESTS)
    return sg.Trace({"arrival_us": arrival_us, "input_tokens": inputs, "output_tokens": outputs})


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="a log to serve instead, such as Azure's")
    parser.add_argument("--repeat", type=int, default=15, help="runs whose median counts")
    parser.add_argument("--replicas", type=int, default=200)
    add_json(parser)
    options = parser.parse_args()
    trace, server = sg.read_trace(options.trace) if options.trace else bursty(0), Server()
    simulations: list[dict[str, Any]] = []
    for instances in (1, 8, 64):
        times = [timed(lambda k=instances: simulate(trace, server, k))[1] for _ in range(options.repeat)]
        _, plain = timed(lambda k=instances: stepwise.serve(job_of(trace, server, k, "least-loaded")))
        simulations.append(
            {
                "requests": len(trace),
                "instances": instances,
                "ms": round(1e3 * median([t["seconds"] for t in times]), 2),
                "cpu_ms": round(1e3 * median([t["cpu_s"] for t in times]), 2),
                "plain_python_ms": round(1e3 * plain["seconds"], 1),
            }
        )
        print(simulations[-1])
    replicas = [trace] * options.replicas if options.trace else [bursty(seed) for seed in range(options.replicas)]
    needed, took = timed(lambda: instances_needed_each(replicas, server))
    search = {
        "replicas": options.replicas,
        "requests_each": len(trace),
        **{name: round(value, 2) for name, value in took.items()},
        "median_instances": float(np.median(needed)),
    }
    print(search)
    write_json(options.json, {"simulations": simulations, "searches": [search]})


if __name__ == "__main__":
    main()
