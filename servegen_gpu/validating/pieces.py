"""A foreign file in pieces: columns, the line of every row, and the lines that could not be read.

Pieces are some 16 MB of text, parsed as a whole. Only where that fails is a piece cut, and in the cuts that fail too,
each line is read by itself, so one broken line neither stops the check nor slows it down.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.json_lines import try_rows_of
from servegen_gpu.formats.reading.text_blocks import Block, text_blocks
from servegen_gpu.text import open_file
from servegen_gpu.validating.report import cut

if TYPE_CHECKING:
    import pyarrow as pa

CUT_BYTES = 1 << 18
"""Of a piece that cannot be parsed as a whole."""
TABLE_ROWS = 1 << 20

Raw = Any
"""A column: pyarrow.ChunkedArray, or a list of Python values where types differ from row to row."""


@dataclass(frozen=True)
class Fault:
    """A line that could not be read."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows.

    Attributes
    ----------
    columns : dict of str to pyarrow.ChunkedArray or list
        In a list, None stands for what is not there.
    lines : int64[rows]
    faults : tuple of Fault
        Lines among them that are no rows.
    blank : tuple of int
        Blank lines among them.
    text : bool
        All values are text, as in CSV files.
    """

    columns: dict[str, Raw]
    lines: NDArray[np.int64]
    faults: tuple[Fault, ...] = ()
    blank: tuple[int, ...] = ()
    text: bool = False

    def __len__(self) -> int:
        return len(self.lines)

    def value(self, key: str, row: int) -> str:
        """What stands in a row, as JSON."""
        column = self.columns.get(key)
        if column is None:
            return "nothing"
        found = column[row]
        try:
            found = found if isinstance(column, list) else found.as_py()
            return "nothing" if found is None else cut(json.dumps(found, default=str, ensure_ascii=False))
        except RecursionError:
            return "brackets nested too deep"


@dataclass(frozen=True)
class Head:
    """What a file is, by its beginning.

    Attributes
    ----------
    kind : {"jsonl", "array", "csv", "parquet", "empty"}
    names : tuple of str
        Keys of the first objects, or names of columns.
    line : int
        Of the names of columns in a CSV file.
    packed, marked : bool
        Compressed; begins with a byte order mark.
    first : dict
        The first object of a JSON file.
    """

    kind: str
    names: tuple[str, ...] = ()
    line: int = 0
    packed: bool = False
    marked: bool = False
    first: dict[str, Any] = field(default_factory=dict)


def head_of(path: Path) -> Head:
    """What a file is.

    Raises
    ------
    OptionError
        If it cannot be read or is no text.
    """
    try:
        with open_file(path) as file:
            begin = file.read(4)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OptionError("a file that can be read", f"{path}: {reason}", "check the path") from None
    if begin == b"PAR1":
        return Head("parquet", tuple(_parquet(path, lambda: _schema(path)).names))
    packed = begin[:2] == b"\x1f\x8b" or begin == b"\x28\xb5\x2f\xfd"
    marked = begin[:2] in (b"\xff\xfe", b"\xfe\xff") or begin[:3] == b"\xef\xbb\xbf"
    for block in text_blocks(path):
        text = block.text.lstrip()
        if not text:
            continue
        line = block.first_line + block.text.count(b"\n", 0, len(block.text) - len(text))
        if text.startswith(b"["):
            return Head("array", (), line, packed, marked)
        if not text.startswith(b"{"):
            row = text.split(b"\n", 1)[0].rstrip(b"\r").decode(errors="replace")
            return Head("csv", tuple(name.strip() for name in _cells(row)), line, packed, marked)
        objects = [_object(each)[0] for each in text.split(b"\n", 64)[:64]]
        found = [each for each in objects if each]
        names = tuple(dict.fromkeys(name for each in found for name in each))
        return Head("jsonl", names, line, packed, marked, found[0] if found else {})
    return Head("empty", packed=packed, marked=marked)


def pieces(path: Path, head: Head, columns: Collection[str], whole: Collection[str] = ()) -> Iterator[Piece]:
    """All rows of a file.

    Parameters
    ----------
    path : Path
    head : Head
        Of the same file.
    columns : collection of str
        Which to read of a CSV or Parquet file, those that are there.
    whole : collection of str
        Keys of JSON lines, of numbers or lists of them, where ``1.0`` is to be told from ``1``.

    Raises
    ------
    OptionError
        If the file cannot be read, or a line is longer than can be held.
    """
    if head.kind == "parquet":
        yield from _of_parquet(path, [name for name in head.names if name in columns])
    elif head.kind == "csv":
        yield from _of_csv(path, head, [name for name in dict.fromkeys(head.names) if name in columns])
    elif head.kind == "jsonl":
        for block in text_blocks(path):
            yield from _parsed(block, lambda text: _json_table(text, path, whole), _object)


Table = Callable[[bytes], "pa.Table | None"]
Row = Callable[[bytes], tuple[dict[str, Any] | None, str]]


def _parsed(block: Block, table: Table, row: Row, quoted: bool = False) -> Iterator[Piece]:
    """The rows of a block: as a whole, in cuts, or line by line."""
    text = block.text
    if not text.strip():
        yield Piece({}, np.zeros(0, np.int64), (), tuple(block.first_line + at for at in range(text.count(b"\n"))[:1]))
        return
    found = table(text)
    if found is not None:
        columns = {name: found.column(name) for name in found.column_names}
        if len(found) == block.lines:
            yield Piece(columns, block.first_line + np.arange(block.lines))
            return
        begins = _begins(text, quoted)
        if len(found) == len(begins):
            lines, blank = _numbered(text, begins, block.first_line)
            yield Piece(columns, lines, (), blank)
            return
    if len(text) <= CUT_BYTES:
        yield _by_line(block, row, quoted)
        return
    ends = _ends(text, quoted)
    chosen = np.unique(
        np.searchsorted(ends, np.arange(CUT_BYTES, len(text) + CUT_BYTES, CUT_BYTES)).clip(0, len(ends) - 1)
    )
    begin, line = 0, block.first_line
    for end in ends[chosen].tolist():
        part = Block.of(text[begin:end], line)
        if len(part.text) == len(text):
            yield _by_line(part, row, quoted)
        else:
            yield from _parsed(part, table, row, quoted)
        line += part.lines
        begin = end


def _ends(text: bytes, quoted: bool) -> NDArray[np.int64]:
    """Behind each line, int64[lines]; line breaks between quotes do not count where `quoted`."""
    raw = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(raw == ord("\n"))
    if quoted and b'"' in text:
        breaks = breaks[np.searchsorted(np.flatnonzero(raw == ord('"')), breaks) % 2 == 0]
    if not len(breaks) or breaks[-1] != len(text) - 1:
        breaks = np.append(breaks, len(text) - 1)
    return breaks + 1


def _begins(text: bytes, quoted: bool) -> NDArray[np.int64]:
    """Where each line that is not blank begins, int64[rows]."""
    ends = _ends(text, quoted)
    begins = np.concatenate(([0], ends[:-1]))
    visible = np.concatenate(([0], np.cumsum(np.frombuffer(text, np.uint8) > ord(" "))))
    return begins[visible[ends] > visible[begins]]


def _numbered(text: bytes, begins: NDArray[np.int64], first: int) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Numbers of the lines that begin there, and of blank ones."""
    count = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(begins) == count:
        return first + np.arange(count), ()
    breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    lines = first + np.searchsorted(breaks, begins)
    blank = [at for at in np.setdiff1d(first + np.arange(count), lines).tolist()]
    return lines, tuple(blank)


