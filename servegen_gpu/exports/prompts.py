"""Prompts with a given number of tokens: short words that common tokenizers know as one token each.

All words of a vocabulary are equally long, so a prompt is an array of words, and one gather makes those of many
requests. A prompt is one run of words, or one for each block of the input. A run begins with the digits of its number,
written in words, and goes on somewhere in a long text: equal numbers make equal runs, other numbers other ones as long
as the digits fit in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.exports.export import ExportOptions
from servegen_gpu.exports.rows import either, in_pieces, json_lines
from servegen_gpu.formats.base import Format
from servegen_gpu.formats.text import scalar
from servegen_gpu.law.philox import philox4x32
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

PROMPT_CHUNK_ROWS = 512
"""Rows whose prompts are in memory at once: megabytes, where other columns take bytes."""
MOST_TOKENS = 1 << 26
"""Of one prompt."""
PIECE_TOKENS = 1 << 21
"""Of prompts that a thread makes at once: 16 MB of text, and as much for each of a few copies."""
TEXT_WORDS = 1 << 16
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that products with it differ where numbers do, and differ in their first digits."""
LEAST_WORDS, MOST_WORDS = 16, 128
LENGTHS = (3, 1, 7)
"""Letters of words, the best first: with the space behind them, words are as long as numbers of a machine."""

LIST = """the and for are but not you all any can had her was one our out day get has him his how man new now old see
two way who boy did its let put say she too use act add age ago aid aim air arm art ask bad bag bar bed bet
big bit box bus buy car cat cup cut dog dry due ear eat end eye far fat few fit fix fly fun gas got hat hit
hot ice job key kid law lay led leg lie lot low map may men mix net nor odd off oil own pay per pet pop raw
red rid row run sea set sit six sky son sun tax ten tie tip top try van web win yes yet"""
WORDS = LIST.split()
"""One token each, with a space before them or not, to GPT-2, GPT-4, GPT-4o, Llama 2 and 3, and Mistral."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words of equal length, a power of two of them, and a long text made of them.

    Attributes
    ----------
    words : uint16[w], uint32[w] or uint64[w]
        The bytes of each, with a space behind.
    text : the same type, [TEXT_WORDS]
    """

    words: NDArray[Any]
    text: NDArray[Any]

    @property
    def bits(self) -> int:
        """Of a digit that a word stands for."""
        return len(self.words).bit_length() - 1


@lru_cache(maxsize=4)
def vocabulary(tokenizer: str | None) -> Vocabulary:
    """Words of one token each, to most tokenizers or to one of Hugging Face in a directory.

    Raises
    ------
    OptionError
        If there is no such tokenizer, or none of its tokens are words.
    """
    return _of_words(WORDS if tokenizer is None else _known_words(tokenizer))


