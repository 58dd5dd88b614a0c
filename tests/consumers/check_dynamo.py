"""Dynamo's replay simulates what we write for it, with the command that we print; its totals are ours."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from checking import FOLDER, Exported, exported, run, same

MILLISECONDS = 1e3


def _report(export: Exported) -> dict[str, Any]:
    same("program", export.command[:3], ["python", "-m", "dynamo.replay"])
    report = FOLDER / f"{export.path.stem}-report.json"
    command = [sys.executable, *export.command[1:], "--report-json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr[-500:])
    return json.loads(report.read_text())


def _check(export: Exported) -> str:
    report = _report(export)
    same("requests", report["completed_requests"], len(export.arrival_us))
    same("input tokens", report["total_input_tokens"], sum(export.input_tokens))
    same("output tokens", report["total_output_tokens"], sum(export.output_tokens))
    last_ms = max(export.times_s) * MILLISECONDS
    if not last_ms <= report["duration_ms"] < 2 * last_ms + 60 * MILLISECONDS:
        raise AssertionError(f"{report['duration_ms']} ms for a trace of {last_ms} ms")
    ids = [i for line in export.path.read_text().splitlines() for i in json.loads(line)["hash_ids"]]
    same("blocks told apart by 32 bits", len({i % 2**32 for i in ids}), len(set(ids)))
    return f"{len(export.arrival_us)} requests, {sum(export.input_tokens):,} tokens"


def check_whole_inputs() -> str:
    return _check(exported("dynamo"))


def check_deltas() -> str:
    """The replay adds up histories to the inputs of the trace."""
    sent = [json.loads(line) for line in exported("dynamo-delta").path.read_text().splitlines()]
    if sum(row["input_length"] for row in sent) >= sum(exported("dynamo-delta").input_tokens):
        raise AssertionError("the file holds whole inputs")
    return _check(exported("dynamo-delta"))


run(check_whole_inputs, check_deltas)
