"""Ids of blocks: blocks per second for blocks of several sizes, and what they add to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import servegen_gpu as sg

REQUESTS = 400_000


@pytest.fixture(scope="module")
def turns() -> sg.Trace:
    """Requests of conversations of one to five turns, 1,600 tokens on average."""
    rng = np.random.default_rng(1)
    tokens = np.clip(rng.lognormal(7, 1, REQUESTS), 1, 60_000).astype(np.int32)
    turn = rng.integers(1, 6, REQUESTS, dtype=np.int32)
    columns = {
        "arrival_us": np.arange(REQUESTS) * 100,
        "client": rng.integers(0, 1000, REQUESTS, dtype=np.int32),
        "input_tokens": tokens,
        "conversation": rng.integers(0, 2**62, REQUESTS),
        "turn": turn,
        "new_tokens": np.where(turn == 1, tokens, tokens // 3).astype(np.int32),
    }
    return sg.Trace(columns)


PROMPTS = {"none": 0, "1500": 1500, "drawn": sg.distributions.LogNormal(median=500, sigma=1, max=100_000)}


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("block_tokens", [16, 512])
def test_hash_ids(per: Callable[..., Any], turns: sg.Trace, block_tokens: int, prompts: str) -> None:
    blocks = int((-(-turns["input_tokens"] // block_tokens)).sum())
    per("block", blocks, lambda: sg.hash_ids(turns, block_tokens, system_tokens=PROMPTS[prompts]))


def test_dense(per: Callable[..., Any], turns: sg.Trace) -> None:
    per("block", len(sg.hash_ids(turns).values), lambda: sg.hash_ids(turns, dense=True))


def test_prefix_hits(per: Callable[..., Any], turns: sg.Trace) -> None:
    per("block", len(sg.hash_ids(turns).values), lambda: sg.prefix_hits(turns, system_tokens=1500))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_write(per: Callable[..., Any], benchmark: Any, turns: sg.Trace, tmp_path: Path, suffix: str) -> None:
    trace = turns.with_hash_ids()
    written = per("row", len(trace), trace.write, tmp_path / f"trace{suffix}")
    benchmark.extra_info["bytes_per_row"] = round(written.bytes / len(trace), 2)
