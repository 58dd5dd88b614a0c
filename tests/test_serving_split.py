"""Session-affine routing, prefill and decode apart, and the stages of multimodal input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import library
from scipy import stats
from served import REQUESTS, SERVERS, TINY, in_c, same, trace_of

import servegen_gpu as sg
from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged
from servegen_gpu.serving import compiled, simulate, stages, stepwise
from servegen_gpu.serving import split as splitting
from servegen_gpu.serving.job import ROUTINGS, alone_ns, job_of
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.split import Split
from servegen_gpu.serving.stages import Stages


def ms(values: Any) -> list[float]:
    return np.round(np.multiply(values, 1e3), 6).tolist()


# --- session-affine routing

ONE_BY_ONE = replace(TINY, max_sequences=1)


def test_turns_go_to_the_instance_of_the_first_turn():
    """The third request finds both instances with as much work, and the fourth the second one with less."""
    conversation = [7, 8, 8, 7, -1, -1]
    trace = trace_of(np.multiply([0, 1, 2, 3, 4, 5], 1000), [2, 2, 1, 1, 1, 1], [1] * 6, conversation)
    affine = simulate.simulate(trace, ONE_BY_ONE, 2, "session-affine")
    assert ms(affine.wait_s) == [0, 0, 11, 9, 19, 19]
    assert ms(simulate.simulate(trace, ONE_BY_ONE, 2).wait_s) == [0, 0, 10, 10, 19, 19]


def conversations(seed: int, n: int = 600) -> sg.Trace:
    rng = np.random.default_rng(seed)
    conversation = rng.integers(-40, 60, n)
    return trace_of(
        np.sort(rng.integers(0, 6 * 10**7, n)), rng.integers(0, 4000, n), rng.geometric(0.02, n), conversation
    )


def test_conversations_do_not_change_instance():
    """Two conversations and two instances: each has one to itself, whatever its load."""
    rng = np.random.default_rng(1)
    arrival_us = [0, 0, *np.sort(rng.integers(0, 10**7, 200))]
    mine = np.array([True, False, *(rng.random(200) < 0.8)])
    trace = trace_of(arrival_us, rng.integers(1, 900, 202), rng.geometric(0.02, 202), np.where(mine, 3, 4))
    both = simulate.simulate(trace, Server(), 2, "session-affine")
    assert not np.array_equal(both.ttft_s, simulate.simulate(trace, Server(), 2).ttft_s)
    for one in (mine, ~mine):
        assert np.array_equal(both.ttft_s[one], simulate.simulate(trace.where(one), Server()).ttft_s)


def test_without_conversations_affinity_is_least_loaded():
    trace = conversations(2)
    alone = sg.Trace(dict(trace.columns) | {"conversation": -1 - np.arange(len(trace))})
    due = simulate.simulate(trace, Server(), 3)
    assert np.array_equal(simulate.simulate(alone, Server(), 3, "session-affine").ttft_s, due.ttft_s)


def test_a_prefix_cache_prefills_new_tokens_of_turns_that_were_seen():
    trace = trace_of(np.multiply([0, 100, 200, 300], 1000), [4, 9, 9, 9], [1] * 4, [5, 5, 6, -1])
    trace = sg.Trace(dict(trace.columns) | {"new_tokens": np.array([4, 3, 2, 1], np.int32)})
    cached = simulate.simulate(trace, TINY, 1, "session-affine", prefix_cache=True)
    assert ms(cached.ttft_s) == [14, 13, 39, 39]
    small = simulate.simulate(trace.head(2), replace(TINY, kv_tokens=9), 1, "session-affine", prefix_cache=True)
    assert ms(small.ttft_s) == [14, 13]
    job = job_of(trace, TINY, 1, "session-affine", prefix_cache=True)
    assert job.reserved_tokens.tolist() == [5, 10, 10, 10]


def test_what_affinity_needs():
    trace = trace_of([0], [1], [1])
    with pytest.raises(OptionError, match="none of conversation; add it, or choose another routing"):
        simulate.simulate(trace, Server(), 2, "session-affine")
    with pytest.raises(OptionError, match="none of new_tokens"):
        simulate.simulate(trace_of([0], [1], [1], [1]), Server(), 2, "session-affine", prefix_cache=True)
    with pytest.raises(OptionError, match="prefix_cache with session-affine"):
        simulate.simulate(trace, Server(), 2, prefix_cache=True)


# --- prefill and decode apart

MOVE_MS = {"transfer_s": 0.005, "transfer_s_per_token": 0.001}
SPLIT_BY_HAND: dict[str, tuple[Server, Split, list[tuple[int, int, int]], list[tuple[float, float]]]] = {
    # server, split, (arrival ms, input, output) of each request, (TTFT, first to last token) in ms
    "alone: 39 of prefill, two steps of decoding": (TINY, Split(1, 1), [(0, 9, 3)], [(39, 24)]),
    "and 14 of transfer": (TINY, Split(1, 1, **MOVE_MS), [(0, 9, 3)], [(39, 38)]),
    "one token: nothing to move": (TINY, Split(1, 1, **MOVE_MS), [(0, 9, 1), (0, 1, 0)], [(40, 0), (40, 0)]),
    "long input does not hold up decoding": (
        TINY, Split(1, 1), [(0, 1, 4), (5, 8, 1)], [(11, 36), (34, 0)],
    ),
    "both decode together": (TINY, Split(1, 1), [(0, 1, 3), (0, 1, 3)], [(12, 28), (12, 28)]),
    "who comes in a step begins with the next": (
        TINY, Split(2, 1), [(0, 1, 4), (2, 1, 2)], [(11, 12 + 14 + 12), (11, 10 + 14)],
    ),
    "a cache of one": (replace(TINY, kv_tokens=4), Split(1, 1), [(0, 1, 3), (0, 1, 3)], [(12, 24), (12, 48)]),
    "prefill keeps its input alone in the cache": (
        replace(TINY, kv_tokens=4), Split(1, 1), [(0, 2, 30), (0, 2, 1)], [(14, 29 * 12), (14, 0)],
    ),
    "two that decode": (
        replace(TINY, kv_tokens=4), Split(1, 2), [(0, 1, 3), (0, 1, 3)], [(12, 24), (12, 24)],
    ),
    "a budget of one token a step": (
        replace(TINY, step_tokens=1), Split(2, 1), [(0, 1, 3), (0, 1, 3)], [(11, 24), (11, 48)],
    ),
    "by another server": (
        TINY, Split(1, 1, decode_server=replace(TINY, step_s=0.02)), [(0, 9, 3)], [(39, 44)],
    ),
}  # fmt: skip


def split_holds(case: str, serve: Any, compose: Any = splitting.serve) -> bool:
    server, split, requests, expected = SPLIT_BY_HAND[case]
    arrival_ms, inputs, outputs = zip(*requests, strict=True)
    job = job_of(trace_of(np.multiply(arrival_ms, 1000), inputs, outputs), server, 1, "least-loaded")
    times = compose(job, server, split, serve)
    due_ns = np.rint(np.transpose(expected) * 1e6).astype(np.int64)
    return np.array_equal(times.ttft_ns, due_ns[0]) and np.array_equal(times.decode_ns, due_ns[1])


@pytest.mark.parametrize("case", SPLIT_BY_HAND)
def test_splits_by_hand(case):
    assert split_holds(case, stepwise.serve)
    assert split_holds(case, in_c)


SPLIT_PLANTED = {
    "no transfer": (splitting, "(transfer_ps + 500) // 1000", "0"),
    "the cache of the whole request where it prefills": (splitting, "reserved_tokens=inputs,", ""),
    "the first token once more": (splitting, "of_rows.output_tokens - 1", "of_rows.output_tokens"),
    "decoding by the server that prefills": (splitting, "split.decode_server or server", "server"),
    "as many that decode as prefill": (splitting, "int(split.decode)", "int(split.prefill)"),
    "the transfer is not between tokens": (splitting, "- first_ns[rows]", "- moved_ns[rows]"),
    "a first step that is not decoding": (stepwise, "if job.decode_only:", "if False:"),
    "a token that takes no budget": (stepwise, "                budget -= 1\n", ""),
}


@pytest.mark.parametrize("defect", SPLIT_PLANTED)
def test_splits_by_hand_catch(defect):
    module, right, wrong = SPLIT_PLANTED[defect]
    text = Path(module.__file__ or "").read_text(encoding="utf-8")
    assert text.count(right) == 1
    planted: dict[str, Any] = {"__name__": module.__name__}
    exec(text.replace(right, wrong), planted)
    serve = planted["serve"] if module is stepwise else stepwise.serve
    compose = planted["serve"] if module is splitting else splitting.serve

    assert not all(split_holds(case, serve, compose) for case in SPLIT_BY_HAND)


@settings(max_examples=60, deadline=None)
@given(
    SERVERS, REQUESTS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.0123]), st.sampled_from(ROUTINGS)
)
def test_compiled_splits_have_the_times_of_the_oracle(server, requests, prefill, decode, transfer_s, routing):
    gaps, inputs, outputs, conversation = zip(*requests, strict=True) if requests else ((), (), (), ())
    job = job_of(trace_of(np.cumsum(gaps), inputs, outputs, conversation), server, 1, routing)
    split = Split(prefill, decode, transfer_s, 1e-6)
    assert same(*(splitting.serve(job, server, split, serve) for serve in (in_c, stepwise.serve)))


def test_more_of_either_helps_its_own_side():
    rng = np.random.default_rng(9)
    trace = trace_of(np.sort(rng.integers(0, 10**8, 2000)), rng.integers(1, 3000, 2000), rng.geometric(0.004, 2000))
    served = {split: simulate.simulate(trace, Server(), Split(*split)) for split in ((2, 4), (4, 4), (2, 8))}
    assert served[4, 4].ttft_s.mean() < 0.7 * served[2, 4].ttft_s.mean()
    assert served[2, 8].tbt_s.mean() < 0.95 * served[2, 4].tbt_s.mean()
    assert np.array_equal(served[2, 8].ttft_s, served[2, 4].ttft_s)
    assert str(Split(2, 8)) == "2P8D"


@pytest.mark.parametrize("wrong", [{"prefill": 0}, {"decode": 1.5}, {"transfer_s": -1}, {"transfer_s_per_token": 0.1}])
def test_splits_that_are_none(wrong):
    with pytest.raises(OptionError):
        Split(**({"prefill": 1, "decode": 1} | wrong))


# --- stages before prefill


def with_images(trace: sg.Trace, images: list[list[int]]) -> sg.Trace:
    offsets = np.cumsum([0, *map(len, images)])
    values = np.array([tokens for row in images for tokens in row], np.int32)
    return sg.Trace.trusted(dict(trace.columns) | {"image_tokens": Ragged(offsets, values)})


STAGES = Stages(0.010, 0.001, 0.002, 0.0, 1, 0.020, 0.0001, 1)


def test_stages_by_hand():
    """A text passes by; of two images the longer download counts; encoding is one request after the other."""
    trace = with_images(trace_of([0, 0, 1000], [4, 300, 100], [1, 1, 1]), [[], [100, 200], [100]])
    server = replace(TINY, step_tokens=1000)
    served = simulate.simulate(trace, server, stages=STAGES)
    parts = {name: ms(values) for name, values in served.parts.items()}
    assert parts["download_s"] == [0, 210, 110]
    assert parts["normalise_s"] == [0, 4, 2]
    assert parts["encode_s"] == [0, 70, 30]  # the third is there at 113, the second at 214
    assert parts["queue_s"] == [0, 0, 0]
    assert parts["prefill_s"] == [14, 310, 110]
    assert ms(served.ttft_s) == [14, 594, 252]
    crowded = simulate.simulate(with_images(trace_of([0, 0], [100, 100], [1, 1]), [[100]] * 2), server, stages=STAGES)
    assert ms(crowded.parts["encode_s"]) == [30, 58]
    assert ms(crowded.parts["normalise_s"]) == [2, 4]
    wide = replace(STAGES, encode_workers=2, normalise_workers=2)
    assert ms(simulate.simulate(trace, server, stages=wide).parts["encode_s"]) == [0, 70, 30]


def test_stages_of_text_change_nothing():
    trace = conversations(4)
    due, found = simulate.simulate(trace, Server(), 2), simulate.simulate(trace, Server(), 2, stages=STAGES)
    assert np.array_equal(found.ttft_s, due.ttft_s)
    assert np.array_equal(found.tbt_s, due.tbt_s)


def test_requests_are_routed_as_they_leave_the_stages(monkeypatch):
    """With every part, by the oracle and compiled; parts add up to the time to first token."""
    rng = np.random.default_rng(6)
    trace = conversations(6, 300)
    trace = with_images(trace, [list(rng.integers(1, 900, k)) for k in rng.integers(0, 3, 300)])
    split = Split(2, 2, 0.001, 1e-7)
    library()
    found = simulate.simulate(trace, Server(), split, "session-affine", stages=STAGES)
    assert np.allclose(sum(found.parts.values()), found.ttft_s, rtol=0, atol=1e-9)
    ready_s = trace["arrival_us"] / 1e6 + found.wait_s - found.parts["queue_s"]
    assert (np.diff(ready_s) < 0).sum() > 30
    assert found.parts["encode_s"].max() > 0.3  # a request alone takes 0.22 at most
    monkeypatch.setattr(simulate, "find_library", lambda: None)
    due = simulate.simulate(trace, Server(), split, "session-affine", stages=STAGES)
    assert all(np.array_equal(getattr(found, name), getattr(due, name)) for name in ("ttft_s", "wait_s", "tbt_s"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 200)), max_size=80), st.integers(1, 6))
def test_compiled_queues_are_those_of_the_oracle(requests, workers):
    gaps, services = np.array(requests, np.int64).reshape(-1, 2).T
    ready = np.cumsum(gaps)
    end = compiled.queue(library(), ready, services, workers)
    assert np.array_equal(end, stepwise.queue(ready, services, workers))
    if workers == 1:  # Lindley, as one running maximum
        before = np.cumsum(services) - services
        assert np.array_equal(end, np.maximum.accumulate(ready - before) + before + services)


def mean_waits(workers: int, load: float) -> np.ndarray:
    """Of 64 independent runs of M/M/c with services of 1 s on average."""
    means = np.empty(64)
    for run in range(64):
        rng = np.random.default_rng([2027, run])
        ready = np.cumsum(rng.exponential(1e9 / (4 * load), 20_000)).astype(np.int64)
        service = rng.exponential(1e9, 20_000).astype(np.int64)
        means[run] = (compiled.queue(library(), ready, service, workers) - ready - service)[2_000:].mean() / 1e9
    return means


@pytest.mark.statistical
def test_encoders_wait_as_erlang_says():
    """M/M/4 at 80 % load; runs are independent, so a t-test of their means has the error of one gate."""
    terms = np.cumprod([1.0, *(3.2 / k for k in range(1, 5))])
    due_s = terms[-1] / 0.2 / (terms[:-1].sum() + terms[-1] / 0.2) / 0.8
    found, planted = (float(stats.ttest_1samp(mean_waits(4, load), due_s).pvalue) for load in (0.8, 0.82))
    gates.check(found, "mean wait of encoders")
    assert not gates.passes(planted)


@pytest.mark.parametrize(
    "wrong",
    [{"encode_workers": 0}, {"download_s_per_item": -1}, {"encode_s_per_token": 0.5}, {"normalise_workers": 1.5}],
)
def test_stages_that_are_none(wrong):
    with pytest.raises(OptionError):
        Stages(**wrong)


def test_stages_that_never_end():
    trace = with_images(trace_of([0], [1], [1]), [[2**31 - 1] * 2500])
    with pytest.raises(OptionError, match="146 years"):
        stages.pass_through(trace, Stages(encode_s_per_token=1e-3), stepwise.queue)


# --- objectives


def test_times_alone_are_those_of_a_request_alone():
    job = job_of(conversations(8, 50), Server(step_tokens=700), 1, "least-loaded")
    far_apart = replace(job, arrival_ns=np.arange(50) * 10**13)
    times = in_c(far_apart)
    assert same(replace(times, wait_ns=times.wait_ns * 0), replace(times, ttft_ns=alone_ns(job)[0]))
    assert np.array_equal(times.decode_ns, alone_ns(job)[1])


def test_an_objective_that_nothing_meets_is_told_from_one_that_takes_more():
    trace = trace_of([0] * 20, [3000] * 20, [50] * 20)
    with pytest.raises(OptionError, match=r"an objective that 3 instances meet, got P99 of TTFT within 0\.4 s"):
        simulate.instances_needed(trace, Server(), 0.4, most=3)
    alone = r"some number of instances meets, got P99 of TTFT within 0\.2 s, where requests alone .* have ttft=0\.274"
    with pytest.raises(OptionError, match=alone):
        simulate.instances_needed(trace, Server(), 0.2)
    with pytest.raises(OptionError, match=r"mean TBT within 0\.005 s, where requests alone .* tbt=0\.01215s"):
        simulate.instances_needed(trace, Server(), 2.0, slo_tbt_s=0.005)
    assert simulate.instances_needed_each([trace], Server(), 0.2).tolist() == [np.inf]
