"""Numbers to text in whole columns, and the provenance file that lies beside a text file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.digest import Digest
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.checked import MOST_BYTES, json_of, number_of, provenance_of, types_of
from servegen_gpu.formats.compression import open_text
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.text import open_file
from servegen_gpu.trace import Trace, arrow_numbers

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_CHUNK_ROWS = 2**17
"""Small enough for the cache to help and for 32-bit text offsets, large enough for call overhead to vanish."""
BLOCK_BYTES = 1 << 24
"""Of text that is read at once."""
MAX_LINE_BYTES = 1 << 26
PARSE_BYTES = 1 << 20
"""Of it that a thread parses at once, where rows are no longer."""
SIDECAR = ".provenance.json"
"""Ends the name of the file that has the provenance of a text file."""


def numbers(column: Column, separator: str) -> pa.Array:
    """A column as text, string[n]; the items of a list are joined by `separator`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, Ragged):
        return pc.cast(arrow_numbers(column), pa.string())
    items = pc.cast(arrow_numbers(column.values), pa.string())
    lists = pa.ListArray.from_arrays(arrow_numbers(column.offsets.astype(np.int32)), items)
    return pc.binary_join(lists, scalar(separator))


def lines(pieces: Iterable[pa.Array | str]) -> memoryview:
    """The pieces side by side, row after row, as UTF-8 bytes."""
    import pyarrow.compute as pc

    joined = pc.binary_join_element_wise(*(scalar(p) if isinstance(p, str) else p for p in pieces), scalar(""))
    # The text of an Arrow column is already one run of bytes.
    _, offsets, text = joined.buffers()
    ends = np.frombuffer(offsets, np.int32)[[joined.offset, joined.offset + len(joined)]]
    return memoryview(text)[ends[0] : ends[1]]


def scalar(text: str) -> pa.Scalar:
    """An Arrow scalar; ``pa.scalar`` would import pandas."""
    import pyarrow as pa

    data = text.encode()
    ends = np.array([0, len(data)], np.int32)
    return pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(data))[0]


def blocks(path: Path) -> Iterator[bytes]:
    """Whole lines of a text file, `BLOCK_BYTES` at a time and the rest of a line; at least one block."""
    with open_text(path) as file:
        block = file.read(BLOCK_BYTES)
        while True:
            rest = file.readline(MAX_LINE_BYTES)
            if len(rest) == MAX_LINE_BYTES:
                got = f"a longer one in {path}"
                raise OptionError(f"lines of at most {MAX_LINE_BYTES >> 20} MiB", got, "generate the trace again")
            yield block + rest
            if not (block := file.read(BLOCK_BYTES)):
                return


def bytes_at_once(text: bytes) -> int:
    """How much of some whole lines pyarrow should parse at once, on a thread: no row may be longer than that."""
    at = 0
    while len(text) - at > PARSE_BYTES:
        at = text.rfind(b"\n", at, at + PARSE_BYTES) + 1
        if at == 0:
            return len(text) + 1
    return PARSE_BYTES


def sidecar_path(path: Path) -> Path:
    """Where the provenance of a text file lies: beside the file that a link leads to, or, if only there, the link."""
    real = Path(os.path.realpath(path))
    beside, beside_link = (of.with_name(of.name + SIDECAR) for of in (real, path))
    return beside_link if not beside.exists() and beside_link.exists() else beside


def sidecar(head: Trace, digest: Digest, size: int, format: str = "") -> bytes:
    """Contents of the provenance file; rows and bytes tell that it belongs to the data, of another program's format."""
    about = ({"format": format} if format else {}) | {
        "provenance": json.loads(head.header()),
        "columns": head.schema(),
        "first_row": head.first_row,
        "rows": digest.rows,
        "bytes": size,
    }
    if not format:  # a file of another program may hold less than the rows, or more
        about["digest"] = digest.hex
    return (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def read_sidecar(path: Path) -> dict[str, Any]:
    """The provenance file of a text file, checked against it.

    Raises
    ------
    OptionError
        If there is none, it is broken, or it belongs to another file.
    """
    beside = sidecar_path(path)
    try:
        about, size = _about(beside), os.stat(path).st_size
    except OSError as error:
        fix = "keep the two files together, or generate the trace again"
        raise OptionError(f"the provenance of the trace in {beside}", str(error), fix) from error
    if about["bytes"] != size:
        raise OptionError(
            f"a trace of {about['bytes']:,} bytes, as {beside} says",
            f"{size:,} bytes in {path}",
            "the two do not belong together: generate the trace again",
        )
    return about


def known_sidecar(path: Path) -> dict[str, Any] | None:
    """The provenance file of a text file; None if there is none that belongs to it.

    Raises
    ------
    OptionError
        If it is broken.
    """
    about = sidecar_of(path)
    return about if about is not None and about["bytes"] == os.stat(path).st_size else None


def sidecar_of(path: Path) -> dict[str, Any] | None:
    """The provenance file beside a text file, whether or not it belongs to it; None if there is none.

    Raises
    ------
    OptionError
        If it is broken.
    """
    try:
        return _about(sidecar_path(path))
    except OSError:
        return None


def _about(beside: Path) -> dict[str, Any]:
    """What a provenance file says, checked by itself."""
    with open_file(beside) as file:
        text = file.read(MOST_BYTES + 1)
    try:
        about = provenance_of(json_of(text))
        provenance_of(about["provenance"])
        for name in ("bytes", "rows", "first_row"):
            number_of(about[name], name)
        if "format" not in about:
            types_of(about["columns"])
        elif not isinstance(about["format"], str):
            raise ValueError("a format that is no name")
    except (ValueError, KeyError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else str(error)[:200]
        fix = "remove it, to read the trace without it, or generate the trace again"
        raise OptionError("the provenance of a trace", f"{got} in {beside}", fix) from error
    return about


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a name that `Trace.schema` gives."""
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(pa.field("element", arrow_type(kind[5:-1]), nullable=False))
    return pa.type_for_alias(kind)
