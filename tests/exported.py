"""Exported files read back with plain json and csv, as columns of a trace."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

Columns = dict[str, list[Any]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Objects of JSON lines, their numbers exact."""
    return [json.loads(line, parse_float=Decimal) for line in path.read_bytes().splitlines()]


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def us(time: Any, per_second: int) -> int:
    """Whole microseconds, exactly."""
    exact = Decimal(time) * (10**6 // per_second) if per_second <= 10**6 else Decimal(time) / (per_second // 10**6)
    assert exact == int(exact)
    return int(exact)


def _mooncake(per_second: int, path: Path) -> Columns:
    rows = rows_of(path)
    columns: Columns = {
        "arrival_us": [us(row["timestamp"], per_second) for row in rows],
        "input_tokens": [row["input_length"] for row in rows],
        "output_tokens": [row["output_length"] for row in rows],
        "hash_ids": [row["hash_ids"] for row in rows],
    }
    for key in ("client", "reason_tokens"):
        if rows and key in rows[0]:
            columns[key] = [row[key] for row in rows]
    if any("session_id" in row for row in rows):
        columns["conversation"] = [int(row.get("session_id", "-1")) for row in rows]
    return columns


def _bailian(path: Path) -> Columns:
    rows = rows_of(path)
    root = {}
    for row in rows:
        root[row["chat_id"]] = root.get(row["parent_chat_id"], row["chat_id"])
    return {
        "arrival_us": [us(row["timestamp"], 1) for row in rows],
        "input_tokens": [row["input_length"] for row in rows],
        "output_tokens": [row["output_length"] for row in rows],
        "hash_ids": [row["hash_ids"] for row in rows],
        "turn": [row["turn"] for row in rows],
        "conversation": [root[row["chat_id"]] for row in rows],
    }


def _burstgpt(path: Path) -> Columns:
    rows = table_of(path)
    for row in rows:
        assert row["Model"] == "GPT-4"
        assert int(row["Total tokens"]) == int(row["Request tokens"]) + int(row["Response tokens"])
    return {
        "arrival_us": [us(row["Timestamp"], 1) for row in rows],
        "input_tokens": [int(row["Request tokens"]) for row in rows],
        "output_tokens": [int(row["Response tokens"]) for row in rows],
    }


def _azure(path: Path) -> Columns:
    rows = table_of(path)
    begin = datetime(2023, 11, 16)
    times = []
    for row in rows:
        text, last = row["TIMESTAMP"][:-1], row["TIMESTAMP"][-1]
        assert last == "0"
        past = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f") - begin
        times.append((past.days * 86_400 + past.seconds) * 10**6 + past.microseconds)
    return {
        "arrival_us": times,
        "input_tokens": [int(row["ContextTokens"]) for row in rows],
        "output_tokens": [int(row["GeneratedTokens"]) for row in rows],
    }


def _vidur(path: Path) -> Columns:
    rows = table_of(path)
    for row in rows:
        assert row["Date"] == "2023-08-21"
        assert [row[old] for old in ("Time", "PromptTokenCount", "CompletionTokenCount")] == [
            row[new] for new in ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
        ]
    return {
        "arrival_us": [us(row["Time"], 1) for row in rows],
        "input_tokens": [int(row["PromptTokenCount"]) for row in rows],
        "output_tokens": [int(row["CompletionTokenCount"]) for row in rows],
    }


def _llmservingsim(path: Path) -> Columns:
    rows = rows_of(path)
    return {
        "arrival_us": [us(row["arrival_time_ns"], 10**9) for row in rows],
        "input_tokens": [row["input_toks"] for row in rows],
        "output_tokens": [row["output_toks"] for row in rows],
    }


def _blis(path: Path) -> Columns:
    rows = table_of(path)
    columns: Columns = {
        "arrival_us": [int(row["arrival_time_us"]) for row in rows],
        "input_tokens": [int(row["input_tokens"]) for row in rows],
        "output_tokens": [int(row["output_tokens"]) for row in rows],
        "text_tokens": [int(row["text_tokens"]) for row in rows],
        "client": [int(row["client_id"]) for row in rows],
        "conversation": [int(row["session_id"] or -1) for row in rows],
    }
    columns["reason_tokens"] = [round(float(row["reason_ratio"]) * int(row["output_tokens"])) for row in rows]
    return columns


def _vllm_custom(path: Path) -> Columns:
    rows = rows_of(path)
    return {
        "input_tokens": [len(row["prompt"].split()) for row in rows],
        "output_tokens": [row["output_tokens"] for row in rows],
        "hash_ids": [row["prompt"].split() for row in rows],
    }


def _aibrix(path: Path) -> Columns:
    lines = rows_of(path)
    assert all(len(line["requests"]) == 1 for line in lines)
    rows = [line["requests"][0] for line in lines]
    return {
        "arrival_us": [us(line["timestamp"], 1000) for line in lines],
        "input_tokens": [row["prompt_length"] for row in rows],
        "output_tokens": [row["output_length"] for row in rows],
        "conversation": [int(row.get("session_id", "-1")) for row in rows],
        "hash_ids": [row["prompt"].split() for row in rows],
    }


def _multi_turn(path: Path) -> Columns:
    turns = []
    for line in rows_of(path):
        assert line["timestamp"] == line["turns"][0]["timestamp"]
        turns += [(turn, int(line.get("session_id", "-1"))) for turn in line["turns"]]
    return {
        "arrival_us": [us(turn["timestamp"], 1000) for turn, _ in turns],
        "input_tokens": [len(turn["text"].split()) for turn, _ in turns],
        "output_tokens": [turn["output_length"] for turn, _ in turns],
        "conversation": [name for _, name in turns],
        "hash_ids": [turn["text"].split() for turn, _ in turns],
    }


def _milliseconds(path: Path) -> Columns:
    return _mooncake(1000, path)


def _seconds(path: Path) -> Columns:
    return _mooncake(1, path)


READERS: dict[str, Callable[[Path], Columns]] = {
    **dict.fromkeys(("mooncake", "sglang", "dynamo", "dynamo-delta", "aiperf"), _milliseconds),
    **dict.fromkeys(("guidellm", "vllm-timed"), _seconds),
    **dict.fromkeys(("azure", "inference-perf"), _azure),
    "bailian": _bailian,
    "burstgpt": _burstgpt,
    "vllm-custom": _vllm_custom,
    "aiperf-multi-turn": _multi_turn,
    "aibrix": _aibrix,
    "blis": _blis,
    "vidur": _vidur,
    "llmservingsim": _llmservingsim,
}
