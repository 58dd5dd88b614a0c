"""Studies of replicas: what they measure, that nothing but their arguments decides, and that they go on."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import gates
import numpy as np
import pandas as pd
import pytest
from profiles import TURNS
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.reducing.reduction import Reduction
from servegen_gpu.studies import controls, monte_carlo
from servegen_gpu.studies.controls import expected_totals
from servegen_gpu.studies.monte_carlo import Interrupted
from servegen_gpu.studies.parameters import Parameter
from servegen_gpu.studies.source import REPLICAS_OF_A_DRAW
from servegen_gpu.studies.study import Study

METRICS = ("requests", "requests_peak_10s", "output_tokens_peak_10s")
HOW: dict[str, Any] = {"rate": 4, "duration": "2m", "metrics": METRICS}


@pytest.fixture(scope="module")
def pool() -> sg.ClientPool:
    lengths = {"input_tokens": sg.distributions.LogNormal(median=300, sigma=1), "output_tokens": {20: 1, 300: 3}}
    clients = [
        sg.client(rate=1, arrivals="gamma", cv=3, count=3, **lengths),  # type: ignore[arg-type]
        sg.client(rate=2, input_tokens={7: 1, 90: 1}, output_tokens=sg.distributions.Exponential(50)),
    ]
    return sg.pool(clients)


@pytest.fixture(scope="module")
def study(pool: sg.ClientPool) -> Study:
    return sg.monte_carlo(pool, **HOW, replicas=60)


def test_a_row_is_what_its_trace_says(pool: sg.ClientPool, study: Study):
    assert list(study.table.columns[: 2 + len(METRICS)]) == ["draw", "replica", *METRICS]
    assert study.table["replica"].tolist() == list(range(60))
    for replica in (0, 7, 59):
        trace = sg.generate(pool, rate=4, duration="2m", counts="renewal", replica=replica)
        at = trace["arrival_us"] // 10_000_000
        row = study.table.loc[replica]
        assert row["requests"] == len(trace)
        assert row["requests_peak_10s"] == np.bincount(at).max()
        assert row["output_tokens_peak_10s"] == np.bincount(at, trace["output_tokens"]).max()
        assert row["control_requests"] == pytest.approx(len(trace) / 480 - 1)


def test_threads_and_memory_change_nothing(pool: sg.ClientPool, study: Study):
    again = sg.monte_carlo(pool, **HOW, replicas=60, threads=3, memory="50MB", backend="numpy")
    pd.testing.assert_frame_equal(again.table, study.table)
    other = sg.monte_carlo(pool, **HOW, replicas=60, seed=1)
    assert not other.table["requests"].equals(study.table["requests"])


def stop_after(count: int) -> Callable[..., None]:
    """A Ctrl-C after so many replicas."""

    def progress(done: int, most: int, watch: object) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("how", [{"replicas": 20}, {"replicas": 4, "draws": 5, "vary": "rate=0.5:2:log"}])
def test_a_study_goes_on_where_it_stopped(pool: sg.ClientPool, tmp_path: Path, how: dict[str, Any]):
    """The file of a study in one go, of one that was interrupted twice, and of one that grew are the same bytes."""
    whole, parts, grown = (tmp_path / f"{name}.parquet" for name in ("whole", "parts", "grown"))
    sg.monte_carlo(pool, **HOW, **how, path=whole)
    for done in (3, 13):
        with pytest.raises(Interrupted, match=rf"{done} of 20 replicas") as stopped:
            sg.monte_carlo(pool, **HOW, **how, path=parts, progress=stop_after(done))
        assert len(stopped.value.study) == done
        assert len(Study.read(parts)) >= done
    resumed = sg.monte_carlo(pool, **HOW, **how, path=parts)
    fewer = {name: value - 2 if isinstance(value, int) else value for name, value in how.items()}
    sg.monte_carlo(pool, **HOW, **fewer, path=grown)
    sg.monte_carlo(pool, **HOW, **how, path=grown)
    assert whole.read_bytes() == parts.read_bytes() == grown.read_bytes()
    pd.testing.assert_frame_equal(Study.read(whole).table, resumed.table)
    # a smaller study is a part of it, and the file keeps the rest
    part = sg.monte_carlo(pool, **HOW, **fewer, path=whole)
    assert len(part) == math.prod(value for value in fewer.values() if isinstance(value, int))
    assert whole.read_bytes() == parts.read_bytes()


def test_nothing_is_made_again(pool: sg.ClientPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "s.parquet"
    first = sg.monte_carlo(pool, **HOW, replicas=8, path=path)
    monkeypatch.setattr(monte_carlo.Measures, "over", lambda *_: pytest.fail("made again"))
    pd.testing.assert_frame_equal(sg.monte_carlo(pool, **HOW, replicas=8, path=path).table, first.table)


def test_another_study_is_refused_and_kept(pool: sg.ClientPool, tmp_path: Path):
    path = tmp_path / "s.parquet"
    sg.monte_carlo(pool, **HOW, replicas=5, path=path)
    before = path.read_bytes()
    others: list[tuple[dict[str, Any], str]] = [
        ({"rate": 5}, r'rate \{"rate": "constant", "rps": 4.0\} there, \{"rate": "constant", "rps": 5.0\} here'),
        ({"seed": 3}, "seed 0 there, 3 here"),
        ({"duration": "3m"}, "duration_s 120.0 there, 180.0 here"),
        ({"metrics": "requests"}, r"metrics \["),
        ({"vary": "rate=0.5:2"}, "vary {} there"),
        ({"counts": "exact"}, "rules .*renewal.* there, .*exact.* here"),
        ({"max_input": 100}, "limits null there"),
    ]
    for changes, difference in others:
        with pytest.raises(OptionError, match=rf"go on as it began, got other settings: .*{difference}.*are kept"):
            sg.monte_carlo(pool, **(HOW | changes), replicas=9, path=path)
    with pytest.raises(OptionError, match=r"clients 4 there, 3 here; pool_digest"):
        sg.monte_carlo(pool.select([0, 1, 2]), **HOW, replicas=9, path=path)
    assert path.read_bytes() == before
    trace = tmp_path / "trace.parquet"
    sg.generate(pool, rate=4, duration="10s").write(trace)
    before = trace.read_bytes()
    with pytest.raises(OptionError, match="a study that this package wrote"):
        sg.monte_carlo(pool, **HOW, path=trace)
    assert trace.read_bytes() == before
    with pytest.raises(OutputError, match="an existing directory"):
        sg.monte_carlo(pool, **HOW, path=tmp_path / "none" / "s.parquet")


def test_replicas_are_kept_where_a_metric_fails(pool: sg.ClientPool, tmp_path: Path):
    path, calls = tmp_path / "s.parquet", []

    def fragile(trace: sg.Trace) -> int:
        calls.append(trace)
        if len(calls) == 4:
            raise ZeroDivisionError
        return len(trace)

    with pytest.raises(ZeroDivisionError):
        sg.monte_carlo(pool, **(HOW | {"metrics": fragile}), replicas=6, path=path)
    assert len(Study.read(path)) == 3
    assert sg.monte_carlo(pool, **(HOW | {"metrics": fragile}), replicas=6, path=path).table.shape[0] == 6
    assert len(calls) == 7


def test_own_metrics(pool: sg.ClientPool, study: Study):
    def of_trace(trace: sg.Trace) -> dict[str, float]:
        return {"first_us": int(trace["arrival_us"][0]), "mean_input": float(trace["input_tokens"].mean())}

    def longest(trace: sg.Trace) -> np.int32:
        return trace["input_tokens"].max()

    long = Reduction("long", step=lambda xp, rows: {"long": (rows["input_tokens"] > 800).sum()})
    found = sg.monte_carlo(pool, rate=4, duration="2m", replicas=5, metrics=[longest, "requests", long, of_trace])
    assert found.metrics == ("longest", "requests", "long", "first_us", "mean_input")
    assert found.table["requests"].tolist() == study.table["requests"][:5].tolist()
    trace = sg.generate(pool, rate=4, duration="2m", counts="renewal", replica=4)
    expected = [trace["input_tokens"].max(), len(trace), (trace["input_tokens"] > 800).sum(), trace["arrival_us"][0]]
    assert found.table.loc[4, list(found.metrics[:4])].tolist() == expected
    reduced = sg.monte_carlo(pool, rate=4, duration="2m", replicas=5, metrics=long)
    assert reduced.table["long"].equals(found.table["long"])


def test_draws_of_parameters(pool: sg.ClientPool):
    """Every parameter has values of its own, in its range, and a draw's replicas are those of its pool and rate."""
    one = sg.monte_carlo(pool, **HOW, vary={"rate": (0.5, 2.0, "log")}, draws=12, replicas=2)
    both = sg.monte_carlo(pool, **HOW, vary=["burstiness=0.5:1", "rate=0.5:2:log"], draws=12, replicas=2)
    assert one.parameters == ("rate",)
    assert both.parameters == ("rate", "burstiness")
    assert one.table["rate"].equals(both.table["rate"])
    assert both.table["rate"].between(0.5, 2).all()
    assert both.table["burstiness"].between(0.5, 1).all()
    assert both.table["rate"].nunique() == both.table["burstiness"].nunique() == 12
    row = one.table.loc[7]
    assert (row["draw"], row["replica"]) == (3, 3 * REPLICAS_OF_A_DRAW + 1)
    trace = sg.generate(pool, rate=4 * row["rate"], duration="2m", counts="renewal", replica=int(row["replica"]))
    assert row["requests"] == len(trace)
    # the place of the rate in its range, on a log scale, is uniform
    source = monte_carlo.Source(pool, 4, {"duration": "2m"}, {}, (Parameter("rate", 0.5, 2.0, "log"),), 0)
    places = [math.log2(source.values(draw)["rate"]) / 2 + 0.5 for draw in range(2000)]
    assert [source.values(draw)["rate"] for draw in range(12)] == one.table["rate"].unique().tolist()
    gates.check(float(stats.kstest(places, "uniform").pvalue), "values of a parameter")


