"""GuideLLM makes requests of our exports and of our own files; it trains nothing, so torch is stubbed."""

from __future__ import annotations

import json
import os
import sys
import warnings
from types import ModuleType
from typing import Any

from checking import EXPECTED, FOLDER, Exported, close, exported, run, same

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(FOLDER / "hugging-face")}
warnings.simplefilter("ignore")

import datasets  # noqa: E402, F401  (looks for torch, before there is a stub of it)
import transformers  # noqa: E402
from faker import Faker  # noqa: E402
from words import directory_of  # noqa: E402

PARTS = ("torch", "torch.utils", "torch.utils.data", "torch.utils.data.dataloader", "torch.utils.data.dataset")


class Anything:
    """Of torch, what is named in annotations and as a base."""

    def __class_getitem__(cls, _: Any) -> Any:
        return cls


for name in PARTS:
    part = ModuleType(name)
    part.__path__ = []
    vars(part).update(DataLoader=Anything, IterableDataset=Anything, Tensor=Anything)
    sys.modules[name] = part
from guidellm.data.deserializers import DatasetDeserializerFactory  # noqa: E402
from guidellm.schemas.data.entrypoints import DataArgs  # noqa: E402

for name in PARTS:
    del sys.modules[name]

latin = Faker()
latin.seed_instance(0)
TOKENIZER = transformers.AutoTokenizer.from_pretrained(directory_of(FOLDER / "hub", " ".join(latin.texts(500, 2_000))))


def _read(data: dict[str, Any]) -> list[tuple[float, int, int]]:
    """Seconds from the first request on, words of the prompt, and output tokens of every request."""
    args = DataArgs.model_validate(data)
    dataset = DatasetDeserializerFactory.deserialize(args, lambda: TOKENIZER, 42)
    found = []
    for row in dataset:
        (turn,) = json.loads(row["conversation_turns"])["turns"]
        of = {name: values[0] for name, values in turn["columns"].items()}
        tokens, time_s = of["prompt_tokens_count_column"], of["relative_timestamp_column"]
        same("stated input tokens", tokens, len(TOKENIZER.encode(of["text_column"])))
        found.append((time_s, tokens, of["output_tokens_count_column"]))
    return found


def _check(export: Exported, data: dict[str, Any]) -> str:
    read = _read(data)
    close("times", [time_s for time_s, _, _ in read], export.times_s, 1e-6)
    same("input tokens", [tokens for _, tokens, _ in read], export.input_tokens)
    same("output tokens", [tokens for _, _, tokens in read], export.output_tokens)
    return f"{len(read)} requests"


def check_guidellm() -> str:
    """What we print as ``--data``."""
    return _check(exported("guidellm"), json.loads(exported("guidellm").option("data")))


def check_guidellm_with_blocks() -> str:
    export = exported("guidellm")
    source = {"kind": "json_file", "path": str(export.path)}
    return _check(export, {"kind": "mooncake", "source": source, "hash_id_block_size": EXPECTED["block_tokens"]})


def check_own_parquet() -> str:
    return _check_own("parquet", "parquet_file")


def check_own_csv() -> str:
    return _check_own("csv", "csv_file")


def check_own_json_lines() -> str:
    return _check_own("jsonl", "json_file")


def _check_own(name: str, kind: str) -> str:
    export = exported(name)
    columns = {"timestamp": "arrival_us", "prompt_tokens": "input_tokens", "output_tokens": "output_tokens"}
    data = {f"{key}_column": column for key, column in columns.items()}
    source = {"kind": kind, "path": str(export.path)}
    return _check(export, {"kind": "trace_synthetic", "source": source, "time_scale": 1e-6, **data})


run(check_guidellm, check_guidellm_with_blocks, check_own_parquet, check_own_csv, check_own_json_lines)
