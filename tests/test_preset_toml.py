"""Populations from a file of one's own: what it says is what comes out, and what is wrong is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.clients.population.presets import PRESETS, preset_text
from servegen_gpu.clients.population.skew import Skew, weights
from servegen_gpu.clients.scaled import scaled
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.errors import OptionError, ProfileError

OWN = """
name = "mine"
clients = 400
requests = 8.64e5
over = "1d"

[skew]
top = 20
share = 0.7
largest = 0.15

[default]
context_tokens = 8192
spread = { cv = 0.3, input_tokens = 0.5, output_tokens = 0.3, hours = 1 }

[[top]]
name = "batch"
rate = { kind = "linear", knots = [["0h", 1], ["9h", 4], ["24h", 1]] }
arrivals = "gamma"
cv = 3
input_tokens = 250
output_tokens = { kind = "exponential", mean = 80, max = 4000 }

[[kind]]
name = "chat"
share = 0.6
rate = { kind = "diurnal", swing = 0.8, peak_hour = 15 }
input_tokens = { kind = "lognormal", median = 300, sigma = 0.8, max = 8000 }
output_tokens = { kind = "exponential", mean = 400, max = 8000 }

[[kind]]
name = "code"
share = 0.4
tail_share = 0.4
arrivals = "weibull"
shape = 0.6
input_tokens = { kind = "lognormal", median = 1200, sigma = 0.5, max = 8000 }
output_tokens = { kind = "exponential", mean = 60, max = 8000 }

[turns]
share = 0.1
turns = { kind = "pmf", values = [2, 3], weights = [1, 1] }
gap_s = { kind = "lognormal", median = 100, sigma = 1 }
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_population_of_ones_own(write):
    path = write(OWN)
    pool = sg.population(path)
    assert (pool.name, pool.category, len(pool), pool.windows) == ("mine", "language", 400, 144)
    assert pool.own_rps.mean() == pytest.approx(10.0)
    assert pool.skew().of_top(20) == pytest.approx(0.7, abs=1e-4)
    assert (pool.context_tokens == 8192).all()
    first = pool.client(0)
    assert first.rate_rps.mean() == pytest.approx(1.5, rel=1e-4)
    assert first.rate_rps[54] == pytest.approx(4 / 2.5 * 1.5, rel=0.02)
    assert set(first.family) == {"Gamma"}
    np.testing.assert_allclose(first.cv, 3)
    assert pool.digest() == sg.population(str(path)).digest()
    assert pool.digest() == sg.population(str(path), clients=400, seed=0).digest()
    trace = sg.generate(pool, duration="10m")
    assert len(trace) > 1_000


@pytest.mark.parametrize("name", PRESETS)
def test_a_copy_of_a_preset_is_the_preset(write, name):
    copy = sg.population(write(preset_text(name)), clients=50)
    assert copy.digest() == sg.population(name, clients=50).digest()


def without(text, line):
    assert text.count(line) == 1, line
    return text.replace(line, "")


