"""Columns of foreign files as NumPy arrays, with what is missing and what is of another type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.validating.pieces import Piece, Raw

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 2**63 - 1
NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$"
INTEGER = r"^[+-]?[0-9]{1,18}$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?( *(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?))?$"
POWER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of numbers.

    Attributes
    ----------
    values : int64[n] or float64[n]
        0 where there is none; what 64 bits do not hold is the nearest that they do.
    missing, wrong : bool[n]
        Nothing is there; something else is.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Where there is a number, bool[n]."""
        return ~(self.missing | self.wrong)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Where there is a number that is not whole, bool[n]."""
        return np.asarray(self.there & (self.values != np.rint(self.values)))


@dataclass(frozen=True, eq=False)
class Lists:
    """A column of lists of whole numbers: values, where each list ends, and what is no such list.

    Attributes
    ----------
    values : int64[items]
    offsets : int64[n + 1]
    missing, wrong : bool[n]
        A list that is missing or wrong is empty here.
    """

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]
    missing: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each list, int64[n]."""
        return np.diff(self.offsets)

    def rows_of(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """In which row each of some items is, by place; each row once, ascending."""
        return distinct(np.searchsorted(self.offsets, items, side="right") - 1)


def numbers(piece: Piece, key: str, *, text: bool = False) -> Numbers:
    """A column of numbers; `text` that means a number is one too if so told."""
    n, raw = len(piece), piece.columns.get(key)
    no = np.zeros(n, np.bool_)
    if raw is None:
        return Numbers(np.zeros(n, np.int64), ~no, no)
    if isinstance(raw, list):
        return _of_objects(raw, text)
    import pyarrow as pa

    column = _whole(raw)
    missing = mask(column.is_null(nan_is_null=False))
    if pa.types.is_null(column.type):
        return Numbers(np.zeros(n, np.int64), ~no, no)
    if _is_text(column.type):
        return _of_text(column, missing) if text else Numbers(np.zeros(n, np.int64), missing, ~missing)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return Numbers(np.zeros(n, np.int64), missing, ~missing)
    values = np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False))
    if values.dtype.kind == "u":
        values = np.minimum(values, np.uint64(LARGEST)).astype(np.int64)
    if values.dtype.kind == "i":
        return Numbers(values.astype(np.int64), missing, no)
    finite = np.isfinite(values)
    return Numbers(np.where(finite, values, 0).astype(np.float64), missing, ~finite)


def lists(piece: Piece, key: str, *, lenient: bool = False) -> Lists:
    """A column of lists of whole numbers; ``1.0`` is one if `lenient`, or where all of a piece may be written so."""
    n, raw = len(piece), piece.columns.get(key)
    no, empty = np.zeros(n, np.bool_), np.zeros(0, np.int64)
    if raw is None:
        return Lists(empty, np.zeros(n + 1, np.int64), ~no, no)
    if isinstance(raw, list):
        return _lists_of_objects(raw, lenient)
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _whole(raw)
    missing = mask(column.is_null())
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return Lists(empty, np.zeros(n + 1, np.int64), missing, ~missing)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)
    offsets = _ends(lengths)
    items = column.flatten()
    if pa.types.is_null(items.type):
        values, bad = np.zeros(len(items), np.int64), np.ones(len(items), np.bool_)
    elif pa.types.is_integer(items.type) or pa.types.is_floating(items.type):
        found = np.asarray(pc.fill_null(items, 0).to_numpy(zero_copy_only=False))
        bad = mask(items.is_null())
        if found.dtype.kind == "f":
            bad |= found != np.rint(found)
            values = np.where(np.abs(found) < 2.0**63, found, 0).astype(np.int64)
            values[found >= 2.0**63] = LARGEST
        else:
            values = np.minimum(found, LARGEST).astype(np.int64) if found.dtype.kind == "u" else found.astype(np.int64)
    else:
        values, bad = np.zeros(len(items), np.int64), np.ones(len(items), np.bool_)
    wrong = np.zeros(n, np.bool_)
    if bad.any():
        wrong[np.searchsorted(offsets, np.flatnonzero(bad), side="right") - 1] = True
        keep = np.repeat(~wrong, lengths)
        values, offsets = values[keep], _ends(np.where(wrong, 0, lengths))
    return Lists(values, offsets, missing, wrong)


def names(piece: Piece, key: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]:
    """A column of names as 64-bit words, alike where the names are; what is missing; and what is no text.

    Numbers are names as well. Two different names of a billion have the same word with a chance of 3 %.
    """
    import pyarrow as pa

    n, raw = len(piece), piece.columns.get(key)
    if raw is None:
        return np.zeros(n, np.uint64), np.ones(n, np.bool_), np.zeros(n, np.bool_)
    if isinstance(raw, list):
        missing = np.array([value is None for value in raw], np.bool_)
        other = np.array([value is not None and not isinstance(value, str) for value in raw], np.bool_)
        return _words(_strings(None if value is None else str(value) for value in raw)), missing, other
    column = _whole(raw)
    missing = mask(column.is_null())
    text = _is_text(column.type) or pa.types.is_timestamp(column.type)
    if not text and not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        return np.zeros(n, np.uint64), missing, ~missing
    return _words(column.cast(pa.string())), missing, ~missing & (not text)


