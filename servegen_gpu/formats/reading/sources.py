"""Where foreign requests come from: CSV, JSON lines, a JSON array, Parquet, or a table in memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.compression import READ_BYTES, open_text
from servegen_gpu.formats.parquet import HIDDEN
from servegen_gpu.formats.reading.csv_lines import csv_header, csv_tables
from servegen_gpu.formats.reading.json_lines import block_of, rows_as_text, rows_of, try_rows_of
from servegen_gpu.formats.reading.layout import LAYOUTS
from servegen_gpu.formats.reading.parquet_tables import TABLE_ROWS, parquet_head, parquet_tables
from servegen_gpu.formats.reading.rows import MOST_COLUMNS, Rows
from servegen_gpu.formats.reading.text_blocks import text_blocks
from servegen_gpu.text import open_file

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_BYTES = 1 << 26
"""Files up to this size are read in one piece, without a look at their times first."""
PACKED_RATIO = 10
MAX_ARRAY_BYTES = 1 << 28
ROW_BYTES = 32
NEWLINE = b"\n"
OPTIONAL = sorted({name for layout in LAYOUTS.values() for names in layout.columns.values() for name in names})
"""Fields of known formats, some of which only some of the rows have."""
STUDY_KEY = b"servegen_gpu.study"
"""In the metadata of files of studies."""
MOST_COLONS = 1 << 20
PEEKED = 4096
"""Objects whose keys are the columns of a JSON file."""


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of a foreign file or table.

    Attributes
    ----------
    name : str
        For messages.
    columns : tuple of str
        What there is, in order.
    first : list of dict
        The first rows, where a look at values is needed to tell formats apart; empty for CSV.
    batches : callable
        ``batches(columns)`` reads the file once more from its beginning, only these columns.
    small : bool
        Whether all of it fits into memory at ease.
    decimal_comma : bool
        Whether commas may be decimal.
    """

    name: str
    columns: tuple[str, ...]
    first: list[dict[str, Any]]
    batches: Callable[[Sequence[str]], Iterator[Rows]]
    small: bool
    decimal_comma: bool = False


def open_source(given: Any) -> Source:
    """A source of a path, or of a table: Arrow's, or anything that exports one (pandas, polars).

    Raises
    ------
    OptionError
        If it is no table, or the file cannot be read or is empty.
    """
    if not isinstance(given, str | os.PathLike):
        return _of_table(given)
    path = Path(given)
    if path.is_dir():
        return _of_directory(path)
    if path.exists() and not path.is_file():
        raise OptionError("a file, which is read twice", f"{path}, a pipe or a device", "write it to a file first")
    try:
        with open_file(path) as file:
            begin = file.read(4)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise OptionError("a file that can be read", f"{path}: {error}"[:300], "check the path") from None
    if begin == b"PAR1":
        return _of_parquet(path, size)
    head = next((block.text.lstrip() for block in text_blocks(path) if not block.text.isspace()), b"")
    small = size <= SMALL_BYTES and (begin[:2] not in (b"\x1f\x8b", b"\x28\xb5") or _is_small(path))
    if not head:
        raise OptionError("rows of requests", f"an empty file, {path}", "give another file")
    if head.startswith(b"["):
        return _of_array(path)
    return _of_lines(path, small) if head.startswith(b"{") else _of_csv(path, small)


def _is_small(path: Path) -> bool:
    """Whether the text of a compressed file is small: a thousandth of it may be."""
    left = SMALL_BYTES
    with open_text(path) as file:
        while left > 0 and (piece := file.read(READ_BYTES)):
            left -= len(piece)
    return left > 0


