"""What a file format is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from servegen_gpu.formats.atomic import Sink
from servegen_gpu.trace import Trace

Encode = Callable[[Trace], None]


@dataclass(frozen=True)
class Format:
    """One file format: how to write it and how to read it back.

    Attributes
    ----------
    suffix : str
        Files with this suffix have this format unless told otherwise; empty if only asking by name gives it.
    chunk_rows : int
        Rows that `encoder` receives at a time: always exactly so many, except in the last chunk and before long lists
        of ids (`flow.chunks`), however the trace was cut into slabs. That makes files of equal rows equal byte by byte.
    encoder : callable
        ``encoder(head, sink)`` is a context whose value writes one chunk; `head` is the trace without its rows.
        Chunks come from another thread, one after the other.
    read_slabs : callable, optional
        Reads a file of this format back, slab by slab.
    sidecar : bool
        Provenance does not fit in the file and goes beside it.
    """

    suffix: str
    chunk_rows: int
    encoder: Callable[[Trace, Sink], AbstractContextManager[Encode]]
    read_slabs: Callable[[Path], Iterator[Trace]] | None = None
    sidecar: bool = False
