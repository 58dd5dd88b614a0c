"""Text files compressed with gzip or zstd, as the end of their name says: ``t.jsonl.gz``, ``t.csv.zst``.

Reading goes by the first bytes of a file, not by its name. A gzip file is one member for each piece of text, made on
the threads that encode. A zstd file is one frame, because some decoders stop at the end of the first (``decompressobj``
of Python's ``zstandard`` does), and is compressed while the next pieces are encoded.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.text import open_file
from servegen_gpu.trace import Trace

SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
OTHERS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"ARROW1": "an Arrow file",
    b"\x04\x22\x4d\x18": "LZ4",
}
"""What is no text, by its first bytes."""

GZIP_LEVEL = 1
"""Digits gain little from more: level 6 saves a tenth of the bytes and takes three times as long."""
READ_BYTES = 1 << 20


def codec_of(path: Path) -> str | None:
    """``"gzip"`` or ``"zstd"`` where the name of a file says so, else None."""
    return SUFFIXES.get(path.suffix.lower())


def plain_name(path: Path) -> Path:
    """The path without the suffix of its compression, if it has one: the rest says what the format is."""
    return path.with_suffix("") if codec_of(path) else path


def compressor(path: Path, known: Format) -> Format:
    """The format of a file with this name: `known`, or `known` in the compression that the name ends in.

    Raises
    ------
    OptionError
        If the name asks for it and the format is compressed inside.
    """
    codec = codec_of(path)
    if codec is None:
        return known
    if known.binary:
        refuse_compressed(path)
    return _in_members(known) if codec == "gzip" else _in_one_frame(known)


def refuse_compressed(path: Path) -> None:
    """Refuse a compressed file of a format that is compressed inside."""
    raise OptionError(
        f"{path.suffix} after a text format, such as t.jsonl{path.suffix}",
        f"{str(path)!r}: Parquet is compressed inside, and its readers need the end of the file first",
        f"leave out {path.suffix}",
    )


def open_text(path: Path) -> BinaryIO:
    """A text file opened for reading its bytes, decompressed where its first bytes say gzip or zstd.

    Raises
    ------
    OptionError
        If the first bytes are those of another kind of file (an archive, Parquet); from reading, where a compressed
        file is cut short or damaged.
    OSError
        If it cannot be opened.
    """
    file = open_file(path)
    try:
        begin = file.peek(8)[:8]
        for magic, what in OTHERS.items():
            if begin.startswith(magic):
                fix = "name it .parquet" if magic == b"PAR1" else "unpack it, or compress it with gzip or zstd"
                raise OptionError("a text file, plain or compressed with gzip or zstd", f"{what} in {path}", fix)
        for codec, magic in MAGIC.items():
            if begin.startswith(magic):
                return _decompressed(file, codec, path)
    except BaseException:
        file.close()
        raise
    return file


def _decompressed(file: BinaryIO, codec: str, path: Path) -> BinaryIO:
    import pyarrow as pa

    return io.BufferedReader(_Stream(pa.CompressedInputStream(file, codec), codec, path), READ_BYTES)


class _Stream(io.RawIOBase):
    """A stream of pyarrow's that says which file is at fault."""

    def __init__(self, stream: Any, codec: str, path: Path) -> None:
        self._stream, self._codec, self._path = stream, codec, path

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        try:
            return int(self._stream.readinto(into))
        except OSError as error:
            got = f"{self._path}: {error}"[:300]
            fix = "it is cut short or damaged: copy or write it again"
            raise OptionError(f"a whole {self._codec} file", got, fix) from error

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Member(bytes):
    """Text that is compressed already."""


def _member(text: Any) -> _Member:
    """The text as a gzip file without a name or time."""
    packing = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return _Member(packing.compress(memoryview(text).cast("B")) + packing.flush())


def _in_members(known: Format) -> Format:
    """A format in gzip: every chunk is a member, and so is what the writer puts between them."""

    def encode(chunk: Trace) -> _Member:
        return _member(known.encode(chunk))

    @contextmanager
    def writer(head: Trace, sink: Sink) -> Iterator[Append]:
        def write(data: Any) -> None:
            sink.write(data if isinstance(data, _Member) else _member(data))

        before = sink.size
        with known.writer(head, _as_sink(write)) as append:
            yield append
        if sink.size == before:
            write(b"")  # an empty file is no gzip file

    return replace(known, encode=encode, writer=writer)


def _in_one_frame(known: Format) -> Format:
    """A format in zstd: chunks are compressed in order, while the next ones are encoded."""

    @contextmanager
    def writer(head: Trace, sink: Sink) -> Iterator[Append]:
        import pyarrow as pa

        file = _File(sink)
        try:
            stream = pa.CompressedOutputStream(file, "zstd")
            with known.writer(head, _as_sink(stream.write)) as append:
                yield append
            stream.close()
        finally:
            file.over = True

    return replace(known, writer=writer)


def _as_sink(write: Callable[[Any], object]) -> Any:
    """What the writer of a text format needs of a sink."""
    return SimpleNamespace(write=write)


class _File(io.RawIOBase):
    """A sink as a file that pyarrow writes into: also after a failure, when it takes a stream down."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self.over = sink, False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.over:
            self._sink.write(data)
        return len(data)
