"""Installs each consumer in an environment of its own, and runs its checks on what this package writes."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from environments import Environment, NotInstalledError, ready

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("SERVEGEN_GPU_CONSUMERS") or Path.home() / ".cache" / "servegen_gpu" / "consumers")
LIMIT_S = 20 * 60
INSTALL_LIMIT_S = 300


@dataclass(frozen=True)
class Consumer:
    """A program that reads our files.

    Attributes
    ----------
    environment : Environment
    script : str
        Its checks, run by the environment's interpreter with the folder of exports and the consumer's name.
    limit_s : float
        Time for all of them.
    """

    environment: Environment
    script: str
    limit_s: float = 120

    @property
    def name(self) -> str:
        return self.environment.name or self.environment.program


CONSUMERS = (
    Consumer(Environment("vidur"), "check_vidur.py"),
    Consumer(Environment("inference-perf", python=(3, 12)), "check_inference_perf.py"),
    Consumer(Environment("vllm", cut=("vllm==0.33.0", "vllm/benchmarks/datasets/datasets.py")), "check_vllm.py"),
    Consumer(Environment("sglang", cut=("sglang==0.5.23", "sglang/benchmark/datasets/mooncake.py")), "check_sglang.py"),
    Consumer(Environment("llmtrafficlens"), "check_llmtrafficlens.py"),
    Consumer(Environment("dynamo"), "check_dynamo.py"),
    Consumer(Environment("guidellm"), "check_guidellm.py"),
    Consumer(Environment("aiperf"), "check_aiperf.py", 400),
    Consumer(Environment("duckdb"), "check_parquet.py"),
    Consumer(Environment("polars"), "check_parquet.py"),
    Consumer(Environment("pandas"), "check_parquet.py"),
    Consumer(Environment("fastparquet"), "check_parquet.py"),
    Consumer(Environment("pyarrow17"), "check_parquet.py"),
    Consumer(Environment("spark", program="java"), "check_parquet.py", 240),
    Consumer(Environment("", program="node"), "check_node.mjs"),
)


class Results:
    """Prints a line for each check, and counts them."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def add(self, outcome: str, text: str) -> None:
        self.count[outcome] += 1
        print(f"{outcome}  {text}", flush=True)


def main() -> int:
    """Run the checks of all consumers, or of those that are named."""
    names = [consumer.name for consumer in CONSUMERS]
    parser = argparse.ArgumentParser(prog="tests/consumers/run", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(names)}")
    parser.add_argument("--time-limit", type=float, default=LIMIT_S, metavar="SECONDS", help="for all together")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where exports and logs stay")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no consumer {', '.join(sorted(unknown))}: choose among {', '.join(names)}")
    deadline = time.monotonic() + options.time_limit
    results = Results()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, HERE / "exports.py", folder], check=True, timeout=options.time_limit)
        for consumer in CONSUMERS:
            if not options.names or consumer.name in options.names:
                _run(consumer, folder, deadline, results)
    count = results.count
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 1 if count["fail"] else 0


def _run(consumer: Consumer, folder: Path, deadline: float, results: Results) -> None:
    name, begun = consumer.name, time.monotonic()
    left_s = deadline - begun
    if left_s < 1:
        results.add("fail", f"{name}: no time left")
        return
    try:
        python, made = ready(consumer.environment, CACHE, min(left_s, INSTALL_LIMIT_S))
    except NotInstalledError as error:
        results.add("skip", f"{name}: {error}")
        return
    if made:
        print(f"      {name}: installed in {time.monotonic() - begun:.0f} s", flush=True)
    program = python if consumer.script.endswith(".py") else consumer.environment.program
    log = folder / f"{name}.log"
    limit_s = max(1.0, min(consumer.limit_s, deadline - time.monotonic()))
    lines, ended = _output([program, HERE / consumer.script, folder, name], log, limit_s)
    outcomes = []
    for line in lines:
        outcome, _, text = line.partition(" ")
        if outcome in ("pass", "fail", "skip"):
            outcomes.append(outcome)
            results.add(outcome, f"{name}: {text}")
    if ended or not outcomes:
        results.add("fail", f"{name}: {ended or 'no check was run'}")
    if ended or "fail" in outcomes or not outcomes:
        print("\n".join(f"      {line}" for line in log.read_text(errors="replace").splitlines()[-25:]), flush=True)


def _output(command: list[str | Path], log: Path, limit_s: float) -> tuple[list[str], str]:
    """Lines of standard output, and how the program ended, if not well; its errors go to a log."""
    with log.open("w") as errors, tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=log.parent, start_new_session=True)
        try:
            status = process.wait(limit_s)
            ended = f"ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            ended = f"not done within {limit_s:.0f} s"
        finally:
            # with whatever it has started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read().splitlines(), ended


if __name__ == "__main__":
    sys.exit(main())
