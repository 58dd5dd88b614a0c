"""The digest of rows: that it follows from the rows alone, and what it tells apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native import each_extension, library

from servegen_gpu import Digest, OptionError, Ragged, Trace
from servegen_gpu.digest import MASK, in_library, in_numpy

N = 40_000


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Every kind of column that a trace may have."""
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {
        "arrival_us": np.sort(rng.integers(0, N // 2, N)),  # many at the same time
        "client": rng.integers(0, 50, N).astype(np.int32),
        "input_tokens": rng.integers(100_000, 200_000, N).astype(np.int32),
        "output_tokens": rng.integers(50, 300, N).astype(np.int32),
        "reason_tokens": rng.integers(0, 40, N).astype(np.int32),
        "conversation": rng.integers(-(2**62), 2**62, N),
        "turn": rng.integers(0, 9, N).astype(np.int32),
        "new_tokens": rng.integers(0, 90, N).astype(np.int32),
    }
    for name, kind, largest in (("image_tokens", np.int32, 900), ("hash_ids", np.int64, 2**62)):
        offsets = np.concatenate(([0], np.cumsum(rng.poisson(2, N))))
        columns[name] = Ragged(offsets, rng.integers(0, largest, offsets[-1]).astype(kind))
    return Trace(columns)


def by_hand(trace: Trace) -> Digest:
    """The definition, in Python's integers, row by row."""
    import hashlib

    def final(x: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ x >> shift) * factor & MASK
        return x ^ x >> 31

    total = weighted = 0
    for i in range(len(trace)):
        summed = 0
        for name in trace:
            words = hashlib.sha512(f"servegen_gpu digest 1 {name}".encode()).digest()
            a, b, c, d, e = (int.from_bytes(words[8 * k : 8 * k + 8], "little") | (k != 1) for k in range(5))
            value = trace[name][i].tolist()
            if isinstance(value, list):
                items = (final((c * v + d * j) & MASK) for j, v in enumerate(value, 1))
                value = sum(items) + e * len(value)
            summed += a * value + b
        total += final(summed & MASK)
        weighted += (i + 1) * final(summed & MASK)
    return Digest(len(trace), total & MASK, weighted & MASK)


def test_the_definition(trace: Trace) -> None:
    some = trace.rows(100, 400)
    assert some.digest() == by_hand(some)


@each_extension
def test_compiled_code_has_the_same_digests(trace: Trace, extension: str) -> None:
    compiled = library(extension)
    for rows in (0, 1, 15, 16, 17, 511, 512, 513, 20_000):
        some = trace.rows(7, 7 + rows).columns
        assert in_library(compiled, some) == in_numpy(some), rows
    odd = {
        "arrival_us": np.arange(999, dtype=np.uint16)[::3],
        "turn": np.arange(333, dtype=">i4"),
        "x": np.full(333, -5),
    }
    assert in_library(compiled, odd) == in_numpy(odd) == Digest.of({n: c.astype(np.int64) for n, c in odd.items()})


def test_it_is_kept_in_files_and_so_stays_what_it_is() -> None:
    rows = {"arrival_us": np.arange(5) ** 2, "image_tokens": Ragged(np.array([0, 0, 2, 3, 3, 5]), np.arange(5))}
    assert Digest.of(rows).hex == "9c1978130b88a9f316907336f13aaa48"


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
def test_parts_in_order_are_the_whole(trace: Trace, pieces: int) -> None:
    cuts = np.sort(np.random.default_rng(pieces).integers(0, N, pieces - 1)).tolist()
    parts = [trace.rows(a, b).digest() for a, b in zip([0, *cuts], [*cuts, N], strict=True)]
    assert sum(parts, Digest()) == trace.digest()
    assert sum(reversed(parts), Digest()).hex != trace.digest().hex or pieces == 1


def test_types_and_the_order_of_columns_do_not_matter(trace: Trace) -> None:
    wide = {n: c if isinstance(c, Ragged) else c.astype(np.int64) for n, c in reversed(trace.columns.items())}
    wide["image_tokens"] = Ragged(trace["image_tokens"].offsets, trace["image_tokens"].values.astype(np.int64))
    assert Digest.of(wide) == trace.digest()
    strided = np.repeat(trace["arrival_us"], 2)[::2]
    assert Digest.of(trace.columns | {"arrival_us": strided}) == trace.digest()


def changed(trace: Trace, **columns: Any) -> Trace:
    return Trace.trusted(trace.columns | columns)


def moved_item(column: Ragged) -> Ragged:
    """The first item of a list to the end of the list before."""
    row = int(np.flatnonzero((column.lengths[1:] > 0) & (column.lengths[:-1] > 0))[7]) + 1
    offsets = column.offsets.copy()
    offsets[row] += 1
    return Ragged(offsets, column.values)


def swapped_items(column: Ragged) -> Ragged:
    row = int(np.flatnonzero(column.lengths > 1)[7])
    values = column.values.copy()
    at = int(column.offsets[row])
    values[[at, at + 1]] = values[[at + 1, at]]
    return Ragged(column.offsets, values)


def with_value(trace: Trace, name: str, row: int, add: int) -> Trace:
    column = trace[name].copy()
    column[row] += add
    return changed(trace, **{name: column})


def order(*swaps: tuple[int, int]) -> np.ndarray:
    rows = np.arange(N)
    for a, b in swaps:
        rows[[a, b]] = rows[[b, a]]
    return rows


def shifted(trace: Trace, name: str, row: int) -> Trace:
    """One token less in a row, and one more in the next."""
    return with_value(with_value(trace, name, row, -1), name, row + 1, 1)


def at_equal_times(trace: Trace) -> Trace:
    row = int(np.flatnonzero(np.diff(trace["arrival_us"]) == 0)[11])
    return trace.take(order((row, row + 1)))


DEFECTS = {
    "two rows at the same time swapped": at_equal_times,
    "rows swapped 2**14 apart": lambda t: t.take(order((5, 5 + 2**14))),
    "two pairs swapped": lambda t: t.take(order((1, 2), (3, 4))),
    "a value changed": lambda t: with_value(t, "output_tokens", N // 2, 1),
    "a value to the next row": lambda t: shifted(t, "input_tokens", 1000),
    "a value to the next column": lambda t: with_value(with_value(t, "input_tokens", 9, -1), "output_tokens", 9, 1),
    "two columns exchanged": lambda t: changed(t, turn=t["new_tokens"], new_tokens=t["turn"]),
    "a column renamed": lambda t: Trace.trusted({n.replace("turn", "step"): c for n, c in t.columns.items()}),
    "a column left out": lambda t: Trace.trusted({n: c for n, c in t.columns.items() if n != "turn"}),
    "a column of zeros added": lambda t: changed(t, text_tokens=np.zeros(N, np.int32)),
    "a column of empty lists added": lambda t: changed(
        t, audio_tokens=Ragged(np.zeros(N + 1, np.int64), np.zeros(0, np.int32))
    ),
    "an item in the list before": lambda t: changed(t, image_tokens=moved_item(t["image_tokens"])),
    "an id in the list before": lambda t: changed(t, hash_ids=moved_item(t["hash_ids"])),
    "items of a list swapped": lambda t: changed(t, hash_ids=swapped_items(t["hash_ids"])),
    "the last row missing": lambda t: t.rows(0, N - 1),
    "the first row missing": lambda t: t.rows(1, N),
    "a row doubled": lambda t: t.take(np.insert(np.arange(N), 77, 77)),
    "all later by a microsecond": lambda t: changed(t, arrival_us=t["arrival_us"] + 1),
    "one id's highest bit": lambda t: changed(
        t, conversation=t["conversation"] ^ np.where(np.arange(N) == 3, -(2**63), 0)
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects(trace: Trace, defect: str) -> None:
    assert DEFECTS[defect](trace).digest().hex != trace.digest().hex


def test_swapped_rows_keep_the_total_and_lost_ones_do_not(trace: Trace) -> None:
    """The weighted sum is needed, and so is the mix of a whole row: sums of columns would let two swaps cancel."""
    swapped = trace.take(order((5, 6)))
    assert swapped.digest().total == trace.digest().total
    rows = {"arrival_us": np.arange(6), "client": np.array([3, 8, 8, 3, 1, 1])}
    other = rows | {"client": np.array([8, 3, 3, 8, 1, 1])}
    assert Digest.of(rows).hex != Digest.of(other).hex


def test_nothing() -> None:
    none = Digest.of({"arrival_us": np.empty(0, np.int64)})
    assert none == Digest()
    assert none.hex == "0" * 32
    assert Digest() + none == none


def test_hex_back_and_forth(trace: Trace) -> None:
    found = trace.digest()
    assert Digest.parse(found.hex, N) == found
    assert str(found) == found.hex
    for text in (found.hex[:-1], found.hex.upper(), "", None, f"{found.hex}\n"):
        with pytest.raises(OptionError, match="32 hexadecimal digits"):
            Digest.parse(text, N)  # type: ignore[arg-type]


def test_a_digest_shows_what_commands_print() -> None:
    assert repr(Digest(3, 1, 2)) == f"<Digest {Digest(3, 1, 2)}: 3 rows>"
