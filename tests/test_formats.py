"""Files: the same rows come back, the same rows give the same bytes, and nothing half-written is ever seen."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import started

from servegen_gpu import formats
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.formats import atomic, flow, parquet, text, thrift, write_stream
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace, read_trace

CATEGORIES = ("language", "reason", "multimodal", "conversation")
NAMES = ("t.parquet", "t.csv", "t.jsonl", "parts/")


def make(n, category="reason", seed=1, gap_us=100, first_row=0):
    rng = np.random.default_rng(seed)
    popularity = np.append(0.29, 0.71 * np.arange(1, 73) ** -1.2 / (np.arange(1, 73) ** -1.2).sum())
    columns = {
        "arrival_us": np.cumsum(rng.gamma(0.4, gap_us / 0.4, n)).astype(np.int64),
        "client": rng.choice(73, n, p=popularity).astype(np.int32),
        "input_tokens": np.clip(rng.lognormal(7, 0.9, n), 1, 32_000).astype(np.int32),
        "output_tokens": (1 + rng.exponential(800, n)).astype(np.int32),
    }
    if category == "reason":
        columns["reason_tokens"] = (columns["output_tokens"] * np.clip(rng.normal(0.7, 0.15, n), 0, 1)).astype(np.int32)
    if category == "multimodal":
        columns["text_tokens"] = columns["input_tokens"].copy()
        for name in ("image_tokens", "audio_tokens", "video_tokens"):
            offsets = np.concatenate([[0], np.cumsum(rng.poisson(1, n), dtype=np.int64)])
            columns[name] = Ragged(offsets, rng.integers(1, 2000, offsets[-1], dtype=np.int32))
            items = np.concatenate([[0], np.cumsum(columns[name].values)])
            columns["input_tokens"] += np.diff(items[offsets]).astype(np.int32)
    if category == "conversation":
        columns["conversation"] = np.sort(rng.integers(0, 2**40, n))
        columns["turn"] = rng.integers(1, 9, n, dtype=np.int32)
    return Trace(columns, {"seed": seed, "category": category, "name": "Übung"}, first_row)


def same(a, b):
    return a.to_arrow().equals(b.to_arrow(), check_metadata=True) and a.schema() == b.schema()


def cut(trace, rng, pieces):
    ends = np.sort(rng.integers(0, len(trace) + 1, pieces))
    edges = [0, 0, *ends.tolist(), len(trace)]
    return [trace.rows(lo, hi) for lo, hi in itertools.pairwise(edges)]


def left(path):
    return sorted(p.name for p in path.iterdir())


@pytest.fixture
def small_chunks(monkeypatch):
    """Formats with chunks of 1,024 rows, so that a few thousand rows take many."""
    small = {name: replace(known, chunk_rows=1024) for name, known in formats.FORMATS.items()}
    monkeypatch.setattr(formats, "FORMATS", small)


@pytest.mark.parametrize("rows", [0, 1, 5500])
@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_round_trip(tmp_path, name, category, rows):
    trace = make(rows, category, first_row=42)
    summary = trace.write(f"{tmp_path}/{name}")
    back = Trace.read(f"{tmp_path}/{name}")
    assert same(trace, back)
    assert all(column.flags.writeable for column in back.columns.values() if not isinstance(column, Ragged))
    assert (summary.rows, summary.files) == (rows, 1)
    assert summary.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("category", ["reason", "multimodal"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_same_rows_same_bytes(tmp_path, name, category):
    rng = np.random.default_rng(5)
    trace = make(6300, category)
    seen = set()
    for pieces in (0, 1, 3, 20, 300):
        target = tmp_path / str(pieces)
        target.mkdir()
        write_stream(cut(trace, rng, pieces), f"{target}/{name}", part_rows=2048)
        files = sorted(p for p in target.rglob("*") if p.is_file())
        seen.add(tuple((p.name, p.read_bytes()) for p in files))
    assert len(seen) == 1


def test_row_groups_and_statistics(tmp_path):
    n = parquet.ROW_GROUP_ROWS + 1000
    trace = make(n, "language")
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(3)
    write_stream(cut(trace, rng, 4), path)
    meta = pq.read_metadata(path)
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [parquet.ROW_GROUP_ROWS, 1000]
    for group, (lo, hi) in enumerate([(0, parquet.ROW_GROUP_ROWS), (parquet.ROW_GROUP_ROWS, n)]):
        statistics = meta.row_group(group).column(0).statistics
        assert (statistics.min, statistics.max) == (trace["arrival_us"][lo], trace["arrival_us"][hi - 1])
        assert all(meta.row_group(group).column(i).statistics is None for i in range(1, 4))
    assert path.stat().st_size / n < 8
    path2 = tmp_path / "u.parquet"
    trace.write(path2)
    assert path.read_bytes() == path2.read_bytes()


def by_one_writer(trace, rows):
    """What pyarrow's own writer makes of a trace, with everything that we ask of it."""
    lists = [f"{name}.list.element" for name, column in trace.columns.items() if isinstance(column, Ragged)]
    flat = [name for name, column in trace.columns.items() if not isinstance(column, Ragged)]
    zstd = [*lists, "conversation"]
    table = trace.to_arrow()
    fields = [f.with_type(pa.int64()) if f.name in flat and f.name.endswith("_tokens") else f for f in table.schema]
    types = {parquet.TYPES_KEY: json.dumps(trace.schema()).encode()}
    table = table.cast(pa.schema(fields, table.schema.metadata | types))
    file = pa.BufferOutputStream()
    with pq.ParquetWriter(
        file,
        table.schema,
        compression=dict.fromkeys(flat, "none") | dict.fromkeys(zstd, "zstd"),
        compression_level=dict.fromkeys(zstd, 1),
        use_dictionary=False,
        column_encoding=dict.fromkeys(flat, "DELTA_BINARY_PACKED") | dict.fromkeys(zstd, "PLAIN"),
        write_statistics=["arrival_us"],
        data_page_version="1.0",
    ) as writer:
        for at in range(0, len(trace), rows):
            writer.write_table(table.slice(at, rows))
        writer.add_key_value_metadata({parquet.DIGEST_KEY: trace.digest().hex.encode()})
    return file.getvalue().to_pybytes()


