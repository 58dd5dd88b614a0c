"""Models of conversations from logs that end before their conversations do, against those that made the logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu import Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.fitting import begun, follow_ups
from servegen_gpu.fitting.turns import model_of

MODELS = {
    "sorted": TurnModel(0.5, turns=d.Pmf([2, 3, 7], [3, 2, 1]), gap_s=d.Exponential(60), session_s=900),
    "long tail": TurnModel(
        0.3, turns=d.Pmf([2, 3, 5, 10], [3, 2, 2, 1]), gap_s=d.LogNormal(median=60, sigma=1.2), session_s=1800
    ),
    "history": TurnModel(
        0.6,
        turns=d.Zipf(2.2, min=2, max=60),
        gap_s=d.LogNormal(median=30, sigma=1),
        growth="history",
        new_tokens=d.Exponential(60),
        session_s=1500,
    ),
    "edit": TurnModel(
        0.6,
        turns=d.Pmf([2, 4], [1, 1]),
        gap_s=d.LogNormal(median=30, sigma=1),
        growth="edit",
        new_tokens=d.Pmf([0, 1, 5], [2, 2, 1]),
        session_s=900,
    ),
}
GROWTH = {"sorted": "sorted", "long tail": "sorted", "history": "history", "edit": "edit"}
SEEDS = 4
SHARE, TURNS = 0.03, 0.06
"""Largest errors of means over the seeds: share of the requests, and mean turns as a share of the true ones.

Their standard errors were measured over 8 seeds of logs of twice the longest session: up to 0.008 and 0.02.
"""


def log_of(model: TurnModel, sessions: float, seed: int, rate: float = 3.0) -> Trace:
    """A log of a multiple of the longest session, with conversations that began before it."""
    pool = sg.pool([sg.client(rate=rate, input_tokens=d.LogNormal(median=200, sigma=1), output_tokens=50)])
    return sg.generate(pool.with_conversations(model), duration=sessions * model.session_s, seed=seed)


def numbered(trace: Trace) -> Trace:
    """The log with turns numbered from the first one in it, as logs of others are read."""
    order = np.argsort(trace["conversation"], kind="stable")
    grouped = trace["conversation"][order]
    turn = np.empty(len(trace), np.int32)
    turn[order] = np.arange(len(trace)) - np.searchsorted(grouped, grouped) + 1
    return Trace(trace.columns | {"turn": turn})


def errors(name: str, sessions: float, as_read: bool = False) -> tuple[float, float]:
    """Of share and mean turns, over all seeds."""
    model, found = MODELS[name], []
    for seed in range(SEEDS):
        log = log_of(model, sessions, seed)
        fitted, facts = model_of(numbered(log) if as_read else log)
        assert fitted is not None
        assert facts.growth == fitted.growth == GROWTH[name]
        found.append((fitted.share, fitted.mean_turns))
    share, mean = np.mean(found, axis=0)
    return abs(share - model.share), abs(mean / model.mean_turns - 1)


@pytest.mark.parametrize("as_read", [False, True], ids=["true numbers", "numbered as seen"])
@pytest.mark.parametrize("name", MODELS)
def test_twice_the_longest_session_is_enough(name: str, as_read: bool) -> None:
    share, mean = errors(name, 2, as_read)
    assert share < SHARE
    assert mean < TURNS


def test_what_comes_after_the_end_must_be_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of half the longest session: what is not seen is not taken as if it never came."""
    share, mean = errors("long tail", 0.5)
    assert share < 2 * SHARE
    assert mean < 2 * TURNS
    right = follow_ups._settled
    monkeypatch.setattr(follow_ups, "_settled", lambda *given: right(*given[:3], given[3] * 0))
    share, mean = errors("long tail", 0.5)
    assert mean > 2 * TURNS


def test_what_began_before_the_log_must_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    share, _ = errors("long tail", 1, as_read=True)
    assert share < 0.012
    monkeypatch.setattr(begun, "MOST_WAIT", 0.0)
    share, _ = errors("long tail", 1, as_read=True)
    assert share > 0.012


