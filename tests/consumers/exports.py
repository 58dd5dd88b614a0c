"""Small traces, written in every format, and what is in them: ``exports.py FOLDER``.

``expected.json`` holds the columns of traces as they were in memory, not as any reader of this package sees a file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import servegen_gpu as sg
from servegen_gpu.clients.stated.distributions import LogNormal, Pmf
from servegen_gpu.exports import EXPORTS
from servegen_gpu.exports.export import ExportOptions
from servegen_gpu.request.columns import Ragged

OPTIONS = ExportOptions(model="local/words")
BLOCK_TOKENS, SYSTEM_TOKENS = 64, 100
OWN = ("parquet", "csv", "jsonl")


def chat() -> sg.Trace:
    """A quarter of a minute of 20 clients: single requests, and conversations whose inputs grow by their history."""
    turns = sg.TurnModel(
        0.6,
        turns=Pmf([2, 3, 4], [3, 2, 1]),
        gap_s=LogNormal(median=2.5, sigma=0.4),
        growth="history",
        new_tokens=LogNormal(median=80, sigma=1, max=700),
        session_s=60,
    )
    client = sg.client(
        count=20,
        rate=0.4,
        input_tokens=LogNormal(median=300, sigma=1, max=1_500),
        output_tokens=LogNormal(median=30, sigma=0.8, max=150),
        context_tokens=32_768,
    )
    trace = sg.generate(sg.pool([client]).with_conversations(turns), duration="15s", seed=3)
    return trace.with_hash_ids(BLOCK_TOKENS, system_tokens=SYSTEM_TOKENS)


def tables() -> dict[str, sg.Trace]:
    """Traces of all categories."""
    short: dict[str, Any] = {"duration": "10m", "seed": 5}
    reason = sg.generate(sg.population("deepseek-r1", clients=200), rate=5, **short)
    return {
        "language": sg.generate(sg.population("m-small", clients=100), rate=20, **short),
        "reason": reason,
        "multimodal": sg.generate(sg.population("mm-omni", clients=50), rate=5, **short),
        "hash-ids": reason.with_hash_ids(16, system_tokens=300),
        "dense": reason.with_hash_ids(16, system_tokens=300).with_dense_ids(),
        "empty": reason.rows(0, 0),
    }


def column_sums(trace: sg.Trace) -> dict[str, Any]:
    """Of each column the sum, modulo 2**64; of a column of lists also their number of items."""
    found: dict[str, Any] = {}
    for name, column in trace.columns.items():
        values = column.values if isinstance(column, Ragged) else column
        total = int(values.astype(np.uint64).sum(dtype=np.uint64))
        found[name] = [total, len(values)] if isinstance(column, Ragged) else total
    return found


def main(folder: Path) -> None:
    """Write everything."""
    trace = chat()
    names = ("arrival_us", "input_tokens", "output_tokens", "conversation", "turn", "new_tokens")
    expected: dict[str, Any] = {
        "traces": {"chat": {name: trace[name].tolist() for name in names}},
        "exports": {},
        "block_tokens": BLOCK_TOKENS,
        "hit_tokens": int(sg.prefix_hits(trace, BLOCK_TOKENS, system_tokens=SYSTEM_TOKENS).sum()) * BLOCK_TOKENS,
        "tables": {},
    }
    for name in (*OWN, *EXPORTS):
        file = f"chat-{name}" + (f".{name}" if name in OWN else EXPORTS[name].format(OPTIONS).suffix)
        written = trace.write(folder / file, name, replace(OPTIONS, dense_ids=True) if name == "jsonl" else OPTIONS)
        expected["exports"][name] = {"file": file, "trace": "chat", "command": written.replay}
    for name, table in tables().items():
        for encoding in ("delta", "plain"):
            file = f"{name}-{encoding}.parquet"
            table.write(folder / file, options=ExportOptions(encoding=encoding))
            expected["tables"][f"{name} {encoding}"] = {"file": file, "rows": len(table), "sums": column_sums(table)}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
