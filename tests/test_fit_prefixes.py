"""System prompts and reuse of blocks of logs, against those that made the logs; hit curves of replicas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import REPOSITORY

import servegen_gpu as sg
from servegen_gpu import OptionError, Ragged, Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.fitting.prefixes import common_blocks, reuse, system_tokens
from servegen_gpu.fitting.sessions import with_sessions
from servegen_gpu.fitting.turns import model_of, models_of
from servegen_gpu.prefixes.lru import cache_sizes, lru_curve

TOOL_AGENT = REPOSITORY.parent / "shared" / "data" / "traces" / "mooncake-toolagent-head1000.jsonl"
BLOCK = 64
PROMPTS = {0: 640, 1: 200, 3: 1000}
TALK = TurnModel(
    0.6, turns=d.Pmf([2, 4], [1, 1]), gap_s=d.Exponential(40), growth="history", new_tokens=d.Exponential(80)
)
TALK = replace(TALK, session_s=600)
CLOSE = 0.02
"""Between hit curves of a log and the mean of its replicas."""


def clients(lengths: list[Any], model: TurnModel | list[TurnModel], **keywords: Any) -> sg.ClientPool:
    models = model if isinstance(model, list) else [model] * len(lengths)
    each = [sg.pool([sg.client(rate=0.3, input_tokens=length, output_tokens=60, **keywords)]) for length in lengths]
    return sg.join([pool.with_conversations(one) for pool, one in zip(each, models, strict=True)])


LENGTHS = [d.LogNormal(median=median, sigma=0.4, min=1100) for median in (1500, 2500, 2000, 3000)]


def log_of(seed: int, prompts: dict[int, int] = PROMPTS) -> Trace:
    trace = sg.generate(clients(LENGTHS, TALK), duration="1h", seed=seed)
    return trace.with_hash_ids(BLOCK, system_tokens=prompts)


def untold(trace: Trace) -> Trace:
    names = ("conversation", "turn", "new_tokens")
    return Trace({name: column for name, column in trace.columns.items() if name not in names}, trace.provenance)


def test_full_blocks_of_system_prompts_are_found() -> None:
    trace = log_of(1)
    assert system_tokens(trace, BLOCK) == {0: 640, 1: 192, 3: 960}
    assert system_tokens(with_sessions(untold(trace))[0], BLOCK) == {0: 640, 1: 192, 3: 960}
    assert system_tokens(log_of(1, {}), BLOCK) == {}


def test_what_two_conversations_share_is_no_prompt() -> None:
    ids = Ragged(np.array([0, 2, 4]), np.array([5, 6, 5, 6]))
    trace = Trace({"arrival_us": [0, 1], "client": [4, 4], "input_tokens": [32, 32], "hash_ids": ids})
    assert system_tokens(trace, 16) == {}
    with pytest.raises(OptionError, match="hash_ids"):
        system_tokens(Trace({"arrival_us": [0], "client": [0]}), 16)


def test_reasons_of_reuse_add_up() -> None:
    trace = log_of(2)
    found = reuse(trace)
    blocks = len(trace["hash_ids"].values)
    assert found.prompt + found.conversation + found.other == pytest.approx(lru_curve(trace, [blocks])[0])
    assert found.other < 0.01
    assert found.prompt > 0.1
    assert found.conversation > 0.2
    without = reuse(log_of(2, {}))
    assert (without.prompt, without.other) == (0, 0)


def test_common_blocks_are_counted_one_by_one() -> None:
    ids = Ragged(np.array([0, 3, 5, 5, 9]), np.array([1, 2, 3, 1, 2, 1, 9, 3, 4]))
    rows, others = np.array([1, 0, 3, 2, 3]), np.array([0, 3, 3, 0, 1])
    assert common_blocks(ids, rows, others).tolist() == [2, 1, 4, 0, 1]


def replicas(trace: Trace, prompts: dict[int, int], model: Any, seeds: int = 6) -> np.ndarray:
    """Hits of replicas at five sizes of the log: clients of equal rates, inputs of first turns, fitted talks."""
    first = trace["turn"] == 1
    lengths = [d.Samples(trace["input_tokens"][first & (trace["client"] == client)]) for client in range(4)]
    pool = clients(lengths, model)
    made = [sg.generate(pool, duration="1h", seed=100 + seed) for seed in range(seeds)]
    curves = [lru_curve(one.with_hash_ids(BLOCK, system_tokens=prompts), cache_sizes(trace)) for one in made]
    return np.mean(curves, axis=0)


def test_replicas_have_the_hit_curve_of_the_log() -> None:
    """Prompts and conversations of a log without a word of either; wrong prompts or no conversations are seen."""
    log, _ = with_sessions(untold(log_of(3)))
    model, _ = model_of(log)
    assert model is not None
    assert model.growth == "history"
    own = lru_curve(log, cache_sizes(log))
    prompts = system_tokens(log, BLOCK)
    assert np.abs(replicas(log, prompts, model) - own).max() < CLOSE
    assert np.abs(replicas(log, {}, model) - own).max() > 2 * CLOSE
    assert np.abs(replicas(log, prompts, replace(model, share=0.1)) - own).max() > 2 * CLOSE


def test_clients_that_differ_have_shares_of_their_own() -> None:
    shares = [0.8, 0.05, 0.6, 0.3]
    pool = clients(LENGTHS, [replace(TALK, share=share) for share in shares])
    found, facts = models_of(sg.generate(pool, duration="2h", seed=4))
    assert [found[client].share for client in range(4)] == pytest.approx(shares, abs=0.05)
    assert len({found[client].mean_turns for client in range(4)}) == 1
    assert "different degrees" in facts.notes[-1]
    alike, facts = models_of(sg.generate(clients(LENGTHS, TALK), duration="2h", seed=4))
    assert len({id(model) for model in alike.values()}) == 1
    assert alike[0].share == pytest.approx(0.6, abs=0.03)


@pytest.mark.skipif(not TOOL_AGENT.is_file(), reason="Mooncake's trace is not beside the tree")
def test_tool_agents_of_mooncake() -> None:
    """Three prompts make 28 points of 38 of hits, conversations 9; replicas have the hit curve within 0.02."""
    trace = sg.read_trace(Path(TOOL_AGENT))
    ids = trace["hash_ids"]
    client = np.unique(ids.values[ids.offsets[:-1]], return_inverse=True)[1].astype(np.int32)
    log, _ = with_sessions(Trace(trace.columns | {"client": client}, trace.provenance))
    prompts = system_tokens(log, 512)
    assert prompts == {0: 512, 1: 12 * 512, 2: 5 * 512}
    found = reuse(log)
    assert found.prompt == pytest.approx(0.283, abs=0.005)
    assert found.conversation == pytest.approx(0.091, abs=0.005)
    assert found.other < 0.01

    models, _ = models_of(log)
    duration_s = trace.provenance["duration_s"]
    pools = []
    for number, model in models.items():
        own = log["client"] == number
        first = own & (log["turn"] == 1)
        lengths = {"input_tokens": d.Samples(log["input_tokens"][first]), "output_tokens": 100}
        one = sg.pool([sg.client(rate=float(own.sum() / duration_s), **lengths)])
        pools.append(one.with_conversations(model))
    curves = []
    for seed in range(30):
        made = sg.generate(sg.join(pools), duration=duration_s, seed=seed)
        curves.append(lru_curve(made.with_hash_ids(512, system_tokens=prompts), cache_sizes(trace)))
    assert np.abs(np.mean(curves, axis=0) - lru_curve(trace, cache_sizes(trace))).max() < CLOSE
