"""SGLang's reader of Mooncake's traces, cut out of its wheel: it makes prompts of ids alone."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass

from checking import EXPECTED, Exported, close, exported, run, same
from cut import definitions
from words import Words

WORDS_A_BLOCK = 128
FIXED_WORDS = 10
"""Round 1: … Tell me a story based on this context."""


class Clock:
    """Of the reader: sleeping takes no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class DatasetRow:
    prompt: str
    prompt_len: int
    output_len: int


def _read(export: Exported) -> list[tuple[float, int, int]]:
    """Seconds, words of the prompt, and output tokens of every request."""
    clock = Clock()
    used = {"dataclass": dataclass, "json": json, "os": os, "BaseDataset": object, "DatasetRow": DatasetRow}
    names = {"MooncakeDataset", "get_mooncake_request_over_time"}
    cut = definitions(names, used | {"time": clock, "asyncio": clock})
    data = cut.MooncakeDataset(str(export.path), "mooncake", int(export.option("num-prompts"))).load()

    async def all_of_them() -> list[tuple[float, int, int]]:
        made = cut.get_mooncake_request_over_time(data, Words(), 1.0, 1)
        return [(clock.now_s, row.prompt_len, row.output_len) async for row in made]

    return asyncio.run(all_of_them())


def _check(name: str) -> str:
    export = exported(name)
    read = _read(export)
    close("times", [time_s for time_s, _, _ in read], export.times_s, 1e-6)
    same("output tokens", [tokens for _, _, tokens in read], export.output_tokens)
    blocks = [-(-tokens // EXPECTED["block_tokens"]) for tokens in export.input_tokens]
    # an id is one word with the first of its block, a block's last word is one with what follows
    same("words", [words - FIXED_WORDS for _, words, _ in read], [(WORDS_A_BLOCK - 1) * number for number in blocks])
    return f"{len(read)} requests"


def check_sglang() -> str:
    return _check("sglang")


run(check_sglang)
