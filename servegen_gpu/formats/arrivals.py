"""Arrivals from CSV files that others wrote: one column of times, and lengths where the file has them.

Published traces of Azure (``TIMESTAMP``, ISO 8601), BurstGPT (``Timestamp``, seconds), Vidur (``arrived_at``, seconds)
and their like differ in names and units only. A file is read block by block, and nothing but the wanted columns is
kept: 8 bytes a request for its time, 4 for a length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Column
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

Unit = Literal["s", "ms", "us", "ns", "iso"]
UNITS_US: dict[str, float] = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
BLOCK_BYTES = 16 << 20
MAX_REQUESTS = 2**31
MAX_SPAN_US = 2**53
MAX_TOKENS = 2**31 - 1


def read_arrivals(
    path: str | os.PathLike[str],
    column: str,
    unit: Unit | None = None,
    *,
    lengths: Mapping[str, str] | None = None,
) -> Trace:
    """A published trace: arrivals of a CSV file with a header, counted from the first of them.

    Parameters
    ----------
    path : path
    column : str
        Header of the column of times.
    unit : {"s", "ms", "us", "ns", "iso"}, optional
        Of the numbers, or dates and times by ISO 8601 such as ``2023-11-16 18:17:03.9799600`` (all of them with an
        offset from UTC, or none). Left out, the first value tells: a number is one of seconds.
    lengths : mapping of str to str, optional
        Columns of whole tokens to keep, by the name that they get:
        ``{"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}``.

    Returns
    -------
    Trace
        ``arrival_us`` to the nearest microsecond, ``client`` (0 for all), and `lengths`; sorted by arrival, what
        arrives at the same time in the order of the file.

    Raises
    ------
    OptionError
        If the file cannot be read, has no such column or no rows, or a value is no time or length; it names the row.
    """
    if unit is not None and unit not in (*UNITS_US, "iso"):
        raise OptionError(f"unit as one of {', '.join(UNITS_US)}, iso", repr(unit), "change unit")
    if not isinstance(lengths, Mapping | None):
        raise OptionError("lengths as {name: column}", repr(lengths)[:60], "change lengths")
    wanted = dict(lengths or {})
    if taken := {"arrival_us", "client"} & set(wanted):
        raise OptionError("names of lengths", f"{taken.pop()!r}", "name it like input_tokens")
    times: list[NDArray[Any]] = []
    tokens: dict[str, list[NDArray[np.int32]]] = {name: [] for name in wanted}
    rows, zoned = 0, False
    for batch in _batches(Path(path), [column, *wanted.values()]):
        if not rows:
            unit, zoned = _kind(batch.column(column)[0].as_py(), unit)
        times.append(_times(batch.column(column), unit, zoned, f"{path}, row {{}}, column {column!r}", rows))
        for name, source in wanted.items():
            tokens[name].append(_tokens(batch.column(source), f"{path}, row {{}}, column {source!r}", rows))
        rows += len(times[-1])
        if rows > MAX_REQUESTS:
            raise OptionError(f"at most {MAX_REQUESTS:,} requests", f"more in {path}", "split the file")
    if not rows:
        raise OptionError("rows of requests", f"none in {path}", "give another file")
    arrival_us, order = _from_first(np.concatenate(times), UNITS_US["ns" if unit == "iso" else unit or "s"], path)
    columns: dict[str, Column] = {"arrival_us": arrival_us, "client": np.zeros(rows, np.int32)}
    for name, parts in tokens.items():
        whole = np.concatenate(parts)
        columns[name] = whole if order is None else whole[order]
    about = {"source": Path(path).name, "column": column, "unit": unit, "lengths": wanted}
    return Trace(columns, about | {"duration_s": (int(arrival_us[-1]) + 1) / 1e6})


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of the named columns as text; none of them empty."""
    import pyarrow as pa
    import pyarrow.csv

    try:
        # the header alone, so that a missing column is refused by name
        with path.open("rb") as file:
            header = file.readline(BLOCK_BYTES)
        known = pyarrow.csv.read_csv(pa.BufferReader(header or b"\n")).column_names
        if missing := [name for name in names if known.count(name) != 1]:
            listed = ", ".join(known)[:200] or "no header"
            raise OptionError(f"one column {missing[0]!r} in the first line", f"{path}: {listed}", "name another")
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=list(dict.fromkeys(names))
        )
        blocks = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES)
        with pyarrow.csv.open_csv(path, read_options=blocks, convert_options=options) as reader:
            for batch in reader:
                if len(batch):
                    yield batch
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError("a CSV file with a header", f"{path}: {error}"[:300], "check the file") from None


