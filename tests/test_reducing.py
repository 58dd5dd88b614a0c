"""Reductions: the figures of a replica are those of its full trace, to the last bit, however it is made and cut."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from native import library
from profiles import talking, tiny_pool
from scipy import stats
from test_golden import CASES

import servegen_gpu as sg
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.in_flight import ServiceTime, in_flight, levels
from servegen_gpu.reducing.loads import loads
from servegen_gpu.reducing.metrics import Assumed
from servegen_gpu.reducing.reduction import Binned, Reduced
from servegen_gpu.request.columns import Ragged
from servegen_gpu.serving.objective import Objective
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import instances_needed, simulate

SPAN_S = 1500
SERVER = Server(step_s=0.05, max_sequences=16)
ASSUMED = Assumed(
    server=SERVER, instances=3, objective=Objective(20.0, None, 0.99), service=ServiceTime(2.5, 1e-3, 0.01), every_s=3.0
)
NAMES = (
    *("requests", "rate_rps", "output_tokens", "input_tokens_mean", "output_tokens_peak_10s", "requests_mean_60s"),
    *("input_tokens_p95_7s", "requests_idc_10s", "output_tokens_idc_60s", "input_tokens_p50", "output_tokens_p99"),
    *("gap_cv", "gap_p50_s", "client_gap_p90_s", "top_client_share", "top_2_share", "concurrency_peak"),
    *("kv_tokens_mean", "concurrency_p90", "ttft_p99", "wait_p50", "tbt_p90", "instances"),
)
METRICS = sg.metrics(NAMES, SPAN_S, ASSUMED)


def pool() -> sg.ClientPool:
    return tiny_pool("reason", 6, rate_rps=2.0)


@pytest.fixture(scope="module")
def trace() -> sg.Trace:
    return sg.generate(pool(), duration=SPAN_S, backend="numpy", seed=4)


def same(a: Reduced, b: Reduced) -> bool:
    """The same arrays of the same types, to the last bit."""
    assert a.keys() == b.keys()
    return all(
        a[name].keys() == b[name].keys()
        and all(
            a[name][k].dtype == b[name][k].dtype == np.int64 and np.array_equal(a[name][k], b[name][k]) for k in a[name]
        )
        for name in a
    )


def in_bins(trace: sg.Trace, column: str, width_s: float, span_s: float = SPAN_S) -> np.ndarray:
    """Load of whole bins, plainly; and behind them what comes later."""
    bins = int(span_s / width_s)
    load = np.zeros(bins + 1, np.int64)
    at = np.minimum(trace["arrival_us"] // round(width_s * 1e6), bins)
    values: Any = 1 if column == "requests" else trace[column]
    np.add.at(load, at, values.sums() if isinstance(values, Ragged) else values)
    return load


def in_cells(trace: sg.Trace, width_s: float, p: float) -> float:
    return float(np.quantile(in_bins(trace, "input_tokens", width_s)[:-1], p))


# -- figures of a trace ------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_trace(trace):
    found = sg.reduce(trace, METRICS).figures()
    assert list(sorted(found)) == sorted(NAMES)
    n, inputs, outputs = len(trace), trace["input_tokens"].astype(np.int64), trace["output_tokens"].astype(np.int64)
    gap_s = np.diff(trace["arrival_us"]) / 1e6
    own_s = (
        np.concatenate([np.diff(trace["arrival_us"][trace["client"] == c]) for c in np.unique(trace["client"])]) / 1e6
    )
    ended_us = trace["arrival_us"] + (2_500_000_000 + 1_000_000 * inputs + 10_000_000 * outputs) // 1000
    at_us = np.arange(0, SPAN_S + 1, 3)[:, None] * 1_000_000
    flying = (trace["arrival_us"] <= at_us) & (ended_us > at_us)
    requests, load = in_bins(trace, "requests", 10)[:-1], in_bins(trace, "output_tokens", 60)[:-1]
    sent = np.sort(np.bincount(trace["client"]))[::-1]
    served = simulate(trace, SERVER, 3)
    dispersed = load.var(ddof=1) / load.mean() / (load.sum() / in_bins(trace, "requests", 60)[:-1].sum())
    expected = {
        "requests": n,
        "rate_rps": n / SPAN_S,
        "output_tokens": outputs.sum(),
        "input_tokens_mean": inputs.mean(),
        "output_tokens_peak_10s": in_bins(trace, "output_tokens", 10)[:-1].max(),
        "requests_mean_60s": n / SPAN_S * 60,
        "input_tokens_p95_7s": in_cells(trace, 7, 0.95),
        "requests_idc_10s": requests.var(ddof=1) / requests.mean(),
        "output_tokens_idc_60s": dispersed,
        "input_tokens_p50": np.quantile(inputs, 0.5, method="inverted_cdf"),
        "output_tokens_p99": np.quantile(outputs, 0.99, method="inverted_cdf"),
        "gap_cv": gap_s.std() / gap_s.mean(),
        "top_client_share": sent[0] / n,
        "top_2_share": sent[:2].sum() / n,
        "concurrency_peak": flying.sum(axis=1).max(),
        "concurrency_p90": np.quantile(flying.sum(axis=1), 0.9),
        "kv_tokens_mean": (flying * (inputs + outputs)).sum(axis=1).mean(),
        "ttft_p99": np.quantile(served.ttft_s, 0.99),
        "wait_p50": np.quantile(served.wait_s, 0.5),
        "tbt_p90": np.quantile(served.tbt_s, 0.9),
        "instances": instances_needed(trace, SERVER, 20.0),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-12), name
    wide = {"gap_p50_s": np.quantile(gap_s, 0.5), "client_gap_p90_s": np.quantile(own_s, 0.9)}
    for name, value in wide.items():  # bins are a thousandth wide
        assert found[name] == pytest.approx(float(value), rel=2e-3), name
    assert found.keys() == expected.keys() | wide.keys()


@pytest.mark.parametrize("requests", [25, 50, 100])
def test_every_percentile_of_lengths_is_one_of_them(requests):
    lengths = sg.Trace({"arrival_us": np.arange(requests), "input_tokens": np.arange(1, requests + 1)})
    names = [f"input_tokens_p{percent}" for percent in range(101)]
    found = sg.reduce(lengths, sg.metrics(names, 1)).figures()
    assert [found[name] for name in names] == [max(-(-percent * requests // 100), 1) for percent in range(101)]


@pytest.mark.parametrize("size", [1, 777])
def test_slabs_of_any_size_make_the_same_states(trace, size):
    if size == 1:
        trace = trace.rows(0, 60)
    slabs = [trace.rows(at, min(at + size, len(trace))) for at in range(0, len(trace), size)]
    slabs.insert(1, trace.rows(0, 0))
    assert same(sg.reduce(slabs, METRICS), sg.reduce(trace, METRICS))


@pytest.mark.parametrize("backend", ["numpy", "native", "jax"])
def test_backends_and_memory_make_the_same_states(trace, backend):
    if backend == "jax":
        pytest.importorskip("jax", reason='JAX is not installed: pip install "servegen-gpu[jax]"')
    expected = sg.reduce(trace, METRICS)
    for memory in ("2GB", "2.5MB"):
        workload = sg.stream(
            pool(), duration=SPAN_S, backend="numpy" if backend == "native" else backend, seed=4, memory=memory
        )
        if backend == "native":
            workload = replace(workload, backend=NativeBackend(library()))
        assert same(sg.reduce(workload, METRICS), expected)
        if backend == "jax":  # compiled for these sizes
            break


def test_shares_make_the_same_states(trace):
    shares = [sg.reduce(pool(), METRICS, duration=SPAN_S, seed=4, shard=(k, 3)) for k in range(3)]
    assert same(shares[0].merged(shares[1]).merged(shares[2]), sg.reduce(trace, METRICS))
    assert not same(shares[0].merged(shares[1]), sg.reduce(trace, METRICS))


def test_sums_do_not_hang_on_the_order_of_shares(trace):
    sums = [one for one in METRICS if one.name not in ("gaps", "client_gaps", "served")]
    shares = [sg.reduce(pool(), sums, duration=SPAN_S, seed=4, shard=(k, 3)) for k in range(3)]
    assert same(shares[2].merged(shares[0]).merged(shares[1]), sg.reduce(trace, sums))
    assert len(sums) > 5


@pytest.mark.parametrize("name", CASES)
def test_compiled_kernels_bin_what_the_trace_has(name):
    """Straight from the times of requests, without rows: all categories, rules, correlations and limits."""
    pool, keywords = CASES[name]
    workload = replace(sg.stream(pool, backend="numpy", **keywords), backend=NativeBackend(library()))
    trace = workload.joined()
    columns = ["requests", *(column for column in trace if column.endswith("_tokens"))]
    span_s = float(keywords["duration"])
    alone = [name for name in columns if workload.bins([name])]
    assert bool(alone) == ("conversation" not in trace)
    for some in filter(None, (alone, alone[-1:], columns)):
        asked = [loads(some, 7.5, span_s), loads(some[:1], 600.0, span_s, name="other")]
        found = sg.reduce(workload, asked)
        for column in some:
            assert np.array_equal(found["loads_7.5s"][column], in_bins(trace, column, 7.5, span_s)), column
        assert np.array_equal(found["other"][some[0]], in_bins(trace, some[0], 600.0, span_s))


def test_kernels_bin_parts_of_windows_on_several_threads(monkeypatch):
    pool = tiny_pool("reason", 3, rate_rps=400.0, measured=False)
    for threads in ("1", "3"):
        monkeypatch.setenv("SERVEGEN_GPU_THREADS", threads)
        for counts in ("exact", "renewal"):
            workload = sg.stream(pool, duration=900, counts=counts, backend="numpy", memory="8MB")
            workload = replace(workload, backend=NativeBackend(library()))
            asked = loads(("requests", "input_tokens", "reason_tokens"), 0.1, 900)
            found = sg.reduce(workload, asked)["loads_0.1s"]
            trace = workload.joined()
            for column in found:
                assert np.array_equal(found[column], in_bins(trace, column, 0.1, 900)), (threads, counts, column)


@pytest.mark.parametrize("category", ["reason", "multimodal"])
def test_conversations_lists_and_limits_go_through_rows(category):
    reductions = sg.metrics(["requests", "input_tokens_peak_10s", "output_tokens", "output_tokens_p50"], 900)
    reductions += (loads(("image_tokens",), 10, 900, name="images"),) if category == "multimodal" else ()
    for pool, more in ((talking(category), {}), (tiny_pool(category, 4), {"max_output": 50})):
        workload = sg.stream(pool, duration=900, seed=2, **more)
        trace = joined(workload)
        found = sg.reduce(workload, reductions)
        assert same(found, sg.reduce(trace, reductions))
        assert np.array_equal(found["loads_10s"]["input_tokens"], in_bins(trace, "input_tokens", 10, 900))
        if category == "multimodal":
            assert np.array_equal(found["images"]["image_tokens"], in_bins(trace, "image_tokens", 10, 900))


def joined(workload: sg.Workload) -> sg.Trace:
    return sg.Trace.concat(list(workload))


def test_no_request_is_no_error():
    empty = sg.Trace({"arrival_us": [], "client": [], "input_tokens": [], "output_tokens": []})
    found = sg.reduce(empty, METRICS).figures()
    assert found["requests"] == found["output_tokens_peak_10s"] == found["kv_tokens_mean"] == 0
    assert all(
        np.isnan(found[name]) for name in ("gap_cv", "gap_p50_s", "ttft_p99", "input_tokens_p50", "top_client_share")
    )
    assert same(sg.reduce([], METRICS), sg.reduce(empty, METRICS))


# -- replicas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "pool"), [(1, pool()), (3, pool()), (3, talking("reason"))])
def test_replicas_come_in_order_and_are_those_of_generate(threads, pool):
    packed = sg.stream(pool, duration=SPAN_S, counts="renewal").packed
    which = [5, 0, 3, 3, 11]
    found = list(sg.reduce_replicas(packed, METRICS[:3], seed=9, replicas=which, threads=threads))
    for r, one in zip(which, found, strict=True):
        assert same(one, sg.reduce(sg.generate(packed, seed=9, replica=r), METRICS[:3]))
    assert not same(found[0], found[1])


def test_environments_are_drawn_anew_for_every_replica():
    bursty = pool().with_environment(sg.Environment(sg.Margin.gamma(variance=0.4), octaves={2: 1.0}))
    packed = sg.stream(bursty, duration=SPAN_S, counts="renewal").packed
    found = list(sg.reduce_replicas(packed, METRICS[:3], replicas=range(2)))
    for r, one in enumerate(found):
        assert same(one, sg.reduce(sg.generate(packed, replica=r), METRICS[:3]))


def test_a_width_has_one_state_however_it_is_written():
    (one,) = sg.metrics(["requests_peak_10s", "requests_mean_10.0s"], 60)
    assert one.name == sg.metrics("requests_peak_10s", 60)[0].name == "loads_10s"


def test_few_replicas_are_made_ahead():
    """Memory does not grow with their number: states wait only until the one before was taken."""
    packed = sg.stream(pool(), duration=60).packed
    asked: list[int] = []
    found = sg.reduce_replicas(
        packed, sg.metric("requests", 60), replicas=(asked.append(r) or r for r in range(1000)), threads=2
    )
    for _ in range(3):
        next(found)
    assert len(asked) < 20
    found.close()


# -- own reductions ----------------------------------------------------------------------------------------------------


def test_an_own_reduction_is_a_function_of_columns(trace):
    long = sg.Reduction(
        "long", step=lambda xp, rows: {"long": (rows["input_tokens"] > 1000).sum(), "all": len(rows["client"])}
    )
    expected = {"long": float((trace["input_tokens"] > 1000).sum()), "all": float(len(trace))}
    assert sg.reduce([trace.rows(0, 100), trace.rows(100, len(trace))], long).figures() == expected
    assert sg.reduce(pool(), [long, METRICS[0]], duration=SPAN_S, seed=4)["long"]["all"] == len(trace)
    latest = sg.Reduction("last", step=lambda xp, rows: {"us": rows["arrival_us"][-1:]}, merge=lambda a, b: b)
    assert sg.reduce([trace.rows(0, 100), trace.rows(100, 300)], latest)["last"]["us"] == trace["arrival_us"][299]


def test_an_own_reduction_may_be_jitted(trace):
    jax = pytest.importorskip("jax", reason='JAX is not installed: pip install "servegen-gpu[jax]"')
    long = jax.jit(lambda tokens: {"long": (tokens > 1000).sum(), "bins": jax.numpy.bincount(tokens // 512, length=8)})
    found = sg.reduce(trace, sg.Reduction("jitted", step=lambda xp, rows: long(rows["input_tokens"])))["jitted"]
    assert found["long"] == (trace["input_tokens"] > 1000).sum()
    assert np.array_equal(found["bins"], np.bincount(trace["input_tokens"] // 512, minlength=8))


# -- theory ------------------------------------------------------------------------------------------------------------

LAMBDA, OUTPUT_TOKENS, REPLICAS = 3.0, {10: 1, 40: 1, 100: 2}, 400


def poisson_pool(cv: float = 1.0) -> sg.ClientPool:
    arrivals: dict[str, Any] = {"arrivals": "exponential"} if cv == 1.0 else {"arrivals": "gamma", "cv": cv}
    one = sg.client(rate=LAMBDA / 4, count=4, input_tokens={100: 1}, output_tokens=OUTPUT_TOKENS, **arrivals)
    return sg.pool([one])


def replicas_of(cv: float, reductions: Any) -> list[Reduced]:
    packed = sg.stream(poisson_pool(cv), duration=60, counts="renewal").packed
    return list(sg.reduce_replicas(packed, reductions, seed=17, replicas=range(REPLICAS)))


def p_of_counts(counts: np.ndarray, pmf: Any) -> float:
    """P-value of counts against a law; values of few expected ones are taken together."""
    values = np.arange(int(counts.max()) + 60)
    expected = pmf(values) * len(counts)
    common = np.flatnonzero(expected >= 8)
    low, high = common[0], common[-1]
    observed = np.bincount(np.clip(counts, low, high) - low, minlength=high - low + 1)
    together = np.concatenate(([expected[: low + 1].sum()], expected[low + 1 : high], [expected[high:].sum()]))
    return float(stats.chisquare(observed, together * len(counts) / together.sum()).pvalue)


@pytest.mark.parametrize("cv", [1.0, 1.5])
def test_exponential_clients_give_poisson_counts_and_their_peaks(cv):
    """Counts of seconds are Poisson; the largest of 60 of them has the law of the largest of as many."""
    found = replicas_of(cv, loads(("requests",), 1, 60))
    counts = np.stack([one["loads_1s"]["requests"][:-1] for one in found])
    law = stats.poisson(LAMBDA)
    p_counts = p_of_counts(counts[:, ::6].ravel(), law.pmf)
    p_peaks = p_of_counts(counts.max(axis=1), lambda k: law.cdf(k) ** 60 - law.cdf(k - 1) ** 60)
    if cv == 1.0:
        check(p_counts, "counts of a second")
        check(p_peaks, "peaks of a minute")
    else:
        assert not passes(p_counts)
        assert not passes(p_peaks)


@pytest.mark.parametrize("defect", ["", "cv", "service"])
def test_requests_in_flight_are_poisson(defect):
    """M/G/∞: once it has run longer than any service time, as many are in flight as a Poisson number of mean λ E[S]."""
    service = ServiceTime(0.5, 0.005, 0.05 if defect != "service" else 0.06)
    found = replicas_of(1.5 if defect == "cv" else 1.0, in_flight(service, 10, 60, figures=lambda state: {}))
    counts = np.array([levels(one["in_flight"], "requests")[-1] for one in found])
    tokens, weight = np.array(list(OUTPUT_TOKENS)), np.array(list(OUTPUT_TOKENS.values())) / 4
    mean = LAMBDA * float((0.5 + 0.005 * 100 + 0.05 * tokens) @ weight)
    p = p_of_counts(counts, stats.poisson(mean).pmf)
    if defect:
        assert not passes(p)
    else:
        check(p, "requests in flight")


# -- bad input ---------------------------------------------------------------------------------------------------------

TINY = sg.Trace({"arrival_us": [1, 2], "input_tokens": [3, 4]})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (partial(sg.metric, "peak_of_all", 60), "a figure among COLUMN, .*rate_rps.*got 'peak_of_all'"),
        (partial(sg.metric, "tokens_peak_10s", 60), r"input_tokens, output_tokens"),
        (partial(sg.metric, "requests_peak_61s", 60), r"bins of 61 s, got a trace of 60 s.*length of the bins"),
        (partial(sg.metric, "requests_peak_0s", 60), "window_s from"),
        (partial(sg.metric, "requests_mean", 60), "a figure among"),
        (partial(sg.metric, "requests_p101_1s", 60), "p0 to p100"),
        (partial(sg.metric, "ttft_p101", 60), "p0 to p100"),
        (partial(sg.reduce, TINY, []), "one reduction or more"),
        (partial(sg.reduce, TINY, [METRICS[0], METRICS[0]]), "a name of its own"),
        (partial(sg.reduce, TINY, ["requests"]), "expected reductions, got 'requests'"),
        (partial(sg.reduce, TINY, METRICS[0], seed=3), "keywords of stream .* got seed"),
        (partial(sg.reduce, TINY, sg.metric("output_tokens", 1)), "a trace with output_tokens, got columns"),
        (partial(sg.reduce, TINY, sg.metric("top_client_share", 1)), "a trace with client"),
        (
            partial(sg.reduce, TINY, sg.Reduction("mean", step=lambda xp, rows: {"x": 0.5})),
            "integers in a state, got float64",
        ),
        (partial(sg.reduce, pool(), METRICS[1], duration=1400), "a trace of 1500 s or more .*got one of 1400 s"),
        (partial(sg.reduce, sg.Trace({"arrival_us": [1]}, {"duration_s": 59}), sg.metric("rate_rps", 60)), "of 59 s"),
        (partial(ServiceTime, -1.0), "base_s from 0"),
        (partial(ServiceTime, 0.0, 2.0), "s_per_input_token from 0 to 1"),
    ],
)
def test_bad_input_is_refused(call, said):
    with pytest.raises(OptionError, match=said):
        call()


def test_bad_replicas_are_refused():
    packed = sg.stream(pool(), duration=60).packed
    with pytest.raises(OptionError, match="threads as an integer from 1"):
        sg.reduce_replicas(packed, sg.metric("requests", 60), threads=0)
    with pytest.raises(OptionError, match="got one of 60 s"):
        sg.reduce_replicas(packed, METRICS[1])
    with pytest.raises(OptionError, match="replica as an integer"):
        list(sg.reduce_replicas(packed, sg.metric("requests", 60), replicas=[-1]))


def test_bins_that_are_too_many_together_go_through_rows(trace):
    """Widths without a common measure: states are right all the same."""
    asked = [loads(("requests",), 0.001, SPAN_S), loads(("requests",), 0.000997, SPAN_S)]
    found = sg.reduce(trace, asked)
    assert same(sg.reduce(pool(), asked, duration=SPAN_S, seed=4), found)
    assert Binned(("requests",), 1, 0).of(np, trace.columns)["requests"] == len(trace)
