"""Parquet files of others as Arrow tables, in memory that does not grow with what a small file may claim.

A megabyte holds any number of equal rows, of repeated texts, or of items in one list. So rows are read in pieces, texts
with their dictionaries, whose entries are short, and lists only up to a number of items in a row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import footer
from servegen_gpu.formats.reading.rows import MOST_COLUMNS
from servegen_gpu.text import open_file

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_ROWS = 1 << 20
MOST_TEXT = 1 << 16
"""Bytes of an id or a date."""
MOST_ITEMS = 1 << 28
"""Of the lists in a row group."""
SHOWN_TEXT = 1000
"""Characters of a text in the first rows."""


@dataclass(frozen=True)
class Head:
    """What a file is, by its footer and its first rows.

    Attributes
    ----------
    names : tuple of str
        Of the columns.
    rows : int
        How many the footer says.
    keys : frozenset of bytes
        Of its metadata.
    first : list of dict
        Rows, with texts cut.
    """

    names: tuple[str, ...]
    rows: int
    keys: frozenset[bytes]
    first: list[dict[str, Any]]


def parquet_head(path: Path, rows: int) -> Head:
    """What a file is, with so many of its first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            schema, about = file.schema_arrow, file.metadata
            if len(schema.names) > MOST_COLUMNS:
                _refuse(path, f"at most {MOST_COLUMNS:,} columns", f"{len(schema.names):,}")
            texts = [name for name in schema.names if _is_text(schema, name)]
            opened.seek(0)
            with pq.ParquetFile(opened, read_dictionary=texts) as listed:
                check_lists(opened, path)
                head = next(listed.iter_batches(rows), None)
            first = [] if head is None else _shortened(pa.table([*head.columns], list(schema.names))).to_pylist()
            return Head(tuple(schema.names), about.num_rows, frozenset(schema.metadata or {}), first)
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:  # dates beyond Python's
        if isinstance(error, OptionError):
            raise
        got = f"{path}: {error}"[:300]
        raise OptionError("a Parquet file", got, "the file is broken or cut short") from None


def parquet_tables(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a file, `TABLE_ROWS` rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys(names))
    try:
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
            for name in wanted:
                if schema.names.count(name) != 1:
                    _refuse(path, f"one column {name!r}", ", ".join(schema.names)[:200])
            opened.seek(0)
            texts = [name for name in wanted if _is_text(schema, name)]
            with pq.ParquetFile(opened, read_dictionary=texts) as listed:
                check_lists(opened, path)
                for batch in listed.iter_batches(TABLE_ROWS, columns=wanted):
                    yield _decoded(pa.table(batch), path).select(list(names))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise OptionError("a Parquet file", f"{path}: {error}"[:300], "check the file") from None


def check_lists(file: BinaryIO, path: object) -> None:
    """Refuse a row group whose lists claim more items than memory has."""
    for chunk in footer.chunks(file):
        if chunk.values > max(MOST_ITEMS, chunk.rows):
            got = f"{chunk.values:,} of {chunk.path}"
            _refuse(path, f"lists of at most {MOST_ITEMS:,} items in a row group", got, "write smaller row groups")


def _is_text(schema: pa.Schema, name: str) -> bool:
    import pyarrow as pa

    at = schema.get_field_index(name)  # below 0 if there are several
    if at < 0:
        return False
    return bool(pa.types.is_string(schema.field(at).type) or pa.types.is_binary(schema.field(at).type))


def _shortened(table: pa.Table) -> pa.Table:
    """A table with the first characters of its texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = []
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            chunks = [
                pc.take(pc.utf8_slice_codeunits(pc.cast(chunk.dictionary, pa.string()), 0, SHOWN_TEXT), chunk.indices)
                for chunk in column.chunks
            ]
            column = pa.chunked_array(chunks, pa.string())
        columns.append(column)
    return pa.table(columns, table.column_names)


def _decoded(table: pa.Table, path: Path) -> pa.Table:
    """A table with its texts written out, which are short."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_dictionary(column.type):
            longest = [pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks]
            if max(longest, default=0) > MOST_TEXT:
                _refuse(path, f"texts of at most {MOST_TEXT:,} bytes in {name}", f"one of {max(longest):,}")
            table = table.set_column(at, name, column.cast(column.type.value_type))
    return table


def _refuse(path: Any, expected: str, got: str, fix: str = "check the file") -> NoReturn:
    raise OptionError(expected, f"{got} in {path}", fix)
