"""What the files of a trace say of themselves, and the rows in them that arrive in some span of time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from servegen_gpu.digest import Digest
from servegen_gpu.disk import settle
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import parquet, parted
from servegen_gpu.formats import text as text_files
from servegen_gpu.formats.store import RemoteFile, is_url, store_at
from servegen_gpu.trace import Trace


@dataclass(frozen=True)
class TraceFile:
    """A file that has a trace of ours, or some of its rows.

    Attributes
    ----------
    path : Path or RemoteFile
    provenance : dict
    first_row : int
        Of its rows in the trace.
    digest : Digest or None
        That its rows had when they were written; None in files of older versions.
    rows : int
        That it says it has.
    """

    path: Path | RemoteFile
    provenance: dict[str, Any]
    first_row: int
    rows: int
    digest: Digest | None

    @property
    def last_us(self) -> int:
        """When its last row arrives; -1 if it has none. A text file is read for it."""
        if self._binary and (known := parquet.last_us(self.path)) is not None:
            return known
        return max((int(slab["arrival_us"][-1]) for slab in self.slabs() if len(slab)), default=-1)

    @property
    def _binary(self) -> bool:
        return isinstance(self.path, RemoteFile) or parquet.is_parquet(self.path)

    def slabs(self, span_us: tuple[int, int] | None = None) -> Iterator[Trace]:
        """All rows, in slabs numbered by their rows in the file; or the row groups that have rows of a span of time."""
        from servegen_gpu.formats import own_slabs

        for slab in parquet.read_slabs(self.path, span_us) if self._binary else own_slabs(self.path):
            yield Trace.trusted(slab.columns, self.provenance, slab.first_row - self.first_row)

    def in_spans(self) -> Callable[[tuple[int, int]], Iterator[Trace]]:
        """A function that gives the rows of ``[begin_us, end_us)``, for spans in order: a text file is read once."""
        once = _Once(self.slabs()).rows
        return (lambda span_us: _within(self.slabs(span_us), span_us)) if self._binary else once


def _within(slabs: Iterable[Trace], span_us: tuple[int, int]) -> Iterator[Trace]:
    for slab in slabs:
        yield slab.rows(*np.searchsorted(slab["arrival_us"], span_us).tolist())


class _Once:
    """Slabs that are read once, for spans of time that come in order."""

    def __init__(self, slabs: Iterator[Trace]) -> None:
        self._slabs = slabs
        self._left: Trace | None = None

    def rows(self, span_us: tuple[int, int]) -> Iterator[Trace]:
        """Those of a span; what comes after it is kept."""
        while (slab := self._left or next(self._slabs, None)) is not None:
            lo, hi = np.searchsorted(slab["arrival_us"], span_us).tolist()
            self._left = slab.rows(hi, len(slab)) if hi < len(slab) else None
            yield slab.rows(lo, hi)
            if self._left is not None:
                return


def files_of(path: str | os.PathLike[str]) -> list[TraceFile]:
    """The files of a trace of ours, in order: one, or the parts in a directory.

    Raises
    ------
    OptionError
        If there is nothing, or no trace that this package wrote.
    """
    if is_url(path):
        found = parted.open_parted(path)
        found.refuse_incomplete()
        return [_of_parquet(found.store.at(parted.part_name(k, found.parts))) for k in range(found.parts)]
    target = Path(path)
    settle(target)
    if not target.exists():
        raise OptionError("an existing trace", f"nothing at {target}", "check the path")
    if target.is_dir():
        parts = parquet.parts(target)
        if not parts:
            name = parquet.PART_NAME.format(0)
            raise OptionError(
                f"a directory of all parts ({name}, …)", f"{target}", "give a trace that this package wrote"
            )
        return [_of_parquet(part) for part in parts]
    return [_of_parquet(target) if parquet.is_parquet(target) else _of_text(target)]


def digest_recorded(files: Sequence[TraceFile]) -> Digest | None:
    """The digest of all rows of some files, as they say; None if one of them does not."""
    stated = [file.digest for file in files if file.digest is not None]
    return reduce(add, stated) if len(stated) == len(files) else None


def digest_of_rows(path: str | os.PathLike[str]) -> Digest | None:
    """The digest that a trace has recorded of its rows, if it is one of ours and has one; nothing is read of them."""
    try:
        return digest_recorded(files_of(path))
    except OptionError:
        return None


def manifest_digest(path: str | os.PathLike[str]) -> str | None:
    """The digest of all rows in the manifest of a trace in parts; None if there is no manifest.

    Raises
    ------
    OptionError
        If there is one without.
    """
    store = store_at(path)
    if (data := store.read([parted.MANIFEST]).get(parted.MANIFEST)) is None:
        return None
    stated = parted.parsed(store, parted.MANIFEST, data).get("digest")
    if not isinstance(stated, str):
        fix = "remove it, and run the command that makes the parts"
        raise OptionError(f"a digest in {store}/{parted.MANIFEST}", repr(stated)[:60], fix)
    return stated


def size_stated(path: Path) -> int | None:
    """How many bytes a text file has as the file beside it says; None if there is none that says it."""
    try:
        about = text_files.sidecar_of(path)
    except OptionError:
        return None
    return None if about is None else int(about["bytes"])


def _of_parquet(path: Path | RemoteFile) -> TraceFile:
    provenance, first_row, rows, digest = parquet.stated(path)
    return TraceFile(path, provenance, first_row, rows, _digest(digest, rows))


def _of_text(path: Path) -> TraceFile:
    about = text_files.read_sidecar(path)
    if "format" in about:
        got = f"{path}, a file for another program ({about['format']})"
        raise OptionError(
            "a trace with all of its columns", got, "give it as Parquet, CSV or JSON lines of this package"
        )
    rows = about.get("rows")
    if type(rows) is not int or rows < 0:
        got = f"{str(rows)[:20]!r} in {text_files.sidecar_path(path)}"
        raise OptionError("the number of rows of the trace", got, "generate the trace again")
    return TraceFile(path, about["provenance"], about["first_row"], rows, _digest(about.get("digest"), rows))


def _digest(text: str | None, rows: int) -> Digest | None:
    return None if text is None else Digest.parse(text, rows)
