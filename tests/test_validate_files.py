"""Files as they come: compressed, hostile, long, of this package, published; and the command ``validate``."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path

import foreign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import GOOD, lines, write
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import REAL_DATA, talking, tiny_pool

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.exports import EXPORTS
from servegen_gpu.validating import keyed
from servegen_gpu.validating.keyed import Keyed
from servegen_gpu.validating.pieces import CUT_BYTES
from servegen_gpu.validating.programs import NAMES, PROGRAMS
from servegen_gpu.validating.report import REFUSED, SUSPICIOUS

PUBLISHED = REAL_DATA.parent / "traces"
MOONCAKE = GOOD["aiperf:mooncake_trace"]

MUTATIONS: dict[str, list[object]] = {
    "output_length": [0, -1, 1.5, "x", [], True, {}],
    "input_length": [-1, 1.5, "x", [], True, None],
    "hash_ids": [[1], [*range(9)], "x", 5, [1.5, 2, 3, 4], [None], [[1]], {"a": 1}],
    "session_id": [5, 1.5, True, ["s"], {"a": 1}],
    "timestamp": ["x", [], -1, None, {"a": 1}],
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, foreign.ROWS - 1), st.data())
def test_a_change_of_one_row_is_found_at_that_row(
    tmp_path_factory: pytest.TempPathFactory, row: int, data: st.DataObject
):
    key = data.draw(st.sampled_from(sorted(MUTATIONS)))
    value = data.draw(st.sampled_from(MUTATIONS[key]))
    rows = [json.loads(line) for line in MOONCAKE.splitlines()]
    rows[row][key] = value
    blank = data.draw(st.integers(0, row))
    text = lines(rows[:blank]) + "\n \n" + lines(rows[blank:])
    path = write(tmp_path_factory.mktemp("v"), text)
    report = sg.validate(path, "aiperf:mooncake_trace")
    assert [p.line for p in report.problems if p.key == key] == [row + 3], report
    assert report.rows == foreign.ROWS


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("wrong", [5, "x"])
def test_lines_are_counted_in_long_files(ending: str, wrong: object, tmp_path: Path):
    """Over several blocks, with a defect of type in one of them and blank lines on the way."""
    row = {"timestamp": 0, "input_length": 700, "output_length": 3, "hash_ids": [1, 2], "pad": "x" * 1000}
    rows = [json.dumps(row | {"timestamp": 10 * i, "hash_ids": [2 * i, 2 * i + 1]}) for i in range(20_000)]
    rows[123] = ""
    rows[18_765] = json.dumps(json.loads(rows[18_765]) | {"input_length": wrong, "hash_ids": []})
    assert sum(map(len, rows)) > 64 * CUT_BYTES
    report = sg.validate(write(tmp_path, ending.join(rows).encode(), "f.jsonl"), "dynamo")
    assert report.rows == 19_999
    found = [(p.key, p.line) for p in report.problems]
    assert set(found) == {("hash_ids" if wrong == 5 else "input_length", 18_766)}


def test_quoted_line_breaks_count_as_lines(tmp_path: Path):
    rows = GOOD["vidur:arrived_at"].splitlines()
    text = [f'{row},"a\nb"' for row in rows]
    text[30] = text[30].replace("129", "few")
    text[0] = rows[0] + ",note"
    (found,) = sg.validate(write(tmp_path, "\n".join(text) + "\n"), "vidur").problems
    assert (found.line, found.value) == (60, '"few"')


def test_compressed_and_marked_files_are_read(tmp_path: Path):
    """Most readers refuse them: that is a problem, and what is inside is checked all the same."""
    bad = MOONCAKE.splitlines()
    bad[4] = bad[4].replace("output_length", "output")
    text = "\n".join(bad).replace('"output": 24', '"output_length": 0').encode()
    zstd = pa.CompressedOutputStream(path := tmp_path / "f.jsonl.zst", "zstd")
    with zstd as stream:
        stream.write(text)
    for file in (write(tmp_path, gzip.compress(text), "f.jsonl.gz"), path):
        report = sg.validate(file, "aiperf")
        assert {(p.wrong.split(":")[0], p.line) for p in report.problems} == {
            ("a compressed file", 0),
            ("fewer than 1 token", 5),
        }
    marked = sg.validate(write(tmp_path, b"\xef\xbb\xbf" + text), "aiperf")
    assert [p.line for p in marked.problems] == [1, 5]
    wide = sg.validate(write(tmp_path, text.decode().encode("utf-16")), "aiperf")
    assert [p.line for p in wide.problems] == [1, 5]


def test_parquet_counts_rows_from_0(tmp_path: Path):
    table = {"timestamp": np.arange(50.0), "input_length": np.full(50, 600), "output_length": np.full(50, 5)}
    table["input_length"][31] = -2
    pq.write_table(pa.table(table), tmp_path / "f.parquet", row_group_size=20)
    report = sg.validate(tmp_path / "f.parquet", "guidellm")
    assert (report.unit, report.rows, report.problems[0].line) == ("row", 50, 31)
    pq.write_table(pa.table(table | {"hash_ids": [[1, 2]] * 50}), tmp_path / "f.parquet")
    report = sg.validate(tmp_path / "f.parquet", "guidellm")
    assert report.program == "guidellm:mooncake"
    assert [p.line for p in report.problems] == [31]


HOSTILE = {
    "binary": bytes(range(256)) * 1000,
    "deep": b'{"hash_ids": ' + b"[" * 300_000 + b"]" * 300_000 + b"}\n",
    "deep objects": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
    "deep and cut": b'{"hash_ids": ' + b"[" * 300_000 + b"\n",
    "rather deep": b'{"hash_ids": ' + b"[" * 950 + b"]" * 950 + b', "turns": 5, "sub_requests": 5}\n',
    "a long line": b'{"hash_ids": "' + b"1" * 100_000_000,
    "long numbers": b'{"timestamp": 0, "input_length": ' + b"9" * 100_000 + b"}\n",
    "quotes": b'a,b\n1,"' + b"x\n" * 1_000_000,
    "many columns": b"a," * 200_000 + b"\n1\n",
    "nothing but blanks": b" \n" * 100_000,
    "latin-1": "Größe,b\n1,2\n".encode("latin-1"),
    "an array": b"[1, 2]",
    "a number": b"5\n",
    "gzip cut short": gzip.compress(MOONCAKE.encode())[:300],
    "parquet in name": b"PAR1" + b"\0" * 100 + b"PAR1",
}


def refused(path: Path, program: str) -> str:
    """What is said of a file that is refused, as a whole or line by line."""
    try:
        report = sg.validate(path, program)
    except OptionError as error:
        return str(error)
    return str(report) if report.problems and report.problems[0].severity == REFUSED else ""


@pytest.mark.parametrize("program", ["aiperf", "vidur", "guidellm", "servegen-gpu", "llmservingsim:sessions"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_quickly(what: str, program: str, tmp_path: Path):
    path = write(tmp_path, HOSTILE[what], "f.jsonl")
    begun = time.perf_counter()
    found = refused(path, program)
    assert time.perf_counter() - begun < 10
    assert 0 < len(found) < 5000


def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    """A defect in every row, and ids at two sizes in none: rows do not stay."""
    row = '{"timestamp":%d,"input_length":0,"output_length":0,"session_id":%d,"hash_ids":[%d]}\n'

    def peak(n: int) -> int:
        write(tmp_path, "".join(row % (i, i % 100, i) for i in range(n)))
        tracemalloc.start()
        assert len(sg.validate(tmp_path / "f.jsonl", "aiperf").problems) == 4
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(600_000) < 1.5 * peak(200_000) + 4_000_000


OWN = {
    "mooncake": ("aiperf", "lmcache"),
    "sglang": ("sglang",),
    "guidellm": ("guidellm:mooncake",),
    "vllm-timed": ("vllm:timed_trace",),
    "dynamo": ("dynamo",),
    "dynamo-delta": ("dynamo-delta",),
    "aiperf": ("aiperf:mooncake_trace",),
    "bailian": ("aiperf:bailian_trace",),
    "burstgpt": ("vllm:burstgpt", "aiperf:burst_gpt_trace"),
    "azure": ("inference-perf",),
    "inference-perf": ("inference-perf",),
    "aiperf-multi-turn": ("aiperf:multi_turn",),
    "vllm-custom": ("vllm:custom",),
    "vidur": ("vidur:Time", "vidur:arrived_at"),
    "aibrix": ("aibrix",),
    "blis": ("blis",),
    "llmservingsim": ("llmservingsim",),
}
EXPECTED = {"bailian": "history counted twice", "dynamo": "more than 32 bits", "vidur:Time": "over 4,096"}
"""What is found in our own exports, because the program cannot do otherwise."""


@pytest.mark.parametrize("export", [name for name in OWN if name in EXPORTS])
def test_own_exports_are_clean_for_their_program(export: str, tmp_path: Path):
    trace = sg.generate(talking("language"), rate=3.0, duration="10m", seed=5)
    trace.columns["output_tokens"][:] = np.maximum(trace["output_tokens"], 1)
    path = tmp_path / f"t{EXPORTS[export].format(sg.ExportOptions()).suffix}"
    sg.write(trace, path, export, sg.ExportOptions(deltas="nearest"))
    for program in OWN[export]:
        report = sg.validate(path, program)
        expected = EXPECTED.get(program) or EXPECTED.get(export.split("-")[0])
        assert [p for p in report.problems if not expected or expected not in p.wrong] == [], report
        assert report.rows == len(trace)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".jsonl.gz"])
def test_own_files(suffix: str, tmp_path: Path):
    trace = sg.generate(talking("reason"), rate=5.0, duration="1m", seed=5).with_hash_ids(64)
    path = tmp_path / f"t{suffix}"
    trace.write(path)
    assert sg.validate(path, "servegen-gpu").clean
    assert sg.validate(path, "servegen-gpu").rows == len(trace)
    if not suffix.endswith(".gz"):
        assert sg.validate(path, "guidellm").clean
    if suffix == ".jsonl":
        beside = path.with_name("t.jsonl.provenance.json")
        rows = path.read_text().splitlines()
        rows[7] = json.dumps(json.loads(rows[7]) | {"reason_tokens": 10**6, "arrival_us": 0, "hash_ids": []})
        path.write_text("\n".join(rows) + "\n")
        about = json.loads(beside.read_text()) | {"bytes": path.stat().st_size}
        beside.write_text(json.dumps(about))
        found = {p.key: (p.line, p.value) for p in sg.validate(path, "servegen-gpu").problems}
        assert {"reason_tokens": (8, "1000000"), "arrival_us": (8, "0")}.items() <= found.items()
        assert found["hash_ids"][0] == 8
        trace.write(path)
        beside.unlink()
        (found_file,) = sg.validate(path, "servegen-gpu").problems
        assert "provenance" in found_file.wrong


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published traces")
@pytest.mark.parametrize(
    ("name", "program", "scale"),
    [
        *[("mooncake-toolagent-head1000.jsonl", program, 1.0) for program in ("aiperf", "dynamo", "sglang", "lmcache")],
        *[("mooncake-synthetic.jsonl", program, 1.0) for program in ("dynamo", "sglang", "lmcache")],
        *[(name, program, 1e-3) for name in ("mooncake-toolagent-head1000.jsonl", "mooncake-synthetic.jsonl")
          for program in ("guidellm", "vllm")],
        ("azure-2023-code.csv", "inference-perf", 1.0),
    ],
)  # fmt: skip
def test_published_files(name: str, program: str, scale: float):
    report = sg.validate(PUBLISHED / name, program, time_scale=scale)
    assert report.problems == ()


def test_a_fast_trace_that_says_so_is_not_doubted(tmp_path: Path):
    """Milliseconds at 5,000 requests/s look like seconds at 5, unless provenance says how long the trace is."""
    trace = sg.generate(tiny_pool(), rate=5000.0, duration="2s", seed=1)
    path = tmp_path / "t.jsonl"
    sg.write(trace, path, "sglang")
    assert sg.validate(path, "sglang").clean
    path.with_name("t.jsonl.provenance.json").unlink()
    (found,) = sg.validate(path, "sglang").problems
    assert (found.severity, found.line) == (SUSPICIOUS, 0)


def test_reasoning_left_out_of_the_history_is_not_a_history_lost(tmp_path: Path):
    """Whole inputs may be shorter than the turn before and its answer, if thoughts are not kept."""
    trace = sg.generate(talking("reason"), rate=3.0, duration="10m", seed=5)
    trace.columns["output_tokens"][:] = np.maximum(trace["output_tokens"], 1)
    sg.write(trace, tmp_path / "t.jsonl", "dynamo")
    assert sg.validate(tmp_path / "t.jsonl", "dynamo").clean


def test_an_export_is_no_file_of_ours(tmp_path: Path):
    sg.write(sg.generate(tiny_pool(), rate=5.0, duration="9s", seed=1), tmp_path / "t.csv", "vidur")
    (found,) = sg.validate(tmp_path / "t.csv", "servegen-gpu").problems
    assert (found.severity, found.value) == (REFUSED, "vidur")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = write(tmp_path, MOONCAKE, "good.jsonl")
    assert main(["validate", str(good), "--for", "aiperf"]) == 0
    assert "aiperf:mooncake_trace (told from the file): 40 requests, nothing wrong" in capsys.readouterr().out
    rows = MOONCAKE.replace('"output_length": 2', '"output_length": 0, "x": 2')
    bad = write(tmp_path, rows, "bad.jsonl")
    assert main(["validate", str(bad), "--for", "aiperf"]) == 1
    text = capsys.readouterr().out
    assert "refused by the program:" in text
    assert "(10 rows)" in text
    assert len(text.splitlines()) < 10
    assert main(["validate", str(bad), "--for", "aiperf", "--json"]) == 1
    about = json.loads(capsys.readouterr().out)
    assert about["clean"] is False
    assert (about["problems"][0]["line"], about["problems"][0]["rows"]) == (1, 10)
    for arguments in (
        [str(tmp_path / "none"), "--for", "aiperf"],
        [str(good), "--for", "aiperv"],
        [str(good), "--for", "aiperf", "--block-tokens", "0"],
        [str(good), "--for", "vllm", "--time-scale", "nan"],
    ):
        assert main(["validate", *arguments]) == 2
        assert "servegen-gpu: error: expected" in capsys.readouterr().err


def test_an_unknown_program_names_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'aiperf'"):
        sg.validate("x", "aiperv")
    assert {program.name.split(":")[0] for program in PROGRAMS} < {*NAMES}


@pytest.mark.parametrize("merged", [100, keyed.MERGED])
def test_keys_are_found_again(merged: int, monkeypatch: pytest.MonkeyPatch):
    """Against a dictionary, in batches with keys that are there already."""
    monkeypatch.setattr(keyed, "MERGED", merged)
    table, expected = Keyed(np.dtype([("a", np.int64)])), {}
    rng = np.random.default_rng(3)
    for _ in range(50):
        keys = np.unique(rng.integers(0, 5000, rng.integers(0, 400)).astype(np.uint64))
        values = np.zeros(len(keys), np.dtype([("a", np.int64)]))
        values["a"] = rng.integers(0, 10**9, len(keys))
        table.put(keys, values)
        expected |= dict(zip(keys.tolist(), values["a"].tolist(), strict=True))
        asked = rng.integers(0, 6000, 300).astype(np.uint64)
        found, got = table.get(asked)
        assert found.tolist() == [key in expected for key in asked.tolist()]
        assert got["a"].tolist() == [expected.get(key, 0) for key in asked.tolist()]
    assert len(table) == len(expected)
    passed = table.sieve().passes(np.arange(100_000, dtype=np.uint64))
    assert passed[[*expected]].all()
    assert passed.mean() < 0.2


def test_halves_of_surrogates_are_text(tmp_path: Path):
    """JSON may have them, Arrow may not."""
    rows = [{"prompt": prompt, "output_tokens": 5} for prompt in ("\ud800 and so on", 7, "\udfff")]
    report = sg.validate(write(tmp_path, lines(rows), "t.jsonl"), "vllm:custom")
    assert [(problem.key, problem.line, problem.value) for problem in report.problems] == [("prompt", 2, "7")]
