"""Values of foreign files: whole numbers of tokens, lists of ids, and what is missing.

Text is tolerated where it means a number: ``128.0``, ``" 128 "``, ``1e3``, and ``128,0`` where semicolons part columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.formats.reading.rows import SHOWN, Rows
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MAX_TOKENS

if TYPE_CHECKING:
    import pyarrow as pa

MAX_EXACT = 2**53
"""Whole numbers up to here are exact as float64."""
ABSENT = ("", "nan", "null", "none", "na", "n/a", "<na>", "nat", "-")
NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether a column is text, of any width and encoding."""
    import pyarrow as pa

    of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of))


def plain(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece, without dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return pc.cast(whole, pa.string()) if is_text(column) else whole


def trimmed(text: pa.Array) -> pa.Array:
    """Text without blanks around it."""
    import pyarrow.compute as pc

    return pc.utf8_trim_whitespace(text)


def missing(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where a column has no value: null, NaN, or text that says so, bool[n]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = plain(column)
    if is_text(column):
        if _all_begin_with_digits(values):
            return np.zeros(len(values), np.bool_)
        gone = pc.is_in(pc.utf8_lower(trimmed(values)), pa.array([*ABSENT, None], pa.string()))
    elif pa.types.is_floating(values.type):
        gone = pc.is_null(values, nan_is_null=True)
    else:
        gone = pc.is_null(values)
    return np.asarray(gone.to_numpy(zero_copy_only=False), np.bool_)


THOUSANDS = r"^\s*[+-]?\d{1,3}(\.\d{3})+\s*$"


def _all_begin_with_digits(text: pa.Array) -> bool:
    if text.null_count or not len(text):
        return False
    _, ends, data = text.buffers()
    at = np.frombuffer(ends, np.int32)[text.offset : text.offset + len(text) + 1]
    if data is None or not (at[1:] > at[:-1]).all():
        return False
    first = np.frombuffer(data, np.uint8)[at[:-1]]
    return bool(((first >= ord("0")) & (first <= ord("9"))).all())


def numbers(rows: Rows, column: str, expected: str, *, decimal_comma: bool) -> NDArray[Any]:
    """A column without missing values as int64[n] where it can be, else as float64[n]; NaN and infinity are refused."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = plain(rows.table.column(column))
    if not len(values):
        return np.zeros(0, np.int64)
    if is_text(rows.table.column(column)):
        try:
            return np.asarray(pc.cast(values, pa.int64()))
        except pa.ArrowInvalid:
            values = trimmed(values)
        if decimal_comma:
            values = pc.replace_substring(values, ",", ".")
        wrong = np.flatnonzero(~np.asarray(pc.match_substring_regex(values, NUMBER)))
        if len(wrong):
            rows.refuse(int(wrong[0]), column, expected, "fix the value, or name another column")
        values = pc.cast(pc.utf8_ltrim(values, characters="+"), pa.float64())
    elif pa.types.is_decimal(values.type):
        values = pc.cast(values, pa.float64())
    elif pa.types.is_uint64(values.type):
        values = pc.cast(values, pa.int64(), safe=False)  # what is too large comes out negative
    elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        rows.refuse(0, column, expected, f"the column holds {str(values.type)[:SHOWN]}: name another", _first(values))
    found = np.asarray(values.to_numpy(zero_copy_only=False))
    if found.dtype.kind in "iu":
        return found.astype(np.int64, copy=False)
    if not np.isfinite(found).all():
        rows.refuse(int(np.argmin(np.isfinite(found))), column, f"{expected}, finite", "fix the value")
    return found.astype(np.float64, copy=False)


def tokens(rows: Rows, column: str, *, decimal_comma: bool = False) -> NDArray[np.int32]:
    """Whole tokens from 0 to 2**31 - 1, int32[n]."""
    import pyarrow.compute as pc

    if decimal_comma and is_text(rows.table.column(column)):
        dots = np.flatnonzero(
            np.asarray(pc.fill_null(pc.match_substring_regex(rows.table.column(column), THOUSANDS), False))
        )
        if len(dots):
            expected = "whole tokens, which may be thousands or decimals here,"
            rows.refuse(int(dots[0]), column, expected, "write whole numbers without dots")
    found = numbers(rows, column, "whole tokens", decimal_comma=decimal_comma)
    if found.dtype.kind == "f" and (found != np.rint(found)).any():
        rows.refuse(int(np.argmax(found != np.rint(found))), column, "whole tokens", "round it, or name another column")
    wrong = (found < 0) | (found > MAX_TOKENS)
    if wrong.any():
        rows.refuse(int(np.argmax(wrong)), column, f"tokens from 0 to {MAX_TOKENS:,}", "fix the value")
    return np.asarray(found.astype(np.int32))


def whole_ids(rows: Rows, column: str, least: int = 0) -> NDArray[np.int64] | None:
    """Ids that are whole numbers from `least` on, int64[n]; None if one is something else or missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = plain(rows.table.column(column))
    values = trimmed(values) if is_text(rows.table.column(column)) else values
    try:
        found = pc.cast(values, pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if found.null_count or (len(found) and pc.min(found).as_py() < least):
        return None
    return np.asarray(found)


def lists(rows: Rows, column: str, kind: type[np.int32] | type[np.int64]) -> Ragged:
    """Lists of whole numbers from 0 on; text has them parted by blanks or commas. A missing list is an empty one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    expected = "a list of whole numbers from 0 on"
    values = plain(rows.table.column(column))
    if is_text(rows.table.column(column)):
        values = _split(values)
    if pa.types.is_null(values.type) or not len(values):
        values = pa.nulls(len(values), pa.list_(pa.int64()))
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        rows.refuse(0, column, expected, f"the column holds {str(values.type)[:SHOWN]}: leave it out", _first(values))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0), np.int64)
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    items, top = values.flatten(), np.iinfo(kind).max
    try:
        found = np.asarray(pc.cast(items, pa.int64()).to_numpy(zero_copy_only=False))
        wrong = np.asarray(pc.is_null(items)) | (found < 0) | (found > top) if len(found) else np.zeros(0, np.bool_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        wrong = np.array([not _is_id(item, top) for item in items.to_pylist()])
        found = np.array([0 if bad else int(item) for bad, item in zip(wrong, items.to_pylist(), strict=True)])
    if wrong.any():
        at = int(np.argmax(wrong))
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        rows.refuse(row, column, expected, "fix the list, or leave the column out", items[at].as_py())
    whole: NDArray[np.int64] = found
    return Ragged(offsets, whole.astype(np.int32) if kind is np.int32 else whole)


def _split(text: pa.Array) -> pa.Array:
    """Lists of text from ``1 2 3``, ``[1, 2, 3]`` and the like, which pandas breaks into lines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    bare = pc.utf8_trim(text, characters="[]() \r\n\t")
    some = pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)
    return pc.split_pattern_regex(some, r"[\s,;]+")


def _is_id(item: Any, top: int) -> bool:
    try:
        return 0 <= int(item) <= top
    except (ValueError, TypeError, OverflowError):
        return False


def _first(values: pa.Array) -> Any:
    return values[0].as_py() if len(values) else "nothing"