def test_shares_of_the_variance_and_parameters_as_controls(pool: sg.ClientPool):
    found = sg.monte_carlo(pool, **HOW, vary="rate=0.5:2", draws=40, replicas=3).summary()
    row = found.loc["requests"]
    assert 0.8 < row["parameter_share_low"] < row["parameter_share"] < row["parameter_share_high"] <= 1
    assert row["variance_reduction"] > 0.8
    assert row["controlled_low"] < 4 * 1.25 * 120 < row["controlled_high"]
    calm = sg.monte_carlo(pool, **HOW, vary="rate=1:1", draws=20, replicas=3).summary()
    assert calm.loc["requests", "parameter_share_low"] == 0.0


def expectations() -> dict[str, sg.ClientPool]:
    language = sg.population("m-small", clients=30)
    images = sg.population("mm-image", clients=20)
    return {
        "schedule": language,
        "environment": language.with_environment(sg.Environment(sg.Margin.gamma(variance=0.3), octaves={2: 1})),
        "images": images,
    }


@pytest.mark.statistical
def test_expected_totals_are_those_of_replicas(monkeypatch: pytest.MonkeyPatch, pool: sg.ClientPool):
    """Mean deviations from them, in their standard errors; as a planted defect expectations that are 2 % off."""

    def worst(study: Study) -> float:
        found = [study.table[name].to_numpy() for name in study.controls]
        z = [abs(x.mean()) / x.std(ddof=1) * math.sqrt(len(x)) for x in found]
        return float(2 * stats.norm.sf(max(z)) * len(z))

    asked = {"duration": "5m", "start": "1234s", "replicas": 150}
    names = ("requests_peak_10s", "input_tokens_peak_10s", "output_tokens_peak_10s")
    rates: dict[str, Any] = {"schedule": {1200: 5, 1300: 30, 1400: 10}}
    for name, clients in expectations().items():
        found = sg.monte_carlo(clients, rates.get(name, 10), **asked, metrics=names)
        assert found.controls[0] == "control_requests"
        gates.check(worst(found), f"expected totals, {name}")
    own = {"duration": "10m", "replicas": 400, "metrics": names}
    found = sg.monte_carlo(pool, {0: 5, 100: 20, 400: 10}, **own)
    assert found.controls == ("control_requests", "control_input_tokens", "control_output_tokens")
    gates.check(worst(found), "expected totals of tokens")

    def off(packed: Any) -> dict[str, float]:
        return {name: 1.02 * total for name, total in expected_totals(packed).items()}

    monkeypatch.setattr(monte_carlo.Source, "expected", lambda self, packed: off(packed))
    assert not gates.passes(worst(sg.monte_carlo(pool, {0: 5, 100: 20, 400: 10}, **own)))