def _of_directory(path: Path) -> Source:
    """The files of a directory by name, as Spark and others write parts; those that are hidden are none."""
    files = sorted(file for file in path.iterdir() if not HIDDEN.fullmatch(file.name))
    files = [file for file in files if file.is_dir() or file.stat().st_size]
    if not files:
        raise OptionError("files of requests", f"none in the directory {path}", "give another one")
    if nested := next((file for file in files if file.is_dir()), None):
        raise OptionError("a directory of files", f"another directory in it, {nested}", "name one of them")
    parts = [open_source(file) for file in files]
    for part in parts:
        if part.columns != parts[0].columns:
            got = f"{', '.join(part.columns)[:200]} in {part.name}"
            raise OptionError(
                f"files with the columns {', '.join(parts[0].columns)[:200]}", got, "read them one by one"
            )
    return replace(
        parts[0],
        name=str(path),
        batches=lambda names: chain.from_iterable(part.batches(names) for part in parts),
        small=sum(file.stat().st_size for file in files) * PACKED_RATIO <= SMALL_BYTES,
    )


def _of_csv(path: Path, small: bool) -> Source:
    header = csv_header(path)
    return Source(
        str(path), header.names, [], lambda names: csv_tables(path, header, names), small, header.delimiter == ";"
    )


def _of_lines(path: Path, small: bool) -> Source:
    first = []
    for block in text_blocks(path):
        for at, line in enumerate(block.text.split(b"\n", PEEKED)[:PEEKED]):
            if line.strip():
                first.append(_object(line, f"{path}, line {block.first_line + at}"))
        if first:
            break
    first += _later(path, {key for row in first for key in row})
    return Source(
        str(path),
        tuple(dict.fromkeys(key for row in first for key in _keys(row))),
        first,
        lambda names: _typed(path, names, first),
        small,
    )


def _later(path: Path, known: set[str]) -> list[dict[str, Any]]:
    """The first object with each field of a known format that no earlier object has."""
    missing = {name: f'"{name}"'.encode() for name in OPTIONAL if name not in known}
    found: list[dict[str, Any]] = []
    for block in text_blocks(path):
        for name in [name for name, quoted in missing.items() if quoted in block.text]:
            key = re.compile(rb"[{,]\s*" + re.escape(missing[name]) + rb"\s*:")
            if (match := key.search(block.text)) is None:
                continue
            begin = block.text.rfind(b"\n", 0, match.start()) + 1
            line = block.text[begin:].partition(b"\n")[0]
            row = _object(line, f"{path}, line {block.first_line + block.text.count(NEWLINE, 0, begin)}")
            if name in row:
                found.append(row)
                del missing[name]
    return found


def _object(line: bytes, where: str) -> dict[str, Any]:
    if line.count(b":") > MOST_COLONS:
        raise OptionError(f"objects of at most {MOST_COLUMNS:,} fields", f"a larger one in {where}", "fix the line")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:60].decode(errors="replace")
        fix = "the line is broken or cut short: fix or remove it"
        raise OptionError("one JSON object a line", f"{shown!r} in {where} ({error})"[:300], fix) from None
    if not isinstance(found, dict):
        raise OptionError("one JSON object a line", f"{type(found).__name__} in {where}", "fix or remove the line")
    if len(found) > MOST_COLUMNS:
        raise OptionError(f"objects of at most {MOST_COLUMNS:,} fields", f"{len(found):,} in {where}", "fix the line")
    return found


def _keys(found: dict[str, Any]) -> Iterator[str]:
    """Names of the fields of an object; of objects in it as ``usage.prompt_tokens``, two levels deep."""
    for key, value in found.items():
        yield key
        if isinstance(value, dict):
            for inner, deeper in value.items():
                yield f"{key}.{inner}"
                if isinstance(deeper, dict):
                    yield from (f"{key}.{inner}.{last}" for last in deeper)


def _typed(path: Path, names: Sequence[str], first: list[dict[str, Any]]) -> Iterator[Rows]:
    """Blocks read with the types of the first rows, which is twice as fast; with types of their own if they differ."""
    import pyarrow as pa

    types = {name: _type(first, name) for name in dict.fromkeys(names)}
    known = not any(pa.types.is_null(type_) or "." in name for name, type_ in types.items())
    schema = pa.schema(list(types.items()))
    for block in text_blocks(path):
        if block.text.isspace():
            continue
        rows = try_rows_of(block, path, schema) if known else None
        known = rows is not None
        yield _chosen(rows or try_rows_of(block, path) or rows_as_text(block, path, names), names)


