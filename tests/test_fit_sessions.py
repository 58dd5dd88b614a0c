"""Conversations of logs that do not name them, against those that made the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import REPOSITORY
from traces import same

import servegen_gpu as sg
from servegen_gpu import OptionError, Ragged, Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.fitting import near_copies, shared_blocks
from servegen_gpu.fitting.sessions import with_sessions

AZURE = REPOSITORY.parent / "shared" / "data" / "traces" / "azure-2023-code.csv"
TOLD = ("conversation", "turn", "new_tokens")
LENGTHS: dict[str, Any] = {"input_tokens": d.LogNormal(median=900, sigma=0.8, max=20_000), "output_tokens": 60}
GAP_S = d.LogNormal(median=40, sigma=1)
MODELS = {
    "sorted": TurnModel(0.5, turns=d.Pmf([2, 3, 7], [3, 2, 1]), gap_s=GAP_S, session_s=1500),
    "history": TurnModel(
        0.5, turns=d.Pmf([2, 5], [1, 1]), gap_s=GAP_S, growth="history", new_tokens=d.Exponential(60), session_s=1500
    ),
    "edit": TurnModel(
        0.5, turns=d.Pmf([2, 6], [1, 1]), gap_s=GAP_S, growth="edit", new_tokens=d.Exponential(30), session_s=1500
    ),
}
COMPLETIONS = TurnModel(
    0.5,
    turns=d.Pmf([2, 3, 5], [3, 2, 1]),
    gap_s=d.LogNormal(median=0.9, sigma=0.8),
    growth="edit",
    new_tokens=d.Pmf([0, 1, 2, 3], [5, 3, 1, 1]),
    session_s=60,
)


def untold(trace: Trace) -> Trace:
    """The trace without the columns of its conversations."""
    return Trace({name: column for name, column in trace.columns.items() if name not in TOLD}, trace.provenance)


def talk(model: TurnModel, seed: int = 1, duration: str = "2h", **keywords: Any) -> Trace:
    pool = sg.pool([sg.client(rate=0.6, count=2, **LENGTHS | keywords)]).with_conversations(model)
    return sg.generate(pool, duration=duration, seed=seed, warmup=0)


def alone(seed: int, n: int = 3000, **columns: Any) -> Trace:
    """Requests whose lengths have nothing to do with one another."""
    rng = np.random.default_rng([7, seed])
    made = {"arrival_us": np.sort(rng.integers(0, 600_000_000, n)), "client": np.zeros(n, np.int32)}
    inputs = np.minimum(rng.lognormal(6, 1, n), 10_000).astype(np.int32) + 1
    return Trace(made | {"input_tokens": inputs, "output_tokens": np.full(n, 5, np.int32)} | columns)


def before(trace: Trace) -> np.ndarray:
    """Row of the turn before of each row, -1 for first turns."""
    order = np.lexsort((trace["turn"], trace["conversation"]))
    found = np.full(len(trace), -1)
    goes_on = np.flatnonzero(np.diff(trace["conversation"][order]) == 0)
    found[order[goes_on + 1]] = order[goes_on]
    return found


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_what_a_log_says_is_kept() -> None:
    trace = talk(MODELS["history"], duration="30m")
    found, facts = with_sessions(trace)
    assert same(found, trace)
    assert facts.found == "ids"
    assert facts.share == pytest.approx(0.5, abs=0.1)
    assert facts.notes == ()


def test_turns_and_new_tokens_follow_from_ids() -> None:
    trace = talk(MODELS["history"], duration="30m")
    ids = Trace({name: column for name, column in trace.columns.items() if name not in ("turn", "new_tokens")})
    found, facts = with_sessions(ids)
    assert same(found, Trace(trace.columns))
    assert "does not state" in facts.notes[0]
    shorter = Trace(ids.columns | {"input_tokens": np.minimum(trace["input_tokens"], 500)})
    assert "shorter than the turn before" in with_sessions(shorter)[1].notes[1]


# -- blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("growth", MODELS)
@pytest.mark.parametrize("prompt", [0, 100])
def test_blocks_tell_conversations(growth: str, prompt: int) -> None:
    """Of the later turns whose turn before has a full block of its own beyond the prompt, 97 % are found."""
    trace = talk(MODELS[growth])
    marked = trace.with_hash_ids(32, system_tokens=prompt)
    found, facts = with_sessions(untold(marked))
    true, seen = before(trace), before(found)
    longer = trace["input_tokens"][true] >= max(4 * 32, prompt + 2 * 32)
    later = np.flatnonzero((true >= 0) & longer)
    assert facts.found == "blocks"
    assert (seen[later] == true[later]).mean() > 0.97
    begun = np.flatnonzero(seen >= 0)
    assert (found["conversation"][begun] == found["conversation"][seen[begun]]).all()
    assert (trace["conversation"][begun] == trace["conversation"][seen[begun]]).mean() > 0.99
    if growth == "history":  # beyond the turn before and its answer, to the token
        assert (found["new_tokens"][later] == trace["new_tokens"][later]).mean() > 0.97


def in_prompts() -> float:
    """Share of conversations in a log of requests that share a system prompt only."""
    marked = alone(0).with_hash_ids(32, system_tokens=32 * 8)
    return with_sessions(marked)[1].share


def test_a_system_prompt_makes_no_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_prompts() == 0
    monkeypatch.setattr(shared_blocks, "FEW_BRANCHES", 10**6)
    assert in_prompts() > 0.05


def test_limits_and_clients_part_conversations() -> None:
    ids = Ragged(np.array([0, 3, 7, 11, 15]), np.array([1, 2, 3, 1, 2, 4, 5, 1, 2, 4, 6, 1, 2, 4, 6]))
    columns = {"arrival_us": [0, 10**7, 2 * 10**7, 10**10], "input_tokens": [40, 55, 60, 64], "hash_ids": ids}
    trace = Trace(columns | {"client": [0, 0, 0, 0], "output_tokens": [3, 3, 3, 3]}, {"hash_ids": {"block_tokens": 16}})
    assert with_sessions(trace)[0]["conversation"].tolist() == [0, 0, 0, -4]
    found, facts = with_sessions(trace, limit_s=12_000)
    assert (found["turn"].tolist(), found["new_tokens"].tolist()) == ([1, 2, 3, 4], [40, 12, 2, 1])
    assert (facts.conversations, facts.share) == (1, 1.0)
    other = Trace(trace.columns | {"client": np.array([0, 1, 1, 1], np.int32)}, trace.provenance)
    assert with_sessions(other)[0]["turn"].tolist() == [1, 1, 2, 1]


# -- near copies -------------------------------------------------------------------------------------------------------


def test_near_copies_tell_how_many_converse() -> None:
    trace = talk(COMPLETIONS, input_tokens=d.LogNormal(median=2000, sigma=1, max=30_000))
    found, facts = with_sessions(untold(trace))
    assert facts.found == "near copies"
    sizes = np.unique(trace["conversation"], return_counts=True)[1]
    assert facts.share == pytest.approx(sizes[sizes > 1].sum() / len(trace), abs=0.03)
    true, seen = before(trace), before(found)
    assert (trace["conversation"][seen >= 0] == trace["conversation"][seen[seen >= 0]]).mean() > 0.95

    def median_gap(rows: np.ndarray) -> float:
        later = np.flatnonzero(rows >= 0)
        return float(np.median(trace["arrival_us"][later] - trace["arrival_us"][rows[later]]))

    assert median_gap(seen) == pytest.approx(median_gap(true), rel=0.1)
    # other turns of the conversation may lie between a near copy and what it copies
    assert (found["new_tokens"][seen >= 0] <= near_copies.WITHIN_TOKENS).mean() > 0.98


def false_alarms(seeds: int = 40) -> int:
    """Logs without sessions in which some are found."""
    return sum(with_sessions(alone(seed))[1].found != "none" for seed in range(seeds))


def test_there_are_no_sessions_in_lengths_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six standard deviations: a false alarm in a billion logs."""
    assert false_alarms() == 0
    monkeypatch.setattr(near_copies, "SURE", 0.0)
    monkeypatch.setattr(near_copies, "SHARE", 0.0)
    assert false_alarms() > 5


