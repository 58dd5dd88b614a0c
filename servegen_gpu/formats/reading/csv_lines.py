"""CSV files as Arrow tables of text, block by block; what is wrong in a file is said with the number of its line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.rows import MOST_COLUMNS, SHOWN, Rows
from servegen_gpu.formats.reading.text_blocks import Block, first_bad, records, text_blocks
from servegen_gpu.formats.text import bytes_at_once

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes
    ----------
    names : tuple of str
        Of the columns.
    delimiter : str
        What parts columns. Numbers in files with semicolons may have decimal commas.
    """

    names: tuple[str, ...]
    delimiter: str


def csv_header(path: str | os.PathLike[str]) -> Header:
    """The first line of a file that is not blank; refused if there is none, or if it is data."""
    block = next((block for block in text_blocks(path, quoted=True) if not block.text.isspace()), Block(b"", 1, 0))
    line = _first_line(block.text)[0].strip(b"\r\n")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("latin-1")  # only names are read here, and values are checked later
    delimiter = max(DELIMITERS, key=text.count)
    try:
        (cells,) = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (ValueError, csv.Error):
        cells = []
    names = tuple(cell.strip() for cell in cells)
    if not any(names) or len(names) > MOST_COLUMNS:
        raise OptionError(f"names of columns in the first line of {path}", f"{text[:SHOWN]!r}", "give a CSV file")
    if all(not name or _is_number(name) for name in names):
        fix = 'write the names of the columns first, such as "timestamp,input_tokens,output_tokens"'
        raise OptionError(f"names of columns in the first line of {path}", f"numbers: {text[:SHOWN]!r}", fix)
    return Header(names, delimiter)


def csv_tables(path: str | os.PathLike[str], header: Header, columns: Sequence[str]) -> Iterator[Rows]:
    """The rows of a file in tables of some 16 MB of text each, all values as text; ``rows.line(i)`` is row i's line.

    Blank lines are passed over. Fields between quotes may have line breaks.

    Parameters
    ----------
    path : path
        Plain or in gzip or zstd, in UTF-8 or with a byte order mark.
    header : Header
        As `csv_header` gives it.
    columns : sequence of str
        Which to read, each once in the header.

    Raises
    ------
    OptionError
        If the file cannot be read, a column is missing or there twice, or a line has too many or too few fields; it
        names the line.
    """
    import pyarrow as pa

    for name in columns:
        if header.names.count(name) != 1:
            listed = ", ".join(header.names)[:200]
            raise OptionError(f"one column {name!r} in the first line", f"{path}: {listed}", "name another")
    begun = False
    for block in text_blocks(path, quoted=True):
        if not begun:
            if block.text.isspace():
                continue
            end = _first_line(block.text)[1]
            over = block.text.count(b"\n", 0, end)
            block, begun = Block(block.text[end:], block.first_line + over, block.lines - over), True
        if not block.text or block.text.isspace():
            continue
        try:
            table = _parsed(block.text, header, columns)
        except pa.ArrowInvalid:
            _refuse_first(block, path, header, columns)
        yield _with_lines(block, table, path)


def _with_lines(block: Block, table: pa.Table, path: str | os.PathLike[str]) -> Rows:
    count = len(table)

    def line(row: int) -> int:
        lines = records(block.text, quoted=True).lines
        if len(lines) != count:  # a quote amid a field, which is a sign like any other
            lines = records(block.text).lines
        return block.first_line + int(lines[min(row, len(lines) - 1)])

    return Rows(table, line, os.fspath(path))


def _first_line(text: bytes) -> tuple[bytes, int]:
    """The first row of a block that is not blank, and where it ends."""
    end = len(text) - len(text.lstrip(b"\r\n"))
    while True:
        end = text.find(b"\n", end) + 1 or len(text)
        if end == len(text) or text.count(b'"', 0, end) % 2 == 0:
            return text[:end].lstrip(b"\r\n"), end


def _parsed(text: bytes, header: Header, columns: Sequence[str]) -> pa.Table:
    """By position, because columns that are not read may share a name."""
    import pyarrow as pa
    import pyarrow.csv

    places = [str(header.names.index(name)) for name in columns]
    quoted = b'"' in text
    block_size = len(text) + 1 if quoted else bytes_at_once(text)
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(
            column_names=[str(at) for at in range(len(header.names))], block_size=block_size
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=quoted),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(places, pa.string()), include_columns=list(dict.fromkeys(places))
        ),
    )
    return pa.table([table.column(place) for place in places], names=list(columns))


def _refuse_first(block: Block, path: str | os.PathLike[str], header: Header, columns: Sequence[str]) -> NoReturn:
    """Refuse the first line that cannot be read."""
    import pyarrow as pa

    reason = ""

    def readable(text: bytes) -> bool:
        nonlocal reason
        try:
            _parsed(text, header, columns)
        except pa.ArrowInvalid as error:
            reason = str(error)
            return False
        return True

    found = records(block.text, quoted=True)
    at = first_bad(block.text, found, readable)
    readable(block.text[: found.ends[at]])
    line = block.text[found.begins[at] : found.ends[at]].strip()
    where = f"{path}, line {block.first_line + int(found.lines[at])}"
    shown = repr(line.decode(errors="replace")[:SHOWN])
    if "UTF" in reason:
        raise OptionError("UTF-8 text", f"other bytes in {shown} in {where}", "save the file as UTF-8")
    fix = "the line was cut short, or a comma is not between quotes: fix or remove it"
    raise OptionError(f"{len(header.names)} fields, as the first line has", f"others: {shown} in {where}", fix)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
