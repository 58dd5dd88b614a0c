"""Logs that a fit must be honest about: too little, odd, thinned; and what it promises of every pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.fit import fit, fit_with_report
from servegen_gpu.request.families import EXPONENTIAL

HOUR_US = 3_600_000_000
WEEK_US = 168 * HOUR_US


def log_of(us: Any, inputs: Any = None, outputs: Any = None, **columns: Any) -> sg.Trace:
    """A log of given times; lengths are random unless given."""
    rng, n = np.random.default_rng(len(us)), len(us)
    inputs = rng.integers(1, 3000, n) if inputs is None else np.broadcast_to(inputs, n)
    outputs = rng.integers(1, 600, n) if outputs is None else np.broadcast_to(outputs, n)
    more = {name: np.asarray(column) for name, column in columns.items()}
    lengths = {"input_tokens": inputs.astype(np.int32), "output_tokens": outputs.astype(np.int32)}
    return sg.Trace({"arrival_us": np.asarray(us, np.int64), **more, **lengths})


def at_random(n: int, seed: int = 0, span_us: int = 2 * HOUR_US) -> np.ndarray:
    """Times of a Poisson process."""
    return np.sort(np.random.default_rng(seed).integers(0, span_us, n))


def without_ids(trace: sg.Trace) -> sg.Trace:
    return sg.Trace({name: c for name, c in trace.columns.items() if name != "client"}, trace.provenance)


def thinned(trace: sg.Trace, to: int, seed: int = 0) -> sg.Trace:
    """Requests of the trace, so many of them at random."""
    kept = np.sort(np.random.default_rng(seed).choice(len(trace), to, replace=False))
    return sg.Trace({name: c[kept] for name, c in trace.columns.items()})


# -- the ladder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("us", [[], [5], [5, 5, 5]])
def test_too_little_to_say_anything(us: list[int]):
    with pytest.raises(OptionError, match=r"at least 2 requests at different times \(250") as raised:
        fit(log_of(us))
    assert f"{len(us)} request" in raised.value.got


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("requests", "step"), [(249, "mean rate"), (1000, ""), (10_000, "")])
def test_thinned_logs_take_the_step_that_they_carry(requests: int, step: str, named: bool):
    pool = sg.population("m-small", clients=40).with_conversations(None)
    trace = thinned(sg.generate(pool, rate=2, duration="6h", seed=2), requests)
    made, report = fit_with_report(trace if named else without_ids(trace))
    assert report.step == (step or ("ids" if named else "latent clients"))
    if requests < 250:
        assert (len(made), made.rate_rps.shape[0], report.window_weight) == (1, 1, 0)
        assert np.ptp(made.rate_rps) == 0
        assert (made.family == EXPONENTIAL).all()
        assert (report.environment, report.sessions["found by"]) == (None, "none")
        assert any("249 requests are few" in note for note in report.notes)
    else:
        assert len(made) == (len(np.unique(trace["client"])) if named else report.profiles)
        assert report.profiles <= (requests // 100 if not named else 40)
    again = sg.generate(made, duration=report.span_s, seed=1)
    assert len(again) == pytest.approx(requests, abs=8 * np.sqrt(requests))


def test_who_sends_may_be_said():
    trace = sg.generate(tiny_pool(rate_rps=1.0), duration="1h", seed=1)
    assert fit_with_report(trace, clients="ids")[1].step == "ids"
    assert fit_with_report(trace, clients="one")[1].step == "one client"
    assert fit_with_report(trace, clients="latent")[1].step == "latent clients"
    with pytest.raises(OptionError, match="names several clients"):
        fit(without_ids(trace), clients="ids")
    for wrong in ({"clients": "some"}, {"counts": "exact"}, {"lengths_as": "normal"}):
        with pytest.raises(OptionError, match="among"):
            fit(trace, **wrong)


# -- odd logs ----------------------------------------------------------------------------------------------------------

ODD = {
    "one second": (log_of(at_random(500, 1, 900_000)), "All requests lie within"),
    "constant gaps": (log_of(np.arange(5000) * 2_000_000), "All gaps are 2 s"),
    "equal lengths": (log_of(at_random(5000), 100, 10), "All input_tokens are 100"),
    "equal lengths, ids": (log_of(at_random(5000), 100, 10, client=np.arange(5000) % 9), "All output_tokens are 10"),
    "no answers": (log_of(at_random(5000), None, 0), "All output_tokens are 0"),
    "a gap of a week": (
        log_of(np.concatenate((at_random(3000), WEEK_US + at_random(3000)))),
        "silence of 6.92 days",
    ),
    "one request each": (log_of(at_random(50_000), client=np.random.default_rng(0).permutation(50_000)), "fewer than"),
    "ids that change meaning": (
        log_of(at_random(6000), np.where(np.arange(6000) < 3000, 100, 5000), client=np.arange(6000) % 4),
        "may have changed meaning",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_logs_have_a_note_and_a_pool(name: str):
    trace, word = ODD[name]
    pool, report = fit_with_report(trace)
    assert sum(word in note for note in report.notes) == 1, report.notes
    assert report.environment is None
    again = sg.generate(pool, duration=max(report.span_s, 1.0), seed=1)
    assert len(again) == pytest.approx(len(trace) * max(1, 1 / report.span_s), rel=0.15)
    for column in ("input_tokens", "output_tokens"):
        assert set(np.unique(again[column])) <= set(np.unique(trace[column]))


def test_a_gap_of_a_week_is_silent_and_does_not_look_bursty():
    us = np.concatenate((at_random(9000), WEEK_US + at_random(9000, 1)))
    trace = log_of(us, client=np.random.default_rng(2).integers(0, 9, len(us)))
    for log in (trace, without_ids(trace)):
        pool, report = fit_with_report(log)
        assert report.window_weight > 0.95  # of clients, each of which has fewer requests than all have
        again = sg.generate(pool, duration=report.span_s, seed=1)["arrival_us"]
        silent = (again > 3 * HOUR_US) & (again < WEEK_US - HOUR_US)
        assert silent.mean() < 0.02
        assert report.families == {"Exponential": len(pool)}


def test_clients_by_the_clock_have_even_gaps():
    trace = log_of(np.arange(5000) * 2_000_000)
    for options in ({}, {"clients": "one"}):
        pool = fit(trace, **options)
        again = sg.generate(pool, duration="2h", seed=1)
        gap = np.diff(again["arrival_us"])
        assert gap.std() / gap.mean() < 0.2


def test_fields_that_do_not_vary_do_not():
    for client in (None, np.arange(5000) % 9):
        named = {} if client is None else {"client": client}
        again = sg.generate(fit(log_of(at_random(5000), 100, 10, **named)), duration="1h", seed=1)
        assert set(again["input_tokens"].tolist()) == {100}
        assert set(again["output_tokens"].tolist()) == {10}


# -- what a fit promises -----------------------------------------------------------------------------------------------


CATEGORIES = {"language": "m-small", "reason": "deepseek-r1", "multimodal": "mm-image"}


def trace_of(category: str = "language", clients: int = 12) -> sg.Trace:
    pool = sg.population(CATEGORIES[category], clients=clients).with_conversations(None)
    return sg.generate(pool, rate=1.5, duration="4h", seed=5)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_same_log_gives_the_same_pool(category: str):
    trace = trace_of(category)
    pool = fit(trace)
    assert pool.category == category
    assert fit(trace).digest() == pool.digest()
    later = sg.Trace(trace.columns | {"arrival_us": trace["arrival_us"] + 7 * HOUR_US})
    assert np.allclose(fit(later).rate_rps.mean(axis=1), pool.rate_rps.mean(axis=1), rtol=0.01)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("category", CATEGORIES)
def test_lengths_of_every_category_are_those_of_the_log(category: str, named: bool):
    trace = trace_of(category) if named else without_ids(trace_of(category))
    pool, report = fit_with_report(trace)
    assert all(one["ks"] < 1e-6 for one in report.lengths)
    again = [sg.generate(pool, duration="4h", seed=seed) for seed in range(4)]
    assert set(again[0].columns) >= set(trace.columns)
    for name in trace.columns:
        if name.endswith("_tokens"):
            values, *made = (column_of(t, name) for t in (trace, *again))
            assert np.mean([m.mean() for m in made]) == pytest.approx(values.mean(), rel=0.05)


def column_of(trace: sg.Trace, name: str) -> np.ndarray:
    column = trace[name]
    return column.sums() if isinstance(column, sg.Ragged) else column


def test_ids_are_kept_or_numbered():
    trace = sg.generate(tiny_pool(ids=(7, 3_000, 2**30), rate_rps=1.0), duration="2h", seed=1)
    assert fit(trace).client_ids.tolist() == [0, 1, 2]
    assert fit(trace, keep_ids=True).client_ids.tolist() == [7, 3_000, 2**30]


@pytest.mark.parametrize("least", [2, 25, 400])
def test_min_count_leaves_nothing_that_fewer_stand_behind(least: int):
    """In terms of the pool; see test_privacy.py for the steps."""
    trace = trace_of(clients=40)
    pool, report = fit_with_report(trace, min_count=least)
    assert report.suppressed["least"] == least
    assert report.suppressed["bins_after"] < report.suppressed["bins_before"]
    assert any(f"at least {least:,} requests stand behind" in note for note in report.notes)
    behind = np.bincount(pool.profile, pool.rate_factor, len(pool.rate_rps)) * pool.rate_rps.sum(axis=1) * 600
    assert behind.sum() == pytest.approx(len(trace), rel=0.02)
    for lane, field in enumerate(("input_tokens", "output_tokens")):
        row = pool.table[:, :, lane].max(axis=1)
        of_table = np.bincount(row, behind, len(pool.tables))
        mass = pool.tables.widths() / 2**32 * np.repeat(of_table, np.diff(pool.tables.offsets))
        assert mass[mass > 0].min() > 0.95 * least - 0.05
        values = pool.tables.values[mass > 0]
        assert trace[field].min() <= values.min()
        assert values.max() <= np.sort(trace[field])[-least:].mean() + 1
    with pytest.raises(OptionError, match="at least 1,000,000 requests"):
        fit(trace, min_count=1_000_000)
    with pytest.raises(OptionError, match="keep_ids"):
        fit(trace, min_count=2, keep_ids=True)


def test_measured_counts_are_those_of_the_log():
    trace = sg.generate(tiny_pool(rate_rps=1.0), duration="4h", seed=1)
    pool, report = fit_with_report(trace, counts="measured", keep_ids=True)
    assert report.window_weight == 1
    again = sg.generate(pool, duration="4h", seed=2)
    counts = [np.bincount(t["client"] * 24 + t["arrival_us"] // 600_000_000, minlength=72) for t in (trace, again)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_measured_counts_of_a_log_that_ends_inside_a_window():
    """The 400 s that it covers have their own rate: as a count of 600 s, it would be a third too small."""
    trace = sg.generate(tiny_pool(rate_rps=10.0), duration="7000s", seed=1)
    pool = fit(trace, counts="measured", keep_ids=True)
    traces = (trace, *(sg.generate(pool, duration="7000s", seed=seed) for seed in range(5)))
    ends = [(t["arrival_us"] >= 6_600_000_000).sum() for t in traces]
    assert np.mean(ends[1:]) == pytest.approx(ends[0], rel=0.1)  # a standard error is 1 %


@pytest.mark.parametrize(
    ("conversation", "turn"),
    [
        (np.zeros(600), np.arange(1, 601)),
        (np.zeros(600), np.arange(5, 605)),
        (np.arange(600) % 2, np.arange(600) // 2 + 1),
        (np.arange(600), np.full(600, 3)),
    ],
    ids=["one", "one from before the log", "two", "one turn each"],
)
def test_conversations_that_tell_nothing_are_requests_like_others(conversation: np.ndarray, turn: np.ndarray):
    columns = {"conversation": conversation.astype(np.int64), "turn": turn.astype(np.int32)}
    trace = log_of(at_random(600), **columns)
    pool, report = fit_with_report(trace)
    assert not pool.turn_models
    assert any("requests like others" in note for note in report.notes) == (len(np.unique(conversation)) < 600)
    counts = [len(sg.generate(pool, duration="2h", seed=seed)) for seed in range(20)]
    assert np.mean(counts) == pytest.approx(600, abs=5 * (600 / 20) ** 0.5)


@pytest.mark.parametrize(("form", "most"), [("counts", 1e-6), ("knots", 0.02), ("parametric", 0.1), ("auto", 0.1)])
def test_forms_of_lengths(form: Any, most: float):
    rng = np.random.default_rng(3)
    inputs = np.ceil(rng.lognormal(6, 1, 20_000))
    trace = log_of(at_random(20_000), inputs, np.ceil(rng.exponential(200, 20_000)))
    report = fit_with_report(trace, lengths_as=form)[1]
    assert {one["ks"] <= most for one in report.lengths} == {True}
    wanted = ["parametric", "exponential"] if form == "auto" else [form, form]
    assert [one["form"] for one in report.lengths] == wanted


def test_a_pool_like_any_other():
    pool = fit(trace_of())
    rate = len(sg.generate(pool, duration="4h", seed=1)) / 14_400
    assert len(sg.generate(pool, rate=3 * rate, duration="4h", seed=1)) == pytest.approx(43_200 * rate, rel=0.05)
    assert len(sg.resample(pool, 50, seed=1)) == 50
    assert len(sg.join([pool, pool])) == 2 * len(pool)
    assert len(pool.top(3)) == 3
    assert pool.rescaled(2.0).total_rps[0] == pytest.approx(2 * pool.total_rps[0])
    assert (sg.generate(pool, duration="1d", seed=1)["arrival_us"] > 5 * HOUR_US).any()


# -- the command -------------------------------------------------------------------------------------------------------


def _log_file(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = (f"{0.5 * i + 0.1 * (i % 3)},sk-{i % 3},{100 + i % 7},{10 + i % 5}" for i in range(900))
    path.write_text("time_s,api_key,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    "wrong",
    [["--holdout", "0"], ["--holdout", "nan"], ["--holdout", "0.5", "--replicas", "0"], ["--min-count", "901"]],
    ids=" ".join,
)
def test_wrong_options_write_nothing(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine"
    assert main(["fit", str(_log_file(tmp_path)), "-o", str(target), *wrong]) == 2
    assert wrong[-2] in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("command", ["fit", "save"])
def test_a_profile_does_not_go_to_standard_output(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, str(_log_file(tmp_path)) if command == "fit" else "m-small", "-o", "-"]) == 2
    assert not Path("-").exists()


def test_json_of_a_fit_and_what_was_held_out_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["-o", str(tmp_path / "mine"), "--holdout", "0.5", "--replicas", "1", "--json"]
    assert main(["fit", str(_log_file(tmp_path)), *more]) == 0
    both = json.loads(capsys.readouterr().out)
    assert set(both) == {"fit", "holdout"}
    assert both["fit"]["clients"] == 3, "keys of an API name clients"


def test_reported_rates_are_those_of_clients_that_change_where_their_sum_does_not() -> None:
    us = at_random(20_000)
    late = us > us.mean()
    swapped = np.where(np.arange(len(us)) % 10 < 9, late, ~late)
    _, report = fit_with_report(log_of(us, client=swapped.astype(np.int32)))
    assert report.window_weight > 0.9
    assert "as counted" in str(report)
