"""The server model: compiled code against the oracle, cases by hand, queues whose waits are known, provisioning."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import library
from profiles import REPOSITORY
from scipy import stats
from served import REQUESTS, SERVERS, TINY, Serve, in_c, same, trace_of

import servegen_gpu as sg
from servegen_gpu.backends.native.library import serving as struct_of
from servegen_gpu.errors import OptionError
from servegen_gpu.serving import compiled, simulate, stepwise
from servegen_gpu.serving.job import ROUTINGS, Job, Times, job_of
from servegen_gpu.serving.server import PARAMETERS, Server
from servegen_gpu.serving.simulate import instances_needed, instances_needed_each

AZURE = REPOSITORY.parent / "shared" / "data" / "traces" / "azure-2023-code.csv"
# --- compiled code against the oracle


@settings(max_examples=400, deadline=None)
@given(SERVERS, REQUESTS, st.integers(1, 5), st.sampled_from(ROUTINGS), st.booleans())
def test_compiled_code_has_the_times_of_the_oracle(server, requests, instances, routing, decode_only):
    gaps, inputs, outputs, conversation = zip(*requests, strict=True) if requests else ((), (), (), ())
    inputs = np.zeros(len(gaps)) if decode_only else inputs
    job = job_of(trace_of(np.cumsum(gaps), inputs, outputs, conversation), server, instances, routing)
    job = replace(job, decode_only=decode_only)
    assert same(in_c(job), stepwise.serve(job))


@pytest.mark.parametrize("instances", [1, 2, 7])
@pytest.mark.parametrize("kv_tokens", [4_000, 30_000, 400_000])
def test_compiled_code_has_the_times_of_the_oracle_under_load(instances, kv_tokens):
    rng = np.random.default_rng(instances)
    arrival_us = np.sort(rng.integers(0, 10**8, 1500))
    trace = trace_of(arrival_us, rng.geometric(1 / 800, 1500), rng.geometric(1 / 60, 1500))
    for server in (Server(kv_tokens=kv_tokens), Server(kv_tokens=kv_tokens, step_tokens=64, max_sequences=100)):
        job = job_of(trace, server, instances, "least-loaded")
        assert same(in_c(job), stepwise.serve(job))


# --- by hand

BY_HAND: dict[str, tuple[Server, int, list[tuple[int, int, int]], list[tuple[float, float, float]]]] = {
    # server, instances, (arrival ms, input, output) of each request, (wait, TTFT, first to last token) in ms
    "alone: chunks of 4, 4 and 1, then two steps of decoding": (TINY, 1, [(5, 9, 3)], [(0, 14 + 14 + 11, 24)]),
    "no input and no output: a step and a token": (TINY, 1, [(0, 0, 0)], [(0, 10, 0)]),
    "decoding goes on while a long input comes by what is left": (
        TINY, 1, [(0, 1, 4), (5, 8, 1)], [(0, 11, 15 + 15 + 14), (6, 50, 0)],
    ),
    "what comes in a step begins with the next, and inputs share it": (
        TINY, 1, [(0, 2, 1), (1, 1, 1), (2, 1, 1)], [(0, 12, 0), (11, 23, 0), (10, 22, 0)],
    ),
    "at most so many sequences": (
        replace(TINY, max_sequences=1), 1, [(0, 1, 2), (0, 1, 1)], [(0, 11, 12), (23, 34, 0)],
    ),
    "the cache holds one of them, all of input and output": (
        replace(TINY, kv_tokens=5), 1, [(0, 1, 2), (0, 1, 2)], [(0, 11, 12), (23, 34, 12)],
    ),
    "the cache holds both": (
        replace(TINY, kv_tokens=6), 1, [(0, 1, 2), (0, 1, 2)], [(0, 12, 14), (0, 12, 14)],
    ),
    "the first waits for the cache, and the next, which would fit, behind it": (
        replace(TINY, kv_tokens=6), 1, [(0, 1, 2), (0, 2, 2), (0, 1, 1)], [(0, 11, 12), (23, 36, 12), (23, 36, 0)],
    ),
    "larger than the cache: alone": (
        replace(TINY, kv_tokens=2), 1, [(0, 3, 1), (0, 1, 1)], [(0, 13, 0), (13, 24, 0)],
    ),
    "more sequences than the budget: all decode, no input comes in": (
        replace(TINY, step_tokens=2), 1, [(0, 1, 3), (0, 1, 3), (1, 1, 1)], [(0, 12, 28), (0, 12, 28), (39, 50, 0)],
    ),
    "to the one with less work outstanding, of what has not ended": (
        replace(TINY, max_sequences=1), 2, [(0, 3, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1)],
        [(0, 13, 0), (0, 11, 0), (10, 21, 0), (10, 21, 0)],
    ),
    "to the first of equals": (
        replace(TINY, max_sequences=1), 2, [(0, 2, 1), (1, 2, 1), (2, 1, 1)], [(0, 12, 0), (0, 12, 0), (10, 21, 0)],
    ),
    "a step with input takes 3 more, once": (
        replace(TINY, prefill_s_per_step=0.003), 1, [(0, 5, 3), (99, 0, 1)], [(0, 17 + 14, 24), (0, 10, 0)],
    ),
    "half a nanosecond is rounded up": (
        replace(TINY, prefill_s_per_token=0.5e-9), 1, [(0, 1, 1), (0, 4, 1)], [(0, 10.000002, 0), (0, 20.000003, 0)],
    ),
}  # fmt: skip


def by_hand_holds(serve: Serve, case: str) -> bool:
    server, instances, requests, expected = BY_HAND[case]
    arrival_ms, inputs, outputs = zip(*requests, strict=True)
    times = serve(job_of(trace_of(np.multiply(arrival_ms, 1000), inputs, outputs), server, instances, "least-loaded"))
    due_ns = np.rint(np.transpose(expected) * 1e6).astype(np.int64)
    return same(times, Times(*due_ns))


@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("serve", [stepwise.serve, in_c])
def test_cases_by_hand(case, serve):
    assert by_hand_holds(serve, case)


PLANTED = {
    "prefill before decode": ("job.step_tokens - len(decoding), 0", "job.step_tokens, 0"),
    "a batch that is not bounded": (" and len(self.running) < self.job.max_sequences", ""),
    "no cache": ("if self.running and self.kv_tokens + request", "if 0 and request"),
    "output not reserved": ("row, arrival_ns, reserved,", "row, arrival_ns, inputs,"),
    "work over before its time": ("if self.clock_ns > now_ns else 0", "if False else 0"),
    "rounded down": ("duration_ps + 500", "duration_ps"),
    "two decode at the price of one": ("decode_ps * len(decoding)", "decode_ps * bool(decoding)"),
    "every step pays for input": ("job.prefill_step_ps if prefilled else 0", "job.prefill_step_ps"),
    "a chunk less": ("            budget -= tokens\n", ""),
}


@pytest.mark.parametrize("defect", PLANTED)
def test_cases_by_hand_catch(defect):
    text = Path(stepwise.__file__).read_text(encoding="utf-8")
    right, wrong = PLANTED[defect]
    assert text.count(right) == 1
    planted: dict[str, Any] = {"__name__": stepwise.__name__}
    exec(text.replace(right, wrong), planted)

    assert not all(by_hand_holds(planted["serve"], case) for case in BY_HAND)


# --- queues whose waits are known


def lindley(job: Job) -> np.ndarray:
    """Waits of a queue of one server, first come first served, with the service times that the parameters give."""
    chunks, rest = np.divmod(job.input_tokens.astype(np.int64), job.step_tokens)
    full_ns, rest_ns = ((job.step_ps + job.prefill_ps * n + 500) // 1000 for n in (job.step_tokens, rest))
    with_input = chunks * full_ns + np.where((rest > 0) | (chunks == 0), rest_ns, 0)
    one_ns = (job.step_ps + job.decode_ps + 500) // 1000
    service_ns = with_input + (np.maximum(job.output_tokens, 1) - 1) * one_ns
    wait_ns = np.zeros(len(job), np.int64)
    for row in range(1, len(job)):
        gap = job.arrival_ns[row] - job.arrival_ns[row - 1]
        wait_ns[row] = max(0, wait_ns[row - 1] + service_ns[row - 1] - gap)
    return wait_ns


@pytest.mark.parametrize("seed", range(5))
def test_one_sequence_at_a_time_is_lindleys_recursion(seed):
    rng = np.random.default_rng(seed)
    trace = trace_of(np.sort(rng.integers(0, 4 * 10**8, 2000)), rng.integers(0, 900, 2000), rng.geometric(0.1, 2000))
    job = job_of(trace, Server(max_sequences=1, step_tokens=300), 1, "least-loaded")
    assert lindley(job).mean() > 1e8
    assert np.array_equal(in_c(job).wait_ns, lindley(job))


RUNS, REQUESTS_A_RUN, WARM_UP = 64, 20_000, 2_000


def mean_waits_s(server: Server, rate_rps: float, mean_output: int) -> np.ndarray:
    """Mean waits of independent runs: Poisson arrivals, inputs of one token, geometric outputs."""
    means = np.empty(RUNS)
    for run in range(RUNS):
        rng = np.random.default_rng([2026, mean_output, run])
        arrival_us = np.cumsum(rng.exponential(1e6 / rate_rps, REQUESTS_A_RUN)).astype(np.int64)
        outputs = rng.geometric(1 / mean_output, REQUESTS_A_RUN)
        job = job_of(trace_of(arrival_us, np.ones(REQUESTS_A_RUN), outputs), server, 1, "least-loaded")
        means[run] = in_c(job).wait_ns[WARM_UP:].mean() / 1e9
    return means


def p_of(means: np.ndarray, due: float) -> float:
    return float(stats.ttest_1samp(means, due).pvalue)


@pytest.mark.statistical
def test_equal_requests_one_by_one_wait_as_pollaczek_and_khinchine_say():
    """M/D/1 at 70 % load. Runs are independent, so a t-test of their means takes whatever correlation is in each."""
    service_s, rate_rps = 1.0, 0.7
    load = rate_rps * service_s
    due_s = load * service_s / (2 * (1 - load))
    means = mean_waits_s(Server(service_s, 0.0, 0.0, max_sequences=1), rate_rps, 1)
    assert means.std(ddof=1) / RUNS**0.5 < 0.01 * due_s
    gates.check(p_of(means, due_s), "mean wait of M/D/1")
    assert not gates.passes(p_of(mean_waits_s(Server(1.02, 0.0, 0.0, max_sequences=1), rate_rps, 1), due_s))


@pytest.mark.statistical
def test_a_batch_is_as_many_servers():
    """M/M/4 at 80 % load by Erlang's formula: outputs are geometric, 1,000 steps of 1 ms on average. A step that is on
    adds up to 1 ms to a wait of 745 ms, a tenth of the error of the runs."""
    slots, rate_rps = 4, 3.2
    terms = np.cumprod([1.0, *(rate_rps / k for k in range(1, slots + 1))])
    last = terms[-1] / (1 - rate_rps / slots)
    due_s = last / (terms[:-1].sum() + last) / (slots - rate_rps)
    means = mean_waits_s(Server(0.001, 0.0, 0.0, max_sequences=slots), rate_rps, 1000)
    assert means.std(ddof=1) / RUNS**0.5 < 0.02 * due_s
    gates.check(p_of(means, due_s), "mean wait of M/M/4")
    assert not gates.passes(p_of(mean_waits_s(Server(0.00105, 0.0, 0.0, max_sequences=slots), rate_rps, 1000), due_s))


# --- what holds for any requests


@settings(max_examples=200, deadline=None)
@given(SERVERS, REQUESTS.filter(bool))
def test_capacities_hold_and_requests_begin_in_order(server, requests):
    gaps, inputs, outputs, _ = map(np.array, zip(*requests, strict=True))
    job = job_of(trace_of(np.cumsum(gaps), inputs, outputs), server, 1, "least-loaded")
    times = in_c(job)
    begin_ns = job.arrival_ns + times.wait_ns
    end_ns = job.arrival_ns + times.ttft_ns + times.decode_ns
    assert (np.diff(begin_ns) >= 0).all()
    assert (times.wait_ns >= 0).all()
    assert (times.ttft_ns > times.wait_ns).all()
    for now_ns in begin_ns:
        there = (begin_ns <= now_ns) & (now_ns < end_ns)
        assert there.sum() <= server.max_sequences
        assert there.sum() == 1 or (inputs + outputs)[there].sum() <= server.kv_tokens
    alone = [in_c(job_of(trace_of([0], [i], [o]), server, 1, "least-loaded")).ttft_ns[0] for _, i, o, _ in requests]
    roundings_ns = inputs + 1  # half a nanosecond a step, and chunks that are cut elsewhere
    assert (times.ttft_ns - times.wait_ns + roundings_ns >= alone).all()


def bursty(seed: int, n: int = 3000, rate_rps: float = 8.0) -> sg.Trace:
    rng = np.random.default_rng(seed)
    gaps_s = rng.gamma(0.2, 5 / rate_rps, n)
    return trace_of(np.cumsum(1e6 * gaps_s), 1 + rng.lognormal(7, 1, n), 1 + rng.exponential(60, n))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("routing", ["least-loaded", "round-robin"])
def test_more_instances_wait_less_here(seed, routing):
    totals = [simulate.simulate(bursty(seed), Server(), k, routing).wait_s.sum() for k in range(1, 10)]
    assert totals[0] > 100 * totals[-1]
    assert (np.diff(totals) <= 0).all()


def test_turns_are_taken():
    """Every other request alone with an instance: the times of two traces with one instance each."""
    trace = bursty(5)
    both = simulate.simulate(trace, Server(), 2, "round-robin")
    for first in (0, 1):
        one = simulate.simulate(trace.take(np.arange(first, len(trace), 2)), Server())
        assert np.array_equal(both.ttft_s[first::2], one.ttft_s)


def test_times_are_in_seconds_and_a_mean_is_between_tokens():
    server, instances, requests, _ = BY_HAND["alone: chunks of 4, 4 and 1, then two steps of decoding"]
    (arrival_ms, inputs, outputs), *_ = requests
    served = simulate.simulate(trace_of([arrival_ms * 1000, 10**6], [inputs, 1], [outputs, 1]), server, instances)
    assert served.ttft_s.tolist() == [0.039, 0.011]
    assert served.wait_s.tolist() == [0.0, 0.0]
    assert served.tbt_s.tolist() == [0.012, 0.0]
    assert len(simulate.simulate(trace_of([], [], []), server).ttft_s) == 0


# --- how many instances


@pytest.mark.parametrize("objective", [{}, {"slo_ttft_s": 0.5, "level": 0.9}, {"slo_ttft_s": 9.0, "slo_tbt_s": 0.0145}])
def test_the_fewest_instances_are_those_of_a_linear_search(objective):
    trace = bursty(1)
    bounds = {"slo_ttft_s": 2.0, "level": 0.99, "slo_tbt_s": np.inf} | objective

    def meets(instances: int) -> bool:
        served = simulate.simulate(trace, Server(), instances)
        ttft_s, tbt_s = (np.quantile(times, bounds["level"]) for times in (served.ttft_s, served.tbt_s))
        return bool(ttft_s <= bounds["slo_ttft_s"] and tbt_s <= bounds["slo_tbt_s"])

    due = next(k for k in range(1, 64) if meets(k))
    assert due > 1
    assert instances_needed(trace, Server(), **objective) == due
    assert instances_needed(trace, Server(), **objective, most=due) == due
    assert instances_needed_each(iter([trace]), Server(), **objective, most=due - 1).tolist() == [np.inf]
    with pytest.raises(OptionError, match=f"an objective that {due - 1} instances meet"):
        instances_needed(trace, Server(), **objective, most=due - 1)


def test_replicas_are_searched_as_one_by_one(monkeypatch):
    monkeypatch.setenv("SERVEGEN_GPU_THREADS", "3")
    traces = [bursty(seed, 1000, 4.0 * (1 + seed)) for seed in range(7)]
    found = instances_needed_each(iter(traces), Server()).tolist()
    assert found == [instances_needed(trace, Server()) for trace in traces]
    assert len(set(found)) > 2


def test_without_a_library_plain_python_serves(monkeypatch):
    trace = bursty(3, 800)
    library()
    due = simulate.simulate(trace, Server(), 2)
    monkeypatch.setattr(simulate, "find_library", lambda: None)
    monkeypatch.setattr(compiled, "serve", None)
    found = simulate.simulate(trace, Server(), 2)
    assert all(np.array_equal(getattr(found, name), getattr(due, name)) for name in ("ttft_s", "wait_s", "tbt_s"))


@pytest.mark.skipif(not AZURE.is_file(), reason="no Azure trace")
def test_the_code_trace_of_azure_needs_ten_eight_and_six():
    trace = sg.read_trace(AZURE)
    assert [instances_needed(trace, Server(), slo_ttft_s) for slo_ttft_s in (1, 2, 5)] == [10, 8, 6]


# --- what is refused


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("step_s", 0.0), ("step_s", 1001), ("step_s", "0.1"), ("step_s", True), ("prefill_s_per_token", -1e-9),
        ("decode_s_per_sequence", np.inf), ("decode_s_per_sequence", np.nan), ("step_tokens", 0), ("step_tokens", 2.5),
        ("max_sequences", 10**7), ("max_sequences", True), ("kv_tokens", -1), ("origins", {"steps": "assumed"}),
        ("origins", {"step_s": "somewhere"}),
    ],
)  # fmt: skip
def test_servers_that_are_none(parameter, value):
    with pytest.raises(OptionError):
        Server(**{parameter: value})


def test_origins():
    server = Server(step_s=0.02, origins={"step_s": "published: a paper, Table 2"})
    assert [server.origin(name) for name in PARAMETERS] == ["published: a paper, Table 2"] + ["assumed"] * 6
    assert hash(server) == hash(replace(server, origins={}))


def test_arguments_are_checked():
    trace = bursty(0, 100)
    for arguments in ({"instances": 0}, {"instances": 1.5}, {"instances": 1 << 17}, {"routing": "random"}):
        with pytest.raises(OptionError):
            simulate.simulate(trace, Server(), **arguments)
    for objective in ({"slo_ttft_s": 0}, {"level": 1.01}, {"slo_tbt_s": -1}, {"most": 0}, {"level": "p99"}):
        with pytest.raises(OptionError):
            instances_needed(trace, Server(), **objective)
    with pytest.raises(OptionError, match=r"a TOML file, or a server among .*, got 'nobody'"):
        simulate.simulate(trace, "nobody")
    by_name, loaded = (simulate.simulate(trace, one) for one in ("llama-3-8b-a100", sg.load_server("llama-3-8b-a100")))
    assert (by_name.ttft_s == loaded.ttft_s).all()
    with pytest.raises(OptionError, match="none of output_tokens"):
        simulate.simulate(sg.Trace({"arrival_us": [0], "input_tokens": [1]}), Server())
    with pytest.raises(OptionError, match="a trace with requests"):
        instances_needed(trace.head(0), Server())
    with pytest.raises(OptionError, match="146 years"):
        simulate.simulate(trace_of([0] * 3, [2**31 - 1] * 3, [1] * 3), Server(prefill_s_per_token=1))


@pytest.mark.parametrize(("requests", "input_tokens", "instances"), [(100, 1000, 1), (300, 1, 1 << 16)])
def test_a_flag_ends_the_work(requests: int, input_tokens: int, instances: int):
    """In the many steps of few requests, and where many instances have few steps each."""
    columns = (np.full(requests, value) for value in (0, input_tokens, 1))
    job = job_of(trace_of(*columns), Server(step_tokens=1), instances, "least-loaded")
    stop, times = np.ones(1, np.int32), [np.empty(len(job), np.int64) for _ in range(3)]
    values = {name: value for name, value in vars(job).items() if name != "routing"}
    values |= dict(zip(("wait_ns", "ttft_ns", "decode_ns"), times, strict=True)) | {"requests": len(job), "stop": stop}
    with pytest.raises(KeyboardInterrupt):
        library().call("sg_serve", ctypes.byref(struct_of(values)))


def test_generate_does_not_import_it(tmp_path):
    code = "import sys; from servegen_gpu.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = ["generate", "deepseek-r1", "--duration", "60s", "-o", tmp_path / "t.csv"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "servegen_gpu.serving" not in done.stdout.splitlines()[-1].split()
