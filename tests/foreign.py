"""Small files of other programs, as each of them wants them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROWS = 40
Row = dict[str, Any]


def requests(unit: float, block: int, *, deltas: bool = True) -> list[Row]:
    """Mooncake's rows: ten sessions of two turns, and twenty requests alone; five a second, in `unit` seconds."""
    rows, fresh = [], iter(range(100, 100_000))
    open_turns: dict[int, Row] = {}
    for i in range(ROWS):
        row: Row = {"timestamp": round(i * 0.2 / unit, 6), "input_length": 3 * block + 1 + i % (block - 1)}
        row["output_length"] = 20 + i
        ids = [next(fresh) for _ in range(4)]
        if i % 2 == 0:
            session = i // 4
            row["session_id"] = f"s{session}"
            if session in open_turns:
                before = open_turns[session]
                total = before["input_length"] + before["output_length"]
                if deltas:
                    row["input_length"] = block + 5
                    ids = [next(fresh) for _ in range(-(-row["input_length"] // block))]
                else:
                    row["input_length"] = total + 50
                    ids = before["hash_ids"][:3] + [next(fresh) for _ in range(-(-row["input_length"] // block) - 3)]
            open_turns[session] = row | {"hash_ids": ids}
        row["hash_ids"] = ids
        rows.append(row)
    return rows


def without(rows: list[Row], *keys: str) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def bailian() -> list[Row]:
    return [
        {
            "chat_id": i,
            "parent_chat_id": i - 1 if i % 4 == 1 else -1,
            "timestamp": i * 0.2,
            "input_length": 20 + i if i % 4 == 1 else 50 + i,
            "output_length": 5 + i,
            "type": "text",
            "turn": 2 if i % 4 == 1 else 1,
            "hash_ids": [1000 * i + j for j in range(-(-(20 + i if i % 4 == 1 else 50 + i) // 16))],
        }
        for i in range(ROWS)
    ]


def multi_turn() -> list[Row]:
    return [
        {
            "session_id": f"s{i}",
            "timestamp": 200.0 * i,
            "turns": [
                {"timestamp": 200.0 * i, "text": "Hi", "output_length": 5},
                {"timestamp": 200.0 * i + 70_000, "text": "More", "output_length": 7},
            ],
        }
        for i in range(ROWS)
    ]


def table(names: str, row: str) -> str:
    """A CSV file; `row` is a template for i, tokens a and b, and a time t."""
    return names + "\n" + "".join(row.format(i=i, a=100 + i, b=20 + i, t=i * 0.2) + "\n" for i in range(ROWS))


def lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def flat(i: int) -> Row:
    return {"input_toks": 3 + i, "output_toks": 2, "arrival_time_ns": i * 200_000_000, "input_tok_ids": [*range(3 + i)]}


BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
BLIS = "request_id,slo_class,input_tokens,output_tokens,arrival_time_us,think_time_us"
GOOD = {
    "aiperf:mooncake_trace": lines(requests(1e-3, 512)),
    "aiperf:bailian_trace": lines(bailian()),
    "aiperf:burst_gpt_trace": table(BURSTGPT, "{t:.3f},GPT-4,{a},{b},0,API log"),
    "aiperf:multi_turn": lines(multi_turn()),
    "dynamo": lines(requests(1e-3, 512, deltas=False)),
    "dynamo-delta": lines(requests(1e-3, 512)),
    "guidellm:mooncake": lines(requests(1.0, 512, deltas=False)),
    "guidellm:trace_synthetic": lines(without(requests(1.0, 512, deltas=False), "hash_ids")),
    "guidellm:servegen": table("arrival_us,client,input_tokens,output_tokens", "{i}00000,0,{a},{b}"),
    "vllm:timed_trace": lines(requests(1.0, 16, deltas=False)),
    "vllm:custom": lines([{"prompt": f"Tell me {i}", "output_tokens": 5 + i} for i in range(ROWS)]),
    "vllm:burstgpt": table(BURSTGPT, "{t:.3f},GPT-4,{a},{b},0,API log"),
    "sglang": lines(requests(1e-3, 512, deltas=False)),
    "vidur:Time": table("Date,Time,PromptTokenCount,CompletionTokenCount", "2023-08-21,{t:.3f},{a},{b}"),
    "vidur:arrived_at": table("arrived_at,num_prefill_tokens,num_decode_tokens", "{t:.3f},{a},{b}"),
    "inference-perf": table("TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:17:{i:02}.9799600,{a},{b}"),
    "aibrix": lines(
        [{"timestamp": 200 * i, "requests": [{"prompt": "Hi", "prompt_length": 1 + i}] * 2} for i in range(ROWS)]
    ),
    "blis": table(BLIS, "{i},batch,{a},{b},{i}00000,7"),
    "llmservingsim:flat": lines([flat(i) for i in range(ROWS)]),
    "llmservingsim:sessions": lines(
        [{"session_id": "s", "arrival_time_ns": i * 200_000_000, "sub_requests": [flat(i)] * 2} for i in range(ROWS)]
    ),
    "lmcache": lines(requests(1e-3, 512, deltas=False)),
}
"""By program and kind: a file that it takes as it is meant."""


def suffix(text: str) -> str:
    return ".jsonl" if text.startswith("{") else ".csv"


def write(folder: Path, text: str | bytes, name: str = "") -> Path:
    path = folder / (name or f"f{suffix(text if isinstance(text, str) else text.decode('latin-1'))}")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
