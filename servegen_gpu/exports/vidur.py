"""CSV for Vidur: columns of its package and of its repository side by side.

Its package keeps rows of one date, and scales times and lengths unless it is told not to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servegen_gpu.exports.export import Export, Replay, as_it_is
from servegen_gpu.exports.rows import csv_table, decimal
from servegen_gpu.formats.text import numbers
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

DATE = "2023-08-21"
MOST_TOKENS = 2**31


def _fields(chunk: Trace) -> dict[str, pa.Array | str]:
    time, inputs = decimal(chunk["arrival_us"], 6), numbers(chunk["input_tokens"], "")
    outputs = numbers(chunk["output_tokens"], "")
    return {
        "Date": DATE,
        "Time": time,
        "PromptTokenCount": inputs,
        "CompletionTokenCount": outputs,
        "arrived_at": time,
        "num_prefill_tokens": inputs,
        "num_decode_tokens": outputs,
    }


def _replay(of: Replay) -> list[str]:
    option = "--trace_request_generator_config"
    return [
        *("python", "-m", "vidur.main", "--request_generator_config_type", "trace_replay"),
        *(f"{option}_trace_file", of.path, f"{option}_date", DATE, f"{option}_max_tokens", str(MOST_TOKENS)),
        *(f"{option}_time_scale_factor", "1", f"{option}_prefill_scale_factor", "1"),
        *(f"{option}_decode_scale_factor", "1"),
    ]


EXPORTS = (
    Export(
        "vidur",
        "CSV for the simulator Vidur",
        "Vidur 0.0.26 and its repository",
        "s, 0.000001",
        ("arrival_us", "input_tokens", "output_tokens"),
        lambda _: csv_table("vidur", _fields),
        as_it_is,
        _replay,
    ),
)
