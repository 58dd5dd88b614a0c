"""Small traces of conversations, and what readers of deltas make of them: plain loops, one request after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from servegen_gpu import Ragged, Trace

CONVERSATIONS = (0, 3, 2**53 + 1, 2**62)
ALONE = -(2**62)

Rows = list[tuple[int, int, int, int, int]]
"""Gap in microseconds, conversation or -1, new tokens, output tokens, client."""

ROWS: st.SearchStrategy[Rows] = st.lists(
    st.tuples(
        st.sampled_from((0, 1, 999, 1000, 1001, 123_456_789, 86_400_000_000)) | st.integers(0, 5_000_000),
        st.integers(-1, len(CONVERSATIONS) - 1),
        st.sampled_from((1, 15, 16, 17, 512)) | st.integers(1, 2_000),
        st.integers(1, 600),
        st.integers(0, 50),
    ),
    max_size=30,
)


def talk(rows: Rows, extra: str = "") -> Trace:
    """A trace whose inputs are history and new tokens; with the columns of reasoning, or of multimodal requests."""
    columns: dict[str, list[Any]] = {name: [] for name in NAMES}
    said: dict[int, tuple[int, int]] = {}
    at = 0
    for number, (gap, who, new, output, client) in enumerate(rows):
        at += gap
        turn, history = said.get(who, (0, 0)) if who >= 0 else (0, 0)
        values = (at, client, history + new, output, CONVERSATIONS[who] if who >= 0 else ALONE + number, turn + 1, new)
        for name, value in zip(NAMES, values, strict=True):
            columns[name].append(value)
        said[who] = (turn + 1, history + new + output)
    made: dict[str, Any] = {name: np.array(column, TYPES.get(name, np.int32)) for name, column in columns.items()}
    if extra == "reasoning":
        made["reason_tokens"] = made["output_tokens"] // 2
    if extra == "multimodal":
        made |= _items(made["input_tokens"])
    return Trace(made)


NAMES = ("arrival_us", "client", "input_tokens", "output_tokens", "conversation", "turn", "new_tokens")
TYPES = {"arrival_us": np.int64, "conversation": np.int64}


def _items(inputs: np.ndarray) -> dict[str, Any]:
    """Rows 0, 3, 6, … have two images, rows 1, 4, 7, … a video, the others text only."""
    row = np.arange(len(inputs))
    size = (inputs // 4).astype(np.int32)
    images = np.where(row % 3 == 0, 2, 0)
    videos = np.where(row % 3 == 1, 1, 0)

    def column(count: np.ndarray) -> Ragged:
        return Ragged(np.concatenate(([0], np.cumsum(count))).astype(np.int64), np.repeat(size, count))

    text = (inputs - (images + videos) * size).astype(np.int32)
    none = column(np.zeros(len(inputs), np.int64))
    return {"text_tokens": text, "image_tokens": column(images), "audio_tokens": none, "video_tokens": column(videos)}


def replayed(trace: Trace) -> list[int]:
    """Whole inputs as a reader of deltas has them: those of the trace, or one token more than the conversation."""
    said: dict[int, int] = {}
    inputs = []
    for name, whole, output in zip(
        *(trace[column].tolist() for column in ("conversation", "input_tokens", "output_tokens")), strict=True
    ):
        tokens = max(whole, said[name] + 1) if name in said and name >= 0 else whole
        inputs.append(tokens)
        said[name] = tokens + output
    return inputs


def cumulated(names: list[int], new: list[int], outputs: list[int]) -> list[int]:
    """Whole inputs from deltas, as a reader makes them."""
    said: dict[int, int] = {}
    inputs = []
    for name, tokens, output in zip(names, new, outputs, strict=True):
        inputs.append(tokens + (said.get(name, 0) if name >= 0 else 0))
        said[name] = inputs[-1] + output
    return inputs


def shortened(trace: Trace, less: list[int]) -> Trace:
    """The trace with inputs shorter by so much: contexts are cut."""
    inputs = np.maximum(trace["input_tokens"] - np.resize(less, len(trace)), 1).astype(np.int32)
    new = np.minimum(trace["new_tokens"], inputs)
    return Trace(trace.columns | {"input_tokens": inputs, "new_tokens": new})


def cut(trace: Trace, at: list[int]) -> list[Trace]:
    """The trace in slabs that end at some rows."""
    ends = sorted({min(row, len(trace)) for row in at} | {0, len(trace)})
    return [trace.rows(a, b) for a, b in pairwise(ends)] or [trace]
