"""Apache Parquet: about 6 bytes a request, readable everywhere.

Columns are REQUIRED and DELTA_BINARY_PACKED without a codec: 5.3 to 5.8 bytes a row for four columns at 75 million
rows a second on one core, where the defaults of pyarrow give 7.8 to 8.7 at 30. BYTE_STREAM_SPLIT with LZ4 is faster
(105 to 120) but larger (6.0 to 6.6), and fewer readers know it for integers. LZ4 or zstd on top of delta saves 0.5 to
2 % and costs 6 to 25 % of the speed. The exception are ids of conversations and all lists, which are PLAIN with zstd:
fastparquet crashes on lists with delta encodings, and these are smaller (items of images 2.0 bytes a request instead of
3.1, ids of 16-token blocks 457 instead of 634).

Tokens are INT64, because polars adds INT32 up in 32 bits, and silently. It costs 1.1 % of the size and an eighth of
the speed. Types of the trace are in the metadata, so reading gives int32.

`plain` is for readers that know less than those of Arrow, DuckDB, polars and Spark: no delta encodings, Snappy the only
codec, all numbers INT64. That takes 12.2 bytes a row instead of 6.1.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import footer, thrift
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.checked import AGAIN, json_of, number_of, provenance_of, types_of
from servegen_gpu.formats.store import RemoteFile, opened
from servegen_gpu.formats.text import arrow_type
from servegen_gpu.formats.thrift import Struct
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.text import open_file
from servegen_gpu.trace import FIRST_ROW_KEY, PROVENANCE_KEY, Trace, from_arrow

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 2**20
PART_NAME = "part-{:05d}.parquet"
PART = re.compile(r"part-\d{5,}\.parquet", re.ASCII)
TYPES_KEY = b"servegen_gpu.types"
"""In the metadata, as JSON: the types of the trace, whose numbers a file may have in INT64."""
DIGEST_KEY = b"servegen_gpu.digest"
"""Beside the metadata of the table, in those of the file: the digest of its rows."""
TOKENS = "_tokens"
"""How names of columns end whose sums are of interest."""
HIDDEN = re.compile(r"[._].*|Thumbs\.db|desktop\.ini")
"""Names that readers of directories pass over."""
LITTER = re.compile(
    r"_SUCCESS|_(common_)?metadata|\.DS_Store|\._.*|\..*\.crc|\.servegen-.*\.tmp|Thumbs\.db|desktop\.ini"
)
"""Those of them that may go with the parts."""
MAGIC = b"PAR1"
ROOM_BYTES = 1 << 20
"""Memory for the footer and headers of pages of one row group, beyond twice the bytes of its columns."""

# Numbers of fields in a footer: of the file, of an entry of its metadata, of a row group, of a column in it, and of
# what is known of that column.
ROWS, ROW_GROUPS, METADATA = 3, 4, 5
KEY, VALUE = 1, 2
COLUMNS, GROUP_AT = 1, 5
COLUMN_AT, COLUMN_META = 2, 3
PAGES_AT = 9

_kept = threading.local()


def encode(chunk: Trace, plain: bool = False) -> tuple[memoryview, Struct]:
    """The chunk as a row group: its pages, and what a footer says of it if they come first in a file.

    A writer of pyarrow encodes one row group after another. So each is written into a file of its own, in memory.
    """
    import pyarrow as pa

    table = _table(chunk, plain).replace_schema_metadata()
    room = _room(2 * table.nbytes + ROOM_BYTES)
    with pa.FixedSizeBufferWriter(pa.py_buffer(room)) as sink:
        _write(sink, table.schema, plain, table)
        pages, footer = _apart(room.data[: sink.tell()])
    _, (_, (group,)) = footer[ROW_GROUPS]
    return pages, group


@contextmanager
def writer(head: Trace, sink: Sink, plain: bool = False) -> Iterator[Append]:
    """The file that a writer of pyarrow would make of the same row groups, byte by byte."""
    import pyarrow as pa

    empty = pa.BufferOutputStream()
    _write(empty, _table(head, plain).schema, plain)
    _, footer = _apart(memoryview(empty.getvalue()).cast("B"))
    groups: list[Struct] = []
    sink.write(MAGIC)

    def append(encoded: tuple[memoryview, Struct]) -> None:
        pages, group = encoded
        groups.append(_moved(group, sink.size - len(MAGIC)))
        sink.write(pages)

    yield append
    footer[ROWS] = (thrift.I64, sum(group[ROWS][1] for group in groups))
    footer[ROW_GROUPS] = (thrift.LIST, (thrift.STRUCT, groups))
    digest = {KEY: (thrift.BINARY, DIGEST_KEY), VALUE: (thrift.BINARY, sink.digest.hex.encode())}
    footer[METADATA][1][1].insert(0, digest)  # where pyarrow has what is added at the end
    last = thrift.write(footer)
    sink.write(last + len(last).to_bytes(4, "little") + MAGIC)


def _room(size: int) -> NDArray[np.uint8]:
    """Memory of the calling thread, the same in every call: fresh pages would cost a tenth of the encoding."""
    if (room := getattr(_kept, "room", None)) is None or len(room) < size:
        room = _kept.room = np.empty(size, np.uint8)
    return room


def _table(trace: Trace, plain: bool) -> pa.Table:
    """The trace with its tokens in INT64, or with all its numbers."""
    columns: dict[str, Column] = dict(trace.columns)
    for name, column in columns.items():
        if isinstance(column, Ragged):
            columns[name] = Ragged(column.offsets, column.values.astype(np.int64)) if plain else column
        elif plain or name.endswith(TOKENS):
            columns[name] = column.astype(np.int64, copy=False)
    table = Trace.trusted(columns, trace.provenance, trace.first_row).to_arrow()
    types = {TYPES_KEY: json.dumps(trace.schema()).encode()}
    return table.replace_schema_metadata(table.schema.metadata | types)


def _write(sink: Any, schema: pa.Schema, plain: bool, table: pa.Table | None = None) -> None:
    """A whole file of one row group, or of none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = [f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)]
    flat = [field.name for field in schema if not pa.types.is_list(field.type)]
    # repeat in parts, not in differences: ids of conversations take 3 bytes instead of 7, for 20 ns a row
    repeated = [*lists, *(name for name in flat if name == "conversation")]
    options: dict[str, Any] = {
        "compression": dict.fromkeys(flat, "none") | dict.fromkeys(repeated, "zstd"),
        "compression_level": dict.fromkeys(repeated, 1),
        "column_encoding": dict.fromkeys(flat, "DELTA_BINARY_PACKED") | dict.fromkeys(repeated, "PLAIN"),
        "write_statistics": [name for name in flat if name == "arrival_us"],
    }
    if plain:  # columns without statistics are floats to fastparquet, which does not see that there are no nulls
        encoding = dict.fromkeys([*flat, *lists], "PLAIN")
        options = {"compression": "snappy", "column_encoding": encoding, "write_statistics": True}
    with pq.ParquetWriter(sink, schema, use_dictionary=False, data_page_version="1.0", **options) as made:
        if table is not None:
            made.write_table(table, row_group_size=len(table))


