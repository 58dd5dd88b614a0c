"""Compressed text: the same rows come back, the same rows give the same bytes, and what is no text is refused."""

from __future__ import annotations

import gc
import gzip
import json
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from test_formats import cut, make, same, small_chunks  # noqa: F401

from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.formats import atomic, compression, write_stream
from servegen_gpu.formats.compression import open_text
from servegen_gpu.trace import Trace

NAMES = ("t.csv.gz", "t.csv.zst", "t.jsonl.gz", "t.JSONL.ZST")


@pytest.mark.parametrize("rows", [0, 1, 5500])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_round_trip(tmp_path: Path, name: str, rows: int):
    trace = make(rows, "multimodal", first_row=42)
    summary = trace.write(tmp_path / name)
    assert same(Trace.read(tmp_path / name), trace)
    assert summary.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    trace.write(plain := tmp_path / compression.plain_name(Path(name)))
    with open_text(tmp_path / name) as file:
        assert file.read() == plain.read_bytes()
    if rows > 1:
        assert (tmp_path / name).stat().st_size < plain.stat().st_size * 0.8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_same_rows_same_bytes(tmp_path: Path, name: str):
    rng = np.random.default_rng(5)
    trace = make(6300, "multimodal")
    seen = set()
    for pieces in (0, 1, 3, 20, 300):
        write_stream(cut(trace, rng, pieces), tmp_path / name)
        seen.add((tmp_path / name).read_bytes())
    assert len(seen) == 1
    if name.endswith(".gz"):
        assert seen.pop()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x04\x03"  # no name, no time


@pytest.mark.usefixtures("small_chunks")
def test_others_read_them(tmp_path: Path):
    trace = make(3000)
    for name in NAMES:
        trace.write(tmp_path / name)
    assert len(pa.csv.read_csv(tmp_path / "t.csv.gz")) == 3000
    with gzip.open(tmp_path / "t.jsonl.gz") as file:
        assert [json.loads(line)["input_tokens"] for line in file] == trace["input_tokens"].tolist()
    done = subprocess.run(["gzip", "-t", tmp_path / "t.jsonl.gz"], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    # one frame: what its decoder gives is all there is
    whole = (tmp_path / "t.csv.zst").read_bytes()
    text = pa.CompressedInputStream(pa.BufferReader(whole), "zstd").read()
    assert text.count(b"\n") == 3001
    assert whole.count(compression.MAGIC["zstd"]) == 1


def test_the_first_bytes_count_and_not_the_name(tmp_path: Path):
    trace = make(100)
    trace.write(tmp_path / "t.csv.gz")
    trace.write(tmp_path / "t.csv")
    for packed, plain in (("a.csv", "b.csv.gz"), ("c.csv.zst", "b.csv.gz")):
        for ours, theirs in (("t.csv.gz", packed), ("t.csv", plain)):
            for beside in ("", ".provenance.json"):
                (tmp_path / f"{theirs}{beside}").write_bytes((tmp_path / f"{ours}{beside}").read_bytes())
            assert same(Trace.read(tmp_path / theirs), trace)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut_bytes", [1, 9, 1000])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, cut_bytes: int):
    make(1000).write(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-cut_bytes])
    with pytest.raises(OptionError, match=r"whole (gzip|zstd) file.*cut short"), open_text(tmp_path / name) as file:
        file.read()
    with pytest.raises(OptionError):
        Trace.read(tmp_path / name)


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "t.csv.gz"
    make(1000).write(path)
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 255  # its checksum
    path.write_bytes(whole)
    with pytest.raises(OptionError, match="cut short or damaged"):
        Trace.read(path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_a_generator_that_raises_leaves_nothing(tmp_path: Path, capfd, name: str, error: type[BaseException]):
    def slabs():
        yield make(30_000)
        raise error("mine")

    with pytest.raises(error, match="mine"):
        write_stream(slabs(), tmp_path / name)
    gc.collect()  # streams that pyarrow takes down say on file descriptor 2 what they cannot write
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("small_chunks")
def test_a_disk_that_is_full(tmp_path: Path, capfd, monkeypatch, name: str):
    def full(sink: atomic.Sink, data: object) -> None:
        raise OutputError("enough free space", "no space", "free some")

    monkeypatch.setattr(atomic.Sink, "write", full)
    with pytest.raises(OutputError, match="enough free space"):
        make(30_000).write(tmp_path / name)
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("begin", "what"),
    [(b"PAR1", "Parquet"), (b"PK\x03\x04", "zip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"ARROW1", "Arrow")],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, begin: bytes, what: str):
    (tmp_path / "t.csv").write_bytes(begin + zlib.compress(b"x" * 100))
    with pytest.raises(OptionError, match=f"text file.*{what}.*t.csv"):
        open_text(tmp_path / "t.csv")


def test_parquet_is_not_compressed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "t.parquet.gz"
    with pytest.raises(OptionError, match=r"compressed inside.*leave out \.gz"):
        make(10).write(path)
    path.write_bytes(gzip.compress(b"PAR1"))
    assert main(["inspect", str(path)]) == 2
    assert "compressed inside" in capsys.readouterr().err
    with pytest.raises(OptionError, match="compressed inside"):
        make(10).write(tmp_path / "t.gz", format="parquet")


def test_a_format_by_name(tmp_path: Path):
    trace = make(10)
    trace.write(tmp_path / "t.gz", format="csv")
    assert (tmp_path / "t.gz").read_bytes()[:2] == compression.MAGIC["gzip"]
    assert same(Trace.read(tmp_path / "t.gz", format="csv"), trace)
    with pytest.raises(OptionError, match=r"\.gz or \.zst"):
        trace.write(tmp_path / "t.gz")


def test_every_command_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trace = make(2000, "language")
    provenance = {"shard": "1/1", "duration_s": 1.0}
    path = str(tmp_path / "t.csv.gz")
    Trace(trace.columns, provenance).write(path)
    assert main(["inspect", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 2000
    assert main(["scale", path, "--factor", "2", "--method", "naive", "-o", str(tmp_path / "u.jsonl.zst")]) == 0
    assert (Trace.read(tmp_path / "u.jsonl.zst")["arrival_us"] - trace["arrival_us"] / 2 <= 0.5).all()
    assert main(["generate", path, "--naive", "gamma", "--duration", "1s", "-o", str(tmp_path / "v.csv.zst")]) == 0
    assert len(Trace.read(tmp_path / "v.csv.zst")) > 100
