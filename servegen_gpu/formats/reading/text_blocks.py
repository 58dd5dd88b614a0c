"""A text file as blocks of whole lines in UTF-8, each with the number of its first line; memory is bounded.

UTF-8 may have a byte order mark, UTF-16 and UTF-32 must have one. gzip and zstd are unpacked on the way.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.compression import open_text

BLOCK_BYTES = 1 << 23
MAX_LINE_BYTES = 1 << 26
"""Ids of a request with millions of tokens fit; a file without line breaks is refused before it fills the memory."""

WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks; the longer ones first, since one begins with another."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, the number of the first of them, from 1, and how many they are."""

    text: bytes
    first_line: int
    lines: int

    @classmethod
    def of(cls, text: bytes, first_line: int) -> Block:
        """Some lines, counted."""
        return cls(text, first_line, text.count(b"\n") + (not text.endswith(b"\n")))


def text_blocks(path: str | os.PathLike[str], *, quoted: bool = False) -> Iterator[Block]:
    """Whole lines of a text file, `BLOCK_BYTES` at a time or a little more; none of an empty file.

    Parameters
    ----------
    path : path
    quoted : bool
        Line breaks between quotes do not end a line, as in CSV files.

    Raises
    ------
    OptionError
        If the file cannot be read or is no text, or a line is longer than `MAX_LINE_BYTES`; it names the line.
    """
    line, rest = 1, b""
    for piece in _utf8(Path(path)):
        text = rest + piece if rest else piece
        end = _end(text, quoted)
        if not end and len(text) > MAX_LINE_BYTES:
            got = f"more in {path}, line {line}"
            fix = "a quote there has no end, or this is no text" if quoted and b'"' in text else "break it into lines"
            raise OptionError(f"lines of at most {MAX_LINE_BYTES >> 20} MiB", got, fix)
        if end:
            lines = text.count(b"\n", 0, end)
            yield Block(text[:end], line, lines)
            line += lines
        rest = text[end:]
    if rest:
        yield Block.of(rest, line)


@dataclass(frozen=True, eq=False)
class Records:
    """Where the rows of a block are; blank lines are no rows.

    Attributes
    ----------
    begins, ends : int64[rows]
        In bytes; the line break is left out.
    lines : int64[rows]
        In which line of the block each row begins, from 0.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]


def records(text: bytes, *, quoted: bool = False) -> Records:
    """Where the rows of a block are; it is slow and for messages. Lines of spaces are blank, unless `quoted`."""
    raw = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", np.uint8)
    breaks = np.flatnonzero(raw == ord("\n"))
    ends = breaks[_outside(raw, breaks)] if quoted and b'"' in text else breaks
    if not len(ends) or ends[-1] < len(raw) - 1:  # a quote without an end
        ends = np.append(ends, len(raw) - 1)
    begins = np.concatenate(([0], ends[:-1] + 1))
    visible = (raw != ord("\r")) & (raw != ord("\n")) if quoted else (raw != ord(" ")) & ((raw < 9) | (raw > 13))
    shown = np.concatenate(([0], np.cumsum(visible)))
    some = shown[ends] > shown[begins]
    return Records(begins[some], ends[some], np.searchsorted(breaks, begins[some]))


def first_bad(text: bytes, found: Records, readable: Callable[[bytes], bool]) -> int:
    """The first row of a block with which it cannot be read, by halving."""
    low, high = 0, len(found.ends)  # the rows before `low` can be read, those before `high` cannot
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if readable(text[: found.ends[middle - 1]]) else (low, middle)
    return low


def _end(text: bytes, quoted: bool) -> int:
    """Behind the last line that is whole; 0 if none is."""
    if not quoted or b'"' not in text:
        return text.rfind(b"\n") + 1
    raw = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(raw == ord("\n"))
    outside = np.flatnonzero(_outside(raw, breaks))
    return int(breaks[outside[-1]]) + 1 if len(outside) else 0


def _outside(raw: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an even number of quotes comes before each place, bool[n]."""
    return np.asarray(np.searchsorted(np.flatnonzero(raw == ord('"')), at) % 2 == 0)


def _utf8(path: Path) -> Iterator[bytes]:
    """Pieces of the text; the first one is checked to be text."""
    try:
        with open_text(path) as file:
            yield from _decoded(file, path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, OptionError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OptionError("a text file that can be read", f"{path}: {reason}", "check the file") from None


def _decoded(file: BinaryIO, path: Path) -> Iterator[bytes]:
    piece = file.read(BLOCK_BYTES)
    if piece.startswith(b"PAR1"):
        raise OptionError("a text file", f"a Parquet file in {path}, which is compressed inside", "unpack it")
    wide = next((name for mark, name in WIDE.items() if piece.startswith(mark)), None)
    if wide is None and b"\0" in piece[: 1 << 16]:
        fix = "name a Parquet file .parquet, or save it as text"
        raise OptionError("a text file", f"{path}: a binary file, byte {piece.index(0):,} is null", fix)
    decoder = codecs.getincrementaldecoder(wide)() if wide else None
    piece = piece.removeprefix(codecs.BOM_UTF8)
    while piece:
        yield decoder.decode(piece).encode() if decoder else piece
        piece = file.read(BLOCK_BYTES)
    if decoder:
        decoder.decode(b"", final=True)
