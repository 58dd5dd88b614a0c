"""Files of studies: one Parquet file, the table as its columns and the settings as JSON in its metadata.

The same study is the same bytes: neither times nor machines are in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import footer
from servegen_gpu.formats.atomic import new_file
from servegen_gpu.formats.own import refuse_foreign
from servegen_gpu.formats.reading import sources
from servegen_gpu.provenance import VERSION
from servegen_gpu.text import open_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STUDY_KEY = sources.STUDY_KEY
KINDS = ("montecarlo", "sensitivity", "provision")
FILE_FORMAT = 1
"""Raised whenever older files can no longer be read."""
MOST_HEADER_BYTES = 1 << 24
MOST_CELLS = 1 << 27
MOST_NUMBER = 1e100
"""Beyond it, sums of squares overflow, and no figure of a workload lies."""
MOST_BYTES = 1 << 31
"""Of a table that is read: a file may claim anything."""


def write_study(
    path: str | os.PathLike[str],
    kind: str,
    settings: Mapping[str, Any],
    table: pd.DataFrame,
    *,
    overwrite: bool = False,
) -> None:
    """Write a study to a file, which appears complete or not at all, also in the place of an older one.

    Parameters
    ----------
    path : str or path
    kind : {"montecarlo", "sensitivity", "provision"}
    settings : mapping
        What JSON has: text, numbers that are finite, booleans, None, lists and mappings of these.
    table : DataFrame
        Columns of integers, floats (NaN where there is no value), booleans or text; the index is left out.
    overwrite : bool
        Replace a file of others, too; an older study is replaced in any case.

    Raises
    ------
    OptionError
        If the settings are no JSON, or a column has values of another type.
    OutputError
        If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind not in KINDS:
        raise OptionError(f"a study of kind {', '.join(KINDS)}", repr(kind), "change kind")
    header = {"format": FILE_FORMAT, "version": VERSION, "kind": kind, "settings": dict(settings)}
    try:
        text = json.dumps(header, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError("settings that JSON can hold", str(error), "keep to text and finite numbers") from error
    columns = {str(name): _arrow(str(name), table[name].to_numpy()) for name in table.columns}
    made = pa.table(columns).replace_schema_metadata({STUDY_KEY: text})
    buffer = pa.BufferOutputStream()
    pq.write_table(made, buffer, compression="zstd", use_dictionary=False, write_statistics=False)
    refuse_foreign(Path(path), overwrite)
    with new_file(Path(path)) as sink:
        sink.write(buffer.getvalue())


def read_study(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], pd.DataFrame]:
    """Read what `write_study` wrote.

    Returns
    -------
    kind : str
    settings : dict
    table : DataFrame

    Raises
    ------
    OptionError
        If the file is anything else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as opened, pq.ParquetFile(opened) as file:
            kind, settings = _header(file.schema_arrow.metadata, path)
            about = file.metadata
            groups = range(about.num_row_groups)
            size = sum(about.row_group(at).total_byte_size for at in groups)
            cells = about.num_rows * about.num_columns
            if cells > MOST_CELLS or size > MOST_BYTES:
                _refuse(path, f"{about.num_rows:,} rows of {about.num_columns:,} columns in {size:,} bytes")
            for chunk in footer.chunks(opened):
                if chunk.has_dictionary:
                    _refuse(path, f"the column {chunk.path} with a dictionary")
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        _refuse(path, str(error), error)
    names = table.column_names
    if len(set(names)) < len(names):
        _refuse(path, "columns of the same name")
    for field in table.schema:
        of = pa.types
        if not (of.is_integer(field.type) or of.is_floating(field.type) or of.is_boolean(field.type)) and (
            not of.is_string(field.type)
        ):
            _refuse(path, f"the column {field.name} of {field.type}")
        if table[field.name].null_count:
            _refuse(path, f"nulls in the column {field.name}")
        if of.is_floating(field.type):
            numbers = np.abs(table[field.name].to_numpy())
            if (np.isfinite(numbers) & (numbers > MOST_NUMBER)).any():
                _refuse(path, f"a number beyond {MOST_NUMBER:g} in the column {field.name}")
    return kind, settings, table.replace_schema_metadata().to_pandas()


def is_study(path: Any) -> bool:
    """Whether something is the path of a study that this package wrote."""
    if not isinstance(path, str | os.PathLike) or not os.path.isfile(path):  # no pipe, which is read once
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as file:
            if file.read(4) != b"PAR1":
                return False
            return STUDY_KEY in (pq.read_metadata(file).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return False


def _arrow(name: str, values: np.ndarray[Any, Any]) -> pa.Array:
    """A column: integers as int64, floats as float64, booleans, or text."""
    import pyarrow as pa

    if values.dtype.kind in "iu":
        return pa.array(values.astype(np.int64, casting="same_kind" if values.dtype.kind == "i" else "unsafe"))
    if values.dtype.kind == "f":
        return pa.array(values.astype(np.float64))
    if values.dtype.kind == "b":
        return pa.array(values)
    if values.dtype.kind in "UO" and all(isinstance(value, str) for value in values.tolist()):
        return pa.array([str(value) for value in values.tolist()], pa.string())
    raise OptionError("columns of numbers, booleans or text", f"{values.dtype} in {name}", "convert the column")


def _header(metadata: dict[bytes, bytes] | None, path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """Kind and settings."""
    text = (metadata or {}).get(STUDY_KEY)
    if text is None:
        _refuse(path, f"no {STUDY_KEY.decode()} in its metadata")
    if len(text) > MOST_HEADER_BYTES:
        _refuse(path, f"settings of {len(text):,} bytes")
    try:
        header = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"settings that are no JSON ({error})", error)
    if not isinstance(header, dict) or not isinstance(header.get("settings"), dict):
        _refuse(path, "no settings")
    if header.get("format") != FILE_FORMAT:
        _refuse(path, f"format {str(header.get('format'))[:20]}, not {FILE_FORMAT}")
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        _refuse(path, f"kind {str(kind)[:40]!r}")
    return kind, header["settings"]


def _no_number(text: str) -> NoReturn:
    """Refuse NaN and infinities, which Python reads as numbers and JSON does not know."""
    raise ValueError(f"{text} as a number")


def _refuse(path: str | os.PathLike[str], got: str, error: Exception | None = None) -> NoReturn:
    raise OptionError(
        "a study that this package wrote",
        f"{os.fspath(path)}: {got}",
        "make it with montecarlo, sensitivity or provision",
    ) from error
