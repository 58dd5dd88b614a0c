"""Traces as files of other programs, and the commands that replay them: one module per family of formats.

A new export is an `Export`, and a place in `EXPORTS`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from servegen_gpu.digest import Digest
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.exports import aibrix, aiperf, azure, bailian, blis, burstgpt, llmservingsim, mooncake, vidur, vllm
from servegen_gpu.exports.export import Export, ExportOptions, Replay
from servegen_gpu.formats import FORMATS, WriteSummary, write_stream
from servegen_gpu.formats.atomic import is_special
from servegen_gpu.formats.compression import codec_of, plain_name
from servegen_gpu.prefixes.dense import dense_ids
from servegen_gpu.provenance import duration_of
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

FAMILIES = (mooncake, bailian, burstgpt, azure, vllm, aiperf, aibrix, blis, vidur, llmservingsim)
EXPORTS: dict[str, Export] = {export.name: export for family in FAMILIES for export in family.EXPORTS}
NAMES = (*FORMATS, *EXPORTS)
NEEDED = ("arrival_us", "input_tokens", "output_tokens")


def write(
    trace: Trace | Iterable[Trace],
    path: str | os.PathLike[str],
    format: str | None = None,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
) -> WriteSummary:
    """Write a trace, or its slabs in order of time, as a file of this package or of another program.

    Parameters
    ----------
    trace : Trace or iterable of Trace
    path : path
        Its suffix decides between the package's own formats; see `servegen_gpu.formats.write_stream`.
    format : str, optional
        A name of `NAMES`. Row i of an export is row i of the trace, except where a line is a session or a window.
    options : ExportOptions, optional
    overwrite : bool
        Replace a file of others, too; one that this package wrote is replaced in any case.

    Returns
    -------
    WriteSummary
        With the shell command that replays an export, and what is to be said about it.

    Raises
    ------
    OptionError
        If the format is unknown, or the trace has no such form.
    """
    slabs, options = slabs_of(trace), options or ExportOptions()
    if not isinstance(options, ExportOptions):
        fix = 'pass ExportOptions(deltas="nearest"), for example'
        raise OptionError("options as servegen_gpu.ExportOptions", repr(options)[:60], fix)
    if format is None or format in FORMATS:
        slabs = dense_ids(slabs) if options.dense_ids else slabs
        return write_stream(slabs, path, format, encoding=options.encoding, overwrite=overwrite)
    if format not in EXPORTS:
        raise unknown("a format", format, NAMES, "change format")
    export, notes, seen = EXPORTS[format], list[str](), _Seen()
    _check_suffix(Path(path), export)
    prepared = export.prepare(seen.through(slabs), options, notes.append)
    if options.dense_ids:
        prepared = dense_ids(prepared)
    format_of = export.format(options)
    written = write_stream(seen.prepared(prepared), path, format_of, encoding=options.encoding, overwrite=overwrite)
    if lost := [name for name in seen.columns if name not in export.columns]:
        notes.append(f"{format} files have no place for {', '.join(lost)}: left out")
    of = Replay(_replayed(Path(path)), seen.columns, seen.digest.rows, seen.block_tokens, seen.duration_s, options)
    command = export.replay(of)
    if command:
        notes += [f"to replay: {remark}" for remark in _remarks(export, Path(path))]
    return replace(written, rows=seen.digest.rows, digest=seen.digest, notes=tuple(notes), replay=shlex.join(command))


def _replayed(path: Path) -> str:
    """The file that a command names: without compression, which readers do not take."""
    return "FILE" if is_special(path) else str(plain_name(path))


def _remarks(export: Export, path: Path) -> list[str]:
    """What to know about the command."""
    codec = codec_of(path)
    unpack = [f"first run {shlex.join([codec, '-d', '-k', str(path)])}"] if codec else []
    return unpack + ([export.remark] if export.remark else [])


def _check_suffix(path: Path, export: Export) -> None:
    if export.suffixes and path.suffix not in export.suffixes and not is_special(path):
        wanted = " or ".join(export.suffixes)
        raise OptionError(
            f"a file name that ends in {wanted}: {export.readers} takes no other",
            f"{str(path)!r}",
            f"write to {path.name.split('.')[0] or 'trace'}{export.suffixes[0]}",
        )


class _Seen:
    """What the command that replays a trace needs to know of it."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.digest, self.block_tokens = Digest(), 0
        self.duration_s = 0.0

    def through(self, slabs: Iterable[Trace]) -> Iterator[Trace]:
        """Slabs of the trace."""
        for slab in slabs:
            if missing := [name for name in NEEDED if name not in slab]:
                fix = "add it to the trace, or write parquet, csv or jsonl"
                raise OptionError(f"a trace with {', '.join(NEEDED)}", f"none of {', '.join(missing)}", fix)
            self.columns = tuple(slab)
            self.digest += Digest.of(slab.columns)
            if len(slab):
                self.duration_s = duration_of(slab.provenance) or int(slab["arrival_us"][-1]) / 1e6
            yield slab
            del slab  # not kept while the next one is made

    def prepared(self, slabs: Iterable[Trace]) -> Iterator[Trace]:
        """Slabs of the export."""
        for slab in slabs:
            ids = slab.provenance.get("hash_ids")
            self.block_tokens = ids.get("block_tokens", 0) if isinstance(ids, dict) else 0
            yield slab
            del slab