def _by_line(block: Block, row: Row, quoted: bool) -> Piece:
    """Every line by itself."""
    begins = _begins(block.text, quoted)
    lines, blank = _numbered(block.text, begins, block.first_line)
    ends = _ends(block.text, quoted)
    found, kept, faults = list[dict[str, Any]](), list[int](), list[Fault]()
    for line, begin, end in zip(
        lines.tolist(), begins.tolist(), ends[np.searchsorted(ends, begins, side="right")].tolist(), strict=True
    ):
        text = block.text[begin:end].rstrip(b"\r\n")
        read, reason = row(text)
        if read is None:
            faults.append(Fault(line, text[:200].decode(errors="replace"), reason))
        else:
            found.append(read)
            kept.append(line)
    names = dict.fromkeys(name for each in found for name in each)
    columns = {name: [each.get(name) for each in found] for name in names}
    return Piece(columns, np.array(kept, np.int64), tuple(faults), blank)


def _json_table(text: bytes, path: Path, whole: Collection[str]) -> pa.Table | None:
    import pyarrow as pa

    try:
        rows = try_rows_of(Block.of(text, 1), path)
    except OptionError:  # several objects in a line
        return None
    if rows is None:
        return None
    table = rows.table
    for name in whole:
        kind = table.schema.field(name).type if name in table.column_names else pa.null()
        if pa.types.is_floating(kind.value_type if pa.types.is_list(kind) else kind):
            return None
    return table


def _object(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, "nested too deep" if isinstance(error, RecursionError) else str(error)[:100]
    return (found, "") if isinstance(found, dict) else (None, f"{type(found).__name__}, not an object")


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line, newline="")), [])
    except csv.Error:
        return []


def _of_csv(path: Path, head: Head, chosen: Sequence[str]) -> Iterator[Piece]:
    names = head.names
    places = {name: names.index(name) for name in chosen}

    def row(line: bytes) -> tuple[dict[str, Any] | None, str]:
        try:
            cells = _cells(line.decode())
        except UnicodeDecodeError:
            return None, "no UTF-8"
        if len(cells) != len(names):
            return None, f"{len(cells)} columns, not {len(names)}"
        return {name: cells[at] for name, at in places.items()}, ""

    def table(text: bytes) -> pa.Table | None:
        import pyarrow as pa
        import pyarrow.csv

        numbered = [str(at) for at in range(len(names))]
        try:
            read = pyarrow.csv.read_csv(
                pa.BufferReader(text),
                read_options=pyarrow.csv.ReadOptions(column_names=numbered, block_size=max(len(text), 1 << 20)),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=b'"' in text),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(numbered, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        return read.select([str(at) for at in places.values()]).rename_columns(list(places)) if places else None

    for block in text_blocks(path, quoted=True):
        text, line = block.text, block.first_line
        if line <= head.line:  # the names of the columns, and blank lines before them
            for _ in range(head.line - line + 1):
                text = text[text.find(b"\n") + 1 :] if b"\n" in text else b""
            line = head.line + 1
        if text.strip():
            for piece in _parsed(Block.of(text, line), table, row, quoted=True):
                yield replace(piece, text=True)


def _of_parquet(path: Path, columns: list[str]) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    before = 0
    with _parquet(path, lambda: open_file(path)) as opened, _parquet(path, lambda: pq.ParquetFile(opened)) as file:
        batches = file.iter_batches(TABLE_ROWS, columns=columns)
        while (batch := _parquet(path, lambda: next(batches, None))) is not None:
            table = pa.table(batch)
            yield Piece({name: table.column(name) for name in columns}, before + np.arange(len(table)))
            before += len(table)


def _schema(path: Path) -> Any:
    import pyarrow.parquet as pq

    with open_file(path) as file:
        return pq.read_schema(file)


def _parquet(path: Path, read: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise OptionError("a Parquet file", f"{path}: {error}"[:300], "the file is broken or cut short") from None
