"""vLLM's custom data set: a prompt and a number of output tokens in every line, and no times."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from servegen_gpu.exports.blocks import given_ids, with_a_token
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.prompts import Vocabulary, prompt_lines, quoted
from servegen_gpu.formats.text import lines, numbers
from servegen_gpu.trace import Trace


def _prepare(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    slabs, block_tokens = given_ids(with_a_token(slabs, say), options)
    if not block_tokens:
        say("prompts begin differently, those of one conversation too; add --hash-ids for shared beginnings")
    return slabs


def _encode(words: Vocabulary, chunk: Trace) -> memoryview:
    pieces = ['{"prompt":', *quoted(words, chunk), ',"output_tokens":', numbers(chunk["output_tokens"], ""), "}\n"]
    return lines(pieces)


def _replay(of: Replay) -> list[str]:
    return [
        *("vllm", "bench", "serve", "--backend", "vllm", "--model", of.options.model, "--base-url", of.options.url),
        *("--dataset-name", "custom", "--dataset-path", of.path, "--custom-output-len", "-1", "--disable-shuffle"),
        *("--num-prompts", str(of.requests), "--request-rate", f"{of.requests / (of.duration_s or 1):.6g}"),
    ]


EXPORTS = (
    Export(
        "vllm-custom",
        "JSON lines with prompts of filler words, for vLLM",
        "vLLM 0.33.0, custom",
        "none",
        ("input_tokens", "output_tokens", "hash_ids"),
        partial(prompt_lines, "vllm-custom", _encode),
        _prepare,
        _replay,
        remark="a mean rate, because this format has no times; vllm-timed has",
        suffixes=(".jsonl",),
    ),
)