def _apart(file: memoryview) -> tuple[memoryview, Struct]:
    """Pages and footer of a file."""
    end = len(file) - len(MAGIC) - 4
    begin = end - int.from_bytes(file[end : end + 4], "little")
    return file[len(MAGIC) : begin], thrift.read(bytes(file[begin:end]))


def _moved(group: Struct, by: int) -> Struct:
    """What a footer says of a row group that is so many bytes further on."""

    def moved(fields: Struct, number: int) -> Struct:
        kind, at = fields[number]
        return fields | {number: (kind, at + by if at else 0)}  # 0 is nowhere

    kind, (of, columns) = group[COLUMNS]
    there = [
        moved(column, COLUMN_AT) | {COLUMN_META: (thrift.STRUCT, moved(column[COLUMN_META][1], PAGES_AT))}
        for column in columns
    ]
    return moved(group, GROUP_AT) | {COLUMNS: (kind, (of, there))}


def read_slabs(path: Path | RemoteFile, span_us: tuple[int, int] | None = None) -> Iterator[Trace]:
    """Read one file, a row group at a time: all of them, or those with arrivals in a span."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from servegen_gpu.formats.reading.parquet_tables import check_lists

    try:
        # opened here, because pyarrow takes no name that is not UTF-8
        with opened(path) as bytes_of, pq.ParquetFile(bytes_of) as file:
            provenance, first_row = _header(file.schema_arrow.metadata, path)
            types = _own_types(file.schema_arrow, path)
            check_lists(bytes_of, path)
            if not file.num_row_groups:
                table = file.read()
                yield from_arrow(table.cast(types) if types else table, provenance, first_row, path)
            for at in range(file.num_row_groups):
                group = file.metadata.row_group(at)
                row, first_row = first_row, first_row + group.num_rows
                for table in _tables(file, at) if span_us is None or _meets(group, span_us) else ():
                    yield from_arrow(table.cast(types) if types else table, provenance, row, path)
                    row += len(table)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns may be anything
        got = f"{path}: {str(error)[:300]}"
        raise OptionError("a Parquet file", got, "give a trace that this package wrote") from error


def _arrivals(group: Any) -> tuple[int, int] | None:
    """First and last arrival in a row group, where the footer says so."""
    for column in map(group.column, range(group.num_columns)):
        if column.path_in_schema == "arrival_us" and column.statistics is not None and column.statistics.has_min_max:
            return int(column.statistics.min), int(column.statistics.max)
    return None


def _meets(group: Any, span_us: tuple[int, int]) -> bool:
    """Whether a row group may have arrivals in a span."""
    known = _arrivals(group)
    return known is None or (known[0] < span_us[1] and known[1] >= span_us[0])


def stated(path: Path | RemoteFile) -> tuple[dict[str, Any], int, int, str | None]:
    """What a file says of itself: its provenance, its first row, how many rows it has, and their digest, if it does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(path) as file:
            about = pq.read_metadata(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise OptionError("a Parquet file", f"{path}: {error}", "give a trace that this package wrote") from error
    digest = (about.metadata or {}).get(DIGEST_KEY)
    provenance, first_row = _header(about.metadata, path)
    return provenance, first_row, about.num_rows, None if digest is None else digest.decode(errors="replace")


def last_us(path: Path | RemoteFile) -> int | None:
    """When the last row arrives; None where the footer does not tell."""
    import pyarrow.parquet as pq

    with opened(path) as file:
        about = pq.read_metadata(file)
    known = _arrivals(about.row_group(about.num_row_groups - 1)) if about.num_row_groups else None
    return None if known is None else known[1]


def is_parquet(path: Path | RemoteFile) -> bool:
    """Whether a file begins as one of Parquet."""
    with opened(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def _tables(file: Any, at: int) -> Iterator[pa.Table]:
    """A row group; one of others, which may claim any number of rows, in pieces of the size that ours have."""
    import pyarrow as pa

    if file.metadata.row_group(at).num_rows <= ROW_GROUP_ROWS:
        yield file.read_row_group(at)
    else:
        yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(ROW_GROUP_ROWS, [at]))


def _own_types(schema: pa.Schema, path: Path | RemoteFile) -> pa.Schema | None:
    """The columns of a file with the types that the trace had, if it says so."""
    import pyarrow as pa

    try:
        if (text := schema.metadata.get(TYPES_KEY)) is None:
            return None
        known = types_of(json_of(text))
        if list(known) != schema.names:
            raise ValueError(f"the types of {', '.join(known)} for the columns {', '.join(schema.names)}")
    except ValueError as error:
        raise OptionError("types of columns in the metadata of the file", f"{error} in {path}", AGAIN) from error
    return pa.schema([f.with_type(arrow_type(known[f.name])) for f in schema], schema.metadata)


def _header(metadata: dict[bytes, bytes] | None, path: Path | RemoteFile) -> tuple[dict[str, Any], int]:
    """Provenance and number of the first row."""
    try:
        found = metadata or {}
        provenance = provenance_of(json_of(found[PROVENANCE_KEY]))
        return provenance, number_of(json_of(found[FIRST_ROW_KEY]), "first_row")
    except (KeyError, ValueError) as error:
        got = f"no {error.args[0].decode()!r}" if isinstance(error, KeyError) else str(error)
        raise OptionError(
            f"{PROVENANCE_KEY.decode()!r} in the metadata of the file",
            f"none that can be read in {path}: {got}",
            "give a trace that this package wrote",
        ) from error


def is_ours(path: Path) -> bool:
    """Whether a file is Parquet, has a provenance, and is as we wrote it.

    Arrow keeps the provenance when rows are filtered, sorted or changed and when columns are left out or added, and
    writes dictionaries, which we never do.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as file:  # pyarrow takes no names that are no Unicode
            if file.read(len(MAGIC)) != MAGIC:
                return False
            found = pq.read_metadata(file)
            stated = found.metadata or {}
            if PROVENANCE_KEY not in stated or any(chunk.has_dictionary for chunk in footer.chunks(file, 1)):
                return False
            return TYPES_KEY not in stated or _same_columns(stated[TYPES_KEY], found.schema.to_arrow_schema().names)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def _same_columns(types: bytes, names: list[str]) -> bool:
    """Whether columns are those whose types are stated; True where nobody can read that: damage is no change."""
    try:
        return list(types_of(json_of(types))) == names
    except ValueError:
        return True


def has_ours(directory: Path) -> bool:
    """Whether any file of a directory is as we wrote it: then all of them must be the parts of a trace."""
    return any(is_ours(path) for path in directory.iterdir() if path.is_file() and not HIDDEN.fullmatch(path.name))


def parts(directory: Path) -> list[Path]:
    """The files of a directory if it is a directory of parts, else an empty list; other files may be there, too."""
    found = [path for path in directory.iterdir() if not HIDDEN.fullmatch(path.name)]
    return _parts([path for path in found if path.is_dir() or path.suffix.lower() == ".parquet"])


def others(directory: Path) -> list[str]:
    """Names of what must not be lost with a directory: none if it has parts of a trace, litter, or nothing.

    Litter is what systems and Spark leave by themselves, and what was being written when a process was killed.
    """
    kept = [path for path in directory.iterdir() if path.is_dir() or not LITTER.fullmatch(path.name)]
    return [] if (found := _parts(kept)) and _has_header(found[0]) else sorted(path.name for path in kept)


def is_part(path: Path) -> bool:
    """Whether a file goes with an older trace in parts: one of them, or litter."""
    return is_ours(path) if PART.fullmatch(path.name) else not path.is_dir() and bool(LITTER.fullmatch(path.name))


def _parts(paths: list[Path]) -> list[Path]:
    """Files in order if they have the names of parts, else an empty list."""
    found = sorted(paths, key=lambda path: (len(path.name), path.name))
    return found if [path.name for path in found] == [PART_NAME.format(at) for at in range(len(found))] else []


def _has_header(path: Path) -> bool:
    """Whether a file is Parquet with a provenance."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as file:
            _header(pq.read_schema(file).metadata, path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OptionError):
        return False
    return True


def plain(known: Format) -> Format:
    """The format for readers without delta encodings."""
    return replace(known, encode=partial(encode, plain=True), writer=partial(writer, plain=True))


FORMAT = Format(".parquet", ROW_GROUP_ROWS, encode, writer, read_slabs, binary=True)
