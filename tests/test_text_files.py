"""Own text files read back: rows of any length, in memory that does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_formats import make, same
from traces import moved

import servegen_gpu as sg
from servegen_gpu.formats import text, write_stream
from servegen_gpu.trace import Trace


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize(("block_tokens", "most_tokens"), [(16, 900_000), (1, 400_000)])
def test_rows_of_several_megabytes(tmp_path: Path, name: str, block_tokens: int, most_tokens: int):
    trace = make(300, "language")
    trace["input_tokens"][[7, 150, 299]] = most_tokens  # 1 and 8 MB of ids
    slabs = list(sg.hash_slabs([trace], block_tokens))
    write_stream(slabs, tmp_path / name)
    assert same(Trace.read(tmp_path / name), Trace.concat(slabs))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
@pytest.mark.parametrize("block_bytes", [1, 100, 5000])
def test_a_row_longer_than_what_is_read_at_once(tmp_path: Path, name: str, block_bytes: int, monkeypatch):
    trace = Trace.concat(list(sg.hash_slabs([make(50, "language")], 64)))
    trace.write(tmp_path / name)
    monkeypatch.setattr(text, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(text, "PARSE_BYTES", 30)
    assert same(Trace.read(tmp_path / name), trace)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_row_without_end_is_refused(tmp_path: Path, name: str, monkeypatch):
    Trace.concat(list(sg.hash_slabs([make(50, "language")], 1))).write(tmp_path / name)
    monkeypatch.setattr(text, "BLOCK_BYTES", 100)
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 1 << 13)
    with pytest.raises(sg.OptionError, match=r"expected lines of at most .*, got a longer one in"):
        Trace.read(tmp_path / name)


def test_bytes_at_once_is_no_less_than_a_row(monkeypatch):
    monkeypatch.setattr(text, "PARSE_BYTES", 8)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        rows = [b"x" * n + b"\n" for n in rng.integers(0, rng.integers(1, 12), 20)]
        longest, whole = max(map(len, rows)), b"".join(rows)
        at_once = text.bytes_at_once(whole)
        assert at_once == (8 if longest <= 8 or len(whole) <= 8 else len(whole) + 1)
        seen.add(at_once == 8)
    assert seen == {True, False}


PEAK = """
import re, sys
import pyarrow.csv, pyarrow.json
from servegen_gpu.formats import read_slabs, text
text.BLOCK_BYTES = 1 << 20
rows = sum(len(slab) for slab in read_slabs(sys.argv[1]))
print(rows, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is in Linux's /proc")
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.csv.zst"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str):
    slab = make(500_000, "language")
    peaks = {}
    for slabs in (1, 4):
        write_stream([moved(slab, at * 100_000_000) for at in range(slabs)], tmp_path / name)
        done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / name], capture_output=True, text=True, check=True)
        rows, peak_kb = map(int, done.stdout.split())
        assert rows == slabs * len(slab)
        peaks[slabs] = peak_kb / 1024
    # The columns of the other 1,500,000 rows are 36 MB and their text 40 to 110 MB.
    assert peaks[4] - peaks[1] < 30
