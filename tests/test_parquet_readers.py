"""Parquet as other programs read it: default files, and those of ``--encoding plain``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import cut, make, same, small_chunks  # noqa: F401

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import write_stream
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

ROWS = 3000
WHAT = ("reason", "multimodal", "conversation", "ids")
ENCODINGS = ("delta", "plain")


def trace_of(what: str, rows: int = ROWS) -> Trace:
    if what == "ids":
        return make(rows, "language").with_hash_ids(64)
    return make(rows, what)


def columns_of(path: Path) -> list[Any]:
    meta = pq.read_metadata(path)
    return [meta.row_group(group).column(at) for group in range(meta.num_row_groups) for at in range(meta.num_columns)]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.usefixtures("small_chunks")
def test_encodings_are_what_was_asked_for(tmp_path: Path, what: str, encoding: str):
    path = tmp_path / "t.parquet"
    write_stream([trace_of(what)], path, encoding=encoding)
    for column in columns_of(path):
        repeated = column.path_in_schema.endswith(".list.element") or column.path_in_schema == "conversation"
        if encoding == "plain":
            assert set(column.encodings) == {"PLAIN", "RLE"}
            assert (column.compression, column.physical_type) == ("SNAPPY", "INT64")
            assert column.statistics is not None
        elif repeated:
            assert set(column.encodings) == {"PLAIN", "RLE"}
            assert column.compression == "ZSTD"
        else:
            assert set(column.encodings) == {"DELTA_BINARY_PACKED", "RLE"}
            assert column.compression == "UNCOMPRESSED"


@pytest.mark.parametrize("rows", [0, 1, 5500])
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", ["t.parquet", "parts/"])
@pytest.mark.usefixtures("small_chunks")
def test_a_plain_file_comes_back(tmp_path: Path, name: str, what: str, rows: int):
    trace = trace_of(what, rows)
    for pieces in (0, 9):
        (tmp_path / str(pieces)).mkdir()
        target = f"{tmp_path}/{pieces}/{name}"
        write_stream(cut(trace, np.random.default_rng(pieces), pieces), target, part_rows=2048, encoding="plain")
        assert same(Trace.read(target), trace)
    one, other = (sorted(p for p in (tmp_path / pieces).rglob("*.parquet")) for pieces in "09")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_a_plain_file_of_other_columns_comes_back(tmp_path: Path):
    """As pyarrow writes it that has selected some, and added one: as a trace of others."""
    trace = trace_of("reason")
    write_stream([trace], tmp_path / "t.parquet", encoding="plain")
    table = pq.read_table(tmp_path / "t.parquet").select(["output_tokens", "input_tokens", "arrival_us"])
    pq.write_table(table.append_column("turn", [np.arange(ROWS)]), tmp_path / "u.parquet", use_dictionary=False)
    back = Trace.read(tmp_path / "u.parquet")
    assert {"arrival_us", "input_tokens", "output_tokens"} <= set(back)
    for name in ("input_tokens", "output_tokens"):
        assert back[name].tolist() == trace[name].tolist()
    assert "generator" not in back.provenance  # of other rows


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_that_others_changed_is_read_without_its_provenance(tmp_path: Path, encoding: str):
    """Arrow's tables and files keep the provenance whatever happens to the rows."""
    trace = trace_of("ids")
    write_stream([trace], tmp_path / "t.parquet", encoding=encoding)
    table = pq.read_table(tmp_path / "t.parquet")
    few = table.filter(pa.compute.greater(table["input_tokens"], 1000))
    changed = {
        "filtered": few,
        "sorted": few.sort_by("output_tokens"),
        "with a note": few.append_column("note", [["x"] * len(few)]),
        "of floats": few.set_column(2, "input_tokens", few["input_tokens"].cast(pa.float64())),
    }
    kept = trace["input_tokens"] > 1000
    for name, rows in changed.items():
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        back = Trace.read(tmp_path / f"{name}.parquet")
        assert back.schema() == trace.schema()
        assert "seed" not in back.provenance
        assert (np.diff(back["arrival_us"]) >= 0).all()
        assert sorted(back["input_tokens"].tolist()) == sorted(trace["input_tokens"][kept].tolist())
    few.to_pandas().to_csv(tmp_path / "t.csv", index=False)  # lists in brackets, over several lines
    with (tmp_path / "t.csv").open() as file:
        assert sum(1 for _ in file) > len(few) + 1
    assert Trace.read(tmp_path / "t.csv")["hash_ids"].values.tolist() == back["hash_ids"].values.tolist()


@pytest.mark.usefixtures("small_chunks")
def test_a_plain_file_is_that_of_one_writer(tmp_path: Path):
    trace = trace_of("multimodal", 2500)
    write_stream([trace], tmp_path / "t.parquet", encoding="plain")
    wide = pq.read_table(tmp_path / "t.parquet")
    leaves = [f"{name}.list.element" if isinstance(trace[name], Ragged) else name for name in trace]
    file = pa.BufferOutputStream()
    plain = dict.fromkeys(leaves, "PLAIN")
    options = {"column_encoding": plain, "use_dictionary": False, "compression": "snappy", "data_page_version": "1.0"}
    with pq.ParquetWriter(file, wide.schema, **options) as writer:
        for at in range(0, len(trace), 1024):
            writer.write_table(wide.slice(at, 1024))
        writer.add_key_value_metadata({"servegen_gpu.digest": trace.digest().hex})
    assert (tmp_path / "t.parquet").read_bytes() == file.getvalue().to_pybytes()


