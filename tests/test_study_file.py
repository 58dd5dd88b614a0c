"""Files of studies: what is written is read, the same study is the same bytes, and other files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import servegen_gpu as sg
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.studies.file import STUDY_KEY, is_study, read_study, write_study
from servegen_gpu.studies.study import Study

TABLE = pd.DataFrame(
    {
        "draw": np.array([0, 0, 1], np.int64),
        "name": ["a", "bé", ""],
        "peak": [1.5, np.nan, np.inf],
        "held": [True, False, True],
    }
)
SETTINGS = {"seed": 2**64 - 1, "rate": {"rate": "own"}, "metrics": ["peak"], "until": None, "workload": "größer"}


def test_what_is_written_is_read(tmp_path: Path):
    for kind in ("montecarlo", "sensitivity", "provision"):
        path = tmp_path / f"{kind}.parquet"
        write_study(path, kind, SETTINGS, TABLE)
        assert is_study(path)
        assert read_study(path)[:2] == (kind, SETTINGS)
        pd.testing.assert_frame_equal(read_study(path)[2], TABLE, check_dtype=True)
    empty = TABLE.iloc[:0][["draw", "peak"]]
    write_study(path, "provision", {}, empty)
    assert read_study(path)[2].dtypes.tolist() == [np.int64, np.float64]


def test_the_same_study_is_the_same_bytes_and_replaces_an_older_one(tmp_path: Path):
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    for path in (one, other, other):
        write_study(path, "provision", SETTINGS, TABLE.set_index(np.arange(5, 8)))
    assert one.read_bytes() == other.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_other_readers_see_a_plain_table(tmp_path: Path):
    write_study(tmp_path / "s.parquet", "provision", SETTINGS, TABLE)
    assert pd.read_parquet(tmp_path / "s.parquet").equals(TABLE)


@pytest.mark.parametrize(
    ("kind", "settings", "table"),
    [
        ("fit", {}, TABLE),
        ("provision", {"x": float("nan")}, TABLE),
        ("provision", {"x": {1, 2}}, TABLE),
        ("provision", {}, pd.DataFrame({"x": [1 + 2j]})),
        ("provision", {}, pd.DataFrame({"x": [[1], [2]]})),
        ("provision", {}, pd.DataFrame({"x": ["a", None]})),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, kind: str, settings: dict, table: pd.DataFrame):
    with pytest.raises(OptionError, match="expected"):
        write_study(tmp_path / "s.parquet", kind, settings, table)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there(tmp_path: Path):
    with pytest.raises(OutputError, match="an existing directory"):
        write_study(tmp_path / "none" / "s.parquet", "provision", {}, TABLE)


def header(**changes: object) -> bytes:
    stated = {"format": 1, "kind": "montecarlo", "settings": {"metrics": ["x"]}}
    return json.dumps({**stated, **changes}).encode()


X = pa.table({"x": [1.0, 2.0]})
DEEP = b'{"format": 1, "kind": "montecarlo", "settings": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001


@pytest.mark.parametrize(
    ("text", "table", "got"),
    [
        (None, X, "no servegen_gpu.study"),
        (b"{", X, "no JSON"),
        (b"\xff\xfe", X, "no JSON"),
        (DEEP, X, "no JSON"),
        (header(settings={"confidence": float("nan")}), X, "NaN as a number"),
        (b"[1]", X, "no settings"),
        (header(settings=[1]), X, "no settings"),
        (header(format=2), X, "format 2"),
        (header(format=[1] * 100), X, "format"),
        (header(kind="fit"), X, "kind 'fit'"),
        (header(kind=["montecarlo"]), X, "kind"),
        (header(pad="x" * (1 << 24)), X, "bytes"),
        (header(), pa.table({"x": [[1.0]]}), "list"),
        (header(), pa.table({"x": [1.0, None]}), "nulls"),
        (header(), pa.table({"x": pa.array([1], pa.timestamp("us"))}), "timestamp"),
        (header(), pa.table([[1], [2]], names=["x", "x"]), "same name"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: bytes | None, table: pa.Table, got: str):
    path = tmp_path / "s.parquet"
    meta = None if text is None else {STUDY_KEY: text}
    pq.write_table(table.replace_schema_metadata(meta), path, use_dictionary=False)
    with pytest.raises(OptionError, match=f"expected a study that this package wrote, got .*{got}"):
        read_study(path)


def test_columns_that_unfold_are_refused(tmp_path: Path):
    """A dictionary of one long text is a small file for any number of rows."""
    path = tmp_path / "s.parquet"
    table = pa.table({"x": ["long" * 1000] * 10_000}).replace_schema_metadata({STUDY_KEY: header()})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 20_000
    with pytest.raises(OptionError, match="with a dictionary"):
        read_study(path)


def test_a_file_that_is_none(tmp_path: Path):
    (tmp_path / "text").write_text("PAR1 nothing")
    for path in (tmp_path / "text", tmp_path / "none", tmp_path):
        assert not is_study(path)
        with pytest.raises(OptionError, match="a study that this package wrote"):
            read_study(path)


def test_damaged_files_are_refused_or_read(tmp_path: Path):
    """A byte changed anywhere: an error in words, or another table; nothing else is raised."""
    path = tmp_path / "s.parquet"
    write_study(path, "montecarlo", {"metrics": ["peak"]}, TABLE[["draw", "peak"]])
    data, refused = path.read_bytes(), 0
    for at in range(0, len(data), max(len(data) // 150, 1)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            read_study(path)
        except OptionError:
            refused += 1
    assert refused > 10
    for size in range(0, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:size])
        with pytest.raises(OptionError):
            read_study(path)


@pytest.mark.parametrize(
    "settings",
    [
        {"metrics": 3},
        {"metrics": ["peak"], "vary": ["rate"]},
        {"metrics": ["peak", "other"]},
        {"metrics": [["peak"]]},
        {"metrics": ["peak"], "controls": {"a": 1}},
    ],
)
def test_a_study_whose_settings_name_other_columns(tmp_path: Path, settings: dict):
    path = tmp_path / "s.parquet"
    table = pd.DataFrame({"draw": [0], "replica": [0], "peak": [1.0]})
    write_study(path, "montecarlo", {"metrics": ["peak"]}, table)
    assert len(Study.read(path)) == 1
    write_study(path, "montecarlo", settings, table)
    with pytest.raises(OptionError, match="with the columns that its settings name"):
        Study.read(path)
    write_study(path, "provision", {"metrics": ["peak"]}, table)
    with pytest.raises(OptionError, match="of kind provision"):
        Study.read(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", "high"),
        ("confidence", 1),
        ("replicas", 0),
        ("replicas", 1 << 32),
        ("replicas", [1]),
        ("duration_s", "1h"),
        ("until", "1%"),
        ("until", ["soon"]),
        ("until", [{"a": 1}]),
        ("rate", 3),
        ("rate", {"rate": "constant", "rps": "many"}),
        ("vary", {"rate": [1, 2]}),
        ("vary", {"rate": ["a", "b", "linear"]}),
        ("vary", {"rate": [0, 1, "log"]}),
        ("vary", {"rate": [1, 2, ["log"]]}),
    ],
)
def test_a_study_whose_settings_make_no_sense(tmp_path: Path, name: str, value: object):
    path = tmp_path / "s.parquet"
    table = pd.DataFrame({"draw": [0], "replica": [0], "rate": [1.0], "peak": [1.0]})
    settings = {"metrics": ["peak"], "vary": {"rate": [1, 2, "linear"]}}
    nothing = dict.fromkeys(("confidence", "replicas", "duration_s", "until", "rate"))
    write_study(path, "montecarlo", nothing | settings, table)
    assert "1 replicas in 1 draws" in str(Study.read(path))
    write_study(path, "montecarlo", settings | {name: value}, table)
    with pytest.raises(OptionError, match=rf"settings of a study of replicas, got {name} "):
        Study.read(path)


def test_a_study_is_no_trace(tmp_path):
    write_study(tmp_path / "s.parquet", "montecarlo", {}, pd.DataFrame({"draw": [0]}))
    with pytest.raises(OptionError, match=r"expected requests, got a study in .*; servegen-gpu report makes a page"):
        sg.read_trace(tmp_path / "s.parquet")
