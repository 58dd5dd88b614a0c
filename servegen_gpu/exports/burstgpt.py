"""CSV of BurstGPT in its first order of columns, which vLLM reads by position.

vLLM takes rows of GPT-4 only, so every row has that model. Times have all their digits: readers take fractions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servegen_gpu.exports.blocks import with_a_token
from servegen_gpu.exports.export import Export, Replay
from servegen_gpu.exports.rows import csv_table, decimal, either
from servegen_gpu.formats.text import numbers, scalar
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa


def _fields(chunk: Trace) -> dict[str, pa.Array | str]:
    inputs, outputs = chunk["input_tokens"], chunk["output_tokens"]
    log: pa.Array | str = "API log"
    if "conversation" in chunk:
        log = either(chunk["conversation"] >= 0, scalar("Conversation log"), scalar(log))
    return {
        "Timestamp": decimal(chunk["arrival_us"], 6),
        "Model": "GPT-4",
        "Request tokens": numbers(inputs, ""),
        "Response tokens": numbers(outputs, ""),
        "Total tokens": numbers(inputs.astype("int64") + outputs, ""),
        "Log Type": log,
    }


def _replay(of: Replay) -> list[str]:
    return [
        *("vllm", "bench", "serve", "--backend", "vllm", "--model", of.options.model, "--base-url", of.options.url),
        *("--dataset-name", "burstgpt", "--dataset-path", of.path, "--num-prompts", str(of.requests)),
    ]


EXPORTS = (
    Export(
        "burstgpt",
        "CSV of BurstGPT",
        "vLLM 0.33.0 (lengths), AIPerf 0.13.0",
        "s, 0.000001",
        ("arrival_us", "input_tokens", "output_tokens"),
        lambda _: csv_table("burstgpt", _fields),
        lambda slabs, _, say: with_a_token(slabs, say),
        _replay,
        remark="at once, in random order; aiperf profile --custom-dataset-type burst_gpt_trace keeps times",
    ),
)
