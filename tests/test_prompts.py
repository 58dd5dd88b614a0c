"""Prompts of filler words: how many, which begin alike, and words of a tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from exported import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from servegen_gpu import Trace
from servegen_gpu.errors import OptionError
from servegen_gpu.exports import prompts, write
from servegen_gpu.exports.export import ExportOptions

DIGITS = 10
"""Words that say a 64-bit number, of 7 bits each."""


def prompts_of(trace: Trace, folder: Path, **options: Any) -> list[str]:
    write(trace, folder / "p.jsonl", "vllm-custom", ExportOptions(**options))
    return [row["prompt"] for row in rows_of(folder / "p.jsonl")]


def asking(tokens: list[int], **more: Any) -> Trace:
    return Trace(
        {"arrival_us": list(range(len(tokens))), "input_tokens": tokens, "output_tokens": [1] * len(tokens)} | more
    )


def test_words_are_short_and_different():
    words = prompts.vocabulary(None)
    assert len(set(words.words.tolist())) == 128
    assert len(set(prompts.WORDS)) == len(prompts.WORDS) >= 128
    assert all(len(word) == 3 and word.isalpha() and word.islower() for word in prompts.WORDS)
    counts = np.unique(words.text, return_counts=True)[1]
    assert len(counts) == 128
    assert counts.min() > 300, "of 65,536 words, 512 on average"


@settings(max_examples=20, deadline=None)
@given(tokens=st.lists(st.sampled_from((1, 2, 10, 11, 65_535, 65_536, 65_537)) | st.integers(1, 3000), max_size=20))
def test_prompts_have_as_many_words_as_tokens(tokens: list[int], tmp_path_factory: Any):
    found = prompts_of(asking(tokens), tmp_path_factory.getbasetemp())
    assert [len(text.split(" ")) for text in found] == tokens
    assert all(set(text.split(" ")) <= set(prompts.WORDS[:128]) for text in found)


def test_prompts_begin_differently(tmp_path: Path):
    """Of n prompts, some two share their first word soon, but no two share as many as say their number."""
    found = prompts_of(asking([40] * 3000), tmp_path)
    assert len({" ".join(text.split()[:DIGITS]) for text in found}) == 3000
    assert len({" ".join(text.split()[:3]) for text in found}) > 2900
    assert len({text.split()[0] for text in found}) == 128


@pytest.mark.parametrize("block", [16, 512])
def test_equal_ids_are_equal_text(block: int, tmp_path: Path):
    rng = np.random.default_rng(0)
    pool = np.concatenate((np.arange(40), rng.integers(0, 2**62, 40), [2**63 - 1]))
    tokens = rng.integers(1, 5 * block, 60).tolist()
    ids = [rng.choice(pool, -(-n // block)).tolist() for n in tokens]
    found = prompts_of(asking(tokens, hash_ids=ids), tmp_path, block_tokens=block)
    text_of: dict[int, str] = {}
    for row, (text, count) in enumerate(zip(found, tokens, strict=True)):
        words = text.split()
        assert len(words) == count
        for at, one in enumerate(ids[row]):
            piece = " ".join(words[at * block : (at + 1) * block])
            whole = text_of.setdefault(one, piece)
            assert whole.startswith(piece) or piece.startswith(whole)
            text_of[one] = max(whole, piece, key=len)
    full = [piece for piece in text_of.values() if len(piece.split()) >= DIGITS]
    assert len(set(full)) == len(full) > 50


def test_long_prompts_are_encoded_in_pieces(tmp_path: Path, monkeypatch: Any):
    trace = asking([30, 1, 700, 3, 900, 2])
    whole = prompts_of(trace, tmp_path)
    monkeypatch.setattr(prompts, "MOST_TOKENS", 901)
    assert prompts_of(trace, tmp_path) == whole
    monkeypatch.setattr(prompts, "MOST_TOKENS", 899)
    with pytest.raises(OptionError, match="prompts of at most 899 tokens, got 900 in row 4"):
        prompts_of(trace, tmp_path)


def test_a_slice_has_the_prompts_of_the_whole(tmp_path: Path):
    trace = asking([20, 30, 40, 50])
    assert prompts_of(trace.rows(1, 3), tmp_path) == prompts_of(trace, tmp_path)[1:3]


class Tokenizer:
    """Knows some words, and cuts the others into letters."""

    def __init__(self, known: list[str], weight: int = 1) -> None:
        self.known, self.weight = known, weight

    def get_vocab(self) -> dict[str, int]:
        return {f"Ġ{word}": at for at, word in enumerate(self.known)}

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        assert not add_special_tokens
        sizes = [sum(1 if w in self.known else len(w) + 1 for w in text.split()) for text in texts]
        return [SimpleNamespace(ids=[0] * (size * self.weight if size > 100 else size)) for size in sizes]


def with_tokenizer(folder: Path, monkeypatch: Any, tokenizer: Tokenizer) -> str:
    (folder / "tokenizer.json").write_text("{}")
    module = ModuleType("tokenizers")
    module.Tokenizer = SimpleNamespace(from_file=lambda _: tokenizer)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokenizers", module)
    prompts.vocabulary.cache_clear()
    return str(folder)


@pytest.mark.parametrize(
    ("known", "used"),
    [
        (prompts.WORDS[:50], prompts.WORDS[:32]),  # a power of two of them
        (["the", *"abcdefghijklmnopqrst"], list("abcdefghijklmnop")),  # too few of three letters
        ([f"{a}{b}abcde" for a in "pqrs" for b in "pqrst"], [f"{a}{b}abcde" for a in "pqrs" for b in "pqrst"][:16]),
    ],
)
def test_words_of_a_tokenizer_are_one_token_each(known: list[str], used: list[str], tmp_path: Path, monkeypatch: Any):
    folder = with_tokenizer(tmp_path, monkeypatch, Tokenizer(known))
    found = prompts_of(asking([1, 5, 900] + [70] * 200), tmp_path, tokenizer=folder)
    assert [len(text.split()) for text in found] == [1, 5, 900] + [70] * 200
    assert {word for text in found for word in text.split()} == set(used)
    assert len({tuple(text.split()[:16]) for text in found[3:]}) == 200


@pytest.mark.parametrize("tokenizer", [Tokenizer([*"abc"]), Tokenizer(prompts.WORDS, weight=2)])
def test_a_tokenizer_without_such_words_is_refused(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: Any):
    folder = with_tokenizer(tmp_path, monkeypatch, tokenizer)
    with pytest.raises(OptionError, match="a tokenizer that knows 16 words of equal length"):
        prompts_of(asking([1]), tmp_path, tokenizer=folder)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: Any):
    with pytest.raises(OptionError, match=r"the directory of a Hugging Face tokenizer, with its tokenizer.json"):
        prompts_of(asking([1]), tmp_path, tokenizer="meta/model")
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(OptionError, match="pip install tokenizers"):
        prompts_of(asking([1]), tmp_path, tokenizer=str(tmp_path))


def test_a_real_tokenizer_counts_the_same(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"]
    )
    text = [" ".join(prompts.WORDS[k:] + prompts.WORDS[:k]) for k in range(20)]
    model.train_from_iterator([*text, *prompts.WORDS], trainer)
    model.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    model.save(str(tmp_path / "tokenizer.json"))
    prompts.vocabulary.cache_clear()
    tokens = [1, 2, 17, 999]
    found = prompts_of(asking(tokens), tmp_path, tokenizer=str(tmp_path))
    assert [len(model.encode(text, add_special_tokens=False).ids) for text in found] == tokens