WRONG = {
    "an unknown key": (OWN.replace("largest", "largets"), "largest", 10),
    "an unknown key of a kind": (OWN.replace("tail_share", "tailshare"), "tail_share", 34),
    "an unknown key of a client": (OWN.replace("arrivals = \"gamma\"", "arrival = \"gamma\""), "arrivals", 19),
    "an unknown spread": (OWN.replace("hours = 1", "hour = 1"), "hours", 14),
    "no clients": (without(OWN, "clients = 400\n"), "clients", None),
    "no kinds": (OWN.partition("[[kind]]")[0], "kind", None),
    "no share": (without(OWN, "share = 0.6\n"), "share", 24),
    "no lengths": (OWN.replace("output_tokens = { kind = \"exponential\", mean = 60, max = 8000 }", ""), "output", 31),
    "zero clients": (OWN.replace("clients = 400", "clients = 0"), "whole number", 3),
    "negative clients": (OWN.replace("clients = 400", "clients = -5"), "-5", 3),
    "half a client": (OWN.replace("clients = 400", "clients = 2.5"), "2.5", 3),
    "no requests": (OWN.replace("8.64e5", "0"), "above 0", 4),
    "a time that is none": (OWN.replace('over = "1d"', 'over = "soon"'), "soon", 5),
    "no time": (OWN.replace('over = "1d"', "over = 0"), "above 0", 5),
    "half a day": (OWN.replace('over = "1d"', 'over = "1d"\nperiod = "36h"'), "whole days", 6),
    "a share above 1": (OWN.replace("share = 0.6", "share = 1.6"), "1.6", 26),
    "a share below 0": (OWN.replace("share = 0.6", "share = -0.1"), "-0.1", 26),
    "a share of text": (OWN.replace("share = 0.6", 'share = "most"'), "most", 26),
    "shares that do not add up": (OWN.replace("share = 0.6", "share = 0.5"), "add up to 1", 33),
    "tail shares that do not add up": (OWN.replace("tail_share = 0.4", "tail_share = 0.3"), "tail_share", 34),
    "a top of all": (OWN.replace("top = 20", "top = 400"), "399", 8),
    "a largest below an even share": (OWN.replace("largest = 0.15", "largest = 0.03"), "largest from", 7),
    "a largest above all": (OWN.replace("largest = 0.15", "largest = 0.8"), "largest from", 7),
    "a skew the wrong way": (OWN.replace("share = 0.7", "share = 0.01"), "all alike", 7),
    "a context below one turn": (OWN.replace("context_tokens = 8192", "context_tokens = 500"), "one turn", 13),
    "two ways of burstiness": (OWN.replace("shape = 0.6", "shape = 0.6\ncv = 2"), "both", 37),
    "two categories": (
        OWN.replace("input_tokens = 250", "text_tokens = 250").replace("input_tokens = 0.5, ", ""),
        "category language",
        16,
    ),
    "another category": (OWN.replace('name = "mine"', 'name = "mine"\ncategory = "reason"'), "category", 3),
    "a category that is a list": (OWN.replace('name = "mine"', 'name = "mine"\ncategory = ["x"]'), "text", 3),
    "more clients than any file": (OWN.replace("clients = 400", "clients = 2000000000"), "10,000,000", 3),
    "more kinds than memory": (
        OWN.replace('over = "1d"', 'over = "1d"\nperiod = "28d"')
        .replace('["24h", 1]', '["28d", 1]')
        .replace("[turns]", 70 * "[[kind]]\nshare = 0\ninput_tokens = 9\noutput_tokens = 9\n" + "[turns]"),
        "262,144 windows",
        None,
    ),
    "a category that is none": (OWN.replace('name = "mine"', 'name = "mine"\ncategory = "x"'), "language", 3),
    "knots that end early": (OWN.replace('["24h", 1]', '["20h", 1]'), "end of the period", 18),
    "a spread without a scale": (
        OWN.replace("input_tokens = { kind = \"lognormal\", median = 1200, sigma = 0.5, max = 8000 }",
                    "input_tokens = { kind = \"zipf\", exponent = 1.1, max = 8000 }"),
        "scale",
        37,
    ),
    "a spread below 0": (OWN.replace("cv = 0.3", "cv = -0.3"), "spread", 14),
    "an unlikely spread": (OWN.replace("cv = 0.3", "cv = 30"), "spread", 14),
    "a count": (OWN.replace("cv = 3\n", "cv = 3\ncount = 4\n"), "count", 21),
    "conversations of one turn": (OWN.replace("values = [2, 3]", "values = [1, 3]"), "2 turns", 42),
    "more conversations than all": (OWN.replace("share = 0.1\n", "share = 1.1\n"), "1.1", 41),
    "a wrong key of turns": (OWN.replace("gap_s", "gaps"), "gap_s", 43),
    "no TOML": ("clients = = 3", "TOML", None),
    "a list for a table": (OWN.replace("[skew]\ntop = 20\nshare = 0.7\nlargest = 0.15", "[[skew]]"), "table", None),
    "a number for a client": ("top = 3\n" + OWN.partition("[[top]]")[0], "list", None),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_faults_are_named_with_their_line(write, capsys, what):
    text, said, line = WRONG[what]
    path = write(text)
    if what == "a number for a client":
        text = text + "\n[[kind]]\nshare = 1\ninput_tokens = 5\noutput_tokens = 5\n"
        path = write(text)
    with pytest.raises(ProfileError) as caught:
        sg.population(path)
    message = str(caught.value)
    assert said in message
    assert "mine.toml" in message
    if line is not None:
        assert f"line {line}" in message
    assert main(["generate", "--population", str(path), "-o", str(path.with_suffix(".csv"))]) == 2
    assert capsys.readouterr().err.startswith("servegen-gpu: error: expected ")
    assert not path.with_suffix(".csv").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(ProfileError, match="readable"):
        sg.population(tmp_path / "none.toml")


def test_every_truncation_of_a_file_is_refused_or_complete(write):
    lines = OWN.splitlines()
    read = []
    for end in range(len(lines)):
        try:
            sg.population(write("\n".join(lines[:end])), clients=3)
        except ProfileError:
            continue  # anything else would be a traceback
        read.append(end)
    assert read == [38, 39]  # all kinds, and no conversations


# the command line


def test_the_command_lists_and_prints_presets(capsys):
    assert main(["presets"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(PRESETS)
    assert main(["presets", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(PRESETS)
    assert main(["presets", "show", "m-code"]) == 0
    assert capsys.readouterr().out == preset_text("m-code")
    assert main(["presets", "show", "m-cod"]) == 2
    assert "did you mean 'm-code'" in capsys.readouterr().err
    assert main(["presets", "show"]) == 2


def test_a_printed_preset_is_generated_from(write, tmp_path, capsys):
    assert main(["presets", "show", "mm-video"]) == 0
    path, out = write(capsys.readouterr().out), tmp_path / "t.parquet"
    for arguments in (["--population", path], [path]):
        assert main(["generate", *map(str, arguments), "-o", str(out), "--clients", "30", "--duration", "1h"]) == 0
        trace = sg.read_trace(out)
        pool = sg.population("mm-video", clients=30)
        np.testing.assert_array_equal(trace["arrival_us"], sg.generate(pool, duration="1h")["arrival_us"])
    assert main(["generate", str(path), "-o", str(out), "--clients", "30", "--clients-seed", "9", "--quiet"]) == 0
    other = sg.population("mm-video", clients=30, seed=9)
    np.testing.assert_array_equal(sg.read_trace(out)["text_tokens"], sg.generate(other, duration="1h")["text_tokens"])


def test_inspect_says_where_numbers_come_from(capsys):
    assert main(["inspect", "m-rp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["origins"]
    assert found["assumed"] > found["published"] > 0
    assert found["unstated"] == 0
    assert main(["inspect", "m-rp"]) == 0
    assert f"{found['published']} published" in capsys.readouterr().out


def test_contradictions_on_the_command_line(write, tmp_path, capsys):
    path, out = str(write(OWN)), str(tmp_path / "t.csv")
    own_clients = "[[client]]\nrate = 1\ninput_tokens = 5\noutput_tokens = 5\n"
    clients = str(write(own_clients, "clients.toml"))
    for arguments in (
        ["m-rp", "--population", path],
        [],
        [path, "--profiles", "."],
        [clients, "--clients", "5"],
        ["--population", clients],
    ):
        assert main(["generate", *arguments, "-o", out]) == 2
        assert "expected" in capsys.readouterr().err
    assert main(["generate", clients, "-o", out, "--duration", "600s", "--quiet"]) == 0


# parts


def test_skew_has_no_solution_only_where_there_is_none():
    for skew, clients in ((Skew(10, 0.5, 0.2), 25_913), (Skew(29, 0.9, 0.3), 2_412), (Skew(1, 0.2), 50)):
        weight = weights(skew.law(clients), clients)
        share = weight / weight.sum()
        assert share[: skew.top].sum() == pytest.approx(skew.share, abs=1e-5)
        assert skew.largest is None or share[0] == pytest.approx(skew.largest, abs=1e-5)
    for skew in (Skew(10, 0.05), Skew(10, 1.0), Skew(100, 0.9), Skew(10, 0.5, 0.06), Skew(10, 0.5, 0.6)):
        with pytest.raises(OptionError):
            skew.law(100)


@pytest.mark.parametrize(
    "distribution",
    [
        d.Constant(40),
        d.Uniform(10, 90),
        d.Exponential(300),
        d.Normal(500, 20),
        d.LogNormal(median=200, sigma=0.7),
        d.LogNormal(mean=200, cv=0.7),
        d.Pareto(2.5, 100),
        d.Samples([5, 10, 10, 70]),
        d.Pmf([10, 20], [1, 3]),
        d.Histogram([0, 10, 100], [1, 2]),
        d.Mixture([d.Exponential(30), d.Constant(500)], [1, 2]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_scaled_distributions_are_longer_by_the_factor(distribution):
    from servegen_gpu.clients.stated.tabulate import TOKENS, tabulate

    def mean(x):
        table = tabulate(x, TOKENS)
        return float(table.values @ table.words) / 2**32

    bounded = scaled(distribution, 3.0)
    assert mean(bounded) == pytest.approx(3 * mean(distribution), rel=0.02)
    assert scaled(distribution, 1.0) is distribution


def test_bounds_stay_where_they_are():
    longer = scaled(d.Exponential(300, max=1000), 5.0)
    assert longer.max == 1000
    with pytest.raises(OptionError, match="scale"):
        scaled(d.Zipf(1.2, max=100), 2.0)
