"""Files: one module per format, reading and writing side by side.

A new format is one module with a `Format`, and one row of `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.blocks import thread_count
from servegen_gpu.digest import NO_ROWS, Digest
from servegen_gpu.disk import explained, new_directory, settle
from servegen_gpu.errors import OptionError, OutputError, unknown
from servegen_gpu.formats import csv, jsonl, parquet, parted, store
from servegen_gpu.formats.atomic import is_special, new_file
from servegen_gpu.formats.base import Format
from servegen_gpu.formats.checked import checked
from servegen_gpu.formats.compression import SUFFIXES, compressor, open_text, plain_name
from servegen_gpu.formats.flow import CHUNK_IDS, TEXT_CHUNK_IDS, chunks, overlap
from servegen_gpu.formats.text import SIDECAR, known_sidecar, sidecar, sidecar_path
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from servegen_gpu.formats.reading.foreign import Foreign

FORMATS: dict[str, Format] = {
    "parquet": parquet.FORMAT,
    "csv": csv.FORMAT,
    "jsonl": jsonl.FORMAT,
}
ENCODINGS = ("delta", "plain")
PART_ROWS = 2**26
MOST_ENCODERS = 8
"""Threads that encode at once, each with a chunk in memory; more than a disk takes."""


@dataclass(frozen=True)
class WriteSummary:
    """What was written.

    Attributes
    ----------
    rows : int
        Requests.
    bytes : int
        Size of all files together, provenance beside included.
    path : Path
    files : int
        Number of data files: more than one only in a directory of parts.
    digest : Digest
        Of the rows of the trace, whatever the file holds of them.
    notes : tuple of str
        What is to be said about an export.
    replay : str
        The shell command that replays an export; empty if there is none.
    """

    rows: int
    bytes: int
    path: Path
    files: int
    digest: Digest = NO_ROWS
    notes: tuple[str, ...] = ()
    replay: str = ""


def write_stream(
    slabs: Iterable[Trace],
    path: str | os.PathLike[str],
    format: str | Format | None = None,
    *,
    part_rows: int = PART_ROWS,
    encoding: str = "delta",
    overwrite: bool = False,
) -> WriteSummary:
    """Write slabs, one after the other, encoding one while the next is being made.

    Files appear complete or not at all, and depend on the rows only, not on how they were cut into slabs.

    Parameters
    ----------
    slabs : iterable of Trace
        At least one, all with the same columns; provenance is that of the first.
    path : path
        The suffix decides the format; ``.gz`` or ``.zst`` behind that of a text format compresses it. A path without
        suffix, or ending in ``/``, is a directory of Parquet parts. What this package wrote there earlier is replaced.
    format : str or Format, optional
        A name of `FORMATS`, or a format that has none there, for one file under exactly this path (or parts, if it
        ends in ``/``).
    part_rows : int
        Requests in a part of a directory.
    encoding : {"delta", "plain"}
        Of Parquet: the smallest and fastest, or for readers without delta encodings, with INT64 for all numbers.
    overwrite : bool
        Replace a file of others, too. In a directory of parts, files of others stay where they are.

    Returns
    -------
    WriteSummary

    Raises
    ------
    OutputError
        If a file of others is in the way, or nothing can be written there.
    """
    try:
        source = iter(slabs)
        with explained(Path(path)):
            target, chosen, in_parts = _target(path, format, overwrite)
            if not in_parts:
                _refuse_foreign(target, chosen, overwrite)
        chosen = _encoded(chosen, encoding)
        first = next(source, None)
        if first is None:
            raise OptionError("at least one slab", "none", "pass an empty trace to write an empty file")
        # Without its rows, in memory of its own: the first slab must not live as long as the stream.
        head = Trace.concat([first.rows(0, 0)])
        rest = _alike(chain([first], source), head)
        del first
        if in_parts:
            return _write_parts(head, rest, target, chosen, part_rows)
        return _write_file(head, rest, target, chosen)
    except BaseException:
        if isinstance(slabs, Generator):
            slabs.close()
        raise


def read_slabs(
    path: Any,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    missing: str = "error",
) -> Iterator[Trace]:
    """Read a trace slab by slab, one that `write_stream` wrote or one of others; see `servegen_gpu.read_trace`."""
    foreign = open_foreign(path, format, columns=columns, unit=unit, missing=missing)
    return own_slabs(path, format) if foreign is None else foreign.slabs()


def open_foreign(
    path: Any,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    missing: str = "error",
) -> Foreign | None:
    """Open a trace that others wrote, or one of ours without its provenance; None for one of ours that has it."""
    from servegen_gpu.formats.reading.foreign import open_trace

    format = None if format == "auto" else format
    if not isinstance(path, str | os.PathLike):
        return open_trace(path, format, columns=columns, unit=unit, missing=missing)
    plain = columns is None and unit is None and missing == "error"
    if plain and parted.is_parted(path):
        return None
    target = _existing(path)
    stated, notes = None, list[str]()
    if plain:
        if format in (None, *FORMATS) and (parquet.has_ours(target) if target.is_dir() else parquet.is_ours(target)):
            return None
        stated = known_sidecar(target)
        if format in (None, *FORMATS) and stated is not None and "format" not in stated:
            return None
        if stated is None and sidecar_path(target).exists():
            notes.append("the provenance beside it belongs to another file")
    if stated is not None and format not in (None, stated.get("format")):
        stated = None
    format = stated["format"] if stated is not None else None if format in FORMATS else format
    return open_trace(path, format, columns=columns, unit=unit, missing=missing, stated=stated, notes=notes)


def own_slabs(path: str | os.PathLike[str], format: str | None = None) -> Iterator[Trace]:
    """Read a trace that we wrote, slab by slab: a row group at a time where the format has them."""
    return checked(parsed_slabs(path, format), path, _stated_rows(path))


def _stated_rows(path: str | os.PathLike[str]) -> int | None:
    """How many requests there are, as the provenance beside a text file says."""
    about = None if store.is_url(path) else known_sidecar(Path(path))
    return about["rows"] if about is not None else None


def parsed_slabs(path: str | os.PathLike[str], format: str | None = None) -> Iterator[Trace]:
    """The same before it is checked what requests say of one another: for who says all that is wrong."""
    if parted.is_parted(path):
        found = parted.open_parted(path)
        found.refuse_incomplete()
        return found.slabs()
    target = _existing(path)
    if target.is_dir():
        files = parquet.parts(target)
        if not files:
            name = parquet.PART_NAME.format(0)
            raise OptionError(f"a directory of parts ({name}, …)", f"{target}", "give a trace that this package wrote")
        return chain.from_iterable(parquet.read_slabs(file) for file in files)
    chosen = _own_format(target, None if format == "auto" else format)
    if chosen.read_slabs is None:
        able = ", ".join(name for name, known in FORMATS.items() if known.read_slabs)
        raise OptionError(f"a format that can be read ({able})", f"{target}", "keep a trace in one of these")
    return chosen.read_slabs(target)


def _own_format(path: Path, format: str | None) -> Format:
    """The format of a trace of ours: what the file begins with tells, whatever its name."""
    if parquet.is_ours(path):
        return FORMATS["parquet"]
    if format is None and known_sidecar(path) is not None:
        with open_text(path) as file:
            if first := file.read(1):
                return FORMATS["jsonl" if first == b"{" else "csv"]
    return _format(path, format)


def _existing(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if store.is_url(path):
        raise OptionError("a trace in parts in a store", f"none at {path}", "check the address, or copy the file here")
    settle(target)
    if not target.exists():
        raise OptionError("an existing trace", f"nothing at {target}", "check the path")
    return target


def _refuse_foreign(target: Path, chosen: Format, overwrite: bool) -> None:
    """Refuse to replace a file of others, or one beside it."""
    from servegen_gpu.formats.own import refuse_foreign

    real = Path(os.path.realpath(target))
    beside = (SIDECAR, *chosen.beside) if chosen.sidecar else chosen.beside
    for path in (target, *(real.with_name(real.name + suffix) for suffix in beside)):
        refuse_foreign(path, overwrite)


def _target(path: str | os.PathLike[str], format: str | Format | None, overwrite: bool) -> tuple[Path, Format, bool]:
    """Final path, format, and whether it is a directory of parts."""
    text = os.fspath(path)
    if text == "-":
        raise OptionError("a path", "'-'", "write to /dev/stdout, and name the format")
    if store.is_url(text):
        fix = "generate parts there (--parts N), or write a file here and copy it"
        raise OptionError("a path of this machine for a file", f"{text!r}", fix)
    target = Path(text)
    ends_in_slash = text.endswith(("/", os.sep))
    if not (ends_in_slash or (format is None and not target.suffix and not is_special(target))):
        return target, _format(target, format), False
    if format not in (None, "parquet"):
        raise OptionError("a file name: only parquet comes in parts", f"{text!r}", "drop the slash")
    if target.exists():
        if not target.is_dir():
            raise OutputError("a directory to write parts into", f"the file {target}", "give another path")
        if parted.is_parted(target):
            fix = "give another path, or remove it first"
            raise OutputError("a directory without parts that were made apart", f"a trace of --parts in {target}", fix)
        if (others := parquet.others(target)) and not overwrite:
            named = ", ".join(others[:3]) + ", …" * (len(others) > 3)
            raise OutputError(
                "a new or empty directory, or an earlier trace to replace",
                f"{target} with other files in it: {named}",
                "give another path, or allow it: --overwrite, overwrite=True (they stay)",
            )
    return target, FORMATS["parquet"], True


def _format(path: Path, name: str | Format | None) -> Format:
    if isinstance(name, Format):
        return compressor(path, name)
    if name is not None:
        if name not in FORMATS:
            raise unknown("a format", name, FORMATS, "change format")
        return compressor(path, FORMATS[name])
    suffix = plain_name(path).suffix.lower()
    for known in FORMATS.values():
        if known.suffix and suffix == known.suffix:
            return compressor(path, known)
    if is_special(path):
        names = f"(--format) {', '.join(FORMATS)}"
        raise OptionError(f"the name of a format to write to {path}", "none", f"choose one: {names}")
    suffixes = ", ".join(known.suffix for known in FORMATS.values() if known.suffix)
    raise OptionError(
        f"a path ending in {suffixes} (text also with {' or '.join(SUFFIXES)} behind it), "
        'or in "/" for a directory of Parquet parts',
        f"{str(path)!r}",
        f"change the path, or name the format: {', '.join(FORMATS)}",
    )


def _encoded(chosen: Format, encoding: str) -> Format:
    if encoding not in ENCODINGS:
        raise unknown("an encoding", encoding, ENCODINGS, "change encoding")
    if encoding == "delta":
        return chosen
    if chosen is not FORMATS["parquet"]:
        raise OptionError("Parquet with encoding 'plain'", "another format", "leave out the encoding")
    return parquet.plain(chosen)


def _alike(slabs: Iterable[Trace], head: Trace) -> Iterator[Trace]:
    shard, last_us = head.provenance.get("shard"), 0
    for slab in slabs:
        if (other := slab.provenance.get("shard")) != shard:
            raise OptionError(
                f"slabs of shard {shard}", f"some of {other}", "join them first: Trace.concat, or servegen-gpu join"
            )
        if slab.schema() != head.schema():
            raise OptionError(f"slabs with columns {head.schema()}", f"{slab.schema()}", "write one trace at a time")
        if len(slab) and isinstance(time_us := slab.columns.get("arrival_us"), np.ndarray):
            if time_us[0] < last_us:
                got = f"{time_us[0]} us in row {slab.first_row:,} after {last_us} us"
                raise OptionError("slabs in order of time", got, "give them in the order in which they were made")
            last_us = time_us[-1]
        yield slab
        del slab


def _write_file(head: Trace, slabs: Iterable[Trace], path: Path, chosen: Format) -> WriteSummary:
    with new_file(path) as sink:
        with chosen.writer(head, sink) as append:

            def counted(digest: Digest, encoded: Any) -> None:
                append(encoded)
                sink.digest += digest

            most_ids = CHUNK_IDS if chosen.binary else TEXT_CHUNK_IDS
            _encode(chunks(slabs, chosen.chunk_rows, most_ids), chosen, counted)
        size = sink.size
        if chosen.sidecar and not is_special(path):
            sink.beside[SIDECAR] = sidecar(head, sink.digest, size, chosen.name)
            size += len(sink.beside[SIDECAR])
    return WriteSummary(sink.digest.rows, size, path, 1, sink.digest)


def _encode(pieces: Iterable[Trace], chosen: Format, append: Callable[[Digest, Any], None]) -> None:
    """Encode pieces on a few threads while the next ones are made; append each in order, with its rows' digest."""

    def encoded(piece: Trace) -> tuple[Digest, Any]:
        # those of another program's format are no rows of a trace
        return Digest(len(piece)) if chosen.name else Digest.of(piece.columns), chosen.encode(piece)

    overlap(pieces, encoded, lambda made: append(*made), min(thread_count(), MOST_ENCODERS))


