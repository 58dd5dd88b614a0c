"""Columns as text, for lines of JSON and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.formats.atomic import Sink
from servegen_gpu.formats.base import Append, Format
from servegen_gpu.formats.text import TEXT_CHUNK_ROWS, lines, numbers, scalar
from servegen_gpu.trace import Trace, arrow_numbers

if TYPE_CHECKING:
    import pyarrow as pa

PIECE_DIGITS = 3
PIECE_IDS = 1 << 18
"""Of blocks, written at once: text and temporary arrays of 20 MB."""

Fields = Callable[[Trace], "Mapping[str, pa.Array | str]"]
"""Fields of a CSV row by name, in order; a string is the same in every row."""


def json_lines(name: str, encode: Callable[[Trace], memoryview], chunk_rows: int) -> Format:
    """A file of a line for every request, and nothing before or behind them."""
    return Format(".jsonl", chunk_rows, encode, _lines, sidecar=True, name=name)


def id_lines(name: str, encode: Callable[[Trace], memoryview]) -> Format:
    """The same with ids of blocks, of which a chunk may have millions."""
    return json_lines(
        name, partial(in_pieces, encode, lambda chunk: len(chunk["hash_ids"].values), PIECE_IDS), TEXT_CHUNK_ROWS
    )


def in_pieces(
    encode: Callable[[Trace], memoryview], size: Callable[[Trace], int], most: int, chunk: Trace
) -> memoryview:
    """What `encode` makes of a chunk, called for parts of at most this size, or of one row."""
    waiting, done = [chunk], list[memoryview]()
    while waiting:
        part = waiting.pop()
        if len(part) < 2 or size(part) <= most:
            done.append(encode(part))
        else:
            middle = len(part) // 2
            waiting += [part.rows(middle, len(part)), part.rows(0, middle)]
    return done[0] if len(done) == 1 else memoryview(b"".join(done))


def csv_table(name: str, fields: Fields) -> Format:
    """A CSV file whose fields need no quotes."""
    encode, writer = partial(csv_lines, fields), partial(csv_writer, fields)
    return Format(".csv", TEXT_CHUNK_ROWS, encode, writer, sidecar=True, name=name)


def csv_lines(fields: Fields, chunk: Trace) -> memoryview:
    """The chunk's lines."""
    pieces: list[pa.Array | str] = []
    constant = ""  # what comes before the next field that varies
    for field in fields(chunk).values():
        if isinstance(field, str):
            constant += f"{field},"
        else:
            pieces += [constant, field]
            constant = ","
    return lines([*pieces, constant.removesuffix(",") + "\n"])


@contextmanager
def csv_writer(fields: Fields, head: Trace, sink: Sink) -> Iterator[Append]:
    """Names of the fields, and then lines."""
    sink.write((",".join(fields(head)) + "\n").encode())
    yield sink.write


@contextmanager
def _lines(head: Trace, sink: Sink) -> Iterator[Append]:
    yield sink.write


def decimal(time_us: NDArray[np.int64], digits: int) -> pa.Array:
    """Whole microseconds with so many digits behind the point, string[n]: 3 for milliseconds, 6 for seconds.

    Parameters
    ----------
    time_us : int64[n]
        From 0 on.
    digits : {3, 6}
    """
    import pyarrow.compute as pc

    pieces = [numbers(time_us // 10**digits, "")]
    for place in range(digits - PIECE_DIGITS, -1, -PIECE_DIGITS):
        piece = (time_us // 10**place % 10**PIECE_DIGITS).astype(np.int16)
        pieces.append(pc.take(_padded(), arrow_numbers(piece)))
    return pc.binary_join_element_wise(pieces[0], joined(*pieces[1:]), scalar("."))


def joined(*pieces: pa.Array | str) -> pa.Array:
    """The pieces side by side, row by row, string[n]."""
    import pyarrow.compute as pc

    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0]
    return pc.binary_join_element_wise(*(scalar(p) if isinstance(p, str) else p for p in pieces), scalar(""))


def only_where(rows: NDArray[np.bool_], text: pa.Array) -> pa.Array:
    """The text of some rows, and nothing in the others."""
    import pyarrow.compute as pc

    return pc.if_else(_booleans(rows), text, scalar(""))


def either(rows: NDArray[np.bool_], yes: pa.Array, no: pa.Array) -> pa.Array:
    """The text `yes` of some rows, and `no` of the others."""
    import pyarrow.compute as pc

    return pc.if_else(_booleans(rows), yes, no)


def _booleans(rows: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    bits: Any = np.packbits(rows, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(rows), [None, pa.py_buffer(bits)])


def _padded() -> pa.Array:
    """ "000" to "999"."""
    import pyarrow as pa

    count = 10**PIECE_DIGITS
    text = "".join(f"{number:0{PIECE_DIGITS}d}" for number in range(count)).encode()
    ends = np.arange(0, len(text) + 1, PIECE_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(text))