@pytest.mark.parametrize("rows", [0, 1, 1024, 20_000])
@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.usefixtures("small_chunks")
def test_row_groups_encoded_at_once_are_the_file_of_one_writer(tmp_path, category, rows):
    trace = make(rows, category)
    trace.write(tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_bytes() == by_one_writer(trace, 1024)


def test_a_footer_of_unknown_types_is_refused():
    assert thrift.write({}) == thrift.STOP
    known = {1: (thrift.TRUE, None), 40: (thrift.DOUBLE, -0.5), 41: (thrift.I64, -(2**63)), 2: (thrift.BYTE, 255)}
    known |= {
        3: (thrift.LIST, (thrift.I16, list(range(-20, 20)))),
        4: (thrift.STRUCT, {1: (thrift.BINARY, b"x" * 200)}),
    }
    assert thrift.read(thrift.write(known)) == known
    with pytest.raises(ValueError, match="booleans"):
        thrift.read(bytes([1 << 4 | thrift.LIST, 1 << 4 | thrift.TRUE, 1]))
    with pytest.raises(ValueError, match="got 11"):
        thrift.read(bytes([1 << 4 | 11, 0]))


@pytest.mark.parametrize("gap_us", [100, 5])
def test_bytes_a_row(tmp_path, gap_us):
    trace = make(200_000, "reason", gap_us=gap_us)
    assert trace.write(tmp_path / "t.parquet").bytes / len(trace) < 8


def test_parquet_seen_by_others(tmp_path):
    trace = make(1000, "multimodal")
    path = tmp_path / "t.parquet"
    trace.write(path)
    schema = pq.read_schema(path)
    assert not any(field.nullable for field in schema)
    assert not schema.field("image_tokens").type.value_field.nullable
    assert "required int32" in str(pq.ParquetFile(path).schema)
    assert "optional" not in str(pq.ParquetFile(path).schema)
    assert json.loads(schema.metadata[b"servegen_gpu"]) == trace.provenance
    frame = pd.read_parquet(path)
    assert frame["arrival_us"].dtype == np.int64
    assert frame["input_tokens"].tolist() == trace["input_tokens"].tolist()
    assert pq.read_table(path, filters=[("arrival_us", "<", 50_000)]).num_rows == (trace["arrival_us"] < 50_000).sum()


def test_text_seen_by_others(tmp_path):
    trace = make(50, "multimodal")
    trace.write(tmp_path / "t.csv")
    trace.write(tmp_path / "t.jsonl")
    frame = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert frame.columns.tolist() == list(trace)
    objects = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    for row in range(50):
        for name in trace:
            value = trace[name][row].tolist()
            assert objects[row][name] == value
            text_value = frame[name][row]
            assert (text_value if isinstance(value, list) else int(text_value)) == (
                " ".join(map(str, value)) if isinstance(value, list) else value
            )
    about = json.loads((tmp_path / "t.csv.provenance.json").read_text())
    assert about["provenance"] == trace.provenance
    assert (about["rows"], about["bytes"]) == (50, (tmp_path / "t.csv").stat().st_size)


def test_parts(tmp_path):
    trace = make(5000)
    summary = write_stream([trace], tmp_path / "out", part_rows=2000)
    assert left(tmp_path / "out") == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert (summary.rows, summary.files, summary.path) == (5000, 3, tmp_path / "out")
    second = Trace.read(tmp_path / "out" / "part-00001.parquet")
    assert (second.first_row, len(second)) == (2000, 2000)
    assert same(second, trace.rows(2000, 4000))
    assert same(Trace.read(tmp_path / "out"), trace)
    make(10).write(f"{tmp_path}/out/")  # replaces an earlier one
    assert left(tmp_path / "out") == ["part-00000.parquet"]
    assert left(tmp_path) == ["out"]
    with pytest.raises(OptionError, match="multiple"):
        write_stream([trace], tmp_path / "out", part_rows=2**21 + 1)


def test_directory_of_others_is_left_alone(tmp_path):
    other = tmp_path / "out"
    other.mkdir()
    make(3).write(other)  # an empty one will do
    (other / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="other files"):
        make(3).write(other)
    (other / "thesis.tex").unlink()
    pq.write_table(pa.table({"a": [1]}), other / "part-00000.parquet")
    with pytest.raises(OutputError, match="other files"):
        make(3).write(other)
    assert left(tmp_path) == ["out"]


STRANGE = ("_SUCCESS", "_metadata", "_common_metadata", ".DS_Store", "._part-00000.parquet", ".part-00000.parquet.crc")


def test_strange_files_beside_parts_are_passed_over(tmp_path):
    trace = make(5000)
    target = tmp_path / "out"
    target.mkdir()
    for name in STRANGE:  # an empty directory, as a file manager leaves it
        (target / name).write_text("x")
    write_stream([trace], target, part_rows=2000)
    assert left(target) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    for name in (*STRANGE, "Thumbs.db", ".servegen-7-abc.tmp"):
        (target / name).write_text("x")
    assert same(Trace.read(target), trace)
    make(3).write(target)
    assert left(target) == ["part-00000.parquet"]
    for name in (".env", "_notes.txt", "_delta_log/", "_SUCCESS/"):  # read past them, but leave them be
        path = target / name
        path.mkdir() if name.endswith("/") else path.write_text("x")
        assert len(Trace.read(target)) == 3
        with pytest.raises(OutputError, match=f"other files in it: .*{path.name}"):
            make(4).write(target)
        path.rmdir() if name.endswith("/") else path.unlink()
    (target / "part-00007.parquet").write_bytes((target / "part-00000.parquet").read_bytes())
    with pytest.raises(OptionError, match="directory of parts"):
        Trace.read(target)


def test_format_by_name(tmp_path):
    trace = make(10)
    trace.write(tmp_path / "a.dat", format="csv")
    assert same(read_trace(tmp_path / "a.dat", format="csv"), trace)
    trace.write(tmp_path / "plain", format="parquet")
    assert (tmp_path / "plain").is_file()
    trace.write(tmp_path / "B.PARQUET")
    with pytest.raises(OptionError, match="parquet, csv, jsonl"):
        trace.write(tmp_path / "a.csv", format="xlsx")
    with pytest.raises(OptionError, match=r"\.parquet, \.csv, \.jsonl.*a\.xlsx"):
        trace.write(tmp_path / "a.xlsx")
    with pytest.raises(OptionError, match="only parquet comes in parts"):
        trace.write(f"{tmp_path}/a/", format="csv")


def test_places_that_cannot_be_written(tmp_path):
    trace = make(10)
    for name in ("none/t.parquet", "none/t.csv", "none/parts/"):
        with pytest.raises(OutputError, match=r"expected an existing directory.*none.*create"):
            trace.write(f"{tmp_path}/{name}")
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(OutputError, match="the directory"):
        trace.write(tmp_path / "d.parquet")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="the file"):
        trace.write(tmp_path / "file")
    with pytest.raises(OutputError, match="not a directory"):
        trace.write(tmp_path / "file" / "t.csv")
    assert left(tmp_path) == ["d.parquet", "file"]