def _of_words(words: list[str]) -> Vocabulary:
    """As many of the words as a whole number of bits can say."""
    count = min(1 << len(words).bit_length() - 1, MOST_WORDS)
    encoded = "".join(f"{word} " for word in words[:count]).encode()
    table = np.frombuffer(encoded, f"u{len(encoded) // count}")
    counter = (np.arange(TEXT_WORDS // 4, dtype=np.uint64), *(np.zeros(1, np.uint64),) * 3)
    digits = np.stack(philox4x32(np, counter, (0, 0))) % np.uint64(count)
    return Vocabulary(table, table[digits.ravel().astype(np.intp)])


def _known_words(directory: str) -> list[str]:
    """Words that a tokenizer makes one token of, wherever they stand."""
    file = Path(directory) / "tokenizer.json"
    if not file.is_file():
        raise OptionError(
            "the directory of a Hugging Face tokenizer, with its tokenizer.json",
            f"{directory!r}",
            "download it first, or leave out --tokenizer for words of about one token each",
        )
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found]
    except ImportError:
        raise OptionError(
            "the package tokenizers, which counts tokens for --tokenizer",
            "none installed",
            "pip install tokenizers, or leave out --tokenizer for words of about one token each",
        ) from None
    tokenizer = Tokenizer.from_file(str(file))

    def tokens(texts: list[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]

    pieces = sorted({piece.lstrip("Ġ▁ ") for piece in tokenizer.get_vocab()})
    for length in LENGTHS:
        letters = [piece for piece in pieces if len(piece) == length and piece.isascii() and piece.isalpha()]
        candidates = list(dict.fromkeys([*(word for word in WORDS if len(word) == length), *letters]))
        counts = tokens([f"{word} {word} {word}" for word in candidates])
        words = [word for word, count in zip(candidates, counts, strict=True) if count == 3]
        if len(words) < LEAST_WORDS:
            continue
        text = bytes(_of_words(words).text).decode().rstrip()
        if tokens([text]) == [TEXT_WORDS]:
            return words
    raise OptionError(
        f"a tokenizer that knows {LEAST_WORDS} words of equal length as one token each",
        f"none in {directory}",
        "take another, or leave out --tokenizer",
    )


def prompt_lines(name: str, encode: Callable[[Vocabulary, Trace], memoryview], options: ExportOptions) -> Format:
    """A file of lines with prompts, of words that the user's tokenizer knows."""
    words = vocabulary(options.tokenizer)
    return json_lines(name, partial(in_pieces, partial(encode, words), _tokens, PIECE_TOKENS), PROMPT_CHUNK_ROWS)


def _tokens(chunk: Trace) -> int:
    return int(chunk["input_tokens"].sum(dtype=np.int64))


def quoted(words: Vocabulary, chunk: Trace) -> tuple[pa.Array, pa.Array]:
    """Prompts of a chunk as JSON strings, in two pieces to be joined: the first quote, and the rest.

    Parameters
    ----------
    words : Vocabulary
    chunk : Trace
        With ``input_tokens``, and maybe with ``hash_ids``, one for every ``block_tokens`` of its provenance.
    """
    import pyarrow as pa

    tokens = chunk["input_tokens"].astype(np.int64)
    if len(tokens) and int(tokens.max()) > MOST_TOKENS:
        at = int(np.argmax(tokens))
        got = f"{tokens[at]:,} in row {chunk.first_row + at:,}"
        raise OptionError(f"prompts of at most {MOST_TOKENS:,} tokens", got, "write a format without prompts")
    text = _runs(words, *_numbers(chunk, tokens))
    width = words.words.itemsize
    ends = np.concatenate(([0], np.cumsum(tokens))) * width
    last = ends[1:][tokens > 0] - 1
    text.view(np.uint8)[last] = ord('"')
    opening = either(tokens > 0, scalar('"'), scalar('""'))
    offsets = pa.py_buffer(ends.astype(np.int32))
    return opening, pa.StringArray.from_buffers(len(tokens), offsets, pa.py_buffer(text))


def _numbers(chunk: Trace, tokens: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The number of every run of words and its length: of blocks, or of rows."""
    if "hash_ids" not in chunk:
        return (chunk.first_row + np.arange(len(chunk))).astype(np.uint64), tokens
    ids: Ragged = chunk["hash_ids"]
    block_tokens = chunk.provenance["hash_ids"]["block_tokens"]
    lengths = np.full(len(ids.values), block_tokens)
    some = ids.lengths > 0
    lengths[ids.offsets[1:][some] - 1] = (tokens[some] - 1) % block_tokens + 1
    return ids.values.astype(np.uint64), lengths


def _runs(words: Vocabulary, number: NDArray[np.uint64], tokens: NDArray[np.int64]) -> NDArray[Any]:
    """The words of all runs, end to end."""
    begin = np.cumsum(tokens) - tokens
    total = int(tokens.sum())
    mixed = (number + np.uint64(1)) * MIX
    from_ = (mixed >> np.uint64(20) & np.uint64(TEXT_WORDS - 1)).astype(np.int64)
    at = np.repeat((from_ - begin) % TEXT_WORDS, tokens)
    at += np.arange(total)
    at &= TEXT_WORDS - 1
    text: NDArray[Any] = words.text[at]
    mask = np.uint64(len(words.words) - 1)
    for digit in range(-(-64 // words.bits)):
        long = tokens > digit
        shift = np.uint64(max(64 - words.bits * (digit + 1), 0))
        text[begin[long] + digit] = words.words[(mixed[long] >> shift & mask).astype(np.intp)]
    return text