def texts(piece: Piece, key: str) -> Any:
    """A column as text, pyarrow.StringArray[n]; what is no text is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    n, raw = len(piece), piece.columns.get(key)
    if raw is None:
        return pa.nulls(n, pa.string())
    if isinstance(raw, list):
        return _strings(value.strip() if isinstance(value, str) else None for value in raw)
    column = _whole(raw)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.string())
    return pc.utf8_trim_whitespace(column.cast(pa.string())) if _is_text(column.type) else pa.nulls(n, pa.string())


def _strings(values: Iterable[str | None]) -> pa.StringArray:
    """Texts of JSON, whose halves of surrogates are no Unicode: as escapes."""
    import pyarrow as pa

    return pa.array(
        [None if text is None else text.encode(errors="backslashreplace").decode() for text in values], pa.string()
    )


def whole_text(piece: Piece, key: str) -> NDArray[np.bool_]:
    """Where a column of text has digits alone, bool[n]."""
    import pyarrow.compute as pc

    return mask(pc.fill_null(pc.match_substring_regex(texts(piece, key), INTEGER), False))


def dates(piece: Piece, key: str) -> tuple[Numbers, NDArray[np.bool_]]:
    """A column of dates as seconds since 1970, and where an offset from UTC is stated, bool[n]; offsets are ignored."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = texts(piece, key)
    missing = mask(pc.equal(pc.fill_null(text, ""), ""))
    right = mask(pc.fill_null(pc.match_substring_regex(text, DATE), False))
    head = pc.replace_substring(pc.utf8_slice_codeunits(text, 0, 19), "T", " ")
    whole = pc.strptime(head, "%Y-%m-%d %H:%M:%S", "s", error_is_null=True)
    right &= ~mask(whole.is_null())
    fraction = pc.replace_substring_regex(pc.utf8_slice_codeunits(text, 19), r"^([.][0-9]{1,9})?.*$", r"0\1")
    right_only = pa.array(right)
    part = pc.if_else(right_only, fraction, "0").cast(pa.float64())
    seconds = pc.if_else(right_only, whole.cast(pa.int64()), 0)
    zoned = right & mask(pc.fill_null(pc.match_substring_regex(pc.utf8_slice_codeunits(text, 19), "[Z+-]"), False))
    return Numbers(np.asarray(seconds) + np.asarray(part), missing, ~missing & ~right), zoned


def _whole(column: Raw) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return whole


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def mask(column: Any) -> NDArray[np.bool_]:
    """A column of Arrow's without nulls, of true and false, as bool[n]."""
    import pyarrow as pa

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        return np.concatenate([np.zeros(0, np.bool_), *map(mask, whole.chunks)])
    return np.array(whole.to_numpy(zero_copy_only=False), np.bool_)


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _of_text(column: Any, missing: NDArray[np.bool_]) -> Numbers:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.string())), "")
    missing = missing | mask(pc.equal(text, ""))
    whole = mask(pc.match_substring_regex(text, INTEGER))
    bare = pc.utf8_ltrim(text, characters="+")
    if (whole | missing).all():
        values = np.asarray(pc.if_else(pa.array(whole), bare, "0").cast(pa.int64()))
        return Numbers(values, missing, np.zeros(len(values), np.bool_))
    right = mask(pc.match_substring_regex(text, NUMBER))
    found = np.asarray(pc.if_else(pa.array(right), bare, "0").cast(pa.float64()))
    right &= np.isfinite(found)
    return Numbers(np.where(right, found, 0.0), missing, ~missing & ~right)


def _of_objects(raw: list[Any], text: bool) -> Numbers:
    if text:
        raw = [_number(value) if isinstance(value, str) else value for value in raw]
    missing = np.array([value is None for value in raw], np.bool_)
    right = np.array([type(v) is int or (type(v) is float and abs(v) < np.inf) for v in raw], np.bool_)
    kept = [value if ok else 0 for value, ok in zip(raw, right.tolist(), strict=True)]
    if all(type(value) is int for value in kept):
        kept = [max(-LARGEST, min(value, LARGEST)) for value in kept]
        return Numbers(np.array(kept, np.int64), missing, ~missing & ~right)
    kept = [max(-(2.0**1000), min(value, 2.0**1000)) for value in kept]
    return Numbers(np.array(kept, np.float64), missing, ~missing & ~right)


def _number(text: str) -> Any:
    if not text.strip():
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _lists_of_objects(raw: list[Any], lenient: bool) -> Lists:
    def is_whole(item: Any) -> bool:
        return type(item) is int or (lenient and type(item) is float and item.is_integer())

    missing = np.array([value is None for value in raw], np.bool_)
    right = [isinstance(value, list) and all(map(is_whole, value)) for value in raw]
    kept = [value if ok else [] for value, ok in zip(raw, right, strict=True)]
    offsets = _ends(np.array([len(value) for value in kept], np.int64))
    values = np.array([max(-LARGEST, min(int(item), LARGEST)) for value in kept for item in value], np.int64)
    return Lists(values, offsets, missing, ~missing & ~np.array(right, np.bool_))


def _words(column: Any) -> NDArray[np.uint64]:
    """A word for each text: a polynomial in its bytes, mixed; 0 for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.fill_null(column.cast(pa.string()), "")
    _, ends, data = column.buffers()
    offsets = np.frombuffer(ends, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    if len(column) == 0 or offsets[-1] == offsets[0]:
        return np.zeros(len(column), np.uint64)
    raw = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    offsets = offsets - offsets[0]
    lengths = np.diff(offsets)
    place = np.arange(len(raw)) - np.repeat(offsets[:-1], lengths)
    powers = np.cumprod(np.full(int(lengths.max()) + 1, POWER, np.uint64))
    terms = _mixed(raw + np.uint64(1) << np.uint64(32)) * powers[place]
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms)))
    return _mixed((sums[offsets[1:]] - sums[offsets[:-1]]) ^ lengths.astype(np.uint64))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(32))
