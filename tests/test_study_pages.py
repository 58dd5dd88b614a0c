"""Pages of studies: what they say in words is what NumPy says of the table, whatever files are called."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import servegen_gpu as sg
from servegen_gpu.errors import OptionError
from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.words import duration_text, number
from servegen_gpu.reporting.page import Section, page
from servegen_gpu.reporting.studies import study_sections
from servegen_gpu.reporting.words import label_of
from servegen_gpu.studies.fan import loads_of
from servegen_gpu.studies.file import write_study
from servegen_gpu.studies.intervals import mean_interval, quantile_interval
from servegen_gpu.studies.monte_carlo import monte_carlo

pytest.importorskip("matplotlib")

EVIL = '<script>alert("x")</script>'
SERVER = {
    "name": EVIL,
    "model": "m",
    "hardware": "h",
    "parameters": {
        "step_s": {"value": 0.014, "origin": "published: a paper"},
        "kv_tokens": {"value": 400_000, "origin": "assumed"},
    },
}


def said(sections: list[Section]) -> dict[str, str]:
    """Text of every section, with the alternatives of its pictures, by title."""
    found = {}
    for one in sections:
        alts = " ".join(re.findall(r'alt="([^"]*)"', one.html))
        text = re.sub(r"<[^>]*>", " ", re.sub(r"</(td|th|p|li|caption)>", " | ", one.html))
        found[one.title] = html.unescape(f"{alts} {text}")
    return found


def replicas(vary: bool = False, until: bool = False) -> tuple[dict[str, Any], pd.DataFrame]:
    rng = np.random.default_rng(1)
    draws, each = (150, 5) if vary else (1, 200)
    draw = np.repeat(np.arange(draws), each)
    rate = rng.uniform(0.8, 1.2, draws)[draw]
    columns: dict[str, Any] = {"draw": draw, "replica": draw * 65_536 + np.tile(np.arange(each), draws)}
    columns |= {"rate": rate} if vary else {}
    columns["requests_peak_10s"] = rng.poisson(400 * rate).astype(np.float64)
    columns["gap_cv"] = np.where(rng.uniform(size=len(draw)) < 0.05, np.nan, rng.gamma(50, 0.02, len(draw)))
    settings = {
        **{"workload": EVIL, "duration_s": 3600.0, "seed": 0, "metrics": ["requests_peak_10s", "gap_cv"]},
        **{"controls": [], "vary": {"rate": [0.8, 1.2, "linear"]} if vary else {}, "replicas": each, "draws": draws},
        **{"until": ["requests_peak_10s:20%"] if until else [], "confidence": 0.95},
    }
    return settings, pd.DataFrame(columns)


def test_replicas_in_words_are_those_of_the_table():
    settings, table = replicas()
    text = said(study_sections("montecarlo", settings, table))
    peak = table["requests_peak_10s"].to_numpy()
    assert f"above {number(np.quantile(peak, 0.5))} in half of them" in text["What was found"]
    assert f"above {number(np.quantile(peak, 0.95))} in one of twenty" in text["What was found"]
    assert " | ".join(["mean", *map(number, mean_interval(peak, 0.95))]) in re.sub(r"\s+", " ", text["What was found"])
    histograms = text["Distributions over replicas"]
    for q in (0.5, 0.9, 0.99):
        value, low, high = quantile_interval(peak, q, 0.95)
        assert f"{100 * q:g} % quantile {number(value)} ({number(low)} to {number(high)})" in histograms
    assert f"over 200 replicas, from {number(peak.min())} to {number(peak.max())}" in histograms
    assert f"over {table['gap_cv'].count()} replicas" in histograms  # those without a value are left out
    settled = text["Are there enough replicas?"]
    for n in (100, 200):
        mean, low, high = mean_interval(peak[:n], 0.95)
        assert f"{number(mean)} ± {number((high - low) / 2)}" in settled
    assert "seed | 0" in re.sub(r"\s+", " ", text["How it was made"])


def test_parameters_and_chance_have_their_shares_of_the_variance():
    settings, table = replicas(vary=True, until=True)
    text = said(study_sections("montecarlo", settings, table))
    grid = table["requests_peak_10s"].to_numpy().reshape(150, 5)
    within = grid.var(axis=1, ddof=1).mean()
    between = grid.mean(axis=1).var(ddof=1) - within / 5
    share = between / (between + within)
    assert f"peak of requests in 10 s {100 * share:.0f} %" in text["Parameters and chance"]
    mean, low, high = mean_interval(grid.mean(axis=1), 0.95)  # of draws, which are independent
    assert f"{number(mean)} ± {number((high - low) / 2)}" in text["Are there enough replicas?"]
    assert "mean of requests_peak_10s to ±20 %: yes" in text["Are there enough replicas?"]


def test_a_load_over_time_is_that_of_its_bins(tmp_path):
    pool = sg.population("m-small", clients=20)
    how: dict[str, Any] = {"rate": 5, "duration": "270s", "metrics": ["output_tokens_peak_60s"]}
    study = monte_carlo(pool, replicas=4, path=tmp_path / "study.parquet", **how)
    traces = [sg.generate(pool, rate=5, duration="270s", counts="renewal", replica=replica) for replica in range(4)]
    loads = [np.bincount(t["arrival_us"] // 60_000_000, t["output_tokens"], minlength=5)[:4] for t in traces]
    text = said(study_sections("montecarlo", study.settings, study.table))["Load over time"]
    for p in (5, 50, 95):
        row = np.quantile(loads, p / 100, axis=0).round(2)
        at = duration_text(60.0 * row.argmax())
        assert f"the {p} % quantile is largest in the bin at {at}, {number(row.max())}" in text


@pytest.mark.parametrize(
    "bins",
    [
        7,
        {"bin_s": 60, "quantiles": [0.5], "loads": {"requests": [1, 2]}},
        {"bin_s": 60, "quantiles": [0.5], "loads": {"requests": [["x"]]}},
        {"bin_s": 0, "quantiles": [0.5], "loads": {"requests": [[1, 2]]}},
        {"bin_s": 60, "quantiles": [0.5, 0.9], "loads": {"requests": [[1, 2]]}},
    ],
)
def test_loads_that_are_none_are_refused(bins: Any):
    with pytest.raises(OptionError, match="quantiles of loads"):
        loads_of({"bins": bins})


def effects(method: str) -> tuple[dict[str, Any], pd.DataFrame]:
    names = ["rate", "burstiness", "top_share"]
    rows = {
        "tornado": {
            **{"base": [100.0] * 3, "at_low": [90.0, 70.0, 101.0], "at_high": [110.0, 150.0, 99.0]},
            **{"swing": [20.0, 80.0, -2.0], "swing_low": [15.0, 60.0, -5.0], "swing_high": [25.0, 100.0, 1.0]},
        },
        "morris": {
            **{"mu_star": [20.0, 80.0, 2.0], "mu_star_low": [15.0, 60.0, 1.0], "mu_star_high": [25.0, 100.0, 3.0]},
            **{"mu": [20.0, 80.0, -1.0], "sigma": [3.0, 30.0, 2.5]},
        },
        "sobol": {
            **{"first": [0.1, 0.8, -0.01], "first_low": [0.05, 0.6, -0.03], "first_high": [0.2, 0.9, 0.01]},
            **{"total": [0.15, 0.85, 0.0], "total_low": [0.1, 0.7, 0.0], "total_high": [0.3, 1.0, 0.01]},
        },
    }[method]
    head = {"metric": ["requests_peak_10s"] * 3, "parameter": names, "value_low": [0.8, 0.5, 0.3]}
    table = pd.DataFrame(head | {"value_high": [1.2, 2.0, 0.6]} | rows | {"noise_share": [0.0123] * 3})
    vary = {name: [0.5, 2.0, "linear"] for name in names}
    settings = {"workload": EVIL, "method": method, "metrics": ["requests_peak_10s"], "vary": vary, "points": 7}
    return settings | {"replicas": 4, "confidence": 0.95}, table


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("tornado", ["burstiness from 70 at 0.5 to 150 at 2", "100 at the base", "80 (60 to 100)"]),
        ("morris", ["burstiness mu* 80 (60 to 100), sigma 30", "rate mu* 20 (15 to 25), sigma 3"]),
        ("sobol", ["burstiness first 0.8 (0.6 to 0.9), total 0.85 (0.7 to 1)", "-0.01 (-0.03 to 0.01)"]),
    ],
)
def test_effects_come_largest_first_with_their_noise(method: str, words: list[str]):
    sections = study_sections("sensitivity", *effects(method))
    text = said(sections)
    of = text["Peak of requests in 10 s"]
    for one in words:
        assert one in of
    assert of.index("burstiness") < of.index("rate") < of.index("top_share")
    assert "1.23 % of the variance over points is chance" in of
    assert "burstiness, 0.5 to 2" in text["What matters"]


def test_effects_of_a_metric_that_never_varies():
    settings, table = effects("sobol")
    table.iloc[:, 4:] = np.nan
    text = said(study_sections("sensitivity", settings, table))
    assert "Noise: unknown" in text["Peak of requests in 10 s"]


def provisioned(rows: Mapping[str, list[list[float]]]) -> tuple[dict[str, Any], pd.DataFrame]:
    """A study from instances by source: for each replica the whole, then its windows."""
    made = []
    for source, of in rows.items():
        for replica, needed in enumerate(of):
            for at, instances in enumerate(needed):
                start_s, length_s = ((at - 1) * 60.0, 60.0) if at else (-1.0, 60.0 * (len(needed) - 1))
                rate = (2.0, 3.0) if not at else (math.nan, math.nan)
                made.append((source, replica, start_s, length_s, 10, instances, *rate))
    names = ["source", "replica", "window_start_s", "window_s", "requests", "instances"]
    table = pd.DataFrame(made, columns=[*names, "max_rate_rps", "instances_by_rate"])
    settings = {
        **{"workload": EVIL, "objective": {"ttft_s": 2.25, "tbt_s": 0.5, "level": 0.99}, "server": SERVER},
        **{"routing": "least-loaded", "clients": 9, "clients_measured": 4, "confidence": 0.95},
        **{"naive": {"family": "gamma", "cv": 2.0} if "naive" in rows else None},
    }
    return settings, table


def test_a_decision_is_what_replicas_need():
    rng = np.random.default_rng(2)
    whole = rng.integers(10, 15, 100).astype(float)
    naive = rng.integers(7, 9, 100).astype(float)
    rows = {
        "clients": [[n, n - 1, n + 1] for n in whole],
        "naive": [[n, n, n] for n in naive],
    }
    text = said(study_sections("provision", *provisioned(rows)))
    needed, bought = np.sort(whole)[94], np.sort(naive)[94]
    decision = text["The decision"]
    assert (
        f"{needed:.0f} instances hold the P99 of TTFT within 2.25 s and of TBT within 0.5 s in 95 % of replicas"
        in decision
    )
    _, low, high = quantile_interval(whole, 0.95, 0.95)
    assert f"interval of 95 % confidence: {low:.0f} to {high:.0f}" in decision
    missed = (whole > bought).mean()
    assert f"A naive generator says {bought:.0f}, {100 * (needed - bought) / needed:.0f} % fewer" in decision
    assert f"with {bought:.0f}, {100 * missed:.0f} % of replicas miss the objective" in decision
    over = text["Needed over time"]
    assert f"from {needed - 1:.0f} to {needed + 1:.0f}, most from 1 min on" in over
    assert f"all of the time {needed:.0f}, mean {needed:.0f}, busiest window {needed + 1:.0f}" in over
    for n in (10, 11, 12, 13):
        assert f"{n}: {100 * (whole > n).mean():.1f} %" in text["Chance of missing the objective"]
    origins = re.sub(r"\s+", " ", text["Measured and assumed"])
    assert "Published | step_s | 0.014 | a paper" in origins
    assert "Assumed | kv_tokens | 400,000" in origins
    assert "Of 9 clients, 4 are measured, 5 modelled" in origins


def test_a_decision_for_one_trace_says_nothing_of_others():
    rows = {"trace": [[6.0, 5.0, 7.0]], "naive": [[4.0, 4.0, 4.0]] * 20}
    text = said(study_sections("provision", *provisioned(rows)))
    assert "6 instances hold" in text["The decision"]
    assert "for this one trace. A naive generator says 4, 33 % fewer: with 4, the trace misses" in text["The decision"]
    assert "Chance of missing the objective" not in text


def test_a_decision_without_a_naive_generator_and_one_that_nothing_meets():
    text = said(study_sections("provision", *provisioned({"trace": [[1.0, 1.0]]})))
    assert "1 instance holds" in text["The decision"]
    assert "naive" not in text["The decision"]
    lost = said(study_sections("provision", *provisioned({"clients": [[math.inf, math.inf, 3.0]] * 30})))
    assert "No number of instances holds" in lost["The decision"]
    assert "In 1 windows no number" in lost["Needed over time"]
    assert "no number of instances to look at" in lost["Chance of missing the objective"]


def made_of(kind: str) -> tuple[dict[str, Any], pd.DataFrame]:
    return {
        "montecarlo": replicas,
        "sensitivity": lambda: effects("morris"),
        "provision": lambda: provisioned({"clients": [[3.0, 2.0, 3.0], [4.0, 4.0, 1.0]], "naive": [[1.0, 1.0, 1.0]]}),
    }[kind]()


@pytest.mark.parametrize("kind", ["montecarlo", "sensitivity", "provision"])
def test_names_from_files_are_escaped_and_every_picture_has_words(kind: str):
    made = made_of(kind)
    text = page(EVIL, study_sections(kind, *made))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    pictures = re.findall(r"<img [^>]*>", text)
    assert pictures
    assert all(re.search(r'alt="[^"]{40,}"', picture) for picture in pictures)
    assert not re.search(r'(src|href)="(?!data:image/svg\+xml;base64,|#)', text)
    again = page(EVIL, study_sections(kind, *made))
    assert text == again


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("montecarlo", {"metrics": ["requests"]}),
        ("montecarlo", {"confidence": "high"}),
        ("montecarlo", {"duration_s": "1h"}),
        ("sensitivity", {"method": EVIL}),
        ("sensitivity", {"metrics": [3]}),
        ("sensitivity", {"points": "many"}),
        ("sensitivity", {"replicas": None}),
        ("sensitivity", {"confidence": {}}),
        ("provision", {"objective": {"ttft_s": "soon"}}),
        ("provision", {"server": {"name": "mine"}}),
        ("provision", {"server": {"parameters": {"step_s": 0.014}}}),
        ("provision", {"confidence": 95}),
        ("provision", {"clients": "nine"}),
    ],
)
def test_a_file_with_other_settings_is_refused(tmp_path: Path, kind: str, changes: dict[str, Any]):
    settings, table = made_of(kind)
    write_study(tmp_path / "x.parquet", kind, settings, table)
    assert sg.report(tmp_path / "x.parquet", tmp_path / "x.html").exists()
    write_study(tmp_path / "x.parquet", kind, settings | changes, table)
    with pytest.raises(OptionError):
        sg.report(tmp_path / "x.parquet", tmp_path / "x.html")


def test_a_file_without_a_window_is_refused(tmp_path: Path):
    settings, table = made_of("provision")
    for changed in (
        table.drop(index=4),
        table[table["window_start_s"] < 0],
        table.replace({"source": {"clients": "a"}}),
    ):
        write_study(tmp_path / "x.parquet", "provision", settings, changed)
        with pytest.raises(OptionError, match="list of"):
            sg.report(tmp_path / "x.parquet", tmp_path / "x.html")


def test_a_mean_that_is_infinite_is_said_to_be():
    settings, table = replicas()
    table.loc[:1, "requests_peak_10s"] = np.inf
    text = said(study_sections("montecarlo", settings, table))
    assert "infinite in 2 of 200, and so is its mean" in text["Are there enough replicas?"]
    assert "mean | ∞ | −∞ | ∞" in re.sub(r"\s+", " ", text["What was found"])


def test_effects_on_a_figure_that_is_infinite():
    settings, table = effects("morris")
    table.loc[1, ["mu_star", "mu_star_low", "mu_star_high", "mu", "sigma"]] = np.nan
    assert "burstiness mu* –" in said(study_sections("sensitivity", settings, table))["Peak of requests in 10 s"]


def test_what_is_no_study_is_refused():
    with pytest.raises(OptionError, match="montecarlo, sensitivity or provision"):
        study_sections("other", {}, pd.DataFrame({"a": [1]}))
    with pytest.raises(OptionError, match="a study with results"):
        study_sections("montecarlo", *(lambda settings, table: (settings, table[:0]))(*replicas()))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_study_that_has_just_begun_has_a_page(rows: int):
    """Draws of five replicas, of which none is complete, or one."""
    settings, table = replicas(vary=True)
    text = said(study_sections("montecarlo", settings, table[:rows]))
    assert ("above" in text["What was found"]) == (rows >= 5)
    assert "cannot be told apart" in text["Parameters and chance"]
    assert "takes two replicas at least" in text["Are there enough replicas?"]


def test_metrics_in_words():
    assert label_of("output_tokens_p99_10s") == "P99 of output tokens in 10 s"
    assert label_of("requests_idc_60s") == "index of dispersion of requests in 60 s"
    assert label_of("input_tokens_mean") == "mean of input tokens"
    assert label_of("input_tokens") == "sum of input tokens"
    assert label_of("ttft_p99.9") == "P99.9 of TTFT in s"
    assert label_of("client_gap_p50_s") == "P50 of inter-arrival times of clients in s"
    assert label_of("my_own") == "my own"


def test_figures_of_service_say_what_they_assume():
    pool = sg.population("m-small", clients=10)
    study = monte_carlo(pool, rate=2, duration="1m", replicas=2, metrics=["instances", "ttft_p99"])
    sections = {section.title: section.html for section in study_sections("montecarlo", study.settings, study.table)}
    assert "Figures of service assume one instance of a server (step_s 0.012" in sections["Measured and assumed"]
    assert "<td>assumed" not in sections["How it was made"]


def test_intervals_of_morris_are_drawn_whole():
    levels = [draw.Level("rate", 20.0, 15.0, 90.0), draw.Level("growth", 5.0, -np.inf, np.inf)]
    (axes,) = draw.morris_plane(levels, np.array([3.0, 2.0]), "a peak").axes
    assert 90 < axes.get_xlim()[1] < 120
