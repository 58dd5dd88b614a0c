"""Provisioning: searches against brute force, plans against NumPy, the paper's Fig. 20 and 21, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import gates
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.backends.native.library import find_library
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.serving.fleet import Fleet, _least
from servegen_gpu.serving.objective import Objective, parse_objective
from servegen_gpu.serving.simulate import alone, instances_needed
from servegen_gpu.studies.intervals import share_interval
from servegen_gpu.studies.provisioned import COLUMNS, LEVELS, WHOLE, Provision
from servegen_gpu.studies.requested import ALONE, STEP, GivenTrace, SampledPool, naive_baseline

SERVER = sg.Server(step_s=0.02, prefill_s_per_token=2e-4, step_tokens=512)
SLO = "ttft=1s,tbt=300ms"
OBJECTIVE = Objective(1.0, 0.3, 0.99)
HOW: dict[str, Any] = {"rate": 20, "duration": "2m"}


@pytest.fixture(scope="module")
def pool() -> sg.ClientPool:
    lengths = {"input_tokens": sg.distributions.LogNormal(median=300, sigma=1), "output_tokens": {20: 1, 60: 3}}
    bursty = sg.client(rate=1, arrivals="gamma", cv=2, count=12, **lengths)  # type: ignore[arg-type]
    return sg.pool([bursty, sg.client(rate=8, **lengths)])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def study(pool: sg.ClientPool) -> Provision:
    return sg.provision(pool, SLO, SERVER, **HOW, replicas=12, naive="poisson", window_s=30, threads=2)


def by_brute_force(trace: sg.Trace, counted: Any = slice(None)) -> int:
    for instances in range(1, 64):
        served = sg.simulate(trace, SERVER, instances)
        if np.quantile(served.ttft_s[counted], 0.99) <= 1.0 and np.quantile(served.tbt_s[counted], 0.99) <= 0.3:
            return instances
    raise AssertionError


# --- objectives


@pytest.mark.parametrize(
    ("slo", "at", "bounds"),
    [
        ("ttft=2.25s,tbt=0.5s", "p99", (2.25, 0.5, 0.99)),
        (" tbt = 60ms ", "P99.9", (None, 0.06, 0.999)),
        ({"ttft": 2, "tbt": "500ms"}, 0.5, (2.0, 0.5, 0.5)),
        ("ttft=1e3ms", 1, (1.0, None, 1.0)),
    ],
)
def test_objectives_in_a_users_words(slo, at, bounds):
    assert parse_objective(slo, at) == Objective(*bounds)


@pytest.mark.parametrize(
    ("slo", "at", "words"),
    [
        ("ttft=2", "p99", "ttft above 0 with a unit, s or ms, got '2'"),
        ("ttft=2m", "p99", "unit, s or ms"),
        ("ttft=0s", "p99", "above 0"),
        ("e2e=2s", "p99", "bounds of ttft and tbt, got 'e2e'"),
        ("ttft=2s,ttft=3s", "p99", "ttft twice"),
        ("ttft<2s", "p99", "'ttft<2s'"),
        ("", "p99", "each once"),
        ({}, "p99", "a bound of ttft or tbt"),
        (2.0, "p99", "an objective such as"),
        ("ttft=2s", "99", "a quantile such as p99"),
        ("ttft=2s", "p101", "up to 1"),
        ("ttft=2s", 0, "above 0"),
    ],
)
def test_objectives_that_are_none(slo, at, words):
    with pytest.raises(OptionError, match=words):
        parse_objective(slo, at)


# --- searches


def test_the_least_number_is_that_of_a_linear_search():
    rng = np.random.default_rng(0)
    for most in (1, 2, 7, 1000):
        for needed, first in rng.integers(1, (most + 2, most + 1), (100, 2)).tolist():
            tried: list[int] = []
            found = _least(
                lambda n, needed=needed, tried=tried: tried.append(n) or n >= needed, first, most, lambda: True
            )
            assert found == (needed if needed <= most else math.inf)
            assert len(tried) <= 4 + 2 * math.log2(abs(needed - first) + 1)
            assert len(set(tried)) == len(tried)
            assert all(1 <= n <= most for n in tried)


def test_what_nothing_attains_is_found_out_before_all_numbers_are_tried():
    tried: list[int] = []
    assert _least(lambda n: bool(tried.append(n)), 3, 10**6, lambda: False) == math.inf
    assert max(tried) < 500
    assert _least(lambda n: n >= 7000, 3, 10**6, lambda: True) == 7000


def test_attainment_is_the_share_of_requests_within_both_bounds():
    ttft_s, tbt_s = np.array([0.5, 1.0, 1.5, 0.2]), np.array([0.01, 0.02, 0.01, 0.03])
    assert parse_objective("ttft=1s,tbt=20ms").attainment(ttft_s, tbt_s) == 0.5
    assert parse_objective("ttft=1s").attainment(ttft_s, tbt_s) == 0.75


def test_a_trace_without_a_duration_ends_with_its_last_request():
    columns = {"arrival_us": [0, 4_999_999], "input_tokens": [9, 9], "output_tokens": [2, 2]}
    found = GivenTrace(sg.Trace(columns), 0)
    assert (found.span_s, found.rate_rps) == (5.0, 0.4)


def test_windows_need_what_brute_force_says(pool: sg.ClientPool):
    trace = sg.generate(pool, **HOW, seed=3)
    fleet = Fleet(SERVER, OBJECTIVE, "least-loaded")
    begins_s = np.array([0, 70, 100])
    found = list(fleet.by_window(fleet.job(trace), (begins_s * 1e9).astype(np.int64), 1))
    assert len(set(found)) > 1
    for begin_s, end_s, needed in zip(begins_s, [70, 100, 120], found, strict=True):
        lead_s = max(begin_s - 60, 0)
        part = trace.between(float(lead_s), float(end_s))
        assert needed == by_brute_force(part, part["arrival_us"] >= (begin_s - lead_s) * 1e6)


def test_rows_are_what_each_replica_needs(pool: sg.ClientPool, study: Provision):
    assert list(study.table) == [*COLUMNS]
    assert study.sources == ("clients", "naive")
    for replica in (0, 5, 11):
        trace = sg.generate(pool, **HOW, counts="renewal", replica=replica)
        rows = study.table[(study.table["source"] == "clients") & (study.table["replica"] == replica)]
        whole, windows = rows.iloc[0], rows.iloc[1:]
        assert whole["window_start_s"] == WHOLE
        assert whole["instances"] == instances_needed(trace, SERVER, 1.0, 0.99, 0.3) == by_brute_force(trace)
        assert windows["window_start_s"].tolist() == [0, 30, 60, 90]
        assert windows["requests"].tolist() == np.bincount(trace["arrival_us"] // 30_000_000).tolist()
        assert windows["instances"].iloc[0] == by_brute_force(trace.between(0.0, 30.0))
        assert whole["requests"] == len(trace) == windows["requests"].sum()
    assert np.array_equal(study.sample("clients", "peak"), _windows(study).max(axis=1))
    assert np.allclose(study.sample("clients", "mean"), _windows(study).mean(axis=1))


def _windows(study: Provision) -> np.ndarray:
    table = study.table[(study.table["source"] == "clients") & (study.table["window_start_s"] != WHOLE)]
    return table["instances"].to_numpy().reshape(12, 4)


def alone_holds(traces: list[sg.Trace]) -> bool:
    served = [sg.simulate(trace, SERVER, 1) for trace in traces]
    ttft_s, tbt_s = (np.concatenate([getattr(one, name) for one in served]) for name in ("ttft_s", "tbt_s"))
    return bool(np.quantile(ttft_s, 0.99) <= 1.0 and np.quantile(tbt_s, 0.99) <= 0.3)


def test_one_instance_holds_its_highest_rate_and_not_the_next(pool: sg.ClientPool, study: Provision):
    (rate,) = set(study.sample("clients", "max_rate_rps").tolist())
    assert study.sample("clients", "by_rate").tolist() == [math.ceil(20 / rate)] * 12
    for factor, holds in ((1, True), (STEP, False)):
        packed = sg.stream(pool, **HOW | {"rate": rate * factor}, counts="renewal").packed
        assert alone_holds([sg.generate(packed, replica=replica) for replica in range(12)]) is holds


def test_threads_change_nothing(pool: sg.ClientPool, study: Provision):
    told = []
    again = sg.provision(
        pool, SLO, SERVER, **HOW, replicas=12, naive="poisson", window_s="30s", threads=1,
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.table, study.table)
    assert again.settings == study.settings
    assert told == [(done, 24) for done in range(1, 25)]


# --- plans


def made_of(needed: Any, naive: Any = None) -> Provision:
    rows = [
        (source, replica, WHOLE, 600.0, 9, float(n), 2.0, 10.0)
        for source, sample in {"clients": needed, "naive": naive}.items()
        if sample is not None
        for replica, n in enumerate(sample)
    ]
    return Provision(pd.DataFrame(rows, columns=[*COLUMNS]), {"confidence": 0.95, "objective": {}})


def test_plans_suffice_for_as_many_replicas_as_they_say():
    needed = np.random.default_rng(1).permutation(np.arange(1, 401))
    found = made_of(needed, needed - 20)
    for level in LEVELS:
        plan = found.plan("clients", level)
        assert plan.value == 400 * level
        assert plan.low < plan.value < plan.high
        assert plan.low == stats.binom.ppf(0.025, 400, level)
    against = found.against_naive().set_index("level").loc[0.95]
    assert against[["needed", "naive", "difference", "missed"]].tolist() == [380, 360, -20, 0.1]
    misses = found.misses()
    assert misses[(misses["source"] == "clients") & (misses["instances"] == 380)]["probability"].tolist() == [0.05]
    with pytest.raises(OptionError, match="a source among clients"):
        made_of([1, 2]).plan("naive")
    with pytest.raises(OptionError, match="a study with a naive baseline"):
        made_of([1, 2]).against_naive()


def test_what_no_number_holds_is_not_averaged_away():
    found = made_of([3, 4, math.inf, math.inf])
    assert [found.plan("clients", level).value for level in (0.5, 0.9)] == [4, math.inf]
    assert found.misses()["probability"].min() == 0.5


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 40)])
def test_intervals_of_shares_are_clopper_and_pearsons(hits, n):
    exact = stats.binomtest(hits, n).proportion_ci(0.9, "exact")
    assert share_interval(hits, n, 0.9) == pytest.approx((hits / n, exact.low, exact.high))


# --- the paper


compiled = pytest.mark.skipif(find_library() is None, reason="no compiled kernels: plain Python takes minutes")


@pytest.fixture(scope="module")
def m_large() -> sg.ClientPool:
    return sg.population("m-large")


@compiled
def test_fig_20_clients_are_near_what_held_out_traces_need_and_naive_plans_below(m_large):
    """10 minutes of M-large, 30,000 requests: traces of another seed stand for the paper's real one. Two gates."""
    how: dict[str, Any] = {"duration": "10m", "start": "10h"}
    fleet = Fleet(sg.load_server("llama-3-70b-4xa100"), parse_objective("ttft=2.25s,tbt=0.5s"), "least-loaded")
    clients = SampledPool.of("clients", m_large, 50, how | {"counts": "renewal"}, 0, 20)
    real = SampledPool.of("trace", m_large, 50, how | {"counts": "renewal"}, 1, 20)
    needed = {
        name: [fleet.fewest(fleet.job(of.trace(replica)), 20) for replica in range(20)]
        for name, of in {"real": real, "clients": clients, "naive": naive_baseline(clients, "gamma", 20)}.items()
    }
    medians = {name: float(np.median(sample)) for name, sample in needed.items()}
    assert abs(medians["clients"] / medians["real"] - 1) < 0.10
    assert medians["naive"] / medians["real"] < 0.85
    gates.check(stats.mannwhitneyu(needed["clients"], needed["real"]).pvalue, "instances of clients")
    assert not gates.passes(stats.mannwhitneyu(needed["naive"], needed["real"]).pvalue)