def test_no_slabs_and_unlike_slabs(tmp_path):
    with pytest.raises(OptionError, match="at least one slab"):
        write_stream([], tmp_path / "t.parquet")
    with pytest.raises(OptionError, match="slabs with columns"):
        write_stream([make(10, "language"), make(10, "reason")], tmp_path / "t.parquet")
    assert left(tmp_path) == []


def test_devices_are_written_straight(tmp_path):
    assert make(1000).write("/dev/null", format="csv").rows == 1000
    assert not os.path.exists("/dev/null.provenance.json")
    assert not os.path.isfile("/dev/null")
    reader, writer = os.pipe()
    with os.fdopen(reader) as pipe:
        make(10).write(f"/dev/fd/{writer}", format="jsonl")
        os.close(writer)
        assert len(pipe.readlines()) == 10


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "t.parquet").symlink_to(tmp_path / "disk" / "t.parquet")
    make(10).write(tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").is_symlink()
    assert left(tmp_path / "disk") == ["t.parquet"]


def test_strange_files_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "alone.csv").write_text("arrival_us\n1\n")
    (tmp_path / "empty").mkdir()
    header = {b"servegen_gpu": b"{}", b"servegen_gpu.first_row": b"0"}
    pq.write_table(pa.table({"a": ["x"]}).replace_schema_metadata(header), tmp_path / "texts.parquet")
    for name in ("other.parquet", "junk.parquet", "alone.csv", "empty", "missing.parquet", "texts.parquet"):
        with pytest.raises(OptionError, match=name):
            Trace.read(tmp_path / name)


