"""The server model beside two others on the same requests: Vidur 0.0.26 and ai-dynamo 1.3.1. See README.md.

python -m venv vidur && vidur/bin/pip install vidur==0.0.26
python -m venv dynamo && dynamo/bin/pip install ai-dynamo==1.3.1
VIDUR_PYTHON=vidur/bin/python DYNAMO_PYTHON=dynamo/bin/python python bench/bench_serving_against.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import REPOSITORY, add_json, write_json

import servegen_gpu as sg
from servegen_gpu.serving.server import PARAMETERS, Server

VERSIONS = {"vidur": "0.0.26", "ai-dynamo": "1.3.1"}
LITTLE = 40_000
SWEEP = [
    [at_once, inputs, outputs]
    for at_once in (1, 4, 16, 64)
    for inputs, outputs in ((200, 300), (1000, 200), (3000, 150))
]


class Program:
    """An interpreter that has one of the simulators."""

    def __init__(self, name: str, variable: str, script: str) -> None:
        self.name, self.script = name, REPOSITORY / "bench" / script
        self.python = os.environ.get(variable) or sys.executable
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
        self.version = done.stdout.strip()
        self.missing = ""
        if self.version != VERSIONS[name]:
            self.missing = f"{name} {VERSIONS[name]} is not there: name an interpreter that has it with {variable}"

    def run(self, job: dict[str, Any]) -> Any:
        """What its script answers to a job."""
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
            question.write_text(json.dumps({**job, "output": str(answer)}))
            command = [self.python, str(self.script), str(question)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
            if done.returncode:
                sys.exit(f"{self.name}: {done.stderr[-2000:]}")
            return json.loads(answer.read_text())


def trace_of(rate_rps: float) -> sg.Trace:
    """Ten minutes of m-large, arrivals in whole milliseconds, outputs of two tokens or more."""
    trace = sg.generate(sg.population("m-large"), rate=rate_rps, duration="10m", seed=14)
    columns = {name: trace[name] for name in ("arrival_us", "input_tokens", "output_tokens")}
    columns["arrival_us"] = (columns["arrival_us"] - columns["arrival_us"][0]) // 1000 * 1000
    columns["input_tokens"] = np.clip(columns["input_tokens"], 1, None)
    return sg.Trace(columns | {"output_tokens": np.clip(columns["output_tokens"], 2, None)})


def figures(ttft_s: Any, tbt_s: Any) -> dict[str, float]:
    """Mean and P99 of both, in seconds."""
    return {
        f"{which}_{name}": float(value)
        for name, times in (("ttft_s", ttft_s), ("tbt_s", tbt_s))
        for which, value in (("mean", np.mean(times)), ("p99", np.quantile(times, 0.99)))
    }


def row(case: str, program: str, trace: sg.Trace, ours: dict[str, float], theirs: dict[str, float]) -> dict[str, Any]:
    """Both side by side."""
    found: dict[str, Any] = {"case": case, "program": program, "requests": len(trace)}
    for name in ours:
        found |= {name: round(ours[name], 5), f"{name}_theirs": round(theirs[name], 5)}
        found[f"{name}_ratio"] = round(ours[name] / theirs[name], 4)
    print(found, flush=True)
    return found


def job_of(trace: sg.Trace, server: Server, unit_us: float, **more: Any) -> dict[str, Any]:
    """A job for a script; arrivals in a unit of their own."""
    requests = [
        (trace["arrival_us"] / unit_us).tolist(),
        trace["input_tokens"].tolist(),
        trace["output_tokens"].tolist(),
    ]
    if unit_us == 1e3:
        requests[0] = [int(ms) for ms in requests[0]]
    return {"server": {name: getattr(server, name) for name in PARAMETERS}, "requests": requests, **more}


def of_vidur(vidur: Program, cases: dict[str, tuple[Server, int, sg.Trace]]) -> Iterator[dict[str, Any]]:
    for case, (server, instances, trace) in cases.items():
        served = sg.simulate(trace, server, instances, "round-robin")
        found = vidur.run(job_of(trace, server, 1e6, instances=instances))
        theirs = figures(found["ttft_s"], np.array(found["decode_s"]) / (trace["output_tokens"] - 1))
        yield row(case, "vidur", trace, figures(served.ttft_s, served.tbt_s), theirs) | {"restarts": found["restarts"]}


def of_dynamo(dynamo: Program, cases: dict[str, tuple[Server, int, sg.Trace]]) -> Iterator[dict[str, Any]]:
    for case, (server, instances, trace) in cases.items():
        served = sg.simulate(trace, server, instances, "round-robin")
        theirs = dynamo.run(job_of(trace, server, 1e3, instances=instances, built_in=False))
        yield row(case, "dynamo", trace, figures(served.ttft_s, served.tbt_s), theirs)


def split_of_dynamo(dynamo: Program, server: Server, split: sg.Split, trace: sg.Trace) -> dict[str, Any]:
    """There the instances that decode make the first token too, so they are asked for one less; prefill ends alike."""
    served = sg.simulate(trace, server, split, "round-robin")
    fewer = sg.Trace(dict(trace.columns) | {"output_tokens": trace["output_tokens"] - 1})
    found = dynamo.run(job_of(fewer, server, 1e3, prefill=split.prefill, decode=split.decode))
    theirs = figures(found["ttft_s"], np.array(found["decode_s"]) / np.array(found["output_tokens"]))
    return row(f"{split}", "dynamo", trace, figures(served.ttft_s, served.tbt_s), theirs)


def fitted_to_dynamo(dynamo: Program, like: Server, traces: dict[str, sg.Trace]) -> Iterator[dict[str, Any]]:
    """Fitted to a benchmark of the mocker's own times, which are curved, and then on the trace."""
    asked = {"server": {name: getattr(like, name) for name in PARAMETERS}, "sweep": SWEEP}
    sweep = dynamo.run(asked)
    columns = {name: [run[name] for run in sweep] for name in sweep[0]}
    fit = sg.fit_server(columns, like)
    print(fit)
    for case, trace in traces.items():
        served = sg.simulate(trace, fit.server, 1, "round-robin")
        theirs = dynamo.run(job_of(trace, like, 1e3, instances=1, built_in=True))
        yield row(f"{case}, fitted", "dynamo", trace, figures(served.ttft_s, served.tbt_s), theirs)


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json(parser)
    options = parser.parse_args()
    server = sg.load_server("qwen2.5-14b-2xa100")
    few, many = trace_of(6), trace_of(32)
    cases = {
        "one, light": (server, 1, trace_of(1)),
        "one, busy": (server, 1, few),
        "eight": (server, 8, many),
        "one H200": (sg.load_server("llama-3.1-8b-fp8-h200"), 1, few),
    }
    little = {"one, little cache": (replace(server, kv_tokens=LITTLE), 1, few)}  # Vidur stops where it preempts
    results: list[dict[str, Any]] = []
    vidur = Program("vidur", "VIDUR_PYTHON", "serving_in_vidur.py")
    print(vidur.missing or f"vidur {vidur.version}")
    if not vidur.missing:
        results += of_vidur(vidur, cases)
    dynamo = Program("ai-dynamo", "DYNAMO_PYTHON", "serving_in_dynamo.py")
    print(dynamo.missing or f"ai-dynamo {dynamo.version}")
    if not dynamo.missing:
        results += of_dynamo(dynamo, cases | little)
        results += [split_of_dynamo(dynamo, server, split, many) for split in (sg.Split(3, 5), sg.Split(5, 3))]
        results += fitted_to_dynamo(dynamo, server, {"one, light": trace_of(1), "one, busy": few})
    if results:
        write_json(options.json, {"versions": VERSIONS, "server": server.name, "comparisons": results})


if __name__ == "__main__":
    main()
