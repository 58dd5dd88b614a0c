"""Requests served by the replay of ai-dynamo 1.3.1: python serving_in_dynamo.py JOB.json, by Dynamo's interpreter.

A pass of its mocker lasts as long as its prefill and its decode together, by tables. Where one instance does both, the
constant of a step is in decode alone, so that no pass has it twice; a pass in which nothing decodes does without. Where
prefill and decode are apart, both have it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from dynamo.mocker import MockEngineArgs
from dynamo.replay import run_trace_replay

BLOCK, MOST_TOKENS, LONGEST = 16, 1e8, 1e6


def tables(path: Path, server: dict[str, Any], constant_ms: float) -> str:
    """Prefill by tokens; decode by tokens in the cache and the mean context, whose ratio is the number of sequences."""
    context, cached = np.geomspace(1, LONGEST, 1000), np.array([0.0, MOST_TOKENS])
    each_ms = 1e3 * server["prefill_s_per_token"]
    decode_ms = 1e3 * (server["step_s"] + server["decode_s_per_sequence"] * cached[:, None] / context)
    np.savez(
        path,
        prefill_isl=np.array([0.0, LONGEST]),
        prefill_ttft_ms=constant_ms + each_ms * np.array([0.0, LONGEST]),
        decode_active_kv_tokens=cached,
        decode_context_length=context,
        decode_itl=decode_ms,
    )
    return str(path)


def engine(server: dict[str, Any], **more: Any) -> MockEngineArgs:
    return MockEngineArgs(
        num_gpu_blocks=server["kv_tokens"] // BLOCK,
        block_size=BLOCK,
        max_num_seqs=server["max_sequences"],
        max_num_batched_tokens=server["step_tokens"],
        enable_prefix_caching=False,
        **more,
    )


def write_trace(path: Path, requests: list[list[int]]) -> None:
    """Mooncake's format; all blocks differ."""
    block, lines = 0, []
    for arrival_ms, inputs, outputs in zip(*requests, strict=True):
        ids = list(range(block, block + -(-inputs // 512)))
        block += len(ids)
        row = {"timestamp": arrival_ms, "input_length": inputs, "output_length": outputs, "hash_ids": ids}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")


def swept(job: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Mean times of runs at a number of requests at once, by the times that the mocker has built in.

    Lengths of outputs differ by half of the mean: users who all ask for as much march in step.
    """
    rows, trace = [], folder / "sweep.jsonl"
    for at_once, inputs, outputs in job["sweep"]:
        count = 100 + 12 * at_once
        lengths = np.random.default_rng(at_once).integers(outputs // 2, outputs + outputs // 2, count)
        write_trace(trace, [[0] * count, [inputs] * count, lengths.tolist()])
        report = run_trace_replay(trace, extra_engine_args=engine(job["server"]), replay_concurrency=at_once)
        rows.append(
            {
                "concurrency": at_once,
                "input_tokens": inputs,
                "output_tokens": outputs,
                **{name: report[name] for name in ("mean_ttft_ms", "mean_tpot_ms")},
            }
        )
    return rows


def served(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Times of one instance after the other, or of instances that prefill and that decode."""
    server, trace = job["server"], folder / "trace.jsonl"
    write_trace(trace, job["requests"])
    if "prefill" not in job:
        more = (
            {}
            if job["built_in"]
            else {"planner_profile_data": tables(folder / "t.npz", server, 1e3 * server["prefill_s_per_step"])}
        )
        report = run_trace_replay(trace, extra_engine_args=engine(server, **more), num_workers=job["instances"])
        names = {"ttft_s": "ttft_ms", "tbt_s": "tpot_ms"}
        return {
            f"{which}_{ours}": report[f"{which}_{theirs}"] / 1e3
            for ours, theirs in names.items()
            for which in ("mean", "p99")
        }
    profile = tables(folder / "t.npz", server, 1e3 * (server["step_s"] + server["prefill_s_per_step"]))
    rows = folder / "rows.jsonl"
    run_trace_replay(
        trace,
        prefill_engine_args=engine(server, worker_type="prefill", planner_profile_data=profile),
        decode_engine_args=engine(server, worker_type="decode", planner_profile_data=profile),
        num_prefill_workers=job["prefill"],
        num_decode_workers=job["decode"],
        report_jsonl_path=str(rows),
    )
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    found.sort(key=lambda row: row["arrival_time_ms"])
    return {
        "ttft_s": [(row["source_held_ms"] - row["arrival_time_ms"]) / 1e3 for row in found],
        "decode_s": [(row["last_token_ms"] - row["source_held_ms"]) / 1e3 for row in found],
        "output_tokens": [row["output_length"] for row in found],
    }


def main() -> None:
    """The script."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        answer = (swept if "sweep" in job else served)(job, Path(folder))
    Path(job["output"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
