"""Columns that a user made or a file has: converted to those of a trace, and checked against each other.

What a backend samples is right by construction and never comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import for_blocks
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.request.schema import COLUMNS, MODALITIES

ITEMS = tuple(f"{modality}_tokens" for modality in MODALITIES)
LISTS: dict[str, Any] = dict.fromkeys(ITEMS, np.int32) | {"hash_ids": np.int64}
TOKENS = tuple(name for name in COLUMNS if name not in ITEMS)
NUMBERS: dict[str, Any] = (
    {"arrival_us": np.int64, "client": np.int32}
    | dict.fromkeys(TOKENS, np.int32)
    | {"conversation": np.int64, "turn": np.int32, "new_tokens": np.int32}
)
"""Columns of a trace and their types; columns of other names hold integers of any type."""

FROM_ZERO = ("client", *TOKENS, "turn", "new_tokens")
PARTS = (("reason_tokens", "output_tokens", "max_output"), ("new_tokens", "input_tokens", "max_input"))
"""A column, another that it is a part of, and the argument of `Trace.limited` that caps both."""

Fault = tuple[int, str, str, str]
"""Row, what was expected, what came, what to do."""


def columns_of(given: Any, first_row: int = 0) -> dict[str, Column]:
    """Columns of a trace from arrays, Series, lists or Arrow columns; nothing is copied that need not be.

    Raises
    ------
    OptionError
        If they are none, of different lengths, or hold anything but whole numbers in range.
    """
    if not hasattr(given, "items"):
        raise OptionError("columns by name", f"{type(given).__name__} {str(given)[:40]}", "pass {name: values}")
    columns = {str(name): _column(str(name), column, first_row) for name, column in given.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise OptionError("one or more columns of one length", f"{lengths}", "give every request every field")
    return columns


def on_device(columns: Mapping[str, Any]) -> bool:
    """Whether any column is an array of a CUDA device, which stays there."""
    return any(hasattr(column, "__cuda_array_interface__") for column in columns.values())


def check(columns: Mapping[str, Column], provenance: Mapping[str, Any], first_row: int) -> None:
    """Refuse columns that contradict each other or are out of order, naming the first row at fault."""
    rule = provenance.get("hash_ids")
    block = rule.get("block_tokens") if isinstance(rule, Mapping) else None
    block_tokens = block if isinstance(block, int) and block > 0 else 0

    def look(a: int, b: int) -> None:
        for row, expected, got, fix in _faults(columns, block_tokens, a, b):
            raise OptionError(expected, f"{got} in row {first_row + row:,}", fix)

    if not on_device(columns):
        for_blocks(len(next(iter(columns.values()))), look)


def _faults(columns: Mapping[str, Any], block_tokens: int, a: int, b: int) -> Iterator[Fault]:
    """The first fault of each kind among rows `a` to `b`."""
    if "arrival_us" in columns:
        lo = max(a - 1, 0)
        time = columns["arrival_us"][lo:b]
        for at in _first(time[1:] < time[:-1]):
            got, fix = f"{time[at + 1]} us after {time[at]} us", "sort the rows, or make the trace with Trace.sorted"
            yield lo + at + 1, "requests in order of time (arrival_us)", got, fix
        for at in _first(time[:1] < 0):
            fix = "count times from the start of the trace: subtract the first"
            yield lo + at, "arrival_us from 0 on", f"{time[at]} us", fix
    for name in FROM_ZERO:
        if name in columns:
            for at in _negative(columns[name][a:b]):
                yield a + at, f"{name} from 0 on", f"{columns[name][a + at]}", f"fix {name}, or leave the request out"
    for name in ITEMS:
        if name in columns:
            items = columns[name].rows(a, b)
            for at in _negative(items.values):
                row = int(np.searchsorted(items.offsets, at, side="right")) - 1
                yield a + row, f"{name} from 0 on", f"{items.values[at]}", f"fix {name}, or leave the request out"
    for part, whole, limit in PARTS:
        if part in columns and whole in columns:
            for at in _first(columns[part][a:b] > columns[whole][a:b]):
                got = f"{columns[part][a + at]} of {columns[whole][a + at]}"
                fix = f"change both; to cap lengths, use trace.limited({limit}=…), which keeps them consistent"
                yield a + at, f"{part} of at most {whole}", got, fix
    if "input_tokens" in columns and (named := [name for name in ("text_tokens", *ITEMS) if name in columns]):
        parts = sum(_tokens(columns[name], a, b) for name in named)
        for at in _first(parts > columns["input_tokens"][a:b]):
            got = f"{parts[at]} of {columns['input_tokens'][a + at]}"
            fix = "let input_tokens be their sum (and the history); to cap lengths, use trace.limited(max_input=…)"
            yield a + at, f"{' + '.join(named)} of at most input_tokens", got, fix
    if block_tokens and "hash_ids" in columns and "input_tokens" in columns:
        blocks = -(-columns["input_tokens"][a:b].astype(np.int64) // block_tokens)
        ids = np.diff(columns["hash_ids"].offsets[a : b + 1])
        for at in _first(ids != blocks):
            got = f"{ids[at]} for {columns['input_tokens'][a + at]} tokens"
            fix = "leave hash_ids out, and compute them last: trace.with_hash_ids"
            yield a + at, f"an id of hash_ids for every block of {block_tokens} tokens", got, fix


def _tokens(column: Column, a: int, b: int) -> Any:
    """Tokens of each of the rows `a` to `b`: those of all items in a column of lists."""
    return column.rows(a, b).sums() if isinstance(column, Ragged) else column[a:b].astype(np.int64)


def _negative(numbers: NDArray[Any]) -> tuple[int, ...]:
    """Where the first is that is below 0, if any; the smallest number is found in a third of the time."""
    return _first(numbers < 0) if len(numbers) and numbers.min() < 0 else ()


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    """Where the first is that is wrong, if any."""
    return (int(wrong.argmax()),) if wrong.any() else ()


def _column(name: str, given: Any, first_row: int) -> Column:
    """One column of a trace."""
    if hasattr(given, "__cuda_array_interface__"):
        column: NDArray[Any] = given
        return column
    lists = _as_lists(name, given)
    if lists is None:
        if name in LISTS:
            raise OptionError(f"a list of whole numbers for every request in {name}", f"{given!r:.60}", f"fix {name}")
        return _integers(name, given, NUMBERS.get(name), lambda at: first_row + at)
    if name in NUMBERS:
        raise OptionError(f"a whole number for every request in {name}", f"lists, {lists!r}", f"fix {name}")
    offsets = lists.offsets

    def row_of(at: int) -> int:
        return first_row + int(np.searchsorted(offsets, at, side="right")) - 1

    values = _integers(name, lists.values, LISTS.get(name), row_of)
    return lists if values is lists.values else Ragged(offsets, values)


def _as_lists(name: str, given: Any) -> Ragged | None:
    """A column of lists; None if it is one of numbers."""
    if isinstance(given, Ragged):
        return given
    if isinstance(given, np.ndarray) and given.dtype != object and given.ndim == 1:
        return None
    if (arrow := _arrow_lists(given)) is not None:
        return arrow
    listed = list(given) if hasattr(given, "__iter__") and not isinstance(given, str | bytes) else []
    if not any(isinstance(row, list | tuple | np.ndarray) for row in listed):
        return Ragged(np.zeros(1, np.int64), np.empty(0, np.int32)) if name in LISTS and not listed else None
    rows = [np.asarray(row) for row in listed]
    offsets = np.zeros(len(rows) + 1, np.int64)
    if all(row.ndim == 1 for row in rows):
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return Ragged(offsets, np.concatenate([np.empty(0, np.int32), *(row for row in rows if len(row))]))
    at = next(i for i, row in enumerate(rows) if row.ndim != 1)
    raise OptionError(f"a list for every request in {name}", f"{listed[at]!r:.40} in row {at:,}", f"fix {name}")


def _arrow_lists(given: Any) -> Ragged | None:
    """An Arrow column of lists, also one inside a Series; None for anything else."""
    source = getattr(given, "array", given)
    if not any(hasattr(source, name) for name in ("__arrow_array__", "__arrow_c_stream__", "__arrow_c_array__")):
        return None
    import pyarrow as pa

    chunked = hasattr(source, "__arrow_c_stream__") and not hasattr(source, "__arrow_array__")
    column = pa.chunked_array(source) if chunked else pa.array(source)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or column.null_count:
        return None
    offsets = column.offsets.to_numpy().astype(np.int64)
    return Ragged(offsets - offsets[0], column.flatten().to_numpy(zero_copy_only=False))


def _integers(name: str, given: Any, dtype: Any, row_of: Any) -> NDArray[Any]:
    """Whole numbers as integers of a type, or of any if none is asked for."""
    array = np.asarray(given)
    if array.dtype == object:
        array = np.asarray(array.tolist())
    if array.ndim != 1:
        got = f"{given!r:.40}, of shape {array.shape}"
        raise OptionError(f"one whole number for every request in {name}", got, f"fix {name}")

    def refuse(wrong: NDArray[np.bool_], expected: str, fix: str) -> None:
        for at in _first(wrong):
            raise OptionError(f"{expected} in {name}", f"{array[at]} in row {row_of(at):,}", fix)

    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            refuse(~((array == np.rint(array)) & (np.abs(array) < 2.0**63)), "whole numbers", f"round or drop {name}")
        array = array.astype(np.int64)
    elif array.dtype.kind not in "iu":
        if not len(array):
            return np.empty(0, dtype or np.int64)
        real = [isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in array.tolist()]
        refuse(~np.array(real), "whole numbers", f"convert {name}")
        refuse(np.ones(len(array), np.bool_), "whole numbers of 64 bits", f"convert {name}")
    if dtype is None or array.dtype == dtype:
        return array
    limits = np.iinfo(dtype)
    if len(array) and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        outside = (array < limits.min) | (array > limits.max)
        refuse(outside, f"numbers of {limits.bits} bits, up to {limits.max:,},", f"fix {name}")
    return array.astype(dtype)
