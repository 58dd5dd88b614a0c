"""Apache Parquet: about 6 bytes a request, readable everywhere.

Columns are REQUIRED and DELTA_BINARY_PACKED without a codec: 5.3 to 5.8 bytes a row for four columns at 75 million
rows a second on one core, where the defaults of pyarrow give 7.8 to 8.7 at 30. BYTE_STREAM_SPLIT with LZ4 is faster
(105 to 120) but larger (6.0 to 6.6), and fewer readers know it for integers. LZ4 or zstd on top of delta saves 0.5 to
2 % and costs 6 to 25 % of the speed. The exception are ids of conversations, which are PLAIN with zstd.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Encode, Format
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import FIRST_ROW_KEY, PROVENANCE_KEY, Trace, from_arrow

ROW_GROUP_ROWS = 2**20
PART_NAME = "part-{:05d}.parquet"


@contextmanager
def encoder(head: Trace, sink: Sink) -> Iterator[Encode]:
    """One row group per chunk."""
    import pyarrow.parquet as pq

    leaves = [f"{name}.list.element" if isinstance(column, Ragged) else name for name, column in head.columns.items()]
    # ids of conversations repeat in parts, not in differences: 3 bytes instead of 7, for 20 ns a row
    ids = [name for name in leaves if name == "conversation"]
    writer = pq.ParquetWriter(
        sink,
        head.to_arrow().schema,
        compression=dict.fromkeys(leaves, "none") | dict.fromkeys(ids, "zstd"),
        compression_level=dict.fromkeys(ids, 1),
        use_dictionary=False,
        column_encoding=dict.fromkeys(leaves, "DELTA_BINARY_PACKED") | dict.fromkeys(ids, "PLAIN"),
        write_statistics=[name for name in ("arrival_us",) if name in head],
        data_page_version="1.0",
    )
    try:
        yield lambda chunk: writer.write_table(chunk.to_arrow(), row_group_size=max(len(chunk), 1))
    except BaseException:
        # The file is lost; the writer must still be closed, or it complains when collected.
        sink.drop()
        with suppress(Exception):
            writer.close()
        writer.is_open = False
        raise
    writer.close()


def read_slabs(path: Path) -> Iterator[Trace]:
    """Read one file, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            provenance, first_row = _header(file.schema_arrow.metadata, path)
            for group in range(file.num_row_groups):
                slab = from_arrow(file.read_row_group(group), provenance, first_row, path)
                first_row += len(slab)
                yield slab
            if not file.num_row_groups:
                yield from_arrow(file.read(), provenance, first_row, path)
    except (pa.ArrowException, OSError) as error:
        raise OptionError("a Parquet file", f"{path}: {error}", "give a trace that this package wrote") from error


def _header(metadata: dict[bytes, bytes] | None, path: Path) -> tuple[dict[str, Any], int]:
    try:
        found = metadata or {}
        return json.loads(found[PROVENANCE_KEY]), int(found[FIRST_ROW_KEY])
    except (KeyError, ValueError) as error:
        raise OptionError(
            f"{PROVENANCE_KEY.decode()!r} in the metadata of the file",
            f"none that can be read in {path}",
            "give a trace that this package wrote",
        ) from error


def parts(directory: Path) -> list[Path]:
    """The files of a directory if it is a directory of parts and nothing else, else an empty list."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = sorted(directory.iterdir(), key=lambda path: (len(path.name), path.name))
    if not found or [path.name for path in found] != [PART_NAME.format(at) for at in range(len(found))]:
        return []
    try:
        _header(pq.read_schema(found[0]).metadata, found[0])
    except (pa.ArrowException, OSError, OptionError):
        return []
    return found


FORMAT = Format(suffix=".parquet", chunk_rows=ROW_GROUP_ROWS, encoder=encoder, read_slabs=read_slabs)
