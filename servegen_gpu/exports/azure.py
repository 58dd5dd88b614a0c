"""CSV of Azure's LLM inference traces: a time of day with seven digits behind the point, two counts of tokens.

A trace whose provenance has an ``origin`` (ISO 8601, in UTC) begins there, others at 2023-11-16 00:00:00, the day of
the published traces. Traces with images get the column NumImages, as those of multimodal models of 2025 have it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say, as_it_is, saying
from servegen_gpu.exports.rows import csv_table, joined
from servegen_gpu.formats.text import numbers
from servegen_gpu.trace import Trace, arrow_numbers

if TYPE_CHECKING:
    import pyarrow as pa

EPOCH, DAY, LATEST = (np.datetime64(day, "us") for day in ("1970-01-01", "2023-11-16", "3000-01-01"))
MICROSECONDS = len("2023-11-16T18:17:03.979960")


def _begin_us(provenance: Mapping[str, Any]) -> int:
    """Microseconds from 1970 to the trace's start."""
    stated = str(provenance.get("origin", DAY)).removesuffix("Z").removesuffix("+00:00")
    try:
        begin = np.datetime64(stated[:MICROSECONDS], "us")
    except (ValueError, OverflowError):
        begin = DAY
    return int((begin if EPOCH <= begin < LATEST else DAY).astype(np.int64))


def _fields(images: bool, chunk: Trace) -> dict[str, pa.Array | str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    time = arrow_numbers(chunk["arrival_us"] + _begin_us(chunk.provenance)).view(pa.timestamp("us"))
    fields = {"TIMESTAMP": joined(pc.cast(time, pa.string()), "0")}
    if images and "image_tokens" in chunk:
        fields["NumImages"] = numbers(chunk["image_tokens"].lengths, "")
    fields["ContextTokens"] = numbers(chunk["input_tokens"], "")
    fields["GeneratedTokens"] = numbers(chunk["output_tokens"], "")
    return fields


def _with_images(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    note = f"{READER} takes NumImages for tokens of input: replay a file of the format inference-perf"
    return saying(slabs, note, lambda slab: "image_tokens" in slab, say)


def _replay_of_text(of: Replay) -> list[str]:
    return [] if "image_tokens" in of.columns else _replay(of)


def _replay(of: Replay) -> list[str]:
    seconds = max(ceil(of.duration_s), 1)
    stage = {"rate": max(of.requests, 1) / seconds, "duration": seconds}
    return [
        *("inference-perf", "--api.type", "completion", "--api.streaming", "true"),
        *("--data.type", "random", "--data.trace.file", of.path),
        *("--load.type", "trace_replay", "--load.trace.file", of.path, "--load.stages", json.dumps([stage])),
        *("--server.type", "vllm", "--server.base_url", of.options.url, "--server.model_name", of.options.model),
        *("--tokenizer.pretrained_model_name_or_path", of.tokenizer),
    ]


def _export(name: str, what: str, readers: str, images: bool) -> Export:
    return Export(
        name,
        what,
        readers,
        "date and time, 0.000001 s",
        ("arrival_us", "input_tokens", "output_tokens"),
        lambda _: csv_table(name, lambda chunk: _fields(images, chunk)),
        _with_images if images else as_it_is,
        _replay_of_text if images else _replay,
        items="number of images" if images else "",
    )


READER = "inference-perf 0.7.0"
EXPORTS = (
    _export("azure", "CSV of Azure's traces; with NumImages where there are images", f"many; {READER}", True),
    _export("inference-perf", "CSV of Azure's traces, never with NumImages", READER, False),
)
