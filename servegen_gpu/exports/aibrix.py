"""JSON lines of AIBrix's benchmarks: requests by time, with prompts; here one request in every line.

A line may hold several requests of one time; lines of equal times do the same. Later turns of a session are sent behind
their history, once the answer before them is there, so they have their new tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from servegen_gpu.exports.blocks import given_ids, with_a_token
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.prompts import Vocabulary, prompt_lines, quoted
from servegen_gpu.exports.rows import decimal, joined, only_where
from servegen_gpu.exports.sessions import as_deltas
from servegen_gpu.formats.text import lines, numbers
from servegen_gpu.trace import Trace


def _prepare(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    slabs, block_tokens = given_ids(with_a_token(slabs, say), options)
    return as_deltas(slabs, block_tokens, options.deltas, say)


def _encode(words: Vocabulary, chunk: Trace) -> memoryview:
    pieces = ['{"timestamp":', decimal(chunk["arrival_us"], 3), ',"requests":[{"prompt":', *quoted(words, chunk)]
    pieces += [',"prompt_length":', numbers(chunk["input_tokens"], "")]
    pieces += [',"output_length":', numbers(chunk["output_tokens"], "")]
    if "conversation" in chunk:
        name = joined(',"session_id":"', numbers(chunk["conversation"], ""), '"')
        pieces.append(only_where(chunk["conversation"] >= 0, name))
    return lines([*pieces, "}]}\n"])


def _replay(of: Replay) -> list[str]:
    return [
        *("python", "-m", "client.client", "--workload-path", of.path, "--endpoint", of.options.url),
        *("--model", of.options.model, "--streaming", "--output-file-path", "output.jsonl"),
    ]


EXPORTS = (
    Export(
        "aibrix",
        "JSON lines with prompts of filler words, for AIBrix",
        "AIBrix of 2026, benchmarks/client",
        "ms, 0.001",
        ("arrival_us", "input_tokens", "output_tokens", "conversation", "hash_ids"),
        partial(prompt_lines, "aibrix", _encode),
        _prepare,
        _replay,
        inputs="new",
        remark="in the folder benchmarks of AIBrix; it waits for whole milliseconds",
        suffixes=(".jsonl",),
    ),
)
