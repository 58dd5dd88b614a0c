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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from servegen_gpu.exports.blocks import with_a_token, with_ids
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.rows import decimal, joined, only_where
from servegen_gpu.exports.sessions import as_deltas
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, lines, numbers
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

MILLISECONDS, SECONDS = 3, 6
"""Digits of a time behind the point: always to the microsecond."""


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
    """

    digits: int = MILLISECONDS
    block_tokens: int = 512
    sessions: bool = False
    deltas: bool = False
    positive: bool = False


def _prepare(dialect: Dialect, slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    """Slabs with ids of blocks and, for deltas, with new tokens in place of inputs."""
    if dialect.positive:
        slabs = with_a_token(slabs, say)
    slabs, block_tokens = with_ids(slabs, options, dialect.block_tokens, say)
    return as_deltas(slabs, block_tokens, options.deltas, say) if dialect.deltas else slabs


def _encode(dialect: Dialect, chunk: Trace) -> memoryview:
    """The chunk's lines."""
    pieces: list[pa.Array | str] = ["{"]
    if dialect.sessions and "conversation" in chunk:
        name = joined('"session_id":"', numbers(chunk["conversation"], ""), '",')
        pieces.append(only_where(chunk["conversation"] >= 0, name))
    pieces += ['"timestamp":', decimal(chunk["arrival_us"], dialect.digits)]
    for key, column, end in (("input_length", "input_tokens", ""), ("output_length", "output_tokens", "")):
        pieces += [f',"{key}":', numbers(chunk[column], end)]
    pieces += [',"hash_ids":[', numbers(chunk["hash_ids"], ","), "]}\n"]
    return lines(pieces)


@contextmanager
def writer(head: Trace, sink: Sink) -> Iterator[Append]:
    """Lines, and nothing before them."""
    yield sink.write


def _export(name: str, what: str, dialect: Dialect, replay: Callable[[Replay], str]) -> Export:
    file = Format(".jsonl", TEXT_CHUNK_ROWS, partial(_encode, dialect), writer, sidecar=True, name=name)
    return Export(name, what, lambda _: file, partial(_prepare, dialect), replay)


def _aiperf(of: Replay) -> str:
    blocks = f" --isl-block-size {of.block_tokens}" if of.block_tokens != Dialect.block_tokens else ""
    return (
        f"aiperf profile --model {of.options.model} --url {of.options.url} --endpoint-type chat --streaming"
        f" --tokenizer {of.tokenizer} --input-file {of.path} --custom-dataset-type mooncake_trace"
        f" --fixed-schedule{blocks}"
    )


def _dynamo(trace_format: str, of: Replay) -> str:
    engine = f'{{"block_size":{of.block_tokens}}}'
    return (
        f"python -m dynamo.replay {of.path} --replay-mode offline --trace-format {trace_format}"
        f" --trace-block-size {of.block_tokens} --extra-engine-args '{engine}'"
    )


def _guidellm(of: Replay) -> str:
    data = (
        f'{{"kind":"trace_synthetic","source":{{"kind":"json_file","path":"{of.path}"}},"timestamp_column":"timestamp",'
        '"prompt_tokens_column":"input_length","output_tokens_column":"output_length"}'
    )
    return (
        f"guidellm run --profile kind=replay,schedule_turn=timestamp --data '{data}'"
        f" --backend kind=openai_http,target={of.options.url},model={of.options.model}"
        f" --tokenizer kind=hf_auto,model={of.tokenizer}"
    )


def _vllm(of: Replay) -> str:
    return (
        f"PYTHONHASHSEED=0 vllm bench serve --model {of.options.model} --base-url {of.options.url}"
        f" --dataset-name timed_trace --dataset-path {of.path} --timed-trace-chunk-hash-size {of.block_tokens}"
        f" --num-prompts {of.requests}"
    )


def _sglang(of: Replay) -> str:
    return (
        f"python -m sglang.bench_serving --backend sglang --base-url {of.options.url} --model {of.options.model}"
        f" --dataset-name mooncake --dataset-path {of.path} --num-prompts {of.requests} --use-trace-timestamps"
    )


EXPORTS = (
    _export("mooncake", "JSON lines of Mooncake's traces: many readers", Dialect(positive=True), _aiperf),
    _export("sglang", "the same, for SGLang's bench_serving", Dialect(), _sglang),
    _export("guidellm", "the same in seconds, for GuideLLM", Dialect(SECONDS), _guidellm),
    _export("vllm-timed", "the same in seconds, for vLLM's timed_trace", Dialect(SECONDS, 16), _vllm),
    _export(
        "dynamo",
        "with sessions, whole inputs, for Dynamo's replay",
        Dialect(sessions=True, positive=True),
        partial(_dynamo, "mooncake"),
    ),
    _export(
        "dynamo-delta",
        "with sessions, new tokens only, for Dynamo's replay",
        Dialect(sessions=True, deltas=True, positive=True),
        partial(_dynamo, "mooncake-delta"),
    ),
    _export(
        "aiperf",
        "with sessions, new tokens only, for AIPerf",
        Dialect(sessions=True, deltas=True, positive=True),
        _aiperf,
    ),
)
