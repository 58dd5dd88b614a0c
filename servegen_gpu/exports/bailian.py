"""JSON lines of Qwen-Bailian's traces: seconds, blocks of 16 tokens, whole inputs, turns linked to the turn before.

A row's ``chat_id`` is its row number. ``type`` says what came with the text: image, video, audio, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from servegen_gpu.exports.aiperf import profile
from servegen_gpu.exports.blocks import with_a_token, with_ids
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say, saying
from servegen_gpu.exports.rows import decimal, either, id_lines
from servegen_gpu.exports.turns import with_previous
from servegen_gpu.formats.text import lines, numbers, scalar
from servegen_gpu.request.schema import MODALITIES
from servegen_gpu.trace import Trace

BLOCK_TOKENS = 16


def _prepare(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    slabs, _ = with_ids(with_a_token(slabs, say), options, BLOCK_TOKENS, say)
    note = "AIPerf sends whole inputs of later turns behind their history: replay conversations from aiperf files"
    return with_previous(saying(slabs, note, _talks, say))


def _talks(slab: Trace) -> bool:
    return "conversation" in slab and bool((slab["conversation"] >= 0).any())


def _encode(chunk: Trace) -> memoryview:
    row = chunk.first_row + np.arange(len(chunk))
    turn = chunk["turn"] if "turn" in chunk else np.ones(len(chunk), np.int32)
    kind = scalar("text")
    for modality in reversed(MODALITIES):
        if (name := f"{modality}_tokens") in chunk:
            kind = either(chunk[name].lengths > 0, scalar(modality), kind)
    pieces = ['{"chat_id":', numbers(row, ""), ',"parent_chat_id":', numbers(chunk["previous"], "")]
    pieces += [',"timestamp":', decimal(chunk["arrival_us"], 6)]
    pieces += [',"input_length":', numbers(chunk["input_tokens"], "")]
    pieces += [',"output_length":', numbers(chunk["output_tokens"], ""), ',"type":"', kind]
    pieces += ['","turn":', numbers(turn, ""), ',"hash_ids":[', numbers(chunk["hash_ids"], ","), "]}\n"]
    return lines(pieces)


def _replay(of: Replay) -> list[str]:
    blocks = [] if of.block_tokens == BLOCK_TOKENS else ["--isl-block-size", str(of.block_tokens)]
    return [*profile(of), "--custom-dataset-type", "bailian_trace", "--fixed-schedule", *blocks]


EXPORTS = (
    Export(
        "bailian",
        "JSON lines of Qwen-Bailian's traces",
        "AIPerf 0.13.0",
        "s, 0.000001",
        ("arrival_us", "input_tokens", "output_tokens", "conversation", "turn", "hash_ids"),
        lambda _: id_lines("bailian", _encode),
        _prepare,
        _replay,
        items="the first kind",
    ),
)
