"""CSV: a header, then one line per request; the items of a list are separated by spaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.checked import AGAIN
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, arrow_type, blocks, bytes_at_once, numbers, read_sidecar
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace, arrow_numbers, from_arrow

if TYPE_CHECKING:
    import pyarrow as pa


def encode(chunk: Trace) -> pa.Buffer:
    """The chunk's lines. Fields are numbers and spaces only, so nothing is ever quoted."""
    import pyarrow as pa
    import pyarrow.csv

    columns = [numbers(c, " ") if isinstance(c, Ragged) else arrow_numbers(c) for c in chunk.columns.values()]
    options = pyarrow.csv.WriteOptions(include_header=False, batch_size=TEXT_CHUNK_ROWS, quoting_style="none")
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.Table.from_arrays(columns, names=list(chunk)), text, options)
    return text.getvalue()


@contextmanager
def writer(head: Trace, sink: Sink) -> Iterator[Append]:
    """Names of the columns, and then lines."""
    sink.write((",".join(head) + "\n").encode())
    yield sink.write


def read_slabs(path: Path) -> Iterator[Trace]:
    """Read one file, some lines at a time, and the provenance beside it."""
    import pyarrow as pa
    import pyarrow.csv

    about = read_sidecar(path)
    types = {name: arrow_type(kind) for name, kind in about["columns"].items()}
    plain = {name: pa.string() if pa.types.is_list(type_) else type_ for name, type_ in types.items()}
    convert = pyarrow.csv.ConvertOptions(column_types=plain, include_columns=list(types), strings_can_be_null=False)
    header, first_row = b"", about["first_row"]
    try:
        for block in blocks(path):
            if not header and (names := block[: block.find(b"\n")].decode(errors="replace").split(",")) != list(types):
                raise OptionError(f"the columns {', '.join(types)}", f"{', '.join(names)} in {path}", AGAIN)
            text = header + block
            pieces = pyarrow.csv.ReadOptions(block_size=bytes_at_once(text))
            table = pyarrow.csv.read_csv(pa.BufferReader(text), pieces, convert_options=convert)
            header = header or block[: block.find(b"\n") + 1]
            for at, (name, type_) in enumerate(types.items()):
                if pa.types.is_list(type_):
                    split = [_split(chunk, type_) for chunk in table.column(name).chunks]
                    table = table.set_column(at, pa.field(name, type_), pa.chunked_array(split, type=type_))
            yield from_arrow(table, about["provenance"], first_row, path)
            first_row += len(table)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise OptionError(f"the columns {list(types)}", f"{path}: {error}", "generate the trace again") from error


def _split(text: pa.Array, type_: pa.DataType) -> pa.Array:
    """Lists of numbers from text, where an empty field is an empty list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    some = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    return pc.cast(pc.coalesce(pc.split_pattern(some, " "), pa.scalar([], pa.list_(pa.string()))), type_)


FORMAT = Format(".csv", TEXT_CHUNK_ROWS, encode, writer, read_slabs, sidecar=True)
