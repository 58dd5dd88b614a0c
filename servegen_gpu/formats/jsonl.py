"""JSON lines: one object per request; lists are JSON lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.text import (
    TEXT_CHUNK_ROWS,
    arrow_type,
    blocks,
    bytes_at_once,
    lines,
    numbers,
    read_sidecar,
)
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace, from_arrow


def encode(chunk: Trace) -> memoryview:
    """The chunk's lines, put together column by column: keys and brackets are the same text in every row."""
    before, after = [], []
    for at, (name, column) in enumerate(chunk.columns.items()):
        bracket = "[" if isinstance(column, Ragged) else ""
        before.append(f"{',' if at else '{'}{json.dumps(name)}:{bracket}")
        after.append("]" if bracket else "")
    after[-1] += "}\n"
    columns = (numbers(column, ",") for column in chunk.columns.values())
    return lines(piece for triple in zip(before, columns, after, strict=True) for piece in triple)


@contextmanager
def writer(head: Trace, sink: Sink) -> Iterator[Append]:
    """Lines, and nothing before them."""
    yield sink.write


def read_slabs(path: Path) -> Iterator[Trace]:
    """Read one file, some lines at a time, and the provenance beside it."""
    import pyarrow as pa
    import pyarrow.json

    from servegen_gpu.formats.reading.json_lines import all_objects

    about = read_sidecar(path)
    schema = pa.schema([(name, arrow_type(kind)) for name, kind in about["columns"].items()])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    first_row = about["first_row"]
    try:
        for block in blocks(path):
            table = schema.empty_table()
            if about["rows"]:
                if not all_objects(block):
                    raise pa.ArrowInvalid("a line that is no object")
                pieces = pyarrow.json.ReadOptions(block_size=bytes_at_once(block))
                table = pyarrow.json.read_json(pa.BufferReader(block), pieces, options).select(schema.names)
            yield from_arrow(table, about["provenance"], first_row, path)
            first_row += len(table)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise OptionError(f"the columns {schema.names}", f"{path}: {error}", "generate the trace again") from error


FORMAT = Format(".jsonl", TEXT_CHUNK_ROWS, encode, writer, read_slabs, sidecar=True)
