"""Pictures of `inspect`: what they show is what NumPy counts, in blocks and in ASCII."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.describe import see
from servegen_gpu.plotting import terminal
from servegen_gpu.plotting.words import duration_text, nice_bin_s
from servegen_gpu.windowed import Timeline

BLOCKS = terminal.Style(80)
ASCII = terminal.ascii_style(80)


def test_a_sparkline_is_proportional_and_what_is_there_is_seen():
    assert terminal.sparkline(np.array([0.0, 1e-9, 0.5, 1.0]), BLOCKS) == " ▁▄█"
    assert terminal.sparkline(np.array([0.0, 1e-9, 0.5, 1.0]), ASCII) == " .-#"
    assert terminal.sparkline(np.zeros(3), BLOCKS) == "   "


@pytest.mark.parametrize("style", [BLOCKS, ASCII], ids=["blocks", "ascii"])
def test_columns_stack_to_their_values(style: terminal.Style):
    values = np.random.default_rng(1).gamma(1.0, size=50)
    lines = terminal.columns(values, style, rows=6)
    steps = len(style.levels) - 1
    height = [sum(style.levels.index(line[i]) for line in lines) for i in range(50)]
    assert height == np.ceil(values / values.max() * 6 * steps).tolist()
    assert lines[0].count(style.levels[-1]) == 1


def test_bars_end_where_they_should():
    assert terminal.bar(1.0, 10, BLOCKS) == "█" * 10
    assert terminal.bar(0.25, 10, BLOCKS) == "██▌"
    assert terminal.bar(0.25, 10, ASCII) == "##"
    assert (terminal.bar(1e-9, 10, BLOCKS), terminal.bar(0.0, 10, BLOCKS)) == ("▏", "")


def test_a_timeline_counts_what_numpy_counts_in_any_slabs():
    arrival_us = np.sort(np.random.default_rng(2).integers(0, 10**10, 5000))
    whole, parts = Timeline(), Timeline()
    whole.add(arrival_us)
    for part in np.array_split(arrival_us, 7):
        parts.add(part)
    assert whole.bin_us == parts.bin_us
    np.testing.assert_array_equal(whole.requests, parts.requests)
    np.testing.assert_array_equal(whole.requests, np.bincount(arrival_us // whole.bin_us, minlength=4096))
    assert len(whole.requests) / 2 <= arrival_us[-1] // whole.bin_us < len(whole.requests)
    edges_s, requests = whole.until(12_345.6)
    assert (edges_s[0], edges_s[-1], len(edges_s)) == (0.0, 12_345.6, len(requests) + 1)
    assert requests.sum() == 5000
    assert whole.until(5_000.0)[1].sum() == 5000


def test_the_picture_of_rates_has_mean_peak_and_ends():
    arrival_us = np.sort(np.random.default_rng(3).integers(0, 3_600_000_000, 20_000))
    seen = see([sg.Trace({"arrival_us": arrival_us})])
    lines = terminal.rate_picture(*seen.timeline.until(3600.0), BLOCKS)
    per_minute = np.bincount(arrival_us // 60_000_000, minlength=60) / 60
    assert "a column for 1 min" in lines[0]
    assert float(lines[0].split()[-1]) == pytest.approx(20_000 / 3600, rel=1e-3)
    assert float(lines[1].split()[0]) == pytest.approx(per_minute.max(), rel=0.01)
    assert lines[1][12 + per_minute.argmax()] == "█"
    assert lines[-1].split() == ["0", "s", "1", "h"]
    assert max(map(len, lines)) <= 80


def test_lengths_share_an_axis_and_lose_nobody():
    lengths = {"input_tokens": (np.array([0, 10, 1000]), np.array([1, 2, 4])), "none": (np.zeros(0), np.zeros(0))}
    title, line = terminal.length_pictures(lengths, BLOCKS)
    drawn = re.search(r"│(.*)│", line)
    assert drawn is not None
    assert "from 1 to 1,000 tokens" in title
    assert [c for c in drawn[1] if c != " "] == ["▂", "▄", "█"]
    # 10 lies in the middle third of three decades: at a third
    assert drawn[1].index("▄") / len(drawn[1]) == pytest.approx(1 / 3, abs=1 / len(drawn[1]))


def test_empty_and_single():
    assert terminal.of_trace(see([]), 10, BLOCKS) == [""]
    one = see([sg.Trace({"arrival_us": [5_000_000], "input_tokens": [7], "client": [3]})])
    text = "\n".join(terminal.of_trace(one, 10, BLOCKS))
    assert "from 7 to 7 tokens" in text
    assert "3  100.0% ███" in text


@pytest.mark.parametrize(
    ("encoding", "term", "blocks"), [("utf-8", "xterm", True), ("utf-8", "dumb", False), ("latin-1", "xterm", False)]
)
def test_style_follows_the_terminal(monkeypatch, encoding: str, term: str, blocks: bool):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setenv("TERM", term)
    for columns, width in (("500", 120), ("10", 40), ("90", 89)):
        monkeypatch.setenv("COLUMNS", columns)
        style = terminal.style_of(stream)
        assert style.width == width
        assert ("█" in style.levels) == blocks


def test_inspect_draws_where_asked(tmp_path, capsys, monkeypatch):
    path = tmp_path / "t.parquet"
    trace = sg.generate(sg.population("m-small", clients=30), rate=5, duration="10m", seed=1)
    trace.write(path)
    monkeypatch.setenv("COLUMNS", "80")

    def text(*arguments: str) -> str:
        assert main(["inspect", *arguments]) == 0
        return capsys.readouterr().out

    plain = text(str(path))
    assert "over time" not in plain
    drawn = text(str(path), "--plot", "--top", "3")
    assert drawn.startswith(plain)
    assert max(map(len, drawn[len(plain) :].splitlines())) <= 80
    ids, counts = np.unique(trace["client"], return_counts=True)
    rows = re.findall(r"^ +(\d+) +([\d.]+)% █", drawn, re.MULTILINE)
    busiest = np.argsort(-counts, kind="stable")[:3]
    assert [(int(i), float(s)) for i, s in rows] == [
        (ids[k], round(100 * counts[k] / len(trace), 1)) for k in busiest.tolist()
    ]
    assert text(str(path), "--json", "--plot") == text(str(path), "--json")

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    pool = text("m-small", "--clients", "30")
    assert "a column for" in pool
    assert "over time" not in text("m-small", "--clients", "30", "--no-plot")


def test_time_in_words():
    assert [duration_text(s) for s in (0, 1.5e-3, 90, 600, 7200, 86_400, 200_000)] == [
        "0 s", "1500 us", "90 s", "10 min", "2 h", "1 d", "2.315 d",
    ]  # fmt: skip
    assert [nice_bin_s(s, 60) for s in (1, 3600, 86_400, 1e9)] == [0.02, 60.0, 1800.0, 604_800.0 * 28]
