"""JSON lines for LLMServingSim: nanoseconds, whole inputs, every request on its own.

Its cache of prefixes works on ids of tokens, of which a trace has none.
"""

from __future__ import annotations

from servegen_gpu.exports.export import Export, Replay, as_it_is
from servegen_gpu.exports.rows import json_lines
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, lines, numbers
from servegen_gpu.trace import Trace

CLUSTER = "configs/cluster/single_node_single_instance.json"


def _encode(chunk: Trace) -> memoryview:
    pieces = ['{"input_toks":', numbers(chunk["input_tokens"], "")]
    pieces += [',"output_toks":', numbers(chunk["output_tokens"], "")]
    pieces += [',"arrival_time_ns":', numbers(chunk["arrival_us"] * 1000, ""), "}\n"]
    return lines(pieces)


def _replay(of: Replay) -> list[str]:
    return ["python", "-m", "serving", "--cluster-config", CLUSTER, "--dataset", of.path]


EXPORTS = (
    Export(
        "llmservingsim",
        "JSON lines for the simulator LLMServingSim",
        "LLMServingSim of August 2026",
        "ns, 1000",
        ("arrival_us", "input_tokens", "output_tokens"),
        lambda _: json_lines("llmservingsim", _encode, TEXT_CHUNK_ROWS),
        as_it_is,
        _replay,
    ),
)
