"""A tokenizer with a token for each word: prompts have exactly the lengths that a trace states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

UNKNOWN = "unk"


def directory_of(hub: Path, text: str) -> Path:
    """A Hugging Face tokenizer of the words of a text, saved where the hub's cache keeps ``local/words``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    frequent = [word for word, _ in Counter(text.split()).most_common(8_000) if word != UNKNOWN]
    vocabulary = {word: i for i, word in enumerate([UNKNOWN, *frequent])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    model = hub / "models--local--words"
    revision = "0" * 40
    snapshot = model / "snapshots" / revision
    tokenizer.save_pretrained(snapshot)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(revision)
    return snapshot


class Words:
    """As much of such a tokenizer as vLLM's and SGLang's data sets ask for, without a package."""

    vocab_size = 1_000
    all_special_ids: tuple[int, ...] = ()

    def get_vocab(self) -> dict[str, int]:
        return {f"w{i}": i for i in range(self.vocab_size)}

    def decode(self, ids: list[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    def encode(self, text: str) -> list[str]:
        return text.split()

    def __call__(self, text: str) -> Any:
        class Encoded:
            input_ids = text.split()

        return Encoded

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return " ".join(message["content"] for message in messages)
