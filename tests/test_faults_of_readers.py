"""Files that say what is not so, that are none, or that are larger than they look: one sentence each, and no crash."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from profiles import talking, tiny_pool, write_servegen
from traces import same

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace
from servegen_gpu.backends import choose_backend
from servegen_gpu.blocks import thread_count
from servegen_gpu.cli import main
from servegen_gpu.cli.streams import KEPT
from servegen_gpu.errors import ServeGenError, VariableError, plain, printable
from servegen_gpu.formats import read_slabs, write_stream
from servegen_gpu.formats.reading import sources
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.studies.file import read_study, write_study

ROWS = 6
PLAIN: dict[str, Any] = {
    "arrival_us": np.arange(ROWS) * 1000,
    "client": np.zeros(ROWS, np.int32),
    "input_tokens": np.full(ROWS, 9, np.int32),
    "output_tokens": np.full(ROWS, 5, np.int32),
}
MORE: dict[str, Any] = {
    "reason_tokens": np.full(ROWS, 5, np.int32),
    "text_tokens": np.ones(ROWS, np.int32),
    "image_tokens": Ragged(np.arange(ROWS + 1), np.full(ROWS, 8, np.int32)),
}


@pytest.fixture
def in_time() -> Iterator[None]:
    """What waits for somebody to write, or reads without end, fails."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# --- words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\r\nc", r"a\x1b[31mb\r\nc"),
        ("\u202etxt.exe \ud800 \x9b", r"\u202etxt.exe \ud800 \x9b"),
        ("x" * 5000, f"{'x' * 133}… (5,000 characters) …{'x' * 50}"),
        ("größer als 你好", "größer als 你好"),
    ],
)
def test_messages_are_plain_and_short(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(sg.OptionError("a word", text, "fix it")) == f"expected a word, got {shown}; fix it"
    for long in ("word " * 10**6, "\0 " * 10**6, "\0" * 199 + " " + "\u202e" * 199):
        assert len(printable(long)) <= 480


def test_streams_keep_lines_and_escape_all_else() -> None:
    assert plain("a\tb\r\n", KEPT) == "a\tb\r\n"
    assert plain("\ufeffa\u2028b\u202ec\x1b\n", KEPT) == r"\ufeffa\u2028b\u202ec\x1b" + "\n"


def test_commands_say_it_where_streams_fail() -> None:
    def run(redirected: str) -> tuple[int, str]:
        command = f"{sys.executable} -m servegen_gpu formats {redirected}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    for redirected, reason in ((">/dev/full", "no space left"), (">&-", "bad file descriptor")):
        status, said = run(redirected)
        assert status == 2
        assert re.fullmatch(f"servegen-gpu: error: expected a standard output .* got {reason}.*\n", said)
    assert run("2>&-") == (0, "")


@pytest.mark.parametrize("value", ["abc", "-1", "0", "9" * 5000, "1.5"])
def test_variables_are_not_passed_over(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEGEN_GPU_THREADS", value)
    with pytest.raises(VariableError, match="SERVEGEN_GPU_THREADS as a number from 1 to 1,024"):
        thread_count()
    monkeypatch.setenv("SERVEGEN_GPU_THREADS", " 3 ")
    assert thread_count() == 3
    if choose_backend().name == "native":
        monkeypatch.setenv("SERVEGEN_GPU_ISA", value)
        with pytest.raises(VariableError, match="SERVEGEN_GPU_ISA among baseline"):
            choose_backend()


# --- what is no file

INPUTS: dict[str, Callable[[Path], object]] = {
    "t.parquet": sg.read_trace,
    "t.csv": lambda path: sg.validate(path, "vidur"),
    "own.toml": sg.read_clients,
    "server.toml": sg.load_server,
    "rate.csv": lambda path: sg.read_schedule(path),
    "sweep.csv": sg.fit_server,
    "study.parquet": read_study,
    "packed.npz": PackedWorkload.load,
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.usefixtures("in_time")
def test_pipes_sockets_and_devices_are_not_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ServeGenError, match="pipe"):
        INPUTS[name](path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        with pytest.raises(ServeGenError):
            INPUTS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ServeGenError, match="device"):
        INPUTS[name](path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(ServeGenError):
        INPUTS[name](path)


@pytest.mark.usefixtures("in_time")
def test_what_lies_beside_a_file_is_one_too(tmp_path: Path) -> None:
    Trace(PLAIN).write(tmp_path / "t.csv")
    (tmp_path / "t.csv.provenance.json").unlink()
    os.mkfifo(tmp_path / "t.csv.provenance.json")
    assert len(sg.read_trace(tmp_path / "t.csv")) == ROWS
    with pytest.raises(ServeGenError, match="a pipe, not a file"):
        sg.verify(tmp_path / "t.csv")
    toml = tmp_path / "own.toml"
    toml.write_text('[[client]]\nrate = 1\ninput_tokens = { kind = "samples", file = "a.csv" }\noutput_tokens = 5\n')
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(ServeGenError, match="pipe"):
        sg.read_clients(toml)
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(ServeGenError, match="symbolic links"):
        sg.read_clients(toml)
    # what the shell has opened is read
    source, sink = os.pipe()
    os.write(sink, b"0,5\n60,2\n")
    os.close(sink)
    assert sg.read_schedule(f"/dev/fd/{source}").rates_rps.tolist() == [5, 2]
    os.close(source)


# --- what a trace says of itself

DEEP = b"[" * 100_000 + b"]" * 100_000
PROVENANCES = [
    *(b"null", b"[]", b"3", b"", b'{"seed": NaN}', b'{"seed": 1e400}', b'{"seed": -Infinity}', b'{"a": ' + DEEP + b"}"),
    *(b'{"seed": ' + b"9" * 30 + b"}", b'{"a": 1', b"\xff"),
    *(b'{"a": "\xed\xa0\x80"}', '{"a": "\\ud800"}'.encode("utf-16")),  # surrogates that are no escapes
]


def with_metadata(path: Path, **changed: bytes) -> None:
    """A Parquet file once more, without dictionaries, as we write."""
    table = pq.read_table(path)
    keys = {name.encode(): value for name, value in changed.items()}
    table = table.replace_schema_metadata(table.schema.metadata | keys)
    pq.write_table(table, path, use_dictionary=False)


@pytest.mark.parametrize("stated", PROVENANCES, ids=range(len(PROVENANCES)))
def test_provenance_is_a_finite_object(stated: bytes, tmp_path: Path) -> None:
    path, text = tmp_path / "t.parquet", tmp_path / "t.csv"
    for each in (path, text):
        Trace(PLAIN, {"seed": 7}).write(each)
    with_metadata(path)
    assert sg.read_trace(path).provenance == {"seed": 7}
    with_metadata(path, servegen_gpu=stated)
    with pytest.raises(sg.OptionError, match="in the metadata of the file, got none that can be read"):
        sg.read_trace(path)
    beside = tmp_path / "t.csv.provenance.json"
    about = json.loads(beside.read_bytes()) | {"provenance": "here"}
    beside.write_bytes(json.dumps(about).encode().replace(b'"here"', stated))
    with pytest.raises(sg.OptionError, match="the provenance of a trace"):
        sg.read_trace(text)


def test_a_name_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    about = {"workload": "a\r\nb\x1b[2J", "version": "1\n2"}
    Trace({"arrival_us": [1], "client": [0], "input_tokens": [5], "output_tokens": [5]}, about).write(path)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(r"a\r\nb\x1b[2J (")
    assert r"1\n2" in said
    assert main(["convert", str(path), "-o", str(tmp_path / "t.parquet")]) == 0
    assert r"a\r\nb\x1b[2J" in capsys.readouterr().out


def test_halves_of_surrogates_are_escapes(tmp_path: Path) -> None:
    Trace(PLAIN, {"workload": "\udcff"}).write(tmp_path / "t.parquet")
    assert sg.read_trace(tmp_path / "t.parquet").provenance == {"workload": r"\udcff"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": ROWS + 1}, "7 rows, as its provenance says, got 6"),
        ({"rows": ROWS - 1}, "5 rows, as its provenance says, got more"),
        ({"rows": -1}, "rows -1"),
        ({"first_row": 10**30}, "as a number"),
        ({"first_row": -1}, "first_row -1"),
        ({"first_row": True}, "first_row True"),
        ({"columns": {name: "int32>" for name in PLAIN}}, "type 'int32>'"),
        ({"columns": dict.fromkeys(PLAIN, "int32")}, "'arrival_us' of type 'int32'"),
        ({"columns": {"arrival_us": "int64", "input_tokens": "int32"}}, "the columns arrival_us, input_tokens, got"),
        ({"columns": []}, "no types of columns"),
        ({"bytes": 1e400}, "Infinity as a number"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_sidecars_are_checked(suffix: str, changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    Trace(PLAIN).write(path)
    beside = path.with_name(f"{path.name}.provenance.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | changed))
    if suffix == ".jsonl" and "got" in said and "columns" in changed:
        said = "the columns"
    with pytest.raises(sg.OptionError, match=re.escape(said)):
        sg.read_trace(path)


def changed(name: str, row: int, value: int) -> dict[str, Any]:
    columns = {key: c if isinstance(c, Ragged) else c.copy() for key, c in (PLAIN | MORE).items()}
    if isinstance(column := columns[name], Ragged):
        values = column.values.copy()
        values[row] = value
        return columns | {name: Ragged(column.offsets, values)}
    column[row] = value
    return columns


@pytest.mark.parametrize(
    ("name", "row", "value", "said"),
    [
        ("arrival_us", 3, 0, "requests in order of time"),
        ("client", 2, -1, "client from 0 on"),
        ("input_tokens", 5, -3, "input_tokens from 0 on"),
        ("reason_tokens", 1, 6, "reason_tokens of at most output_tokens, got 6 of 5 in row 1"),
        ("image_tokens", 4, 9, "text_tokens + image_tokens of at most input_tokens, got 10 of 9 in row 4"),
        ("image_tokens", 4, -9, "image_tokens from 0 on"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_requests_are_checked(suffix: str, name: str, row: int, value: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    write_stream([Trace(PLAIN | MORE)], path)
    assert same(sg.read_trace(path), Trace(PLAIN | MORE))
    write_stream([Trace.trusted(changed(name, row, value))], path)
    with pytest.raises(sg.OptionError, match=re.escape(said)):
        sg.read_trace(path)


def test_parts_and_row_groups_follow_one_another(tmp_path: Path) -> None:
    for k, part in enumerate((Trace(PLAIN, {"a": 1}, 0), Trace(PLAIN, {"a": 1}, ROWS))):
        part.write(tmp_path / f"part-{k:05d}.parquet")
    with pytest.raises(sg.OptionError, match=r"in order of time .* got 0 us after 5000 us in row 6"):
        sg.read_trace(tmp_path)
    Trace(PLAIN, {"a": 1}, 7).write(tmp_path / "part-00001.parquet")
    with pytest.raises(sg.OptionError, match="expected row 6 next, got row 7"):
        sg.read_trace(tmp_path)
    path = tmp_path / "groups.parquet"
    Trace({"arrival_us": [0, 1, 2, 3]}).write(path)
    table = pq.read_table(path).take([2, 3, 0, 1])
    pq.write_table(table, path, use_dictionary=False, row_group_size=2)
    with pytest.raises(sg.OptionError, match="got 0 us after 3 us in row 2"):
        sg.read_trace(path)


def test_a_missing_column_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Trace({"input_tokens": [1, 2]}).write(tmp_path / "t.parquet")
    assert main(["inspect", str(tmp_path / "t.parquet")]) == 2
    assert "expected a column 'arrival_us', got the columns input_tokens" in capsys.readouterr().err


# --- packed workloads and caches


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    moved = sg.Environment(sg.Margin.gamma(variance=0.4, zero=0.1), {2: 0.3, 6: 0.7})
    pool = talking().with_environment(moved)
    path = tmp_path_factory.mktemp("packed") / "w.npz"
    sg.stream(pool, rate={0: 0.5, 300: 0.1, 900: 1}, duration=1500, counts="renewal").packed.save(path)
    return path


HARMLESS = re.compile(
    r".*(count_rule|growth|gap_us|gap_width_us|session_us|context_tokens|occupancy|requests|mixing|common|number|zero)"
)
"""Where another number is another workload, inside all bounds."""


def test_a_packed_workload_with_one_number_changed_is_refused(packed: Path) -> None:
    with np.load(packed) as file:
        arrays = {name: file[name] for name in file.files}
    assert len(PackedWorkload.load(packed).client_id) > 0
    path, believed = packed.with_name("changed.npz"), set()
    for name, array in arrays.items():
        if name.startswith("__") or not array.size:
            continue
        ends = (np.iinfo(array.dtype).max, np.iinfo(array.dtype).min) if array.dtype.kind in "iu" else (np.inf, -1e9)
        for value in ends:
            other = array.copy()
            other.flat[array.size // 2] = value
            if np.array_equal(other, array):
                continue
            np.savez(path, **(arrays | {name: other}))
            with contextlib.suppress(sg.ProfileError):
                PackedWorkload.load(path)
                believed.add(name)
    assert sorted(name for name in believed if not HARMLESS.fullmatch(name)) == []


NEAR = re.compile(r".*(client_id|thresholds|(tables|counts|new)\.values|slope|environment\.row|each)")
"""Where also a number that is one off is another workload; all others say how much there is, or point at something."""


def test_a_packed_workload_with_one_number_one_off_is_refused(packed: Path) -> None:
    with np.load(packed) as file:
        arrays = {name: file[name] for name in file.files}
    path, believed, refused = packed.with_name("near.npz"), set(), set()
    for name, array in arrays.items():
        if name.startswith("__") or not array.size or array.dtype.kind not in "iu":
            continue
        for at, step in ((array.argmax(), 1), (array.argmin(), -1)):
            other = array.copy()
            other.flat[at] += np.array(step).astype(array.dtype)
            np.savez(path, **(arrays | {name: other}))
            try:
                PackedWorkload.load(path)
                believed.add(name)
            except sg.ProfileError:
                refused.add((name, step))
    assert sorted(name for name in believed if not HARMLESS.fullmatch(name) and not NEAR.fullmatch(name)) == []
    assert {("row", 1), ("conversations.turns.new_table", 1), ("table", 1)} <= refused


def test_tokens_of_a_packed_request_are_tokens_with_all_items(tmp_path: Path) -> None:
    sg.stream(tiny_pool("multimodal"), rate=1, duration=600).packed.save(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert len(PackedWorkload.load(tmp_path / "w.npz").schema.items) == 3
    arrays["tables.values"][arrays["tables.values"].argmax()] = 2**31 - 1
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(sg.ProfileError, match=r"tokens of one request|_count"):
        PackedWorkload.load(tmp_path / "w.npz")


def test_a_packed_workload_with_an_array_of_another_shape_is_refused(packed: Path) -> None:
    with np.load(packed) as file:
        arrays = {name: file[name] for name in file.files}
    path, believed = packed.with_name("shaped.npz"), []
    for name, array in arrays.items():
        if not name.startswith("__"):
            np.savez(path, **(arrays | {name: array[None]}))
            with contextlib.suppress(sg.ProfileError):
                PackedWorkload.load(path)
                believed.append(name)
    assert believed == []


@pytest.mark.parametrize("key", ["window_us", "first_window", "end_us", "tables.guide_bits", "tables.steps", "stream"])
@pytest.mark.parametrize("value", [-1, 2**40, None, 1.5])
def test_numbers_of_a_packed_workload_are_those_of_its_span(packed: Path, key: str, value: Any) -> None:
    _refuse_header(packed, key, value)


@pytest.mark.parametrize("key", ["clock", "tables"])
def test_what_every_packed_workload_has_is_not_left_out(packed: Path, key: str) -> None:
    _refuse_header(packed, key, None)


def _refuse_header(packed: Path, key: str, value: Any) -> None:
    with np.load(packed) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("__header__").tobytes()) | {key: value}
    arrays = {name: array for name, array in arrays.items() if value is not None or not name.startswith(f"{key}.")}
    path = packed.with_name("header.npz")
    np.savez(path, **(arrays | {"__header__": np.frombuffer(json.dumps(header).encode(), np.uint8)}))
    with pytest.raises(sg.ProfileError, match="expected a packed workload"):
        PackedWorkload.load(path)


def test_a_cache_that_was_changed_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_servegen(tmp_path / "data", "language", clients=2)
    cache = tmp_path / "cache"
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(cache))
    digest = sg.load_servegen(tmp_path / "data", "tiny").digest()
    (path,) = cache.glob("*.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("rate_rps", "values", "offsets", "family"):
        other = arrays[name].copy()
        other.flat[-1] += 1
        np.savez(path, **(arrays | {name: other}))
        assert sg.load_servegen(tmp_path / "data", "tiny").digest() == digest


# --- more than it looks


def test_row_groups_of_any_size_come_in_pieces(tmp_path: Path) -> None:
    rows, path = 3 << 20, tmp_path / "t.parquet"
    columns = {"arrival_us": np.zeros(rows, np.int64), "input_tokens": np.ones(rows, np.int64)}
    table = pa.table(columns | {"output_tokens": columns["input_tokens"]})
    pq.write_table(table, path, row_group_size=rows)
    assert path.stat().st_size < 100_000
    assert [len(slab) for slab in read_slabs(path)] == [1 << 20] * 3
    own = {b"servegen_gpu": b"{}", b"servegen_gpu.first_row": b"0"}
    pq.write_table(table.replace_schema_metadata(own), path, row_group_size=rows, use_dictionary=False)
    assert [len(slab) for slab in read_slabs(path)] == [1 << 20] * 3


@pytest.mark.parametrize("first", [False, True])
def test_a_text_repeated_by_a_dictionary_is_refused(first: bool, tmp_path: Path) -> None:
    path, numbers = tmp_path / "t.parquet", np.arange(5000)
    session = {"session_id": pa.DictionaryArray.from_arrays(np.zeros(5000, np.int32), pa.array(["x" * 10**6]))}
    rest = {"timestamp": numbers, "input_length": numbers, "output_length": numbers}
    pq.write_table(pa.table(session | rest if first else rest | session), path)
    with pytest.raises(sg.OptionError, match=r"texts of at most 65,536 bytes in session_id, got one of 1,000,000"):
        sg.read_trace(path, unit="ms")


def test_small_is_what_is_small_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SMALL_BYTES", 1 << 16)
    path = tmp_path / "t.csv.gz"
    for rows, small in ((100, True), (20_000, False)):
        path.write_bytes(gzip.compress(b"timestamp,input_length,output_length\n" + b"0,1,1\n" * rows))
        assert path.stat().st_size < 1000
        assert sources.open_source(path).small is small


def test_objects_and_studies_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("{" + ",".join(f'"k{i}":1' for i in range(10_001)) + "}\n")
    with pytest.raises(sg.OptionError, match=r"objects of at most 10,000 fields, got 10,001 in .*line 1"):
        sg.read_trace(path)
    import pandas as pd

    for value in (1e99, 1e308):
        write_study(tmp_path / "s.parquet", "montecarlo", {}, pd.DataFrame({"peak": [1.0, value]}))
        if value == 1e99:
            read_study(tmp_path / "s.parquet")
    with pytest.raises(sg.OptionError, match=r"a number beyond 1e\+100 in the column peak"):
        read_study(tmp_path / "s.parquet")


def test_a_footer_that_pyarrow_cannot_bear_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"timestamp": [1, 2], "input_length": [3, 4], "output_length": [5, 6]}), sink)
    data = bytearray(sink.getvalue())
    size = int.from_bytes(data[-8:-4], "little")
    rng = np.random.default_rng(5)
    for _ in range(200):
        broken = data.copy()
        broken[len(data) - 8 - int(rng.integers(1, size))] = int(rng.integers(256))
        path = tmp_path / "t.parquet"
        path.write_bytes(broken)
        try:
            sg.read_trace(path, unit="ms")
        except sg.OptionError:
            continue


def test_brackets_in_a_name_are_no_depth(tmp_path: Path) -> None:
    trace = sg.generate(sg.population("m-small", clients=2), rate=1, duration="1m")
    named = sg.Trace(trace.columns, {"workload": '[{"\\' * 40})
    for name in ("t.parquet", "t.csv"):
        named.write(tmp_path / name)
        assert sg.read_trace(tmp_path / name).provenance["workload"] == '[{"\\' * 40