def test_a_text_file_that_was_changed_is_read_without_the_provenance_beside_it(tmp_path):
    trace = make(10)
    trace.write(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open("a") as file:
        file.write("99999999,2,3,4,3\n")
    found = Trace.read(tmp_path / "t.csv")
    assert same(found.rows(0, 10), Trace(trace.columns, found.provenance))
    assert found["reason_tokens"][10] == 3
    assert "the provenance beside it belongs to another file" in found.provenance["note"]
    assert "seed" not in found.provenance


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_a_generator_that_raises_leaves_what_was_there(tmp_path, name, error):
    def slabs():
        yield make(2500)
        raise error("mine")

    for _ in range(2):  # onto nothing, then onto an earlier trace
        before = left(tmp_path)
        with pytest.raises(error, match="mine"):
            write_stream(slabs(), f"{tmp_path}/{name}")
        assert left(tmp_path) == before
        make(10).write(f"{tmp_path}/{name}")
    assert len(Trace.read(f"{tmp_path}/{name}")) == 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_an_encoder_that_fails_ends_the_generator(tmp_path, name, monkeypatch):
    closed, made = [], []

    def slabs():
        try:
            for _ in range(10**6):
                made.append(1)
                yield Trace({"conversation": np.arange(1000)})
        finally:
            closed.append(True)

    def full(sink, data):
        raise OutputError("enough free space", "no space", "free some")

    monkeypatch.setattr("servegen_gpu.formats.atomic.Sink.write", full)
    with pytest.raises(OutputError, match="enough free space"):
        write_stream(slabs(), f"{tmp_path}/{name}")
    assert closed == [True]
    assert len(made) < 10
    assert left(tmp_path) == []
    assert not any(thread.name.startswith("servegen-encode") for thread in threading.enumerate())


def script(body, *arguments):
    code = "import sys, resource, signal, os, time\nimport numpy as np\n" + textwrap.dedent(body)
    return [sys.executable, "-c", code, *map(str, arguments)]


LIMITED = """
    import pyarrow.parquet, pyarrow.csv
    from servegen_gpu.errors import OutputError
    from servegen_gpu.formats import write_stream
    from servegen_gpu.trace import Trace
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    rng = np.random.default_rng(0)
    slabs = (Trace({"conversation": rng.integers(0, 2**60, 2**18)}) for _ in range(8))
    try:
        write_stream(slabs, sys.argv[1])
    except OutputError as error:
        print(error)
"""


@pytest.mark.parametrize("name", NAMES)
def test_full_disk(tmp_path, name):
    done = subprocess.run(script(LIMITED, f"{tmp_path}/{name}"), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("expected a file within the size limit, got file too large: "), done
    assert str(tmp_path / name.rstrip("/")) in done.stdout
    assert ".servegen" not in done.stdout
    assert done.stderr == ""
    assert left(tmp_path) == []


def test_explanations(tmp_path):
    import errno

    from servegen_gpu.disk import explained

    cases = {errno.ENOSPC: "free space", errno.EDQUOT: "free space", errno.EROFS: "may write", errno.EIO: "can be"}
    for code, words in cases.items():
        with pytest.raises(OutputError, match=words), explained(tmp_path / "t.csv", 5):
            raise OSError(code, os.strerror(code))


def test_unwritable_directory(tmp_path):
    body = """
        import pyarrow.parquet
        from servegen_gpu.errors import OutputError
        from servegen_gpu.trace import Trace
        trace = Trace({"client": np.zeros(3, np.int32)})
        trace.write("/dev/null", format="parquet")  # imports all, while the user may still read the library
        os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o555)
        if os.getuid() == 0:
            os.setuid(65534)
        for name in ("t.parquet", "parts/"):
            try:
                trace.write(sys.argv[1] + "/" + name)
            except OutputError as error:
                print(error)
    """
    done = subprocess.run(script(body, tmp_path / "sealed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    assert all("may write" in line and "permission denied" in line for line in lines)


@pytest.mark.parametrize("name", ["t.csv", "parts/"])
def test_killed_midway_leaves_no_file_under_the_name(tmp_path, name):
    body = """
        from servegen_gpu.formats import write_stream
        from servegen_gpu.trace import Trace
        def slabs():
            while True:
                yield Trace({"conversation": np.arange(2**18)})
                print("more", flush=True)
                time.sleep(0.01)
        write_stream(slabs(), sys.argv[1])
    """
    child = subprocess.Popen(script(body, f"{tmp_path}/{name}"), stdout=subprocess.PIPE)
    for _ in range(8):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = left(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(".servegen-")


def test_interrupted_for_real(tmp_path):
    body = """
        from servegen_gpu.formats import write_stream
        from servegen_gpu.trace import Trace
        def slabs():
            while True:
                yield Trace({"conversation": np.arange(2**18)})
                print("more", flush=True)
        try:
            write_stream(slabs(), sys.argv[1])
        except KeyboardInterrupt:
            print("interrupted")
    """
    with started(script(body, tmp_path / "t.parquet"), stdout=subprocess.PIPE) as child:
        for _ in range(8):
            child.stdout.readline()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=20)
    assert out.splitlines()[-1] == "interrupted"
    assert left(tmp_path) == []


def test_chunks_are_exact_and_free_what_they_came_from():
    trace = make(1050, "multimodal")
    cuts = list(flow.chunks(cut(trace, np.random.default_rng(1), 7), 100))
    assert [len(c) for c in cuts] == [100] * 10 + [50]
    assert [c.first_row for c in cuts] == list(range(0, 1050, 100))
    assert same(Trace.concat(cuts), trace)
    assert list(flow.chunks([trace.rows(0, 0)], 100)) == []


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
@pytest.mark.parametrize("rows", [700, 5000])
@pytest.mark.usefixtures("small_chunks")
def test_only_a_few_slabs_are_alive(tmp_path, name, rows):
    alive = weakref.WeakValueDictionary()
    most = []

    def slabs():
        for at in range(40):
            column = np.arange(rows)
            alive[at] = column
            yield Trace({"conversation": column})
            del column
            time.sleep(0.002)
            most.append(len(alive))

    write_stream(slabs(), tmp_path / name)
    assert max(most) <= 3


def test_encoding_overlaps_with_making():
    busy = threading.Event()
    overlapped = []

    def items():
        yield 0
        overlapped.append(busy.wait(5))  # only set while item 0 is consumed
        yield 1

    def consume(item):
        busy.set()
        time.sleep(0.01)

    flow.overlap(items(), consume)
    assert overlapped == [True]


@pytest.mark.parametrize("threads", [1, 3])
def test_overlap_is_at_most_one_item_more_than_threads_behind(threads):
    made, done, ahead = [], [], []

    def items():
        for item in range(20):
            ahead.append(item - len(done))
            made.append(item)
            yield item

    def work(item):
        time.sleep(0.002 if item % 3 else 0.006)
        return item

    flow.overlap(items(), work, done.append, threads)
    assert done == made
    assert max(ahead) <= threads + 1


def test_items_are_worked_on_at_once_and_finished_in_order():
    together = threading.Barrier(3)
    done = []

    def work(item):
        together.wait(5)  # passes only where three are in here
        time.sleep(0.02 * (3 - item))
        return item

    flow.overlap(range(3), work, done.append, 3)
    assert done == [0, 1, 2]


@pytest.mark.parametrize("bad", [0, 1, 7])
def test_nothing_is_finished_after_what_failed(bad):
    done = []

    def work(item):
        time.sleep(0 if item == bad else 0.003)
        if item == bad:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match=f"item {bad}"):
        flow.overlap(range(20), work, done.append, 3)
    assert done == list(range(bad))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("small_chunks")
def test_the_disk_works_before_the_end(tmp_path, monkeypatch, fails):
    at_sizes, real = [], os.fsync

    def fsync(descriptor):
        at_sizes.append(os.fstat(descriptor).st_size)
        if fails:
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    monkeypatch.setattr(atomic, "FLUSH_BYTES", 30_000)
    monkeypatch.setattr(os, "fsync", fsync)
    if fails:
        with pytest.raises(OutputError, match="no space left"):
            make(20_000).write(tmp_path / "t.csv")
        assert left(tmp_path) == []
        return
    size = make(20_000).write(tmp_path / "t.parquet").bytes
    assert len(at_sizes) >= 3  # a part of the file, all of it, and its directory
    assert at_sizes[-2] == size
    monkeypatch.undo()
    assert len(Trace.read(tmp_path / "t.parquet")) == 20_000


def test_every_format_says_how_it_is_chosen():
    for name, known in formats.FORMATS.items():
        assert known.suffix == f".{name}"
        assert known.read_slabs is not None
    assert text.TEXT_CHUNK_ROWS > 0
