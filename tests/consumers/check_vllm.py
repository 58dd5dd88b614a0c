"""vLLM's data sets timed_trace, custom and BurstGPT, cut out of its wheel, on what we write for them."""

from __future__ import annotations

import json
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from checking import close, exported, run, same
from cut import definitions
from words import Words

USED = (ABC, abstractmethod, Callable, Mapping, dataclass, replace, cast)
SETS = definitions(
    {"SampleRequest", "BenchmarkDataset", "TimedTrace", "CustomDataset", "BurstGPTDataset"},
    {used.__name__: used for used in USED}
    | {"Any": Any, "json": json, "random": random, "np": np, "pd": pd, "logger": logging.getLogger("vllm")},
)
WORDS = Words()


def check_timed_trace() -> str:
    export = exported("vllm-timed")
    same("data set", export.option("dataset-name"), "timed_trace")
    keys = {"timestamp": "timestamp", "input_length": "input_length", "output_length": "output_length"}
    labels = {f"timed_trace_label_{name}": key for name, key in (keys | {"hash_ids": "hash_ids"}).items()}
    blocks = {"timed_trace_chunk_hash_size": export.option("timed-trace-chunk-hash-size")}
    data = SETS.TimedTrace(dataset_path=str(export.path), random_seed=0, **labels, **blocks)
    requests = data.sample(WORDS, int(export.option("num-prompts")))
    same("input tokens", [request.prompt_len for request in requests], export.input_tokens)
    same("output tokens", [request.expected_output_len for request in requests], export.output_tokens)
    close("times", [request.timestamp for request in requests], [us / 1e6 for us in export.arrival_us], 1e-6)
    return f"{len(requests)} requests"


def check_custom() -> str:
    export = exported("vllm-custom")
    data = SETS.CustomDataset(dataset_path=str(export.path), random_seed=0, disable_shuffle=True)
    requests = data.sample(WORDS, int(export.option("num-prompts")), output_len=int(export.option("custom-output-len")))
    same("shuffle", "--disable-shuffle" in export.command, True)
    same("input tokens", [request.prompt_len for request in requests], export.input_tokens)
    same("output tokens", [request.expected_output_len for request in requests], export.output_tokens)
    return f"{len(requests)} requests"


def check_burstgpt() -> str:
    """In random order."""
    export = exported("burstgpt")
    data = SETS.BurstGPTDataset(dataset_path=str(export.path), random_seed=0)
    requests = data.sample(WORDS, len(export.arrival_us))
    sizes = [(request.prompt_len, request.expected_output_len) for request in requests]
    same("tokens", sorted(sizes), sorted(zip(export.input_tokens, export.output_tokens, strict=True)))
    return f"{len(requests)} requests"


run(check_timed_trace, check_custom, check_burstgpt)
