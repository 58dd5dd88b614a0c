"""The command line at the ends of pipes, and with names and streams that hold no Unicode."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_formats import make

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import atomic
from servegen_gpu.trace import Trace

GENERATE = ("generate", "m-small", "--clients", "20", "--rate", "20", "--duration", "60s", "--seed", "3")
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*arguments: Any) -> list[Any]:
    return [sys.executable, "-m", "servegen_gpu", *arguments]


def run(*arguments: Any, environment: dict[str, str] | None = None, **keywords: Any) -> Any:
    return subprocess.run(
        command(*arguments), env=os.environ | (environment or {}), check=False, stderr=subprocess.PIPE, **keywords
    )


def in_shell(line: str, *arguments: Any) -> Any:
    """A line for the shell, in which "$@" is the command."""
    return subprocess.run(["sh", "-c", line, "sh", *command(*arguments)], check=False, capture_output=True)


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory) -> bytes:
    """What the pipe must bring."""
    path = tmp_path_factory.mktemp("file") / "t.jsonl"
    assert run(*GENERATE, "--quiet", "-o", path).returncode == 0
    return path.read_bytes()


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_a_pipe_brings_the_file_and_nothing_else(tmp_path: Path, jsonl: bytes, output: str):
    done = run(*GENERATE, "-o", output, "--format", "jsonl", stdout=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, jsonl)
    assert f"{output}: {jsonl.count(b'{'):,} requests" in done.stderr.decode()
    quiet = run(*GENERATE, "--quiet", "-o", output, "--format", "jsonl", stdout=subprocess.PIPE, cwd=tmp_path)
    assert (quiet.stdout, quiet.stderr) == (jsonl, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["-", "/dev/fd/1"])
def test_a_file_of_the_shell_is_written_on(tmp_path: Path, jsonl: bytes, output: str):
    file = tmp_path / "t.jsonl"
    file.write_bytes(b"before\n")
    inode = file.stat().st_ino
    done = in_shell(f'"$@" >> {file}', *GENERATE, "--format", "jsonl", "-o", output)
    assert done.returncode == 0
    assert file.read_bytes() == b"before\n" + jsonl
    in_shell(f'(echo first; "$@"; echo last) > {file}', *GENERATE, "--format", "jsonl", "-o", output)
    assert file.read_bytes() == b"first\n" + jsonl + b"last\n"
    assert file.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [file]  # nothing beside it


def test_parquet_and_shares_go_through_pipes(tmp_path: Path):
    done = run(*GENERATE, "-o", "-", "--format", "parquet", stdout=subprocess.PIPE)
    assert run(*GENERATE, "-o", tmp_path / "t.parquet", stdout=subprocess.PIPE).returncode == 0
    assert done.stdout == (tmp_path / "t.parquet").read_bytes()
    assert len(pq.read_table(io.BytesIO(done.stdout))) == len(Trace.read(tmp_path / "t.parquet"))
    joined = run("join", tmp_path / "t.parquet", "-o", "-", "--format", "csv", stdout=subprocess.PIPE)
    scaled = run("scale", tmp_path / "t.parquet", "--to", "1m", "-o", "-", "--format", "csv", stdout=subprocess.PIPE)
    assert joined.stdout == scaled.stdout
    assert joined.stdout.startswith(b"arrival_us,")


def test_names_of_clients_are_not_written_beside_a_pipe(tmp_path: Path):
    (tmp_path / "log.csv").write_text("time,user,input,output\n0,ann,1,2\n1.5,bob,3,4\n")
    done = run("convert", "log.csv", "-o", "-", "--to", "csv", stdout=subprocess.PIPE, cwd=tmp_path)
    assert done.stdout == b"arrival_us,client,input_tokens,output_tokens\n0,0,1,2\n1500000,1,3,4\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_exports_go_through_pipes_with_dense_ids(tmp_path: Path):
    words = (*GENERATE, "--format", "mooncake", "--ids", "dense", "-o", "-")
    done = run(*words, stdout=subprocess.PIPE, cwd=tmp_path)
    ids = [each for line in done.stdout.splitlines() for each in json.loads(line)["hash_ids"]]
    assert sorted(set(ids)) == list(range(max(ids) + 1))
    assert "replay it with" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_has_no_suffix(tmp_path: Path):
    done = run(*GENERATE, "-o", "-", stdout=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "--format" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--format", "jsonl"), ("--format", "parquet")])
def test_a_reader_that_has_gone_is_no_error(arguments: Sequence[str]):
    many = ("generate", "m-small", "--rate", "2000", "--duration", "1000s", "-o", "-", *arguments)
    done = in_shell('("$@"; echo "status $?" >&2) | head -c 100', *many)
    assert len(done.stdout) == 100
    assert done.stderr.decode() == "status 0\n"


def test_a_closed_output_is_one_sentence():
    done = in_shell('"$@" >&-', *GENERATE, "--format", "jsonl", "-o", "-")
    assert done.returncode == 2
    assert done.stderr.decode().startswith("servegen-gpu: error: expected a file that can be written, got bad file")


def test_numbers_of_open_files():
    known = {"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/7": 7, "/proc/self/fd/12": 12}
    unknown = ("/dev/null", "/dev/fd/", "/dev/fd/x", "dev/fd/1", "/dev/fd/1/2", "-", "t.csv")
    assert {name: atomic.descriptor(Path(name)) for name in known} == known
    assert [atomic.descriptor(Path(name)) for name in unknown] == [None] * len(unknown)
    with pytest.raises(OptionError, match=r"name of a format.*--format.*jsonl"):
        make(1).write("/dev/stdout")


@pytest.mark.parametrize(
    ("suffix", "environment"), [("parquet", C_LOCALE), ("csv.gz", ASCII), ("jsonl", {})], ids=["C", "ascii", "utf8"]
)
def test_names_that_are_no_unicode(tmp_path: Path, suffix: str, environment: dict[str, str]):
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xe6\x97\xa5." + suffix.encode()
    made = run(*GENERATE, "-o", name, environment=environment, stdout=subprocess.PIPE)
    assert (made.returncode, made.stderr) == (0, b"")
    assert b"\\udce9" in made.stdout
    trace = Trace.read(os.fsdecode(name))
    beside = os.fsencode(tmp_path) + b"/caf\xe9 \xe6\x97\xa5." + suffix.encode() + b".provenance.json"
    assert os.path.exists(beside) == (suffix != "parquet")
    for arguments in (("--json",), ()):
        done = run("inspect", name, *arguments, environment=environment, stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"")
        if arguments:
            assert json.loads(done.stdout)["requests"] == len(trace)
    missing = run("inspect", name + b"x", environment=environment, stdout=subprocess.PIPE)
    assert (missing.returncode, missing.stderr.count(b"\n")) == (2, 1)
    assert b"Traceback" not in missing.stderr


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        (ASCII, ("generate", "--help")),
        (ASCII, ("presets", "show", "m-small")),
        (C_LOCALE, ("presets",)),
        (C_LOCALE, ("inspect", "m-rp")),
    ],
)
def test_streams_that_are_no_unicode(environment: dict[str, str], arguments: Sequence[str]):
    done = run(*arguments, environment=environment, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stdout


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_provenance_may_name_files_that_are_no_unicode(tmp_path: Path, name: str):
    made = make(10)
    trace = Trace(made.columns, {"source": os.fsdecode(b"caf\xe9.csv"), "name": "Übung"})
    trace.write(tmp_path / name)
    back = Trace.read(tmp_path / name)
    assert back.digest() == made.digest()
    assert back.provenance == {"source": "caf\\udce9.csv", "name": "Übung"}  # as text that every stream can have