def _type(first: list[dict[str, Any]], name: str) -> pa.DataType:
    """Arrow type of the values of a field in the first rows; null if they differ or are objects."""
    import pyarrow as pa

    found = {type(row[name]) for row in first if row.get(name) is not None}
    if found == {list}:
        items = {type(item) for row in first for item in row.get(name) or ()}
        return pa.list_(pa.int64()) if items <= {int} else pa.null()
    if found == {int, float}:
        return pa.float64()
    types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    return types.get(found.pop(), pa.null()) if len(found) == 1 else pa.null()


def _chosen(rows: Rows, names: Sequence[str]) -> Rows:
    """Some columns of a table; those that are not there are null."""
    import pyarrow as pa

    columns = [_column(rows.table, name) for name in names]
    return rows.with_table(pa.table(columns, names=list(names)))


def _column(table: pa.Table, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if name in table.column_names:
        return table.column(name)
    outer, *inner = name.split(".")
    column = table.column(outer) if outer in table.column_names else pa.chunked_array([pa.nulls(len(table))])
    for key in inner:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(key) < 0:
            return pa.nulls(len(table))
        column = pc.struct_field(column, key)
    return column if inner else pa.nulls(len(table))


def _of_array(path: Path) -> Source:
    """A JSON array of objects, which is read as a whole."""
    text = b""
    for block in text_blocks(path):
        text += block.text
        if len(text) > MAX_ARRAY_BYTES:
            got = f"a larger one, {path}"
            fix = "write one object a line: jq -c '.[]'"
            raise OptionError(f"a JSON array of at most {MAX_ARRAY_BYTES >> 20} MiB", got, fix)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(
            "a JSON array of objects", f"{path}: {error}"[:300], "the file is broken or cut short"
        ) from None
    if not isinstance(found, list) or not found:
        raise OptionError("a JSON array of objects", f"none in {path}", "give another file")
    for at, item in enumerate(found, 1):
        if not isinstance(item, dict):
            got = f"{type(item).__name__} in {path}, item {at}"
            raise OptionError("a JSON array of objects", got, "fix or remove the item")
    rows = rows_of(block_of(found), path)
    rows = Rows(rows.table, rows.line, rows.source, "item")
    keys = tuple(dict.fromkeys(key for item in found for key in _keys(item)))
    return Source(str(path), keys, found[:PEEKED], lambda names: iter([_chosen(rows, names)]), True)


def _of_parquet(path: Path, size: int) -> Source:
    def batches(names: Sequence[str]) -> Iterator[Rows]:
        before = 0
        for table in parquet_tables(path, names):
            yield _rows(table, str(path), before)
            before += len(table)

    head = parquet_head(path, PEEKED)
    if STUDY_KEY in head.keys:
        raise OptionError("requests", f"a study in {path}", "servegen-gpu report makes a page of it")
    small = max(size * PACKED_RATIO, head.rows * ROW_BYTES) <= SMALL_BYTES
    return Source(str(path), head.names, head.first, batches, small)


def _of_table(given: Any) -> Source:
    import pyarrow as pa

    if isinstance(given, pa.Table):
        table = given
    elif hasattr(given, "__arrow_c_stream__"):
        table = pa.table(given)
    else:
        raise OptionError(
            "a path, or a table of pandas, polars or Arrow", f"{type(given).__name__}", "give one of them"
        )
    if given.__class__.__module__.startswith("pandas"):
        table = table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])
    if not len(table):
        raise OptionError("rows of requests", "an empty table", "give another one")
    name = f"the {type(given).__module__.split('.')[0]} table"

    def batches(names: Sequence[str]) -> Iterator[Rows]:
        chosen = table.select(list(names))
        for begin in range(0, len(table), TABLE_ROWS):
            yield _rows(chosen.slice(begin, TABLE_ROWS), name, begin)

    return Source(name, tuple(map(str, table.column_names)), table.slice(0, PEEKED).to_pylist(), batches, True)


def _rows(table: pa.Table, source: str, before: int) -> Rows:
    return Rows(table, lambda row: before + row, source, "row")