@pytest.mark.parametrize("preset", ["mm-image", "m-small"])
def test_lists_are_smaller_than_with_deltas(tmp_path: Path, preset: str):
    """Items and ids of real workloads; only items that are as good as random take more (a tenth)."""
    trace = sg.generate(sg.population(preset), rate=200, duration="3m", seed=1)
    trace = trace if preset == "mm-image" else trace.with_hash_ids(64, system_tokens=500)
    trace.write(path := tmp_path / "t.parquet")
    delta = dict.fromkeys([column.path_in_schema for column in columns_of(path)], "DELTA_BINARY_PACKED")
    other = tmp_path / "u.parquet"
    pq.write_table(pq.read_table(path), other, use_dictionary=False, column_encoding=delta, compression="none")
    assert path.stat().st_size < other.stat().st_size


def read_by_duckdb(path: Path) -> tuple[dict[str, list[Any]], dict[str, int]]:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"select * from '{path}'")
    flat = [name for name, kind in zip(found.columns, found.types, strict=True) if "[]" not in str(kind)]
    sums = duckdb.sql(f"select {', '.join(f'sum({name})' for name in flat)} from '{path}'").fetchall()[0]
    columns = zip(*found.fetchall(), strict=True)
    return dict(zip(found.columns, map(list, columns), strict=True)), dict(zip(flat, map(int, sums), strict=True))


def read_by_polars(path: Path) -> tuple[dict[str, list[Any]], dict[str, int]]:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(path)
    flat = [name for name, kind in frame.schema.items() if kind != polars.List]
    return frame.to_dict(as_series=False), {name: frame[name].sum() for name in flat}


def read_by_fastparquet(path: Path) -> tuple[dict[str, list[Any]], dict[str, int]]:
    fastparquet = pytest.importorskip("fastparquet")
    frame = fastparquet.ParquetFile(path).to_pandas()
    flat = [name for name in frame if frame[name].dtype.kind != "O"]
    columns = {name: frame[name].tolist() if name in flat else list(map(list, frame[name])) for name in frame}
    return columns, {name: int(frame[name].sum()) for name in flat}


def read_by_pandas(path: Path) -> tuple[dict[str, list[Any]], dict[str, int]]:
    import pandas as pd

    frame = pd.read_parquet(path, engine="pyarrow")
    flat = [name for name in frame if frame[name].dtype.kind in "iu"]
    columns = {name: frame[name].tolist() if name in flat else list(map(list, frame[name])) for name in frame}
    return columns, {name: int(frame[name].sum()) for name in flat}


READERS = {
    "duckdb": read_by_duckdb,
    "polars": read_by_polars,
    "fastparquet": read_by_fastparquet,
    "pandas": read_by_pandas,
}


# fastparquet leaves its files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.usefixtures("small_chunks")
def test_other_readers_see_the_rows(tmp_path: Path, reader: str, what: str, encoding: str):
    trace = trace_of(what)
    write_stream([trace], tmp_path / "t.parquet", encoding=encoding)
    columns, sums = READERS[reader](tmp_path / "t.parquet")
    assert list(columns) == list(trace)
    for name, column in trace.columns.items():
        if isinstance(column, Ragged):
            rows = [column.values[a:b].tolist() for a, b in itertools.pairwise(column.offsets.tolist())]
            assert columns[name] == rows
        else:
            assert columns[name] == column.tolist()
            assert sums[name] == column.sum(dtype=np.int64)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("reader", READERS)
def test_sums_that_need_64_bits(tmp_path: Path, reader: str):
    columns = {"arrival_us": np.arange(ROWS), "client": np.zeros(ROWS, np.int32)}
    tokens = np.full(ROWS, 2_000_000, np.int32)
    trace = Trace(columns | {"input_tokens": tokens, "output_tokens": tokens})
    for encoding in ENCODINGS:
        write_stream([trace], tmp_path / "t.parquet", encoding=encoding)
        _, sums = READERS[reader](tmp_path / "t.parquet")
        assert sums["input_tokens"] == ROWS * 2_000_000 > 2**31


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    generate = ["generate", "mm-image", "--duration", "1m", "--encoding", "plain", "-o"]
    assert main([*generate, str(tmp_path / "t.parquet")]) == 0
    assert {column.compression for column in columns_of(tmp_path / "t.parquet")} == {"SNAPPY"}
    trace = sg.generate(sg.population("mm-image"), duration="1m")
    assert same(sg.read_trace(tmp_path / "t.parquet").rows(0, 10), trace.rows(0, 10))
    assert main([*generate, str(tmp_path / "t.csv")]) == 2
    assert "expected Parquet with encoding 'plain'" in capsys.readouterr().err
    with pytest.raises(OptionError, match="delta, plain"):
        write_stream([trace], tmp_path / "u.parquet", encoding="rle")
