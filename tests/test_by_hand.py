"""Traces made by hand: converted and checked when they are made, once more when they are written, and nowhere else."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from profiles import talking, tiny_pool
from traces import same

import servegen_gpu as sg
from servegen_gpu import OptionError, Ragged, Trace
from servegen_gpu.blocks import BLOCK
from servegen_gpu.formats import write_stream
from servegen_gpu.request import by_hand
from servegen_gpu.request.schema import FIELDS

TYPES = {
    "arrival_us": "int64",
    "client": "int32",
    "input_tokens": "int32",
    "output_tokens": "int32",
    "reason_tokens": "int32",
    "conversation": "int64",
    "turn": "int32",
    "new_tokens": "int32",
}
NUMBERS = {
    "arrival_us": [0, 5, 5],
    "client": [3, 1, 2],
    "input_tokens": [7, 8, 9],
    "output_tokens": [4, 4, 4],
    "reason_tokens": [4, 0, 1],
    "conversation": [-3, 1, 1],
    "turn": [1, 1, 2],
    "new_tokens": [7, 8, 1],
}
FORMS = {
    "lists": list,
    "tuples": tuple,
    "floats": lambda values: [float(v) for v in values],
    "float arrays": lambda values: np.array(values, np.float32),
    "objects": lambda values: np.array(values, object),
    "small integers": lambda values: np.array(values, np.int8),
    "Series": pd.Series,
    "Series with an index": lambda values: pd.Series(values, index=[7, 3, 1], dtype="float64"),
    "nullable Series": lambda values: pd.Series(values, dtype="Int64"),
    "Arrow Series": lambda values: pd.Series(values, dtype="int64[pyarrow]"),
    "Arrow": pa.array,
    "chunked Arrow": lambda values: pa.chunked_array([values[:1], values[1:]]),
    "views": lambda values: np.array([values, values]).T[:, 0],
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_any_form_become_arrays_of_their_types(form: str) -> None:
    trace = Trace({name: FORMS[form](values) for name, values in NUMBERS.items()})
    assert trace.schema() == TYPES
    assert {name: trace[name].tolist() for name in trace} == NUMBERS
    assert all(isinstance(trace[name], np.ndarray) for name in trace)


LISTS = {
    "lists": [[7, 8], [], [9]],
    "floats": [[7.0, 8.0], [], (9,)],
    "arrays": [np.array([7, 8]), np.array([]), np.array([9], np.uint8)],
    "objects": pd.Series([[7, 8], [], [9]]),
    "Arrow": pa.array([[7, 8], [], [9]]),
    "chunked Arrow": pa.chunked_array([[[7, 8], []], [[9]]]),
    "large Arrow": pa.array([[7, 8], [], [9]], pa.large_list(pa.int64())),
    "a slice of Arrow": pa.array([[1], [7, 8], [], [9]])[1:],
    "Arrow Series": pd.Series([[7, 8], [], [9]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    "Ragged": Ragged(np.array([0, 2, 2, 3]), np.array([7, 8, 9], np.int64)),
}


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize(("name", "kind"), [("image_tokens", "list<int32>"), ("hash_ids", "list<int64>")])
def test_lists_of_lists_become_ragged_columns(form: str, name: str, kind: str) -> None:
    trace = Trace({name: LISTS[form]})
    assert trace.schema() == {name: kind}
    assert [row.tolist() for row in trace[name]] == [[7, 8], [], [9]]
    assert len(Trace({"client": [], name: []})) == 0


@pytest.mark.parametrize("name", [*FIELDS, "talking"])
def test_frames_and_tables_of_a_trace_are_the_trace(name: str) -> None:
    pool = talking() if name == "talking" else tiny_pool(name)
    trace = sg.generate(pool, rate=1, duration="20m").with_hash_ids(16)
    assert same(Trace(trace.to_pandas()), trace)
    table = trace.to_arrow()
    assert same(Trace(dict(zip(table.column_names, table.columns, strict=True))), trace)
    mixed = trace.to_pandas().sample(frac=1, random_state=1)
    again = Trace.sorted(mixed, trace.provenance)
    assert np.array_equal(again["arrival_us"], trace["arrival_us"])
    assert again["input_tokens"].sum() == trace["input_tokens"].sum()


def test_what_fits_is_not_copied() -> None:
    columns = {"arrival_us": np.arange(3), "client": np.zeros(3, np.int32), "own": np.array([1, 2, 3], np.uint16)}
    trace = Trace(columns)
    assert all(trace[name] is column for name, column in columns.items())
    assert trace.schema()["own"] == "uint16"
    assert same(pickle.loads(pickle.dumps(trace)), trace)
    assert same(copy.copy(trace), trace)


REFUSED: dict[str, tuple[Any, str]] = {
    "no whole number": ({"arrival_us": [0, 0.5]}, r"whole numbers in arrival_us, got 0\.5 in row 101"),
    "nan": ({"client": pd.Series([1, np.nan])}, "whole numbers in client, got nan in row 101"),
    "missing": ({"client": pd.Series([1, None], dtype="Int64")}, "whole numbers in client, got (nan|<NA>) in row 101"),
    "none": ({"turn": [1, None]}, "whole numbers in turn, got None in row 101"),
    "infinite": ({"turn": [1, np.inf]}, "whole numbers in turn, got inf in row 101"),
    "text": ({"turn": [1, "2"]}, "whole numbers in turn, got (1|2) in row 10[01]"),
    "booleans": ({"turn": np.array([True])}, "whole numbers in turn, got True in row 100"),
    "times": ({"arrival_us": np.array(["2026-01-01"], "datetime64[us]")}, "whole numbers in arrival_us, got 2026"),
    "decimals": ({"turn": [Decimal(1)]}, "whole numbers in turn"),
    "one number": ({"turn": 5}, "one whole number for every request in turn, got 5"),
    "a text": ({"turn": "5"}, "one whole number for every request in turn, got '5'"),
    "a table": ({"turn": np.zeros((2, 2))}, "one whole number|a whole number for every request in turn"),
    "lists for numbers": ({"turn": [[1], [2]]}, "a whole number for every request in turn, got lists"),
    "a list and a number": ({"own": [[1], 2]}, "a list for every request in own, got 2 in row 1"),
    "numbers for lists": (
        {"image_tokens": [1, 2]},
        r"a list of whole numbers for every request in image_tokens, got \[",
    ),
    "parts in lists": ({"image_tokens": [[], [1, 2.5]]}, r"whole numbers in image_tokens, got 2\.5 in row 101"),
    "too large": (
        {"client": [1, 2**31]},
        "numbers of 32 bits, up to 2,147,483,647, in client, got 2147483648 in row 101",
    ),
    "beyond 64 bits": ({"client": [2**64]}, "in client, got 18446744073709551616 in row 100"),
    "large unsigned": ({"conversation": np.array([2**63], np.uint64)}, "numbers of 64 bits.*got 9223372036854775808"),
    "lengths": ({"client": [1], "turn": [1, 2]}, r"one length, got {'client': 1, 'turn': 2}"),
    "nothing": ({}, "one or more columns of one length"),
    "no columns": ([1, 2], r"columns by name, got list \[1, 2\]"),
    "out of order": (
        {"arrival_us": [3, 9, 5]},
        r"in order of time \(arrival_us\), got 5 us after 9 us in row 102; sort",
    ),
    "before the start": ({"arrival_us": [-2, 9]}, "arrival_us from 0 on, got -2 us in row 100; count times from"),
    "negative": ({"input_tokens": [3, -1]}, "input_tokens from 0 on, got -1 in row 101"),
    "a negative client": ({"client": [3, -1]}, "client from 0 on, got -1 in row 101"),
    "a negative item": ({"image_tokens": [[1], [], [2, -3]]}, "image_tokens from 0 on, got -3 in row 102"),
    "too much reasoning": (
        {"output_tokens": [5, 5], "reason_tokens": [5, 6]},
        r"reason_tokens of at most output_tokens, got 6 of 5 in row 101; .*trace\.limited\(max_output=…\)",
    ),
    "too much new": (
        {"input_tokens": [5, 5], "new_tokens": [5, 6]},
        r"new_tokens of at most input_tokens, got 6 of 5 in row 101; .*trace\.limited\(max_input=…\)",
    ),
    "items above the input": (
        {"input_tokens": [5, 5], "text_tokens": [1, 1], "image_tokens": [[4], [2, 3]]},
        r"text_tokens \+ image_tokens of at most input_tokens, got 6 of 5 in row 101",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_trace_is_refused_with_row_and_value(case: str) -> None:
    columns, expected = REFUSED[case]
    with pytest.raises(OptionError, match=expected):
        Trace(columns, first_row=100)


def test_ids_of_blocks_belong_to_their_inputs() -> None:
    """Capping inputs by hand leaves ids of longer ones: refused where the provenance tells the size of blocks."""
    hashed = sg.generate(tiny_pool(), rate=1, duration="20m").with_hash_ids(16)
    capped = hashed.columns | {"input_tokens": np.minimum(hashed["input_tokens"], 17)}
    with pytest.raises(
        OptionError, match=r"an id of hash_ids for every block of 16 tokens, got \d+ for 17 tokens in row"
    ):
        Trace(capped, hashed.provenance)
    assert len(Trace(capped)) == len(hashed)  # ids of who knows which blocks
    assert same(Trace(hashed.columns, hashed.provenance), hashed)


def test_capping_outputs_by_hand_is_refused_and_limited_does_it() -> None:
    trace = sg.generate(talking(), rate=2, duration="20m")
    with pytest.raises(OptionError, match=r"reason_tokens of at most output_tokens.*trace\.limited\(max_output=…\)"):
        Trace(trace.columns | {"output_tokens": np.minimum(trace["output_tokens"], 100)}, trace.provenance)
    assert "hash_ids" in trace.limited(max_output=100).with_hash_ids(16)


@pytest.mark.parametrize("row", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_every_row_is_looked_at(row: int) -> None:
    n = 3 * BLOCK
    good: dict[str, Any] = {"arrival_us": np.arange(n), "output_tokens": np.full(n, 9), "reason_tokens": np.full(n, 9)}
    Trace(good)
    late = good["arrival_us"].copy()
    late[row] = row - 2
    with pytest.raises(OptionError, match=f"got {row - 2} us .*in row {row:,};"):
        Trace(good | {"arrival_us": late})
    much = good["reason_tokens"].copy()
    much[row:] = 10
    with pytest.raises(OptionError, match=f"got 10 of 9 in row {row:,};"):
        Trace(good | {"reason_tokens": much})


def test_rows_are_sorted_on_request() -> None:
    columns = {"arrival_us": [5.0, 1.0, 5.0, 0.0], "client": [1, 2, 3, 4], "image_tokens": [[1], [2, 2], [], [4]]}
    trace = Trace.sorted(columns, {"name": "mine"})
    assert trace["arrival_us"].tolist() == [0, 1, 5, 5]
    assert trace["client"].tolist() == [4, 2, 1, 3]
    assert [row.tolist() for row in trace["image_tokens"]] == [[4], [2, 2], [1], []]
    assert trace.provenance == {"name": "mine"}
    for wrong in ({"client": [1]}, {"arrival_us": [[1]]}):
        with pytest.raises(OptionError, match=r"a column arrival_us to sort by|a whole number for every"):
            Trace.sorted(wrong)
    with pytest.raises(OptionError, match="arrival_us from 0 on"):
        Trace.sorted({"arrival_us": [1, -1]})


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "parts/"])
def test_what_was_changed_in_place_is_not_written(tmp_path: Any, name: str) -> None:
    trace = sg.generate(tiny_pool("reason"), rate=1, duration="20m")
    trace["output_tokens"][7] = 0
    trace["reason_tokens"][7] = 3
    with pytest.raises(OptionError, match="reason_tokens of at most output_tokens, got 3 of 0 in row 7"):
        trace.write(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_slabs_in_the_wrong_order_are_not_written(tmp_path: Any) -> None:
    early, late = Trace({"arrival_us": [1, 2]}), Trace({"arrival_us": [2, 3]})
    write_stream([early, late], tmp_path / "t.csv")
    with pytest.raises(OptionError, match="slabs in order of time, got 1 us in row 0 after 3 us"):
        write_stream([late, early], tmp_path / "u.csv")
    assert not (tmp_path / "u.csv").exists()


def test_slabs_of_the_pipeline_are_not_looked_at_but_when_they_are_read(tmp_path: Any, monkeypatch: Any) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a column was looked at")

    monkeypatch.setattr(by_hand, "check", never)
    monkeypatch.setattr(by_hand, "columns_of", never)
    slabs = sg.hash_slabs(sg.limit(sg.stream(talking(), rate=1, duration="1h"), max_output=300), 16)
    write_stream(sg.head(sg.thin(sg.rescale(slabs, 2.0, "naive"), 0.5), 100), tmp_path / "t.parquet")
    for made in (lambda: Trace({"arrival_us": [1]}), lambda: sg.read_trace(tmp_path / "t.parquet")):
        with pytest.raises(AssertionError, match="looked at"):
            made()
    monkeypatch.undo()
    assert len(sg.read_trace(tmp_path / "t.parquet").between(0, 600)[:10]) == 10


def test_columns_on_a_device_stay_there() -> None:
    class OnDevice:
        __cuda_array_interface__ = None  # that there is one says enough
        dtype = np.dtype(np.int64)

        def __len__(self) -> int:
            return 3

    column = OnDevice()
    assert Trace({"arrival_us": column, "client": column})["client"] is column
