"""Arrivals from CSV files of others."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from profiles import REAL_DATA, needs_real_data
from traces import same

import servegen_gpu as sg
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading import text_blocks as module

AZURE = REAL_DATA.parent / "traces" / "azure-2023-code.csv"
LENGTHS = {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "published.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("values", "unit", "expected_us"),
    [
        (["5", "5.5", "61.114"], None, [0, 500_000, 56_114_000]),
        (["1700000000.123456", "1700000000.123457"], "s", [0, 1]),
        (["27482", "27482.5", "30000"], "ms", [0, 500, 2_518_000]),
        (["7", "9"], "us", [0, 2]),
        (["1000", "2499", "2501"], "ns", [0, 1, 2]),
        (["2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.0319604"], None, [0, 52_000]),
        (["2024-05-10 00:00:00.009930+00:00", "2024-05-10T02:00:00.00993+01:00"], None, [0, 3_600_000_000]),
        (["2023-11-16 18:17:03.0000000", "2023-11-16 18:17:03.0000006"], None, [0, 1]),
        (["2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"], "iso", [0, 1_000_000]),
        (["1e3", " 1001 "], None, [0, 1_000_000]),
        (["      2024-02-29 23:59:59", "2024-03-01 00:00:00"], None, [0, 1_000_000]),
    ],
)
def test_units(tmp_path, values, unit, expected_us):
    path = written(tmp_path, "a,when,b\n" + "".join(f"1,{value},2\n" for value in values))
    trace = sg.read_arrivals(path, "when", unit)
    assert trace["arrival_us"].tolist() == expected_us
    assert trace.schema() == {"arrival_us": "int64", "client": "int32"}
    assert trace.provenance["source"] == "published.csv"


def test_rows_are_sorted_with_their_lengths(tmp_path):
    path = written(tmp_path, "t,in\n3,30\n1,10\n3,31\n2,20\n")
    trace = sg.read_arrivals(path, "t", lengths={"input_tokens": "in"})
    assert trace["arrival_us"].tolist() == [0, 1_000_000, 2_000_000, 2_000_000]
    assert trace["input_tokens"].tolist() == [10, 20, 30, 31]
    trace.write(tmp_path / "t.parquet")
    assert same(sg.read_trace(tmp_path / "t.parquet"), trace)


def test_blocks_do_not_matter(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = written(tmp_path, "\ufefft,in\r\n" + "".join(f"{t},{t % 97}\r\n" for t in rng.integers(0, 10**6, 3_000)))
    whole = sg.read_arrivals(path, "t", lengths={"input_tokens": "in"})
    monkeypatch.setattr(module, "BLOCK_BYTES", 512)
    assert same(sg.read_arrivals(path, "t", lengths={"input_tokens": "in"}), whole)


def test_a_baseline_has_as_many_requests_as_the_file(tmp_path):
    """The last request begins a window of ten minutes that it has for itself."""
    path = written(tmp_path, "t,in,out\n" + "".join(f"{i / 10},{i % 97},1\n" for i in range(6_001)))
    trace = sg.read_arrivals(path, "t", lengths={"input_tokens": "in", "output_tokens": "out"})
    assert trace.provenance["duration_s"] == pytest.approx(600.1)
    cut = sg.Trace(trace.columns, {"duration_s": 600.000001})
    for source in (trace, cut):
        baseline = sg.naive(source, family="poisson")
        assert baseline.rate_rps[0].tolist() == pytest.approx([10, 10])
        made = sg.generate(baseline, duration=20 * 60, seed=1)
        assert 11_000 < len(made) < 13_000  # nine standard deviations


def test_nanoseconds_since_1970_are_exact(tmp_path):
    rng = np.random.default_rng(5)
    times = 1_700_000_000_000_000_000 + np.sort(rng.integers(0, 10**15, 10_000))
    path = written(tmp_path, "t\n" + "".join(f"{time}\n" for time in times))
    plain = [(int(time - times[0]) + 500) // 1000 for time in times]
    assert sg.read_arrivals(path, "t", "ns")["arrival_us"].tolist() == plain


def test_line_breaks_between_quotes_at_any_size(tmp_path, monkeypatch):
    text = "t,why,in\n" + "".join(f'{i},"a ""word"",\n\nand {i}",{i % 7}\n' for i in range(3_000))
    whole = sg.read_arrivals(written(tmp_path, text), "t", lengths={"input_tokens": "in"})
    assert whole["input_tokens"].tolist() == [i % 7 for i in range(3_000)]
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    assert same(sg.read_arrivals(written(tmp_path, text), "t", lengths={"input_tokens": "in"}), whole)
    with pytest.raises(OptionError, match=r"whole tokens, got 'x' in .*line 9002, column 'in'"):
        sg.read_arrivals(written(tmp_path, text + "3000,,x\n"), "t", lengths={"input_tokens": "in"})


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("t\n1\n2\nx\n", {}, r"a time as a number.*'x' in .*line 4, column 't'"),
        ("t\n1\nnan\n", {}, "a value in every row.*line 3"),
        ("t\n1\n\n2\n-inf\n", {}, "a time as a number.*line 5"),
        ("t\n2024-01-01\n2024-13-01\n", {}, "ISO 8601 without an offset.*line 3"),
        ("t\n2024-01-01 00:00:00Z\n2024-01-01 00:00:00\n", {}, "with an offset.*line 3"),
        ("t\nsoon\n", {}, "ISO 8601.*'soon'.*line 2"),
        ("t\n1\n2\n", {"unit": "iso"}, "dates by ISO 8601, got numbers"),
        ("t\n0\n1e17\n", {}, "times within.*check the unit"),
        ("t\n", {}, "rows of requests"),
        ("", {}, "an empty file"),
        ("when\n1\n", {}, "one column 't'.*when"),
        ("t,t\n1,2\n", {}, "one column 't'"),
        ("t,in\n1,2\n3\n", {"lengths": {"input_tokens": "in"}}, "2 fields.*line 3"),
        ("t,in\n1,2.5\n", {"lengths": {"input_tokens": "in"}}, "whole tokens.*line 2, column 'in'"),
        ("t,in\n1,-2\n", {"lengths": {"input_tokens": "in"}}, "tokens from 0"),
        ("t,in\n1,3000000000\n", {"lengths": {"input_tokens": "in"}}, "tokens from 0"),
        ("t,in\n1,\n", {"lengths": {"input_tokens": "in"}}, "a value in every row"),
        ("t\n1\n", {"lengths": {"input_tokens": "in"}}, "one column 'in'"),
        ("t\n1\n", {"lengths": {"client": "t"}}, "names of lengths"),
        ("t\n1\n", {"lengths": 5}, "lengths as"),
        ("t\n1\n", {"unit": "hours"}, "a unit among"),
        (b"t\n\xff\xfe\n", {}, "UTF-8 text.*line 2"),
        (b"\x00\x01\x02", {}, "a text file"),
    ],
)
def test_refusals(tmp_path, text, arguments, message):
    with pytest.raises(OptionError, match=message):
        sg.read_arrivals(written(tmp_path, text), "t", **arguments)


def test_a_missing_file_and_endless_lines_are_refused(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"a file that can be read.*none\.csv"):
        sg.read_arrivals(tmp_path / "none.csv", "t")
    monkeypatch.setattr(module, "BLOCK_BYTES", 256)
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1_000)
    with pytest.raises(OptionError, match="lines of at most"):
        sg.read_arrivals(written(tmp_path, "t\n" + "9" * 10_000), "t")


@pytest.mark.skipif(not AZURE.exists(), reason="needs ../shared/data/traces")
@needs_real_data
def test_azure_s_code_trace_with_lengths_of_a_dataset():
    """Read once more with the standard library: 8,819 requests, gaps with a CV of 13."""
    with AZURE.open() as file:
        lines = list(csv.DictReader(file))
    trace = sg.read_arrivals(AZURE, "TIMESTAMP", lengths=LENGTHS)
    times = [datetime.fromisoformat(line["TIMESTAMP"][:26]) for line in lines]
    plain = [round((time - times[0]).total_seconds() * 1e6) for time in times]
    assert len(trace) == 8_819
    assert np.abs(trace["arrival_us"] - np.array(plain)).max() <= 1
    assert trace["input_tokens"].tolist() == [int(line["ContextTokens"]) for line in lines]
    gaps = np.diff(trace["arrival_us"])
    assert gaps.std() / gaps.mean() == pytest.approx(13, abs=0.5)

    busy = trace.rescaled(2, "naive")
    mixed = sg.with_lengths(busy, sg.population("m-code", clients=200), seed=1)
    assert np.array_equal(mixed["arrival_us"], busy["arrival_us"])
    assert busy.provenance["duration_s"] == pytest.approx(trace.provenance["duration_s"] / 2)
    alike = sg.with_lengths(busy, trace, seed=1)
    assert alike["input_tokens"].mean() == pytest.approx(trace["input_tokens"].mean(), rel=0.05)
