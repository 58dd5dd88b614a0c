"""JSON lines as Arrow tables, block by block; what is wrong in a file is said with the number of its line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.checked import depth_of
from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.text_blocks import Block, first_bad, records, text_blocks
from servegen_gpu.formats.text import bytes_at_once

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 60
CACHED_BYTES = 1 << 18
MAX_DEPTH = 1000
"""Brackets inside brackets; pyarrow runs out of stack at some ten thousand, and the process ends."""


def json_tables(path: str | os.PathLike[str], schema: pa.Schema | None = None) -> Iterator[Rows]:
    """The objects of a file, one a line, as tables of some 16 MB of text each; ``rows.line(i)`` is the line of row i.

    Blank lines are passed over.

    Parameters
    ----------
    path : path
        Plain or in gzip or zstd, in UTF-8 or with a byte order mark.
    schema : pyarrow.Schema, optional
        The fields to read and their types; others are passed over, missing ones are null. By default all fields are
        read, with types that each block tells anew.

    Raises
    ------
    OptionError
        If the file cannot be read, or a line is no JSON object or does not fit the schema; it names the line.
    """
    for block in text_blocks(path):
        if not block.text.isspace():
            yield rows_of(block, path, schema)


def rows_of(block: Block, path: str | os.PathLike[str], schema: pa.Schema | None = None) -> Rows:
    """The objects of a block of lines; see `json_tables`."""
    return try_rows_of(block, path, schema) or _refuse_first(block, path, schema)


def try_rows_of(block: Block, path: str | os.PathLike[str], schema: pa.Schema | None = None) -> Rows | None:
    """The objects of a block of lines; None if one cannot be read."""
    import pyarrow as pa

    try:
        table = _parsed(block.text, schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return None
    if table.num_rows != block.lines:
        lines = records(block.text).lines
        if table.num_rows != len(lines):
            _refuse_split(block, path)
        return Rows(table, lambda row: block.first_line + int(lines[row]), os.fspath(path))
    return Rows(table, lambda row: block.first_line + row, os.fspath(path))


def rows_as_text(block: Block, path: str | os.PathLike[str], names: Sequence[str]) -> Rows:
    """Some fields of the objects of a block, with numbers as text: for fields of mixed types. It is slow."""
    lines = records(block.text)
    chosen = []
    for at, (begin, end) in enumerate(zip(lines.begins.tolist(), lines.ends.tolist(), strict=True)):
        line = block.text[begin:end]
        if _fault(line):
            _refuse(line, f"{path}, line {block.first_line + int(lines.lines[at])}", "")
        found = json.loads(line)
        chosen.append({name: value for name in names if (value := _value(found, name)) is not None})
    texts = [{k: v if isinstance(v, list | dict) else str(v) for k, v in row.items()} for row in chosen]
    table = rows_of(block_of(texts), path).table
    return Rows(table, lambda row: block.first_line + int(lines.lines[row]), os.fspath(path))


def _value(found: dict[str, Any], name: str) -> Any:
    """A field of an object, or of an object in it by a name with points."""
    if name in found:
        return found[name]
    value: Any = found
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def block_of(objects: Sequence[dict[str, Any]]) -> Block:
    """A block of lines of objects."""
    return Block(b"\n".join(json.dumps(found).encode() for found in objects), 1, len(objects))


def _parsed(text: bytes, schema: pa.Schema | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.json

    if not all_objects(text):
        raise pa.ArrowInvalid("JSON parse error: a line that is no object")
    known = pyarrow.json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
    )
    if schema is None and depth_of(text) > MAX_DEPTH:
        raise pa.ArrowInvalid("brackets nested too deep")
    size = pyarrow.json.ReadOptions(block_size=bytes_at_once(text))
    table = pyarrow.json.read_json(pa.BufferReader(text), read_options=size, parse_options=known)
    try:
        table.validate()
    except pa.ArrowInvalid:  # pyarrow drops such a null, and moves the values after it
        raise pa.ArrowInvalid("a null before the first object of a list") from None
    return table.select(table.column_names if schema is None else schema.names)  # names may be no UTF-8


def all_objects(text: bytes) -> bool:
    """Whether every line that is not blank begins as an object; pyarrow takes ``null`` for one, and crashes at it."""
    raw = np.frombuffer(text, np.uint8)
    wrong = not text.startswith(b"{")
    for at in range(0, len(raw) - 1, CACHED_BYTES):  # an eighth of the time of text.count(b"\n{")
        piece = raw[at : at + CACHED_BYTES + 1]
        wrong |= bool(((piece[:-1] == ord("\n")) & (piece[1:] != ord("{"))).any())
    if not wrong:
        return True
    found = records(text)
    lines = zip(found.begins.tolist(), found.ends.tolist(), strict=True)
    return all(text[begin:end].lstrip().startswith(b"{") for begin, end in lines)


def _refuse_first(block: Block, path: str | os.PathLike[str], schema: pa.Schema | None) -> NoReturn:
    """Refuse the first line that cannot be read."""
    import pyarrow as pa

    reason = ""

    def readable(text: bytes) -> bool:
        nonlocal reason
        try:
            _parsed(text, schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            reason = str(error).split(": ", 1)[-1]
            return False
        return True

    found = records(block.text)
    at = first_bad(block.text, found, readable)
    line = block.text[found.begins[at] : found.ends[at]]
    readable(block.text[: found.ends[at]])
    _refuse(line, f"{path}, line {block.first_line + int(found.lines[at])}", reason)


def _refuse_split(block: Block, path: str | os.PathLike[str]) -> NoReturn:
    """Refuse the first line that is not one object by itself."""
    for at, line in enumerate(block.text.split(b"\n")):
        if line.strip() and _fault(line):
            _refuse(line, f"{path}, line {block.first_line + at}", "")
    raise OptionError("one JSON object a line", f"others in {path}", "write one object a line")


def _refuse(line: bytes, where: str, reason: str) -> NoReturn:
    shown = line[:SHOWN].decode(errors="replace").strip()
    fault = _fault(line) or reason.split(" in row ")[0]
    fix = "the file was cut short, or the line is broken: fix or remove it" if _fault(line) else "fix the value"
    raise OptionError("one JSON object a line", f"{shown!r} in {where} ({fault})", fix)


def _fault(line: bytes) -> str:
    """What is wrong with a line by itself; nothing if it is one object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return str(error)[:200]
    return "" if isinstance(found, dict) else f"{type(found).__name__}, not an object"
