"""TraceV2 of BLIS (inference-sim): a CSV file, and beside it a header in YAML.

Inputs are whole, and rounds of a session are counted from the first one in the file. A trace does not know how long
clients think, so no ``think_time_us`` is written, and a replay with sessions waits for the time between arrivals.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.rows import csv_lines, csv_writer, only_where
from servegen_gpu.exports.turns import with_rounds
from servegen_gpu.formats.atomic import Sink, is_special
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, numbers
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MODALITIES
from servegen_gpu.trace import Trace, arrow_numbers

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

HEADER = b"""trace_version: 3
time_unit: microseconds
mode: generated
warm_up_requests: 0
"""
HEADER_SUFFIX = ".yaml"
MEASURED = ("send_time_us", "first_chunk_time_us", "last_chunk_time_us", "num_chunks")
"""What a server would have shown; 0 is unknown."""


def _prepare(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    return with_rounds(slabs)


def _fields(chunk: Trace) -> dict[str, pa.Array | str]:
    """The 27 columns, which its reader takes by position."""
    alone = "conversation" not in chunk
    session = "" if alone else only_where(chunk["conversation"] >= 0, numbers(chunk["conversation"], ""))
    text = chunk["text_tokens" if "text_tokens" in chunk else "input_tokens"]
    return (
        {
            "request_id": numbers(chunk.first_row + np.arange(len(chunk)), ""),
            "client_id": numbers(chunk["client"], "") if "client" in chunk else "",
            **dict.fromkeys(("tenant_id", "slo_class"), ""),
            "session_id": session,
            "round_index": numbers(chunk["round"], ""),
            "prefix_group": "",
            "prefix_length": "0",
            "streaming": "true",
            "input_tokens": numbers(chunk["input_tokens"], ""),
            "output_tokens": numbers(chunk["output_tokens"], ""),
            "text_tokens": numbers(text, ""),
        }
        | {f"{modality}_tokens": _items(chunk, f"{modality}_tokens") for modality in MODALITIES}
        | {"reason_ratio": _reason_ratio(chunk), "model": "", "deadline_us": "0", "server_input_tokens": "0"}
        | {"arrival_time_us": numbers(chunk["arrival_us"], "")}
        | dict.fromkeys(MEASURED, "0")
        | {"status": "ok", "error_message": "", "finish_reason": ""}
    )


def _items(chunk: Trace, name: str) -> pa.Array | str:
    """Tokens of all items of every request."""
    if name not in chunk:
        return "0"
    items: Ragged = chunk[name]
    sums: NDArray[np.int64] = np.append(0, np.cumsum(items.values, dtype=np.int64))[items.offsets]
    return numbers(np.diff(sums), "")


def _reason_ratio(chunk: Trace) -> pa.Array | str:
    import pyarrow as pa
    import pyarrow.compute as pc

    if "reason_tokens" not in chunk:
        return "0"
    reason, output = chunk["reason_tokens"], np.maximum(chunk["output_tokens"], 1)
    return pc.cast(pc.divide(pc.cast(arrow_numbers(reason), pa.float64()), arrow_numbers(output)), pa.string())


@contextmanager
def _writer(head: Trace, sink: Sink) -> Iterator[Append]:
    if is_special(sink.target):
        raise OptionError("a file, because a header goes beside it", f"{sink.target}", "write to t.csv")
    with csv_writer(_fields, head, sink) as append:
        yield append
    sink.beside[HEADER_SUFFIX] = HEADER


def _replay(of: Replay) -> list[str]:
    path = os.path.realpath(of.path) if os.path.islink(of.path) else of.path  # the header is beside the file itself
    files = ["--trace-header", path + HEADER_SUFFIX, "--trace-data", path]
    return ["blis", "replay", *files, "--model", of.options.model]


FILE = Format(
    ".csv", TEXT_CHUNK_ROWS, partial(csv_lines, _fields), _writer, sidecar=True, name="blis", beside=(HEADER_SUFFIX,)
)
EXPORTS = (
    Export(
        "blis",
        "TraceV2 for the simulator BLIS: CSV, and a header in YAML beside it",
        "inference-sim of 2026",
        "us, 1",
        (
            *("arrival_us", "client", "input_tokens", "output_tokens", "reason_tokens", "text_tokens"),
            "conversation",
        ),
        lambda _: FILE,
        _prepare,
        _replay,
        items="tokens by kind",
        remark="--session-mode closed-loop sends later turns after the answer before them",
        suffixes=(".csv",),
    ),
)