@compiled
def test_fig_21_clients_and_naive_want_other_splits_of_prefill_and_decode(m_large):
    """M-large at 12 req/s on 8 instances, TTFT 8 s and TBT 60 ms; the paper's best split has more decode, not less."""
    server, objective = sg.load_server("qwen2.5-72b-4xh20"), parse_objective("ttft=8s,tbt=60ms")
    clients = SampledPool.of("clients", m_large, 12, {"duration": "10m", "start": "15h", "counts": "renewal"}, 0, 8)
    missed = {}
    for source in (clients, naive_baseline(clients, "poisson", 8)):
        for prefill in (5, 6):
            split = sg.Split(prefill, 8 - prefill, transfer_s_per_token=327_680 / 25e9)
            served = [sg.simulate(source.trace(replica), server, split) for replica in range(8)]
            missed[source.name, prefill] = 1 - np.mean([objective.attainment(s.ttft_s, s.tbt_s) for s in served])
    assert missed["naive", 5] < missed["naive", 6] < 0.01
    assert missed["clients", 5] > 2 * missed["clients", 6]


def test_a_poisson_client_is_its_naive_baseline():
    lengths = {"input_tokens": sg.distributions.LogNormal(median=300, sigma=1), "output_tokens": {20: 1, 60: 3}}
    one = sg.pool([sg.client(rate=30, **lengths)])  # type: ignore[arg-type]
    found = sg.provision(one, "ttft=0.8s", SERVER, duration="1m", replicas=40, naive="poisson")
    assert len(set(found.sample("clients"))) > 1
    gates.check(stats.mannwhitneyu(found.sample("clients"), found.sample("naive")).pvalue, "instances of Poisson")
    assert found.settings["naive"] == {"family": "exponential", "cv": 1.0}


