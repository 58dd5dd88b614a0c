"""vLLM's data sets timed_trace, custom and BurstGPT, cut out of its wheel, on what we write for them."""

from __future__ import annotations

import argparse
import json
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
from checking import Exported, close, exported, run, same
from cut import definitions
from words import Words

OTHERS = ("BFCLDataset", "SpeedBench", "add_random_dataset_base_args", "add_random_multimodal_dataset_args")
"""Data sets that we do not write; the parser of options names them."""
USED = (ABC, abstractmethod, Callable, Mapping, dataclass, replace, cast)
SETS = definitions(
    {"SampleRequest", "BenchmarkDataset", "TimedTrace", "CustomDataset", "BurstGPTDataset", "add_dataset_parser"},
    {used.__name__: used for used in USED}
    | {"Any": Any, "argparse": argparse, "json": json, "logger": logging.getLogger("vllm"), "random": random}
    | {"np": np, "pd": pd, "DEFAULT_NUM_PROMPTS": 1_000}
    | {name: MagicMock() for name in OTHERS},
)
SERVER_OPTIONS = ("--backend", "--model", "--base-url", "--request-rate")
WORDS = Words()


def _parsed(export: Exported, data_set: str) -> argparse.Namespace:
    """What we print, as the program parses it: options of data sets by its own parser, others by name."""
    at = export.command.index("vllm")
    same("program", export.command[at : at + 3], ["vllm", "bench", "serve"])
    parser = argparse.ArgumentParser()
    SETS.add_dataset_parser(parser)
    for name in SERVER_OPTIONS:
        parser.add_argument(name)
    options = parser.parse_args(export.command[at + 3 :])
    same("data set", options.dataset_name, data_set)
    same("file", options.dataset_path, str(export.path))
    return options


def check_timed_trace() -> str:
    export = exported("vllm-timed")
    options = _parsed(export, "timed_trace")
    same("backend", options.backend, "vllm")
    requests = SETS.TimedTrace(**vars(options)).sample(WORDS, options.num_prompts)
    same("input tokens", [request.prompt_len for request in requests], export.input_tokens)
    same("output tokens", [request.expected_output_len for request in requests], export.output_tokens)
    close("times", [request.timestamp for request in requests], [us / 1e6 for us in export.arrival_us], 1e-6)
    return f"{len(requests)} requests"


def check_custom() -> str:
    export = exported("vllm-custom")
    options = _parsed(export, "custom")
    data = SETS.CustomDataset(dataset_path=str(export.path), random_seed=0, disable_shuffle=options.disable_shuffle)
    requests = data.sample(WORDS, options.num_prompts, output_len=options.custom_output_len)
    same("input tokens", [request.prompt_len for request in requests], export.input_tokens)
    same("output tokens", [request.expected_output_len for request in requests], export.output_tokens)
    return f"{len(requests)} requests"


def check_burstgpt() -> str:
    """In random order."""
    export = exported("burstgpt")
    options = _parsed(export, "burstgpt")
    requests = SETS.BurstGPTDataset(dataset_path=str(export.path), random_seed=0).sample(WORDS, options.num_prompts)
    sizes = [(request.prompt_len, request.expected_output_len) for request in requests]
    same("tokens", sorted(sizes), sorted(zip(export.input_tokens, export.output_tokens, strict=True)))
    return f"{len(requests)} requests"


run(check_timed_trace, check_custom, check_burstgpt)