def _write_parts(head: Trace, slabs: Iterable[Trace], path: Path, chosen: Format, part_rows: int) -> WriteSummary:
    chunk_rows = min(chosen.chunk_rows, part_rows)
    if part_rows < 1 or part_rows % chunk_rows:
        raise OptionError(f"parts of a multiple of {chosen.chunk_rows:,} rows", f"{part_rows:,}", "change part_rows")
    with new_directory(path, parquet.is_part) as directory, _Parts(head, directory, path, chosen, part_rows) as parts:
        _encode(chunks(slabs, chunk_rows), chosen, parts.append)
    return WriteSummary(parts.digest.rows, parts.bytes, path, parts.files, parts.digest)


class _Parts:
    """The files of a directory, one after the other; at least one, which may be empty."""

    def __init__(self, head: Trace, directory: Path, shown: Path, chosen: Format, part_rows: int) -> None:
        self.head, self.directory, self.shown, self.chosen, self.part_rows = head, directory, shown, chosen, part_rows
        self.bytes = self.files = 0
        self.digest = Digest()
        self._stack = ExitStack()

    def __enter__(self) -> _Parts:
        self._open()
        return self

    def __exit__(self, *error: Any) -> None:
        self._close(*error)

    def append(self, digest: Digest, encoded: Any) -> None:
        if self.digest.rows == self.files * self.part_rows:
            self._close(None, None, None)
            self._open()
        self._append(encoded)
        self._sink.digest += digest
        self.digest += digest

    def _open(self) -> None:
        name = parquet.PART_NAME.format(self.files)
        head = replace(self.head, first_row=self.head.first_row + self.digest.rows)
        self._sink = self._stack.enter_context(new_file(self.directory / name, self.shown / name))
        self._append = self._stack.enter_context(self.chosen.writer(head, self._sink))
        self.files += 1

    def _close(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        self.bytes += self._sink.size