@pytest.mark.parametrize("name", ["history", "edit"])
def test_new_tokens_are_fitted(name: str) -> None:
    model = MODELS[name]
    fitted = sg.fit_turns(log_of(model, 4, 1), session_s=None, growth="auto")
    assert fitted.new_tokens is not None
    mean = {"history": 60.0, "edit": 1.4}[name]
    values, weights = (np.asarray(part) for part in (fitted.new_tokens.values, fitted.new_tokens.weights))  # type: ignore[attr-defined]
    assert float(values @ weights / weights.sum()) == pytest.approx(mean, rel=0.08)
    gaps = np.asarray(fitted.gap_s.edges)  # type: ignore[attr-defined]
    assert 15 < np.median(gaps) < 60


@pytest.mark.parametrize("growth", ["sorted", "history", "edit"])
def test_a_stated_growth_is_kept(growth: Any) -> None:
    assert sg.fit_turns(log_of(MODELS["sorted"], 2, 1), session_s=900, growth=growth).growth == growth


def test_few_conversations_have_few_parameters() -> None:
    log = log_of(MODELS["sorted"], 2, 3, rate=0.08)
    model, facts = model_of(log)
    assert model is not None
    assert 5 < facts.conversations < follow_ups.FEW
    assert isinstance(model.gap_s, d.LogNormal)
    assert any("geometric" in note for note in facts.notes)
    values, weights = (np.asarray(part) for part in (model.turns.values, model.turns.weights))  # type: ignore[attr-defined]
    going_on = weights[1:] / weights[:-1]
    assert np.ptp(going_on[:-1]) < 1e-9
    assert values[0] == 2
    assert 2 < model.mean_turns < 6


def test_no_conversation_makes_no_model() -> None:
    pool = sg.pool([sg.client(rate=1, input_tokens=100, output_tokens=50)])
    trace = sg.generate(pool.with_conversations(MODELS["sorted"]), duration=600)
    single = trace.where(trace["conversation"] < 0)
    model, facts = model_of(single)
    assert model is None
    assert facts.conversations == 0
    with pytest.raises(sg.OptionError, match="give a trace with conversations"):
        sg.fit_turns(single, session_s=None)


# -- follow-ups --------------------------------------------------------------------------------------------------------


def test_all_seen_is_all_counted() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.choice([1, 2, 3, 7], 4000, p=[0.4, 0.3, 0.2, 0.1])
    turn = np.concatenate([np.arange(1, n + 1) for n in numbers])
    ends = np.append(turn[1:] == 1, True)
    gap_s = np.where(ends, np.nan, rng.exponential(10, len(turn)))
    found = follow_ups.follow_ups(turn, gap_s, np.full(len(turn), 1e9))
    values, weights = found.turns()
    several = numbers[numbers > 1]
    assert values.tolist() == [2, 3, 7]
    assert weights == pytest.approx([(several == n).mean() for n in (2, 3, 7)])
    assert found.more[0] == pytest.approx((numbers > 1).mean())
    assert found.weight.sum() == (~ends).sum()
    assert found.unseen == 0


def test_one_turn_is_estimated_as_kaplan_and_meier_do() -> None:
    rng = np.random.default_rng(2)
    n = 3000
    gap_s = np.where(rng.random(n) < 0.6, rng.exponential(10, n), np.inf)
    seen_s = rng.uniform(0, 40, n)
    shown = gap_s <= seen_s
    found = follow_ups.follow_ups(np.ones(n, np.int64), np.where(shown, gap_s, np.nan), seen_s)
    times = np.where(shown, gap_s, seen_s)
    order = np.argsort(times)
    left = n - np.arange(n)
    kaplan_meier = np.cumprod(np.where(shown[order], 1 - 1 / left, 1.0))
    last = np.flatnonzero(shown[order])[-1]
    assert found.more[0] == pytest.approx(1 - kaplan_meier[last], abs=0.005)
    middle = int(np.searchsorted(times[order], 10.0))
    upto = np.interp(10.0, found.edges_s, np.append(0, np.cumsum(found.weight))) / found.weight.sum()
    assert upto * found.more[0] == pytest.approx(1 - kaplan_meier[middle], abs=0.01)


def test_reasons_are_stated() -> None:
    for name, words in (("history", "by their history"), ("edit", "edits"), ("sorted", "ascending")):
        _, facts = model_of(log_of(MODELS[name], 2, 1))
        assert words in facts.notes[0]
