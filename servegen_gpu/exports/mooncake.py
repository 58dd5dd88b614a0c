"""Mooncake's JSON lines and their dialects: a time, two lengths, and ids of the input's blocks.

====================  ============  ==========================================  =================
format                times         later turns of a conversation               blocks by default
====================  ============  ==========================================  =================
mooncake, sglang      milliseconds  whole inputs, rows on their own             512 tokens
guidellm              seconds       whole inputs, rows on their own             512
vllm-timed            seconds       whole inputs, rows on their own             16
dynamo                milliseconds  whole inputs, turns share a ``session_id``  512
aiperf, dynamo-delta  milliseconds  new tokens, turns share a ``session_id``    512
====================  ============  ==========================================  =================

Mooncake (FAST '25) has the first. A reader of the last puts the conversation so far, its own answers included, in front
of what is new. Fed with whole inputs, it would replay the history twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from servegen_gpu.exports.aiperf import profile
from servegen_gpu.exports.blocks import with_a_token, with_ids, with_small_ids
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.rows import decimal, id_lines, joined, only_where
from servegen_gpu.exports.sessions import as_deltas
from servegen_gpu.formats.text import lines, numbers
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

MILLISECONDS, SECONDS = 3, 6
"""Digits of a time behind the point: always to the microsecond."""
KEYS = {
    "input_length": "input_tokens",
    "output_length": "output_tokens",
    "client": "client",
    "reason_tokens": "reason_tokens",
}
"""Readers pass over keys that they do not know; the last two are ours."""


@dataclass(frozen=True)
class Dialect:
    """What a reader expects.

    Attributes
    ----------
    digits : int
        `MILLISECONDS` or `SECONDS`.
    block_tokens : int
        Of a block, unless the trace has ids or the user says otherwise.
    sessions : bool
        Turns of a conversation share a ``session_id``.
    deltas : bool
        Later turns have new tokens only.
    positive : bool
        A request without a token of input or of output is refused.
    small_ids : bool
        The reader cuts ids of blocks to 32 bits.
    """

    digits: int = MILLISECONDS
    block_tokens: int = 512
    sessions: bool = False
    deltas: bool = False
    positive: bool = False
    small_ids: bool = False


def _prepare(dialect: Dialect, slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    """Slabs with ids of blocks and, for deltas, with new tokens in place of inputs."""
    if dialect.positive:
        slabs = with_a_token(slabs, say)
    slabs, block_tokens = with_ids(slabs, options, dialect.block_tokens, say)
    if dialect.deltas:
        slabs = as_deltas(slabs, block_tokens, options.deltas, say)
    if dialect.small_ids:
        say("ids of blocks are numbered 0, 1, 2, …, because the reader cuts them to 32 bits; all are kept in memory")
        slabs = with_small_ids(slabs)
    return slabs


def _encode(dialect: Dialect, chunk: Trace) -> memoryview:
    """The chunk's lines."""
    pieces: list[pa.Array | str] = ["{"]
    if dialect.sessions and "conversation" in chunk:
        name = joined('"session_id":"', numbers(chunk["conversation"], ""), '",')
        pieces.append(only_where(chunk["conversation"] >= 0, name))
    pieces += ['"timestamp":', decimal(chunk["arrival_us"], dialect.digits)]
    for key, column in KEYS.items():
        if column in chunk:
            pieces += [f',"{key}":', numbers(chunk[column], "")]
    pieces += [',"hash_ids":[', numbers(chunk["hash_ids"], ","), "]}\n"]
    return lines(pieces)


def _export(
    name: str,
    what: str,
    readers: str,
    dialect: Dialect,
    replay: Callable[[Replay], Sequence[str]],
    remark: str = "",
    suffixes: tuple[str, ...] = (),
) -> Export:
    return Export(
        name,
        what,
        readers,
        "ms, 0.001" if dialect.digits == MILLISECONDS else "s, 0.000001",
        ("arrival_us", *KEYS.values(), "hash_ids") + (("conversation",) if dialect.sessions else ()),
        lambda _: id_lines(name, partial(_encode, dialect)),
        partial(_prepare, dialect),
        replay,
        inputs="new" if dialect.deltas else "whole",
        remark=remark,
        suffixes=suffixes,
    )