def test_conversations_keep_to_their_instance_and_naive_requests_have_none(pool: sg.ClientPool):
    model = sg.TurnModel(
        0.5, turns=sg.distributions.Pmf([3], [1]), gap_s=sg.distributions.Exponential(5), growth="history"
    )
    talking = pool.with_conversations(model)
    how: dict[str, Any] = {"rate": 5, "duration": "1m", "warmup": "30s"}
    found = sg.provision(talking, SLO, SERVER, **how, replicas=3, naive="poisson", routing="session-affine")
    trace = sg.generate(talking, **how, counts="renewal")
    assert found.sample("clients")[0] == instances_needed(trace, SERVER, 1.0, 0.99, 0.3, routing="session-affine")
    assert "stand alone" in found.notes[-1]
    assert found.settings["naive"]["family"] == "exponential"


# --- traces, files and what is refused


def test_one_trace_has_a_number_and_no_confidence(pool: sg.ClientPool):
    trace = sg.generate(pool, **HOW, seed=3)
    found = sg.provision(trace, SLO, SERVER, replicas=5, naive=True, window_s="1m")
    assert found.plan("trace").value == instances_needed(trace, SERVER, 1.0, 0.99, 0.3)
    assert math.isnan(found.plan("trace").low)
    assert "one trace, no confidence" in str(found)
    assert found.summary().query("source == 'trace'")["level"].isna().all()
    assert found.settings["naive"]["cv"] == pytest.approx(sg.fitted_cv(trace, 120.0), rel=1e-3)
    assert len(found.sample("naive")) == 5
    rate = found.sample("trace", "max_rate_rps")[0]
    for factor, holds in ((1, True), (STEP, False)):
        share = rate / (len(trace) / 120) * factor
        assert alone_holds([trace.thinned(share, seed=seed) for seed in range(ALONE)]) is holds
    with pytest.raises(OptionError, match="with a pool only, got rate and a trace"):
        sg.provision(trace, SLO, SERVER, rate=3)
    with pytest.raises(OptionError, match="a trace with requests"):
        sg.provision(trace.head(0), SLO, SERVER)


