"""Traces in memory: columns, views, and what other libraries see."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace


def ragged(*rows):
    lengths = [len(row) for row in rows]
    values = np.array([item for row in rows for item in row], np.int32)
    return Ragged(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), values)


@pytest.fixture
def trace():
    return Trace(
        {
            "arrival_us": np.array([0, 5, 5, 1_500_000], np.int64),
            "client": np.array([3, 1, 2, 3], np.int32),
            "image_tokens": ragged([7, 8], [], [9], [1, 2, 3]),
        },
        {"seed": 7, "name": "é", "a": None},
        first_row=100,
    )


def test_ragged_rows():
    column = ragged([1, 2], [], [3])
    assert len(column) == 3
    assert column[0].tolist() == [1, 2]
    assert column[-1].tolist() == [3]
    assert [row.tolist() for row in column] == [[1, 2], [], [3]]
    assert column.lengths.tolist() == [2, 0, 1]
    cut = column.rows(1, 3)
    assert [row.tolist() for row in cut] == [[], [3]]
    assert np.shares_memory(cut.values, column.values)
    assert len(column.rows(2, 1)) == 0
    joined = Ragged.concat([cut, column.rows(0, 0), column])
    assert [row.tolist() for row in joined] == [[], [3], [1, 2], [], [3]]
    with pytest.raises(IndexError):
        column[3]


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 1], [0, 3]])
def test_ragged_refuses_offsets_that_do_not_span_the_items(offsets):
    with pytest.raises(OptionError, match="offsets from 0 to 2"):
        Ragged(np.array(offsets, np.int64), np.zeros(2, np.int32))


def test_access(trace):
    assert len(trace) == 4
    assert list(trace) == ["arrival_us", "client", "image_tokens"]
    assert "client" in trace
    assert "turn" not in trace
    assert trace["client"] is trace.columns["client"]
    with pytest.raises(KeyError, match="expected a column 'turn', got the columns arrival_us, client, image_tokens"):
        trace["turn"]
    text = "<Trace: 4 requests from 0.000 s to 1.500 s (arrival_us, client, image_tokens)>"
    assert repr(trace) == text
    assert repr(trace.rows(0, 0)) == "<Trace: 0 requests (arrival_us, client, image_tokens)>"
    assert trace.schema() == {"arrival_us": "int64", "client": "int32", "image_tokens": "list<int32>"}


def test_refuses_ragged_lengths_and_no_columns():
    with pytest.raises(OptionError, match="one length"):
        Trace({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(OptionError, match="one length"):
        Trace({})


def test_rows_are_views_that_know_their_number(trace):
    cut = trace.rows(1, 3)
    assert (len(cut), cut.first_row, cut.provenance) == (2, 101, trace.provenance)
    assert np.shares_memory(cut["client"], trace["client"])
    assert cut.rows(1, 99).first_row == 102


def test_sorting_keeps_the_order_of_equal_times():
    n = np.arange(5_000)
    found = Trace.sorted({"arrival_us": (n * 7) % 3, "client": n})
    assert (np.diff(found["arrival_us"]) >= 0).all()
    for at in range(3):
        assert (np.diff(found["client"][found["arrival_us"] == at]) > 0).all()


def test_concat_undoes_rows(trace):
    whole = Trace.concat([trace.rows(0, 1), trace.rows(1, 1), trace.rows(1, 4)])
    assert whole.to_arrow().equals(trace.to_arrow(), check_metadata=True)
    assert not np.shares_memory(Trace.concat([trace])["client"], trace["client"])
    with pytest.raises(OptionError, match="at least one slab"):
        Trace.concat([])
    with pytest.raises(OptionError, match="columns"):
        Trace.concat([trace, Trace({"client": trace["client"]})])


def test_arrow(trace):
    table = trace.to_arrow()
    assert not any(field.nullable for field in table.schema)
    assert table.schema.field("image_tokens").type == pa.list_(pa.field("element", pa.int32(), nullable=False))
    assert not table.schema.field("image_tokens").type.value_field.nullable
    assert table.column("arrival_us").chunk(0).buffers()[1].address == trace["arrival_us"].ctypes.data
    assert table.column("image_tokens").to_pylist() == [[7, 8], [], [9], [1, 2, 3]]
    metadata = table.schema.metadata
    assert metadata[b"servegen_gpu"].decode() == '{"a":null,"name":"é","seed":7}'
    assert json.loads(metadata[b"servegen_gpu"]) == trace.provenance
    assert metadata[b"servegen_gpu.first_row"] == b"100"
    table.validate(full=True)
    assert trace.rows(1, 3).to_arrow().column("image_tokens").to_pylist() == [[], [9]]


def test_arrow_cuts_lists_too_long_for_32_bits(trace, monkeypatch):
    monkeypatch.setattr("servegen_gpu.trace.MAX_LIST_ITEMS", 3)
    table = trace.to_arrow()
    assert table.column("image_tokens").num_chunks > 1
    monkeypatch.undo()
    assert table.equals(trace.to_arrow(), check_metadata=True)
    assert table.schema.equals(trace.to_arrow().schema, check_metadata=True)


def test_pandas(trace):
    frame = trace.to_pandas()
    assert frame.index.tolist() == [100, 101, 102, 103]
    assert frame.index.name == "request"
    assert frame["arrival_us"].dtype == np.int64
    assert np.shares_memory(frame["arrival_us"].to_numpy(), trace["arrival_us"])
    assert isinstance(frame["image_tokens"].dtype, pd.ArrowDtype)
    assert list(frame["image_tokens"].iloc[0]) == [7, 8]
    assert trace.rows(0, 0).to_pandas().dtypes.equals(frame.dtypes)


def test_dlpack(trace):
    column = np.from_dlpack(trace["arrival_us"])
    assert np.shares_memory(column, trace["arrival_us"])


def test_provenance_must_be_json():
    with pytest.raises(TypeError):
        Trace({"client": np.zeros(1, np.int32)}, {"seed": object()}).to_arrow()
    with pytest.raises(ValueError, match="JSON"):
        Trace({"client": np.zeros(1, np.int32)}, {"rate": float("nan")}).to_arrow()


def test_import_is_light():
    code = "import sys, servegen_gpu.trace, servegen_gpu.formats; print({'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
