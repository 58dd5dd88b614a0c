"""Clients from TOML files: every form means what it means in Python; faults are named with file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import REPOSITORY
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.clients.stated import beside
from servegen_gpu.clients.stated.distributions import (
    Beta,
    Constant,
    Exponential,
    Histogram,
    LogNormal,
    Mixture,
    Normal,
    Pareto,
    Pmf,
    Samples,
    Uniform,
    Zipf,
)
from servegen_gpu.clients.stated.toml_text import MAX_FILE_BYTES
from servegen_gpu.errors import ProfileError

EXAMPLE = REPOSITORY / "examples" / "own_clients.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lengths.csv").write_text("arrival,input_tokens\n0,5\n1,700\n2,5\n")
    (tmp_path / "plain.csv").write_text("5\n700\n5\n")
    (tmp_path / "pmf.csv").write_text("\ufeffweight,value\n2,5\n1, 700\n")
    (tmp_path / "histogram.csv").write_text("edge,weight\n0,1\n100,3\n200,0\n")
    (tmp_path / "day.csv").write_text("time_s,rate_rps\n0,1\n43200,3\n")
    (tmp_path / "text.csv").write_text("input_tokens\n5\nmany\n")
    (tmp_path / "empty.csv").write_text("input_tokens\n")
    (tmp_path / "bytes.csv").write_bytes(b"input_tokens\n5\n\xff\n")
    return tmp_path


def read(folder: Path, text: str, name: str = "own") -> sg.ClientPool:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return sg.read_clients(folder / f"{name}.toml")


def described(**keywords: Any) -> sg.ClientPool:
    pool_keywords = {key: keywords.pop(key) for key in ("window_s", "period", "name") if key in keywords}
    spec = sg.client(**({"rate": 1, "input_tokens": 5, "output_tokens": 7} | keywords))
    return sg.pool([spec], **({"name": "own"} | pool_keywords))


def one_client(line: str) -> str:
    """A file with one client, in which `line` replaces a default or adds to them."""
    defaults = {"rate": "rate = 1", "input_tokens": "input_tokens = 5", "output_tokens": "output_tokens = 7"}
    defaults = {key: text for key, text in defaults.items() if not line.startswith((f"{key} ", f"[client.{key}]"))}
    return "\n".join(["[[client]]", *defaults.values(), line])


LENGTHS: dict[str, Any] = {
    "12": Constant(12),
    '{ kind = "constant", value = 12 }': Constant(12),
    '{ kind = "uniform", low = 3, high = 9 }': Uniform(3, 9),
    '{ kind = "exponential", mean = 400.5, min = 2, max = 8192 }': Exponential(400.5, min=2, max=8192),
    '{ kind = "normal", mean = 500, std = 50 }': Normal(500, 50),
    '{ kind = "lognormal", median = 300, sigma = 1.1 }': LogNormal(300, 1.1),
    '{ kind = "lognormal", mean = 300, cv = 1.1 }': LogNormal(mean=300, cv=1.1),
    '{ kind = "pareto", alpha = 1.5, scale = 200, max = 32_768 }': Pareto(1.5, 200, max=32_768),
    '{ kind = "zipf", exponent = 1.1, max = 1000 }': Zipf(1.1, max=1000),
    "[5, 700, 5]": Samples([5, 700, 5]),
    '{ kind = "samples", values = [5, 700, 5], max = 600 }': Samples([5, 700, 5], max=600),
    '{ kind = "samples", file = "lengths.csv", column = "input_tokens" }': Samples([5, 700, 5]),
    '{ kind = "samples", file = "plain.csv" }': Samples([5, 700, 5]),
    '{ kind = "pmf", values = [5, 700], weights = [2, 1] }': Pmf([5, 700], [2, 1]),
    '{ kind = "pmf", file = "pmf.csv" }': Pmf([5, 700], [2, 1]),
    '{ kind = "histogram", edges = [0, 100, 200], weights = [1, 3] }': Histogram([0, 100, 200], [1, 3]),
    '{ kind = "histogram", file = "histogram.csv" }': Histogram([0, 100, 200], [1, 3]),
    '{ kind = "scipy", name = "gamma", a = 2.0, scale = 300 }': stats.gamma(2, scale=300),
    '{ kind = "scipy", name = "poisson", mu = 20, min = 10 }': stats.poisson(20),
    '{ kind = "mixture", max = 9000, parts = [{ weight = 3, kind = "pareto", alpha = 2, scale = 50 }, '
    '{ weight = 1, kind = "constant", value = 64 }] }': Mixture([Pareto(2, 50), Constant(64)], [3, 1], max=9000),
    '{ kind = "steps", knots = [["0h", 12], ["8h", { kind = "uniform", low = 3, high = 9 }]] }': {
        "0h": 12,
        "8h": Uniform(3, 9),
    },
}


@pytest.mark.parametrize("text", LENGTHS)
def test_lengths_mean_what_they_mean_in_python(folder, text):
    stated = LENGTHS[text]
    if "min = 10" in text:
        stated = sg.distributions.FromScipy(stated, min=10)
    assert read(folder, one_client(f"input_tokens = {text}")).digest() == described(input_tokens=stated).digest()


CLIENTS: dict[str, dict[str, Any]] = {
    "rate = 0.25": {"rate": 0.25},
    'rate = { kind = "steps", knots = [["0h", 1], ["12h", 3]] }': {"rate": {0: 1, 43_200: 3}},
    'rate = "day.csv"': {"rate": {0: 1, 43_200: 3}},
    'rate = { kind = "linear", knots = [[0, 1], ["12h", 3], [86400, 1]] }': {
        "rate": sg.Schedule([0, 43_200, 86_400], [1, 3, 1], "linear")
    },
    'rate = { kind = "diurnal", mean = 2, swing = 0.5, peak_hour = 9 }': {"rate": sg.Diurnal(2, 0.5, 9)},
    'rate = { kind = "diurnal", mean = 2 }': {"rate": sg.Diurnal(2)},
    'arrivals = "gamma"\ncv = 2.5': {"arrivals": "gamma", "cv": 2.5},
    'arrivals = "weibull"\nshape = 0.6': {"arrivals": "weibull", "shape": 0.6},
    'arrivals = "lognormal"\nshape = 1.2': {"arrivals": "lognormal", "shape": 1.2},
    'arrivals = "gamma"\ncv = { kind = "steps", knots = [["0h", 1], ["8h", 4.0]] }': {
        "arrivals": "gamma",
        "cv": {"0h": 1, "8h": 4},
    },
    "count = 200": {"count": 200},
    "reason_ratio = 0.5": {"reason_ratio": 0.5},
    'reason_ratio = { kind = "mixture", parts = [{ weight = 0.2, kind = "beta", a = 17, b = 28 }, '
    '{ weight = 0.8, kind = "beta", a = 4.6, b = 1.25 }] }': {
        "reason_ratio": Mixture([Beta(17, 28), Beta(4.6, 1.25)], [0.2, 0.8])
    },
    'rank_correlation = { "input_tokens:output_tokens" = -0.3 }': {
        "rank_correlation": {"input_tokens:output_tokens": -0.3}
    },
    "context_tokens = 32_768": {"context_tokens": 32_768},
    '[client.input_tokens]\nkind = "exponential"\nmean = 40': {"input_tokens": Exponential(40)},
}


@pytest.mark.parametrize("text", CLIENTS)
def test_clients_mean_what_they_mean_in_python(folder, text):
    assert read(folder, one_client(text)).digest() == described(**CLIENTS[text]).digest()


def test_the_top_level(folder):
    text = 'name = "mine"\ncategory = "language"\nwindow_s = 60\nperiod = "2h"\n' + one_client("")
    assert read(folder, text).digest() == described(name="mine", window_s=60, period="2h").digest()
    assert read(folder, "period = 7200\n" + one_client("")).digest() == described(period=7200).digest()


def test_multimodal_clients(folder):
    text = """
    [[client]]
    rate = 2
    text_tokens = 50
    output_tokens = 100
    image_count = { kind = "pmf", values = [0, 1, 4], weights = [2, 5, 1] }
    image_tokens = { kind = "pmf", values = [256, 1280], weights = [1, 1] }
    """
    trace = sg.generate(read(folder, text), duration="10min")
    assert set(trace["image_tokens"].lengths) == {0, 1, 4}
    assert set(trace["image_tokens"].values) == {256, 1280}


def test_the_example_is_what_it_says(tmp_path, capsys):
    pool = sg.read_clients(EXAMPLE)
    assert (len(pool), pool.name, len(pool.rate_rps)) == (204, "my-service", 3)
    assert pool.rate_rps[0].mean() == pytest.approx(0.02)
    assert pool.context_tokens.tolist() == [32_768, 0, 0]
    assert main(["inspect", str(EXAMPLE), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clients"] == 204
    out = tmp_path / "t.parquet"
    options = [
        "--scale",
        "2",
        "--start",
        "9h",
        "--duration",
        "20m",
        "--seed",
        "7",
        "--clones",
        "2",
        "--backend",
        "numpy",
    ]
    assert main(["generate", str(EXAMPLE), "-o", str(out), *options]) == 0
    assert main(["inspect", str(out)]) == 0
    expected = sg.generate(pool.clone(2), scale=2, start="9h", duration="20m", seed=7, backend="numpy")
    trace = sg.read_trace(out)
    assert all(np.array_equal(trace[name], expected[name]) for name in trace)
    assert trace.provenance["workload"] == "my-service"


BAD: dict[str, tuple[str, str]] = {
    "unknown key": ('arivals = "gamma"', r"line 5, client 1, arivals: unknown key.*did you mean 'arrivals'"),
    "unknown key of no likeness": ("zzz = 1", "'zzz'; remove it"),
    "unknown kind": ('input_tokens = { kind = "lognorml" }', "line 4.*did you mean 'lognormal'"),
    "no kind": ("input_tokens = { mean = 4 }", "line 4, client 1, input_tokens: a table without it; add kind"),
    "unknown parameter": ('input_tokens = { kind = "exponential", mena = 4 }', "mena.*did you mean 'mean'"),
    "missing parameter": ('input_tokens = { kind = "pareto", alpha = 4 }', "key 'scale'.*line 4"),
    "missing pair": ('input_tokens = { kind = "lognormal", median = 4 }', "sigma or cv.*line 4.*neither"),
    "both of a pair": ('input_tokens = { kind = "lognormal", median = 4, mean = 4, sigma = 1 }', "median and mean"),
    "text for a number": ('input_tokens = "many"', "line 4.*'many'"),
    "text inside": ('input_tokens = { kind = "exponential", mean = "4" }', "line 4, client 1, input_tokens, mean: '4'"),
    "truth": ("input_tokens = true", "True"),
    "date": ("input_tokens = 1979-05-27", "date"),
    "NaN": ("input_tokens = nan", "nan"),
    "infinite": ('input_tokens = { kind = "exponential", mean = inf }', "inf"),
    "negative": ("input_tokens = -4", "line 4.*-4"),
    "fraction": ("input_tokens = 4.5", "whole numbers of tokens.*line 4.*4.5"),
    "fractions among samples": ("input_tokens = [1, 2.5]", "2.5"),
    "negative samples": ("input_tokens = [1, -2]", "input_tokens 2: -2"),
    "text among samples": ('input_tokens = [1, "2"]', "input_tokens 2: '2'"),
    "no samples": ("input_tokens = []", "not empty"),
    "below zero": ('input_tokens = { kind = "normal", mean = 5, std = 50 }', "below 0; state min"),
    "share above one": ("reason_ratio = 1.5", "line 5, client 1, reason_ratio: 1.5"),
    "weights missing": ('input_tokens = { kind = "pmf", values = [1, 2], weights = [1] }', "2 values, 1 weights"),
    "edges descend": ('input_tokens = { kind = "histogram", edges = [5, 1], weights = [1] }', "1 after 5"),
    "part without weight": (
        'input_tokens = { kind = "mixture", parts = [{ kind = "constant", value = 1 }] }',
        "weight",
    ),
    "mixture of nothing": ('input_tokens = { kind = "mixture", parts = [] }', "not empty"),
    "mixture of numbers": ('input_tokens = { kind = "mixture", parts = [5] }', "a table"),
    "not in SciPy": ('input_tokens = { kind = "scipy", name = "gama" }', "gama"),
    "no distribution": ('input_tokens = { kind = "scipy", name = "ttest_ind" }', "ttest_ind"),
    "no name": ('input_tokens = { kind = "scipy", a = 1 }', "the name of a distribution"),
    "SciPy's parameters": ('input_tokens = { kind = "scipy", name = "gamma" }', "missing 1 required.*'a'"),
    "SciPy's nonsense": ('input_tokens = { kind = "scipy", name = "gamma", a = -1 }', "rises from 0 to 1"),
    "file and values": ('input_tokens = { kind = "samples", values = [1], file = "plain.csv" }', "file and values"),
    "column without file": ('input_tokens = { kind = "samples", values = [1], column = "x" }', "column without file"),
    "file above": ('input_tokens = { kind = "samples", file = "../x.csv" }', r"or below.*\.\./x.csv"),
    "file by a detour": ('input_tokens = { kind = "samples", file = "a/../../x.csv" }', "or below"),
    "file at the root": ('input_tokens = { kind = "samples", file = "/etc/passwd" }', "or below"),
    "file by a link": ('input_tokens = { kind = "samples", file = "link.csv" }', "or below"),
    "no such file": ('input_tokens = { kind = "samples", file = "absent.csv" }', "line 4.*absent.csv"),
    "a directory": ('input_tokens = { kind = "samples", file = "." }', "readable CSV file"),
    "text in a file": ('input_tokens = { kind = "samples", file = "text.csv" }', "text.csv, line 3: 'many'"),
    "no such column": ('input_tokens = { kind = "samples", file = "lengths.csv", column = "x" }', "header with x"),
    "nothing in a file": ('input_tokens = { kind = "samples", file = "empty.csv" }', "rows of numbers"),
    "bytes in a file": ('input_tokens = { kind = "samples", file = "bytes.csv" }', "bytes.csv, line 3"),
    "schedule above": ('rate = "../day.csv"', "or below"),
    "schedule of nonsense": ('rate = "text.csv"', "line 4, client 1, rate"),
    "rate zero": ("rate = 0", "line 4, client 1, rate.*0"),
    "rate negative": ("rate = -1", "-1"),
    "rate of a kind": ('rate = { kind = "daily" }', "steps, linear, diurnal.*daily"),
    "diurnal without mean": ('rate = { kind = "diurnal", swing = 1 }', "'mean'"),
    "diurnal beyond": ('rate = { kind = "diurnal", mean = 1, peak_hour = 25 }', "peak_hour"),
    "steps backwards": ('rate = { kind = "steps", knots = [["0h", 1], ["8h", 2], ["7h", 1]] }', "knots 3.*7h"),
    "steps twice": ('input_tokens = { kind = "steps", knots = [[0, 1], ["1h", 2], [3600, 1]] }', "knots 3: 3600"),
    "steps from later": ('rate = { kind = "steps", knots = [["1h", 1]] }', "from 0 s on"),
    "steps without end": ('rate = { kind = "steps", knots = [[0, 1], ["30h", 2]] }', "within the period"),
    "steps of lengths from later": ('input_tokens = { kind = "steps", knots = [["1h", 1]] }', "begin at 0 s.*line 4"),
    "steps inside a window": ('input_tokens = { kind = "steps", knots = [[0, 1], [90, 2]] }', "multiples of window_s"),
    "steps of one": ('rate = { kind = "steps", knots = [5] }', "a pair"),
    "steps of a time": ('rate = { kind = "steps", knots = [["soon", 5]] }', "soon"),
    "linear too short": ('rate = { kind = "linear", knots = [[0, 1], ["12h", 2]] }', "end of the period"),
    "shape and cv": ('arrivals = "gamma"\nshape = 1\ncv = 1', "line 7, client 1, cv: both"),
    "gamma of nothing": ('arrivals = "gamma"', "shape or the cv"),
    "cv of exponential gaps": ("cv = 2", "choose gamma or weibull"),
    "cv zero": ('arrivals = "gamma"\ncv = 0', "line 6, client 1, cv.*0"),
    "sigma too large": ('arrivals = "lognormal"\nshape = 7', "line 6, client 1, shape.*7"),
    "unknown family": ('arrivals = "gama"', "did you mean 'gamma'"),
    "correlation beyond one": (
        'rank_correlation = { "input_tokens:output_tokens" = 1.5 }',
        "line 5, client 1, rank_correlation.*1.5 of input_tokens:output_tokens",
    ),
    "correlation of others": ('rank_correlation = { "input_tokens:x" = 0.5 }', "line 5.*input_tokens:x"),
    "correlation of items": ('rank_correlation = { "input_tokens:image_tokens" = 0.5 }', "image_tokens"),
    "correlation as a number": ("rank_correlation = 0.5", "a table"),
    "context of one": ("context_tokens = 1", "line 5, client 1, context_tokens: 1"),
    "count zero": ("count = 0", "line 5, client 1, count: 0"),
    "count fraction": ("count = 1.5", "1.5"),
    "count enormous": ("count = 10_000_001", "10,000,000"),
    "name of control characters": ('name = "\\u001b[2J"', "text"),
    "two categories": ("text_tokens = 5", "multimodal.*input_tokens as well"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD)
def test_bad_clients_are_named(folder, line, said):
    (folder / "link.csv").symlink_to(REPOSITORY / "README.md")
    with pytest.raises(ProfileError, match=said) as caught:
        read(folder, one_client(line))
    assert "own.toml" in caught.value.got
    assert str(caught.value).count("\n") == 0


CLIENT = "[[client]]\nrate = 1\ninput_tokens = 5\noutput_tokens = 7\n"
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "'client'"),
    "no clients": ("client = []", "not empty"),
    "no table": ("client = [5]", "client 1: 5"),
    "client alone": ("[client]\nrate = 1\n", "a list"),
    "unknown key": ("windows = 5\n" + CLIENT, "line 1, windows.*did you mean 'window_s'"),
    "second client": (CLIENT + CLIENT.replace("rate", "rat"), "line 6, client 2, rat: unknown key.*'rate'"),
    "comments do not count": ("# rat = 5\n" + CLIENT + "# rat = 6\nrat = 7\n", "line 7, client 1, rat:"),
    "no rate": (CLIENT.replace("rate = 1\n", ""), "'rate'.*line 1, client 1"),
    "no output": (CLIENT.replace("output_tokens = 7\n", ""), "output_tokens.*line 1, client 1"),
    "category": ('category = "speech"\n' + CLIENT, "line 1, category: 'speech'"),
    "another category": ('category = "reason"\n' + CLIENT, "category reason.*client 1: the fields of language"),
    "mixed categories": (CLIENT + CLIENT + "reason_ratio = 0.5", "line 5, client 2: the fields of reason"),
    "window": ("window_s = 0\n" + CLIENT, "line 1, window_s: 0"),
    "period": ('period = "36h"\n' + CLIENT, "whole days"),
    "period enormous": ('window_s = 60\nperiod = "90000d"\n' + CLIENT, "windows of all kinds"),
    "many clients": (3 * (CLIENT + "count = 5_000_000\n"), "client 3, count: 15,000,000"),
    "no TOML": ("client: 5", "own.toml: .*line 1"),
    "twice": ("name = 'a'\nname = 'b'\n" + CLIENT, "line 2"),
    "bytes": (b"name = '\xff'", "own.toml, line 1: other bytes"),
    "too deep": ("a = " + "[" * 10_000, "too deep"),
    "too many digits": ("a = " + "9" * 10_000, "digits"),
    "too many dots": ("a" + 10_000 * ".a" + " = 1", "at most 8 dots.*line 1"),
    "too many dots in quotes": ("a" + 10_000 * '."b, ="' + " = 1", "at most 8 dots.*line 1"),
    "too large": ("#" * (MAX_FILE_BYTES + 1), "at most 4 MiB"),
}


@pytest.mark.parametrize(("text", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_one_message_and_status_2(tmp_path, capsys, text, said):
    path = tmp_path / "own.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ProfileError, match=said):
        sg.read_clients(path)
    for command in (["generate", str(path), "-o", str(tmp_path / "t.parquet")], ["inspect", str(path)]):
        assert main(command) == 2
        message = capsys.readouterr().err
        assert message.startswith("servegen-gpu: error: expected ")
        assert message.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["own.toml"]


def test_data_files_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(beside, "MAX_DATA_BYTES", 30)
    assert len(read(folder, one_client('input_tokens = { kind = "samples", file = "plain.csv" }'))) == 1
    with pytest.raises(ProfileError, match=r"lengths\.csv is larger"):
        read(folder, one_client('input_tokens = { kind = "samples", file = "lengths.csv" }'))


def test_dots_in_comments_and_numbers_are_no_keys(folder):
    text = f"# {20 * '. '}\n" + one_client(f"input_tokens = {[float(n) for n in range(40)]}") + "  # a.b.c ........."
    assert len(read(folder, text)) == 1


@pytest.mark.parametrize("option", [["--profiles", "data"], ["--clients", "5"]])
def test_options_that_contradict_a_file(capsys, option):
    assert main(["generate", str(EXAMPLE), "-o", "t.parquet", *option]) == 2
    assert f"without {option[0]}" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys):
    for command in (["generate", "absent.toml", "-o", "t.parquet"], ["inspect", "absent.toml"]):
        assert main(command) == 2
        assert "absent.toml" in capsys.readouterr().err