def test_an_objective_that_nothing_meets_says_what_would_do(pool: sg.ClientPool):
    how: dict[str, Any] = HOW | {"replicas": 3}
    with pytest.raises(
        OptionError, match=r"some number of instances meets, .* alone .* relax it to ttft=\d"
    ) as refused:
        sg.provision(pool, "ttft=50ms,tbt=300ms", SERVER, **how)
    least = refused.value.fix.split()[3]
    reached = [np.quantile(alone(_job(pool, r))[0], 0.99) for r in range(3)]
    assert float(least.removeprefix("ttft=").removesuffix("ms")) / 1e3 == pytest.approx(np.median(reached), abs=1e-4)
    assert sg.provision(pool, "ttft=2s", SERVER, **how).plan("clients").value < 20


def _job(pool: sg.ClientPool, replica: int) -> Any:
    trace = sg.generate(pool, **HOW, counts="renewal", replica=replica)
    return Fleet(SERVER, OBJECTIVE, "least-loaded").job(trace)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"replicas": 0}, "replicas of at least 1"),
        ({"confidence": 1}, "confidence above 0"),
        ({"threads": 0}, "threads as an integer from 1 to 1024"),
        ({"routing": "random"}, "routing among least-loaded"),
        ({"naive": "normal"}, "naive as True, poisson"),
        ({"window_s": 0}, "window_s above 0"),
        ({"window_s": "1x"}, "window_s as seconds"),
        ({"replica": 3}, "without requests, replica, shard and device, got replica"),
        ({"server": "h100"}, "a server among llama-3-8b-a100"),
    ],
)
def test_arguments_that_cannot_be(pool: sg.ClientPool, changed, words):
    with pytest.raises(OptionError, match=words):
        sg.provision(**{"source": pool, "slo": SLO, "server": SERVER, **HOW, **changed})


