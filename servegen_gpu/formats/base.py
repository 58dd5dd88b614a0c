"""What a file format is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servegen_gpu.formats.atomic import Sink
from servegen_gpu.trace import Trace

Append = Callable[[Any], None]


@dataclass(frozen=True)
class Format:
    """One file format: how to write it and how to read it back.

    Attributes
    ----------
    suffix : str
        Files with this suffix have this format unless told otherwise; empty if only asking by name gives it.
    chunk_rows : int
        Rows that `encode` receives at a time: always exactly so many, except in the last chunk and before long lists
        of ids (`flow.chunks`), however the trace was cut into slabs. That makes files of equal rows equal byte by byte.
    encode : callable
        What a chunk is in the file. It depends on the chunk alone: several threads encode several at once. It is
        appended before its thread encodes again, and may be in memory that is then used again.
    writer : callable
        ``writer(head, sink)`` is a context whose value appends what `encode` returned; `head` is the trace without its
        rows. Chunks come from other threads, one after the other.
    read_slabs : callable, optional
        Reads a file of this format back, slab by slab.
    sidecar : bool
        Provenance does not fit in the file and goes beside it.
    name : str
        Of a format of other programs, for the file beside it.
    beside : tuple of str
        Further files that the writer puts beside it (`Sink.beside`), but for that of the provenance.
    binary : bool
        No text, and not to be compressed as a whole. What the writer of a text format appends are bytes.
    """

    suffix: str
    chunk_rows: int
    encode: Callable[[Trace], Any]
    writer: Callable[[Trace, Sink], AbstractContextManager[Append]]
    read_slabs: Callable[[Path], Iterator[Trace]] | None = None
    sidecar: bool = False
    name: str = ""
    beside: tuple[str, ...] = ()
    binary: bool = False