def _kind(first: str, unit: Unit | None) -> tuple[Unit, bool]:
    """Unit, and for dates whether they state an offset from UTC, of a first value."""
    first = first.strip()
    if unit is None:
        try:
            float(first)
            unit = "s"
        except ValueError:
            unit = "iso"
    time_of_day = first[11:]
    return unit, unit == "iso" and (time_of_day.upper().endswith("Z") or "+" in time_of_day or "-" in time_of_day)


def _times(texts: pa.Array, unit: Unit | None, zoned: bool, where: str, before: int) -> NDArray[Any]:
    """Times in their unit, float64[n]; dates as int64[n] nanoseconds."""
    import pyarrow as pa

    if unit == "iso":
        expected = f"a date and time by ISO 8601 {'with' if zoned else 'without'} an offset from UTC"
        kind = pa.timestamp("ns", "UTC" if zoned else None)
        found = _cast(texts, kind, expected, where, before).to_numpy(zero_copy_only=False)
        return np.asarray(found.astype("datetime64[ns]").astype(np.int64))
    numbers = _cast(texts, pa.float64(), "a time as a number", where, before).to_numpy(zero_copy_only=False)
    if not np.isfinite(numbers).all():
        _refuse(texts, int(np.argmin(np.isfinite(numbers))), "a finite time", where, before)
    return np.asarray(numbers)


def _tokens(texts: pa.Array, where: str, before: int) -> NDArray[np.int32]:
    import pyarrow as pa

    numbers = _cast(texts, pa.int64(), "whole tokens", where, before).to_numpy(zero_copy_only=False)
    wrong = (numbers < 0) | (numbers > MAX_TOKENS)
    if wrong.any():
        _refuse(texts, int(np.argmax(wrong)), f"tokens from 0 to {MAX_TOKENS:,}", where, before)
    return np.asarray(numbers.astype(np.int32))


def _cast(texts: pa.Array, kind: pa.DataType, expected: str, where: str, before: int) -> pa.Array:
    """Text to values; refuses the first that is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return pc.cast(trimmed, kind)
    except pa.ArrowInvalid:
        low, high = 0, len(trimmed)  # the first fault is in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                pc.cast(trimmed[low:middle], kind)
                low = middle
            except pa.ArrowInvalid:
                high = middle
        _refuse(texts, low, expected, where, before)


def _refuse(texts: pa.Array, at: int, expected: str, where: str, before: int) -> NoReturn:
    raise OptionError(expected, f"{texts[at].as_py()[:60]!r} in {where.format(before + at + 1)}", "fix the file")


def _from_first(
    time: NDArray[Any], unit_us: float, path: str | os.PathLike[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Microseconds from the first arrival, ascending, and the order that makes them so, if not that of the file."""
    first, last = time.min(), time.max()
    if not (float(last) - float(first)) * unit_us < MAX_SPAN_US:
        span_s = (float(last) - float(first)) * unit_us / 1e6
        raise OptionError(f"times within {MAX_SPAN_US / 1e6:.3g} s", f"{span_s:.3g} s in {path}", "check the unit")
    since = time - first
    # nanoseconds of dates are whole numbers all the way
    arrival_us = (since + 500) // 1000 if since.dtype == np.int64 else np.rint(since * unit_us).astype(np.int64)
    if (arrival_us[1:] >= arrival_us[:-1]).all():
        return arrival_us, None
    order = np.argsort(arrival_us, kind="stable")
    return arrival_us[order], order