def test_a_study_is_read_as_it_was_written(pool: sg.ClientPool, study: Provision, tmp_path):
    study.write(tmp_path / "study.parquet")
    again = Provision.read(tmp_path / "study.parquet")
    pd.testing.assert_frame_equal(again.table, study.table)
    assert again.settings == json.loads(json.dumps(study.settings))
    assert str(again) == str(study)
    sg.monte_carlo(pool, duration="1m", replicas=1).write(tmp_path / "other.parquet")
    with pytest.raises(OptionError, match="one of kind montecarlo"):
        Provision.read(tmp_path / "other.parquet")


def test_the_command(pool: sg.ClientPool, tmp_path, capsys, monkeypatch):
    sg.generate(pool, rate=8, duration="1m", seed=3).write(tmp_path / "trace.csv")
    path, study = str(tmp_path / "trace.csv"), str(tmp_path / "study.parquet")
    words = ["--slo", "ttft=2s,tbt=500ms", "--server", "llama-3-8b-a100", "--replicas", "3", "--window", "20s"]
    assert main(["provision", path, "--naive", "poisson", *words, "--json", "--quiet", "-o", study]) == 0
    found = json.loads(capsys.readouterr().out)
    assert next(row["value"] for row in found["summary"] if row["figure"] == "instances") >= 1
    assert len(found["over_time"]) == 6
    assert found["settings"]["server"]["parameters"]["step_s"]["origin"].startswith("fitted")
    assert Provision.read(study).sources == ("trace", "naive")
    assert main(["provision", "m-small", "--rate", "5", "--duration", "1m", *words, "--clients", "50"]) == 0
    said = capsys.readouterr().out
    assert "instances that suffice for" in said
    assert main(["provision", path, *words, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert "instances that suffice for this trace\n" in printed.out
    assert "%" not in printed.out
    assert "note:" not in printed.out + printed.err
    assert "fitted: step_s" in said
    assert "50 clients, 0 of them measured" in said
    monkeypatch.setattr(
        Provision, "write", lambda *_, **__: (_ for _ in ()).throw(OutputError("space", "none", "free some"))
    )
    assert main(["provision", path, *words, "-o", study]) == 2
    assert "instances that suffice" in capsys.readouterr().out  # what was found is said first
    for wrong, message in (
        ([path, *words, "--rate", "3"], "without a rate and a time of its own, got --rate"),
        ([path, *words, "--largest", "3"], "a trace without options of clients"),
        ([path, *words, "-o", "study.csv"], "ends in .parquet"),
        ([path, "--slo", "ttft=2", "--server", "llama-3-8b-a100"], "a unit, s or ms"),
    ):
        assert main(["provision", *wrong]) == 2
        assert message in capsys.readouterr().err
