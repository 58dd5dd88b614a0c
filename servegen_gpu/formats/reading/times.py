"""Times of foreign files: numbers in some unit, or dates, without a rounding on the way to nanoseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.formats.reading.rows import Rows
from servegen_gpu.formats.reading.values import MAX_EXACT, NUMBER, is_text, numbers, plain, trimmed

if TYPE_CHECKING:
    import pyarrow as pa

NS_PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
BILLION = 10**9
LARGEST = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Ticks:
    """Times as numbers of their unit, exact to a billionth of it.

    Attributes
    ----------
    whole : int64[n]
        Rounded down.
    billionths : int64[n]
        What is left, from 0 to 10**9 - 1.
    """

    whole: NDArray[np.int64]
    billionths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.whole)

    def take(self, index: NDArray[Any]) -> Ticks:
        """Those at `index`, numbers or a mask."""
        return Ticks(self.whole[index], self.billionths[index])

    def floats(self) -> NDArray[np.float64]:
        """Near enough to tell how large and how far apart they are."""
        return np.asarray(self.whole + self.billionths / BILLION)

    def nanoseconds(self, unit: str) -> NDArray[np.int64]:
        """Nanoseconds, int64[n], to the nearest; `fits` says whether they can be."""
        factor = NS_PER[unit]
        part = self.billionths if factor == BILLION else (self.billionths * factor + BILLION // 2) // BILLION
        return np.asarray(self.whole * factor + part)

    def unfit(self, unit: str) -> NDArray[np.bool_]:
        """Where 64 bits do not hold the nanoseconds, bool[n]."""
        return np.asarray(np.abs(self.whole) >= LARGEST // NS_PER[unit])

    @staticmethod
    def concat(parts: list[Ticks]) -> Ticks:
        """All of them, one behind the other."""
        return Ticks(np.concatenate([p.whole for p in parts]), np.concatenate([p.billionths for p in parts]))


@dataclass(frozen=True)
class Dates:
    """That a column has dates, and whether they state an offset from UTC."""

    zoned: bool


def kind_of(rows: Rows, column: str) -> Dates | None:
    """Whether a column without missing values has dates; None for numbers. The first value tells."""
    import pyarrow as pa

    values = plain(rows.table.column(column))
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return Dates(bool(getattr(values.type, "tz", None)))
    if not is_text(rows.table.column(column)):
        return None
    first = values[0].as_py().strip()
    if re.match(NUMBER, first.replace(",", ".")):
        return None
    return Dates(bool(re.search(r"(Z|UTC|GMT|[+-]\d\d:?\d\d|[+-]\d\d)$", first[10:], re.IGNORECASE)))


def ticks(rows: Rows, column: str, dates: Dates | None, *, decimal_comma: bool = False) -> Ticks:
    """A column of times without missing values; dates in nanoseconds from 1970 on."""
    if dates is not None:
        whole = _dates(rows, column, dates)
        return Ticks(whole, np.zeros(len(whole), np.int64))
    expected = "a time as a number"
    values = plain(rows.table.column(column))
    if is_text(rows.table.column(column)) and (exact := _decimals(values, decimal_comma)):
        return exact
    found = numbers(rows, column, expected, decimal_comma=decimal_comma)
    if found.dtype.kind == "i":
        return Ticks(found, np.zeros(len(found), np.int64))
    if (np.abs(found) >= MAX_EXACT).any():
        row = int(np.argmax(np.abs(found) >= MAX_EXACT))
        rows.refuse(
            row, column, "a time below 2**53 where it is no whole number", "write whole numbers, without exponent"
        )
    floor = np.floor(found)
    billionths = np.rint((found - floor) * BILLION).astype(np.int64)
    return Ticks(floor.astype(np.int64) + billionths // BILLION, billionths % BILLION)


def _decimals(text: pa.Array, decimal_comma: bool) -> Ticks | None:
    """Decimal numbers with up to nine digits behind the point, exactly; None if there are others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        exact = pc.cast(text, pa.decimal128(38, 9))
    except pa.ArrowInvalid:
        try:
            exact = pc.cast(_cut(text, decimal_comma), pa.decimal128(38, 9))
        except pa.ArrowInvalid:
            return None
    words = np.frombuffer(exact.buffers()[1], np.int64)[2 * exact.offset :][: 2 * len(exact)].reshape(-1, 2)
    low, high = words[:, 0], words[:, 1]
    if (high == low >> 63).all():  # below 9.2e9 in size
        whole = low // BILLION
        return Ticks(whole, low - whole * BILLION)
    wide = pc.cast(exact, pa.decimal256(60, 9))
    rest = pc.cast(pc.subtract(wide, pc.floor(wide)), pa.float64())
    try:
        floor = pc.cast(pc.floor(exact), pa.int64())
    except pa.ArrowInvalid:
        return None
    return Ticks(np.asarray(floor), np.rint(np.asarray(rest) * BILLION).astype(np.int64))


def _cut(text: pa.Array, decimal_comma: bool) -> pa.Array:
    """Numbers as text with nine digits behind the point at most."""
    import pyarrow.compute as pc

    text = pc.replace_substring(trimmed(text), ",", ".") if decimal_comma else trimmed(text)
    return pc.replace_substring_regex(text, r"([.][0-9]{9})[0-9]+$", r"\1")


def _dates(rows: Rows, column: str, dates: Dates) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = plain(rows.table.column(column))
    kind = pa.timestamp("ns", "UTC" if dates.zoned else None)
    if not is_text(rows.table.column(column)):
        try:
            return (
                np.asarray(pc.cast(values, kind).to_numpy(zero_copy_only=False))
                .astype("datetime64[ns]")
                .astype(np.int64)
            )
        except pa.ArrowInvalid:
            rows.refuse(0, column, "dates from 1678 to 2261", "fix the values")
    try:
        found = pc.cast(values, kind)
    except pa.ArrowInvalid:
        values = _spelled(values)
        try:
            found = pc.cast(values, kind)
        except pa.ArrowInvalid:
            expected = f"a date and time by ISO 8601 {'with' if dates.zoned else 'without'} an offset from UTC"
            fix = "write all times alike, such as 2024-05-10 00:00:00.009930"
            rows.refuse(_first_wrong(values, kind), column, expected, fix)
    return np.asarray(found.to_numpy(zero_copy_only=False)).astype("datetime64[ns]").astype(np.int64)


def _spelled(text: pa.Array) -> pa.Array:
    """Dates as Arrow wants them: a point before the fraction, nine digits at most, Z for UTC."""
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(trimmed(text), r"(:[0-9]{2}),([0-9]+)", r"\1.\2")
    text = pc.replace_substring_regex(text, r"([.][0-9]{9})[0-9]+", r"\1")
    text = pc.replace_substring_regex(text, r"(?i) *(UTC|GMT|Z)$", "Z")
    return pc.replace_substring_regex(text, r" +([+-][0-9]{2}:?[0-9]{0,2})$", r"\1")


def _first_wrong(values: pa.Array, kind: pa.DataType) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pc.cast(values[low:middle], kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
