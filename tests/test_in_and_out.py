"""Writing and reading together: situations that people met, each of which went wrong once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from traces import same

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.exports.prompts import PIECE_TOKENS
from servegen_gpu.formats import read_slabs
from servegen_gpu.formats.reading import sources, text_blocks


def talk(rows: int, begin: int) -> Trace:
    """Requests of which some, from row `begin` on, are turns of one conversation."""
    of = np.where((np.arange(rows) >= begin) & (np.arange(rows) < begin + 10), 7, -1 - np.arange(rows))
    turn = np.where(of == 7, np.arange(rows) - begin + 1, 1)
    inputs = np.where(of == 7, 100 * turn, 50)
    new = np.where(turn > 1, 95, inputs)
    times = {"arrival_us": 70_123 * np.arange(rows), "client": np.zeros(rows), "output_tokens": np.full(rows, 5)}
    return Trace(times | {"input_tokens": inputs, "conversation": of, "turn": turn, "new_tokens": new})


@pytest.mark.parametrize("format", ["aiperf", "dynamo-delta", "dynamo"])
def test_a_field_that_late_rows_alone_have_is_read(tmp_path: Path, format: str):
    trace = talk(5000, 4500)
    trace.write(tmp_path / "t.jsonl", format)
    for _ in range(2):  # with what lies beside it, and without
        back = sg.read_trace(tmp_path / "t.jsonl")
        assert back["input_tokens"].tolist() == trace["input_tokens"].tolist()
        assert (back["conversation"] >= 0).tolist() == (trace["conversation"] >= 0).tolist()
        (tmp_path / "t.jsonl.provenance.json").unlink(missing_ok=True)


def test_text_that_looks_like_a_field_is_none(tmp_path: Path):
    row = {"timestamp": 0.5, "input_length": 3, "output_length": 2}
    late = row | {"timestamp": 900.5, "prompt": ', "session_id": "x"', "client": 4}
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*[row | {"timestamp": at / 7} for at in range(5000)], late]))
    back = sg.read_trace(path)
    assert "conversation" not in back
    assert "5,000 requests without a client taken as one client's" in back.provenance["note"]
    assert back["client"].tolist() == [0] * 5000 + [1]  # nobody, and the one that has a name


def test_thousands_and_decimals_are_told_apart_or_refused(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("time;input;output\n0,5;1.000;2.000\n1,25;4.000;3.000\n")
    with pytest.raises(OptionError, match=r"thousands or decimals.*'1\.000' in .*line 2"):
        sg.read_trace(path)
    path.write_text("time;input;output\n0,5;128.0;2\n1,25;4.0;3\n")
    assert sg.read_trace(path)["input_tokens"].tolist() == [128, 4]


def test_a_few_whole_times_a_second_or_more_apart_are_doubtful(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    for rows in (5, 20):
        lines = [{"timestamp": 1000 * at, "input_length": 10, "output_length": 5} for at in range(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(OptionError, match="times whose unit can be told"):
            sg.read_trace(path)
        assert sg.read_trace(path, unit="ms")["arrival_us"][-1] == (rows - 1) * 1_000_000


def test_times_of_ours_are_microseconds(tmp_path: Path):
    trace = sg.generate(sg.population("m-small"), rate=50, requests=100)
    for name in ("t.parquet", "t.csv"):
        trace.write(tmp_path / name)
        with pytest.raises(OptionError, match="microseconds in a column arrival_us"):
            sg.read_trace(tmp_path / name, unit="ms")


def test_a_file_of_ours_is_read_whatever_its_name(tmp_path: Path):
    trace = sg.generate(sg.population("m-small"), rate=50, requests=100)
    for format, name in (("csv", "x.jsonl"), ("jsonl", "x.csv"), ("csv", "x.parquet"), ("parquet", "y.csv")):
        trace.write(tmp_path / name, format)
        back = sg.read_trace(tmp_path / name)
        assert back["arrival_us"].tolist() == trace["arrival_us"].tolist()
        assert back.provenance["seed"] == trace.provenance["seed"]


def test_names_are_those_of_the_rows_that_were_written(tmp_path: Path):
    path = tmp_path / "u.csv"
    rows = [f"{at % 7 + at / 100:.2f},{at % 90 + 1},5,u{at % 3},s{at % 5}" for at in range(200)]
    path.write_text("time,input_tokens,output_tokens,user,session\n" + "\n".join(rows) + "\n")
    assert main(["convert", str(path), "--unit", "s", "-o", str(tmp_path / "t.parquet"), "--quiet"]) == 0
    assert (tmp_path / "t.parquet.sessions.csv").exists()
    dense = ["convert", str(path), "--unit", "s", "--ids", "dense", "-o", str(tmp_path / "d.parquet"), "--quiet"]
    assert main(dense) == 0
    assert (tmp_path / "d.parquet.clients.csv").exists()
    assert not (tmp_path / "d.parquet.sessions.csv").exists()
    naive = ["generate", str(path), "--unit", "s", "--naive", "poisson", "--duration", "5s", "--quiet"]
    assert main([*naive, "-o", str(tmp_path / "n.parquet")]) == 0
    assert not (tmp_path / "n.parquet.clients.csv").exists()


def test_a_slice_begins_where_it_was_cut(tmp_path: Path):
    path = tmp_path / "az.csv"
    rows = [f"2023-11-16 18:{at // 60:02}:{at % 60:02}.1234560,10,5" for at in range(1200)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    sg.read_trace(path).between("10m").write(tmp_path / "s.csv", "azure")
    assert (tmp_path / "s.csv").read_text().splitlines()[1] == "2023-11-16 18:10:00.1234560,10,5"
    cut = Trace({"arrival_us": [0, 5]}, {"origin": "862919 s"}).between(1e-6)
    assert "origin" not in cut.provenance


def test_requests_without_tokens_keep_their_ids(tmp_path: Path):
    ids = Ragged(np.array([0, 0, 2]), np.array([3, 4]))
    columns = {"arrival_us": [0, 5], "input_tokens": [0, 600], "output_tokens": [0, 7], "hash_ids": ids}
    trace = Trace(columns, {"hash_ids": {"block_tokens": 512}})
    trace.write(tmp_path / "t.jsonl", "mooncake")
    first, second = (json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines())
    assert (first["input_length"], first["output_length"], len(first["hash_ids"])) == (1, 1, 1)
    assert (second["input_length"], second["hash_ids"]) == (600, [3, 4])


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path: Path):
    bare = Trace({"arrival_us": [1, 2], "input_tokens": [3, 4]})
    bare.write(tmp_path / "bare.parquet")
    for format in ("azure", "aiperf", "mooncake", "burstgpt"):
        with pytest.raises(OptionError, match="none of output_tokens"):
            bare.write(tmp_path / "t.jsonl", format)
    assert main(["inspect", str(tmp_path / "bare.parquet")]) == 0
    with pytest.raises(OptionError, match=r"ExportOptions, got \{'deltas'"):
        bare.write(tmp_path / "t.jsonl", "aiperf", {"deltas": "nearest"})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="a path, got '-'"):
        bare.write("-")
    generate = ["generate", "m-small", "--requests", "5", "--rate", "5", "--replay-command", "-o"]
    assert main([*generate, str(tmp_path / "t.csv")]) == 2
    shard = sg.generate(sg.population("m-small"), rate=50, duration="1m", shard="1/2")
    with pytest.raises(OptionError, match="a whole trace to number its ids"):
        shard.write(tmp_path / "t.jsonl", "dynamo")
    assert [p.name for p in tmp_path.iterdir()] == ["bare.parquet"]


def test_a_trace_without_provenance_is_no_fault(tmp_path: Path):
    sg.generate(sg.population("m-small"), rate=50, requests=100).write(tmp_path / "t.csv")
    (tmp_path / "t.csv.provenance.json").unlink()
    report = sg.validate(tmp_path / "t.csv", "servegen-gpu")
    assert [problem.severity for problem in report.problems] == ["suspicious"]
    assert report.rows == 100


def test_prompts_are_made_in_pieces(tmp_path: Path):
    tokens = [PIECE_TOKENS // 3] * 5
    Trace({"arrival_us": range(5), "input_tokens": tokens, "output_tokens": [1] * 5}).write(
        tmp_path / "t.jsonl", "vllm-custom"
    )
    with (tmp_path / "t.jsonl").open() as file:
        assert [len(json.loads(line)["prompt"].split()) for line in file] == tokens


def test_large_files_are_read_as_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In two passes and slabs: the same rows, numbers of names, and counts in the note."""
    users = [str(at) if at < 3000 else f"u{at % 3}" for at in range(6000)]  # ids turn out to be text halfway
    rows = [f"{at / 7:.3f},{'' if at % 7 == 0 else at % 90 + 1},5,{user}" for at, user in enumerate(users)]
    path = tmp_path / "t.csv"
    path.write_text("time,input_tokens,output_tokens,user\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 1 << 14)
    small = sg.read_trace(path, missing="drop")
    monkeypatch.setattr(sources, "SMALL_BYTES", 0)
    slabs = list(read_slabs(path, missing="drop"))
    large = Trace.concat(slabs)
    assert len(slabs) > 2
    assert same(small, large)
    assert small.provenance["note"] == large.provenance["note"]
    assert "858 rows without a value dropped" in large.provenance["note"]


def test_milliseconds_of_ours_for_a_reader_of_seconds(tmp_path: Path):
    trace = sg.generate(sg.population("m-small"), rate=30, requests=500)
    trace.write(tmp_path / "t.jsonl", "mooncake")
    (problem,) = sg.validate(tmp_path / "t.jsonl", "vllm").problems
    assert "times in another unit" in problem.wrong
    assert "divide the times by 1,000" in problem.fix
    assert sg.validate(tmp_path / "t.jsonl", "aiperf").clean
    trace.write(tmp_path / "s.jsonl", "vllm-timed")
    assert sg.validate(tmp_path / "s.jsonl", "vllm").clean