def test_totals_that_are_not_known_are_no_controls(pool: sg.ClientPool):
    def controls_of(clients: sg.ClientPool = pool, **keywords: Any) -> list[str]:
        study = sg.monte_carlo(clients, rate=4, duration="1m", replicas=2, metrics=METRICS, **keywords)
        return [name.removeprefix(controls.PREFIX) for name in study.controls]

    assert controls_of() == ["requests", "output_tokens"]
    assert controls_of(max_output=100) == ["requests"]
    assert controls_of(max_output=100, over="drop") == []
    assert controls_of(counts="servegen") == []
    assert controls_of(pool.with_conversations(TURNS["sorted"])) == []  # turns come later than conversations begin


@pytest.mark.parametrize("bin_s", [10, 0.125])
def test_the_load_over_time(pool: sg.ClientPool, bin_s: float):
    """Quantiles by bin, and by two bins where there would be more than 720; whether or not replicas are new."""
    found = sg.monte_carlo(pool, 4, "2m", 9, [f"requests_peak_{bin_s}s", "output_tokens_peak_60s"])
    bins = found.settings["bins"]
    width_us = 10_000_000 if bin_s == 10 else 250_000
    assert (bins["bin_s"], bins["replicas"], list(bins["loads"])) == (width_us / 1e6, 9, ["requests"])
    traces = [sg.generate(pool, rate=4, duration="2m", counts="renewal", replica=replica) for replica in range(9)]
    counts = [np.bincount(trace["arrival_us"] // width_us, minlength=120_000_000 // width_us) for trace in traces]
    expected = np.quantile(counts, bins["quantiles"], axis=0)
    np.testing.assert_allclose(bins["loads"]["requests"], expected, atol=0.005)


def test_pairs_of_studies_with_the_same_numbers(pool: sg.ClientPool, study: Study):
    faster = sg.monte_carlo(pool, **(HOW | {"rate": 5}), replicas=80)
    found = faster.against(study)
    assert found.index.tolist() == list(METRICS)
    difference = faster.table["requests"][:60].to_numpy() - study.table["requests"].to_numpy()
    row = found.loc["requests"]
    assert (row["pairs"], row["difference"]) == (60, pytest.approx(difference.mean()))
    low, high = stats.t.interval(0.95, 59, difference.mean(), stats.sem(difference))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
    apart = faster.table["requests"][:60].var() + study.table["requests"].var()
    assert row["variance_reduction"] == pytest.approx(1 - difference.var(ddof=1) / apart)
    assert row["variance_reduction"] > 0.7
    correlation = np.corrcoef(faster.table["requests"][:60], study.table["requests"])[0, 1]
    assert row["correlation"] == pytest.approx(correlation)
    other = sg.monte_carlo(pool, **HOW, replicas=3, seed=1)
    with pytest.raises(OptionError, match=r"studies of one seed, .* got seeds 0 and 1"):
        study.against(other)
    with pytest.raises(OptionError, match=r"metrics in common, got requests, .* and rate_rps"):
        study.against(sg.monte_carlo(pool, rate=4, duration="1m", replicas=3, metrics="rate_rps"))


def test_pairs_of_draws(pool: sg.ClientPool):
    one, other = (
        sg.monte_carlo(pool, **(HOW | {"rate": rate}), vary="burstiness=0.5:2", draws=10, replicas=2) for rate in (4, 5)
    )
    assert other.against(one).loc["requests", "pairs"] == 10
    later = Study(one.table[one.table["draw"] > 5], one.settings)
    assert other.against(later).loc["requests", "pairs"] == 4
    with pytest.raises(OptionError, match="replicas in common"):
        Study(one.table[one.table["draw"] < 5], one.settings).against(later)


def test_a_study_stops_when_it_is_known_enough(pool: sg.ClientPool, tmp_path: Path):
    path = tmp_path / "s.parquet"
    rules = ["requests:3%", "requests_peak_10s<=1000@90%"]
    found = sg.monte_carlo(pool, **HOW, until=rules, path=path)
    assert 50 < len(found) < 1000
    verdicts = found.verdicts()
    assert [verdict.met for verdict in verdicts] == [True, True]
    assert verdicts[1].answer == "yes"
    row = found.summary().loc["requests"]
    assert (row["mean_high"] - row["mean_low"]) / 2 <= 0.03 * row["mean"]
    assert (row["mean_low"], row["mean_high"]) == pytest.approx(verdicts[0].interval[1:])
    # one replica fewer was not enough, and the same study again, from its file, is the same
    shorter = sg.monte_carlo(pool, **HOW, replicas=len(found) - 1, until=rules)
    assert [verdict.met for verdict in shorter.verdicts()] != [True, True]
    again = sg.monte_carlo(pool, **HOW, until=rules, path=path)
    pd.testing.assert_frame_equal(again.table, found.table)
    by_draws = sg.monte_carlo(pool, **HOW, until="requests:9%", vary="rate=0.8:1.2", replicas=2)
    assert by_draws.table["draw"].nunique() * 2 == len(by_draws) < 1000


def test_figures_without_a_value_are_left_out(pool: sg.ClientPool):
    values = iter([1.0, math.nan, 3.0, math.inf])

    def sometimes(trace: sg.Trace) -> float:
        return next(values)

    row = sg.monte_carlo(pool, duration="1m", replicas=4, metrics=sometimes).summary().loc["sometimes"]
    assert (row["replicas"], row["mean"]) == (2, 2.0)


@pytest.mark.parametrize("vary", [{}, {"p": [0, 1, "linear"]}])
def test_infinite_figures_count(vary: dict[str, Any]):
    """Replicas that no number of instances serves: 30 of 400 are more than 5 %."""
    numbers = np.where(np.arange(400) % 40 < 3, np.inf, 7.0)
    table = pd.DataFrame({"draw": np.arange(400) // 4, "replica": np.arange(400), "p": 0.5, "instances": numbers})
    settings = {"metrics": ["instances"], "replicas": 4, "vary": vary}
    study = Study(table if vary else table.drop(columns="p"), settings)
    row = study.summary().loc["instances"]
    assert (row["replicas"], row["mean"], row["p90"], row["p95"], row["p99"]) == (400, np.inf, 7, np.inf, np.inf)
    assert (row["mean_low"], row["mean_high"], row["p50_high"]) == (-np.inf, np.inf, 7)
    assert row[["sd", "controlled", "variance_reduction"]].isna().all()
    until = Study(study.table, settings | {"until": ["1%"]})
    assert not until.verdicts()[0].met
    json.dumps(until.to_dict(), allow_nan=False)
    assert "instances" in str(until)


def test_a_study_in_words(study: Study, pool: sg.ClientPool):
    text = str(study)
    assert text.startswith("custom: 60 replicas of 120 s at 4 req/s, seed 0\n")
    assert "95 %: 72, 99 %: 368" in text
    assert "requests 100.0%" in text
    assert max(map(len, text.splitlines())) < 160
    assert repr(study) == "<Study of custom: 60 replicas of requests, requests_peak_10s, output_tokens_peak_10s>"
    varied = str(sg.monte_carlo(pool, **HOW, vary="rate=0.5:2:log", draws=4, replicas=2, until="1%"))
    assert "8 replicas in 4 draws of 120 s at 4 req/s, seed 0; rate 0.5 to 2 (log)" in varied
    assert "Share of the variance that is of parameters" in varied
    one_bin = sg.monte_carlo(pool, **HOW | {"metrics": ["requests_idc_120s", "requests"]}, replicas=2)
    assert "No replica has a value of requests_idc_120s: " in str(one_bin)
    assert "No replica" not in text
    assert "mean of requests to ±1 %: no" in varied
    assert "assume" not in text
    served = sg.monte_carlo(pool, **HOW | {"metrics": ["instances", "requests"]}, replicas=1)
    words = " ".join(str(served).split())
    assert "Figures of service assume one instance of a server (step_s 0.012, " in words
    assert "instances are counted that hold a P99 of TTFT within 2 s." in words


BAD: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 0}, "replicas of at least 1, got 0"),
    ({"replicas": -1}, "replicas as an integer"),
    ({"replicas": 2.5}, "replicas as an integer"),
    ({"draws": 5}, "draws of parameters that vary, got 5 draws and no vary"),
    ({"draws": 0, "vary": "rate=1:2"}, "draws of at least 1"),
    ({"metrics": "peak"}, "a figure among .*, got 'peak'"),
    ({"metrics": []}, "one metric or more"),
    ({"metrics": ["requests", "requests"]}, "every metric once"),
    ({"metrics": [3]}, "names of metrics"),
    ({"metrics": "requests_peak_600s"}, "bins of 600 s"),
    ({"metrics": lambda trace: "many"}, "a number, or numbers by name"),
    ({"metrics": lambda trace: {"draw": 1}}, "names of their own, got 'draw' twice"),
    ({"metrics": ["requests", lambda trace: {"requests": 1}]}, "names of their own"),
    ({"vary": "rate=2:1"}, "from its smaller to its larger"),
    ({"vary": "speed=1:2"}, "a parameter among .*'speed'"),
    ({"vary": ["rate=1:2", "rate=1:3"]}, "every parameter once"),
    ({"until": "soon"}, "until as 1%"),
    ({"until": "tokens:1%"}, "until about requests"),
    ({"confidence": 1}, "confidence above 0"),
    ({"confidence": True}, "confidence above 0"),
    ({"replica": 3}, "without requests, replica, shard and device, got replica"),
    ({"requests": 3}, "without requests"),
    ({"seed": -1}, "seed as an integer"),
    ({"duration": "soon"}, "duration"),
    ({"rate": 1, "scale": 2}, "at most one of rate, scale"),
    ({"threads": 0}, "threads"),
    ({"assumed": sg.Assumed()}, "a metric of service"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(pool: sg.ClientPool, changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(sg.ServeGenError, match=message):
        sg.monte_carlo(pool, **({"duration": "1m", "replicas": 2} | changes), path=tmp_path / "s.parquet")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_pool(study: Study):
    with pytest.raises(OptionError, match=r"a pool, the name of a workload, or the path of .*, got 5"):
        sg.monte_carlo(5, duration="1m")  # type: ignore[arg-type]


WORKLOAD = ["m-small", "--clients", "20", "--rate", "5", "--duration", "1m"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = str(tmp_path / "s.parquet")
    command = ["montecarlo", *WORKLOAD, "--metrics", "requests,requests_peak_10s", "-o", path]
    assert main([*command, "--replicas", "5"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("m-small: 5 replicas of 60 s at 5 req/s, seed 0")
    assert main([*command, "--replicas", "8", "--json", "--against", path]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replicas"] == 8
    assert found["settings"]["metrics"] == ["requests", "requests_peak_10s"]
    assert found["summary"]["requests"]["p99_high"] is None
    assert found["against"]["requests"]["difference"] == 0.0
    pool = sg.population("m-small", clients=20)
    alike = sg.monte_carlo(pool, rate=5, duration="1m", replicas=8, metrics=["requests", "requests_peak_10s"])
    pd.testing.assert_frame_equal(Study.read(path).table, alike.table)
    varied = ["--vary", "rate=0.8:1.2", "--vary", "burstiness=0.5:2:log", "--draws", "3", "--until", "50%"]
    assert main(["montecarlo", *WORKLOAD, *varied, "--replicas", "2", "--against", path]) == 0
    printed = capsys.readouterr()
    assert "rate 0.8 to 1.2, burstiness 0.5 to 2 (log)" in printed.out
    assert "less variance by pairing" in printed.out
    assert main(["montecarlo", *WORKLOAD, "--naive", "poisson", "--replicas", "2", "--quiet"]) == 0
    capsys.readouterr()
    served = [*WORKLOAD, "--replicas", "1", "--metrics", "instances", "--at", "p90", "--json"]
    assert main(["montecarlo", *served]) == 0
    objective = json.loads(capsys.readouterr().out)["settings"]["assumed"]["objective"]
    assert objective == {"ttft_s": 2.0, "tbt_s": None, "level": 0.9}  # the quantile alone counts, too
    talking = ["montecarlo", "deepseek-r1", *WORKLOAD[1:], "--replicas", "1"]
    for quiet, notes in (([], 1), (["--quiet"], 0)):
        assert main([*talking, *quiet]) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count("note: ") == printed.err.count("note: ") == notes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "peak"], "a figure among"),
        (["--seed", "1"], "seed 0 there, 1 here"),
        (["-o", "s.csv"], "ends in .parquet"),
        (["--against", "none.parquet"], "a study that this package wrote"),
        (["--against", "s.parquet", "--metrics", "rate_rps"], "metrics in common"),
        (["--against", "s.parquet", "--seed", "1"], "studies of one seed"),
    ],
)
def test_a_command_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    command = ["montecarlo", *WORKLOAD, "--replicas", "2", "-o", "s.parquet"]
    assert main(command) == 0
    before = Path("s.parquet").read_bytes()
    capsys.readouterr()
    assert main([*command, *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("s.parquet", before)]


def test_a_command_that_is_interrupted_goes_on(tmp_path: Path):
    path = tmp_path / "s.parquet"
    command = [sys.executable, "-m", "servegen_gpu", "montecarlo", *WORKLOAD, "--metrics", "requests"]
    command += ["--replicas", "100000000", "-o", path]
    code = f"""import sys
from servegen_gpu.cli import main
import servegen_gpu.studies.monte_carlo as m
m.SAVE_EVERY_S = 0.05
sys.argv = {[str(part) for part in command[2:]]!r}
print("begun", flush=True)
sys.exit(main())"""
    with children.started([sys.executable, "-c", code, "x"], stdout=-1, stderr=-1) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        while not path.exists():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate()
    assert child.returncode == 130, errors
    done = len(Study.read(path))
    assert f"interrupted; {done:,} of" in errors
    assert "run the same command to go on" in errors
    assert f"m-small: {done:,} replicas" in printed