def test_a_client_with_one_length_has_no_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    client = np.sort(rng.integers(0, 60, 3000)).astype(np.int32)  # one after the other
    lengths = (1000 + 40 * client).astype(np.int32)
    trace = alone(1, client=client, input_tokens=lengths)
    assert with_sessions(trace)[1].found == "none"
    assert with_sessions(alone(1, input_tokens=np.full(3000, 77, np.int32)))[1].found == "none"
    one = Trace(trace.columns | {"client": np.zeros(3000, np.int32)})
    assert with_sessions(one)[1].found == "near copies"  # which is all that the lengths tell


@pytest.mark.skipif(not AZURE.is_file(), reason="Azure's trace is not beside the tree")
def test_completions_of_azure() -> None:
    """35 % match; 6.4 % would if the inputs of the place before were others, 8.2 % if they were independent."""
    trace = sg.read_trace(Path(AZURE))
    found, facts = with_sessions(trace)
    assert facts.found == "near copies"
    assert facts.match_share == pytest.approx(0.35, abs=0.005)
    assert facts.chance == pytest.approx(0.07, abs=0.02)
    rows = before(found)
    later = np.flatnonzero(rows >= 0)
    gaps_s = (trace["arrival_us"][later] - trace["arrival_us"][rows[later]]) / 1e6
    assert np.median(gaps_s) == pytest.approx(0.9, abs=0.2)
    assert len(later) / len(trace) == pytest.approx(0.375, abs=0.03)


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_short_logs(n: int) -> None:
    for trace in (alone(0, n), alone(0, n).with_hash_ids(16)):
        found, facts = with_sessions(trace)
        assert (facts.share, facts.conversations) == (0, 0)
        assert (found["turn"] == 1).all()
        assert (found["conversation"] < 0).all()
        assert len(np.unique(found["conversation"])) == n
        assert found["new_tokens"].tolist() == trace["input_tokens"].tolist()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(OptionError, match="'output_tokens'"):
        with_sessions(Trace({"arrival_us": [1], "input_tokens": [1]}))
    with pytest.raises(OptionError, match="limit_s"):
        with_sessions(alone(0, 3), limit_s=-1)
