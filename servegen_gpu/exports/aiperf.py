"""AIPerf's own formats: a session in every line, with prompts; and rates in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from servegen_gpu.exports.blocks import given_ids, with_a_token
from servegen_gpu.exports.export import Export, ExportOptions, Replay, Say
from servegen_gpu.exports.prompts import Vocabulary, prompt_lines, quoted
from servegen_gpu.exports.rows import decimal, either, joined, only_where
from servegen_gpu.exports.sessions import as_deltas
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, lines, numbers, scalar
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.columns import Column
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import checked_count, grown, microseconds, windows_of

VERSION = "AIPerf 0.13.0"
LEAST_QPS = 1e-6


def profile(of: Replay, file_option: str = "--input-file") -> list[str]:
    """How every replay with AIPerf begins."""
    return [
        *("aiperf", "profile", "--model", of.options.model, "--url", of.options.url, "--endpoint-type", "chat"),
        *("--streaming", "--tokenizer", of.tokenizer, file_option, of.path),
    ]


def _sessions(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    """The whole trace, session by session in order of their first turns, with the turns that open and close one."""
    slabs, block_tokens = given_ids(with_a_token(slabs, say), options)
    parts = list(as_deltas(slabs, block_tokens, options.deltas, say))
    if not parts:
        return
    trace = Trace.concat(parts)
    say(f"a line is a session, so all {len(trace):,} requests were held in memory")
    row = np.arange(len(trace))
    session, opens = row, np.ones(len(trace), np.bool_)
    if "conversation" in trace:
        name = trace["conversation"]
        name = np.where(name < 0, -1 - row, name)
        _, first, where = np.unique(name, return_index=True, return_inverse=True)
        session = first[where.ravel()]
        order = np.argsort(session, kind="stable")
        session = session[order]
        opens = np.diff(session, prepend=-1) != 0
        trace = trace.take(order)
    closes = np.append(opens[1:], True)[: len(opens)]
    yield Trace.trusted(trace.columns | {"opens": opens, "closes": closes}, trace.provenance)


def _session_lines(words: Vocabulary, chunk: Trace) -> memoryview:
    """The chunk's turns. A line states its first time once more: AIPerf looks for times there only."""
    opening = scalar('{"timestamp":')
    if "conversation" in chunk:
        name = joined('{"session_id":"', numbers(chunk["conversation"], ""), '","timestamp":')
        opening = either(chunk["conversation"] >= 0, name, opening)
    time = decimal(chunk["arrival_us"], 3)
    pieces = [either(chunk["opens"], joined(opening, time, ',"turns":['), scalar(",")), '{"timestamp":', time]
    pieces += [',"text":', *quoted(words, chunk), ',"output_length":', numbers(chunk["output_tokens"], ""), "}"]
    return lines([*pieces, only_where(chunk["closes"], scalar("]}\n"))])


def _rates(slabs: Iterator[Trace], options: ExportOptions, say: Say) -> Iterator[Trace]:
    """Two points for every window, at its begin and at its last microsecond, with the requests and length of it.

    AIPerf goes from point to point in straight lines, so two equal ones make a step. It refuses a rate of 0.
    """
    window_us = max(microseconds(options.window_s), 2)
    counts, end_us, provenance = np.zeros(0, np.int64), 2, None
    for slab in slabs:
        provenance = slab.provenance if provenance is None else provenance
        end_us = max(end_us, round((duration_of(slab.provenance) or 0) * 1e6))
        if len(slab):
            window = windows_of(slab["arrival_us"], window_us)
            first, number = int(window[0]), int(window[-1]) + 1
            counts = grown(counts, number)
            counts[first:number] += np.bincount(window - first)
            end_us = max(end_us, int(slab["arrival_us"][-1]) + 2)
    if provenance is None:
        return
    end_us += end_us % window_us == 1  # two points need two microseconds
    number = checked_count(-(-end_us // window_us))
    requests = grown(counts, number)[:number]
    if silent := int((requests == 0).sum()):
        say(f"{silent:,} windows without requests have {LEAST_QPS:g} requests/s, because AIPerf refuses 0")
    begin = np.arange(number) * window_us
    end = np.minimum(begin + window_us, end_us)
    points: dict[str, Column] = {
        "arrival_us": np.stack((begin, end - 1), axis=1).ravel(),
        "requests": np.repeat(requests, 2),
        "length_us": np.repeat(end - begin, 2),
    }
    yield Trace.trusted(points, provenance)


def _points(chunk: Trace) -> memoryview:
    import pyarrow as pa
    import pyarrow.compute as pc

    qps = np.maximum(chunk["requests"] * 1e6 / chunk["length_us"], LEAST_QPS)
    rate = pc.cast(pa.Array.from_buffers(pa.float64(), len(qps), [None, pa.py_buffer(qps)]), pa.string())
    later = np.arange(len(chunk)) + chunk.first_row > 0
    pieces = [only_where(later, scalar(",\n")), '{"time_s":', decimal(chunk["arrival_us"], 6)]
    return lines([*pieces, ',"qps":', rate, "}"])


@contextmanager
def _list(head: Trace, sink: Sink) -> Iterator[Append]:
    sink.write(b"[")
    yield sink.write
    sink.write(b"]\n")


def _replay_sessions(of: Replay) -> list[str]:
    return [*profile(of), "--custom-dataset-type", "multi_turn", "--fixed-schedule"]


def _replay_rates(of: Replay) -> list[str]:
    seconds = f"{of.duration_s:g}"
    return [*profile(of, "--request-rate-series"), "--no-fixed-schedule", "--benchmark-duration", seconds]


RATES = Format(".json", TEXT_CHUNK_ROWS, _points, _list, sidecar=True, name="aiperf-rates")
EXPORTS = (
    Export(
        "aiperf-multi-turn",
        "a session in every line, with prompts of filler words",
        f"{VERSION}, multi_turn",
        "ms, 0.001",
        ("arrival_us", "input_tokens", "output_tokens", "conversation", "hash_ids"),
        partial(prompt_lines, "aiperf-multi-turn", _session_lines),
        _sessions,
        _replay_sessions,
        inputs="new",
    ),
    Export(
        "aiperf-rates",
        "requests per second in windows of time",
        f"{VERSION}, --request-rate-series",
        "s, windows",
        (),
        lambda _: RATES,
        _rates,
        _replay_rates,
        inputs="none",
    ),
)