def _aiperf(of: Replay) -> list[str]:
    words = [*profile(of), "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]
    return words if of.block_tokens == Dialect.block_tokens else [*words, "--isl-block-size", str(of.block_tokens)]


def _dynamo(trace_format: str, of: Replay) -> list[str]:
    return [
        *("python", "-m", "dynamo.replay", of.path, "--replay-mode", "offline", "--trace-format", trace_format),
        *("--trace-block-size", str(of.block_tokens)),
        *("--extra-engine-args", f'{{"block_size":{of.block_tokens}}}'),
    ]


def _guidellm(of: Replay) -> list[str]:
    data = {"kind": "mooncake", "source": {"kind": "json_file", "path": of.path}, "hash_id_block_size": of.block_tokens}
    return [
        *("guidellm", "run", "--profile", "kind=replay,schedule_turn=timestamp"),
        *("--data", json.dumps(data, separators=(",", ":"))),
        *("--backend", f"kind=openai_http,target={of.options.url},model={of.options.model}"),
        *("--tokenizer", f"kind=hf_auto,model={of.tokenizer}"),
    ]


def _vllm(of: Replay) -> list[str]:
    return [
        *("env", "PYTHONHASHSEED=0", "vllm", "bench", "serve", "--backend", "vllm"),
        *("--model", of.options.model, "--base-url", of.options.url, "--dataset-name", "timed_trace"),
        *("--dataset-path", of.path, "--timed-trace-chunk-hash-size", str(of.block_tokens)),
        *("--num-prompts", str(of.requests)),
    ]


def _sglang(of: Replay) -> list[str]:
    return [
        *("python", "-m", "sglang.bench_serving", "--backend", "sglang", "--base-url", of.options.url),
        *("--model", of.options.model, "--dataset-name", "mooncake", "--dataset-path", of.path),
        *("--num-prompts", str(of.requests), "--use-trace-timestamps"),
    ]


AIPERF, DYNAMO = "AIPerf 0.13.0", "Dynamo's replay, ai-dynamo 1.3.1"
AISIMULATE = "ai-dynamo 1.5 and later: aisimulate predict --stack dynamo --config YAML, with this file as the workload"
CLOSED_LOOP = Dialect(sessions=True, positive=True, small_ids=True)
EXPORTS = (
    _export("mooncake", "JSON lines of Mooncake's traces", f"many; {AIPERF}", Dialect(positive=True), _aiperf),
    _export(
        "sglang",
        "Mooncake's JSON lines for SGLang",
        "SGLang 0.5.23, bench_serving",
        Dialect(),
        _sglang,
        "its prompts are as long as their ids are many, whatever input_length says",
    ),
    _export(
        "guidellm",
        "Mooncake's JSON lines in seconds for GuideLLM",
        "GuideLLM 0.8.1",
        Dialect(SECONDS),
        _guidellm,
        suffixes=(".jsonl", ".json"),
    ),
    _export(
        "vllm-timed",
        "Mooncake's JSON lines in seconds for vLLM",
        "vLLM 0.33.0, timed_trace",
        Dialect(SECONDS, 16),
        _vllm,
    ),
    _export(
        "dynamo",
        "Mooncake's JSON lines with sessions, for Dynamo",
        DYNAMO,
        CLOSED_LOOP,
        partial(_dynamo, "mooncake"),
        AISIMULATE,
    ),
    _export(
        "dynamo-delta",
        "the same with new tokens only",
        DYNAMO,
        replace(CLOSED_LOOP, deltas=True),
        partial(_dynamo, "mooncake-delta"),
        AISIMULATE,
    ),
    _export(
        "aiperf",
        "Mooncake's JSON lines with sessions and new tokens only, for AIPerf",
        AIPERF,
        Dialect(sessions=True, deltas=True, positive=True),
        _aiperf,
    ),
)
