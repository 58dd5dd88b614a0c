"""Naive baselines: rates, burstiness and pooled lengths against plain sums over clients and over requests; refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profiles import tables_of, tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.backends import describe_backends
from servegen_gpu.baselines import naive as naive_module
from servegen_gpu.cli import main
from servegen_gpu.clients import pooled
from servegen_gpu.errors import OptionError
from servegen_gpu.request.families import EXPONENTIAL, GAMMA, LOGNORMAL, WEIBULL
from servegen_gpu.request.schema import FIELDS

CATEGORIES = tuple(FIELDS)
FAMILIES = {
    "gamma": GAMMA,
    "weibull": WEIBULL,
    "lognormal": LOGNORMAL,
    "poisson": EXPONENTIAL,
    "exponential": EXPONENTIAL,
}


def shared_pool(category: str = "language", windows: int = 72, **keywords) -> sg.ClientPool:
    """Seven clients on three profiles, with rates of their own."""
    pool = tiny_pool(category, windows=windows, **keywords)
    factor = np.array([1.0, 2.0, 0.5, 4.0, 0.1, 1.0, 3.0])
    profile = np.array([0, 1, 2, 1, 0, 1, 2], np.int32)
    return replace(pool, client_ids=np.arange(0, 70, 10), profile=profile, rate_factor=factor)


def plain_pool(pool: sg.ClientPool, field: str, windows: range, weighted: bool = True) -> dict[int, float]:
    """Probabilities of a field over clients and windows, one client and window after the other."""
    lane, count = pool.fields.index(field), f"{field.removesuffix('_tokens')}_count"
    found: dict[int, float] = {}
    for p, factor in zip(pool.profile, pool.rate_factor, strict=True):
        for w in windows:
            if not pool.rate_rps[p, w]:
                continue
            weight = factor * pool.rate_rps[p, w] if weighted else 1.0
            if count in pool.fields:
                weight *= np.dot(*pool.tables.table(pool.table[p, w, pool.fields.index(count)]))
            for value, share in zip(*pool.tables.table(pool.table[p, w, lane]), strict=True):
                found[int(value)] = found.get(int(value), 0.0) + weight * share
    total = sum(found.values())
    return {v: w / total for v, w in sorted(found.items()) if w} if total else {0: 1.0}


def distance(pool: sg.ClientPool, window: int, field: str, expected: dict[int, float]) -> float:
    """Largest difference between the probabilities of a window's table and the expected ones."""
    values, shares = pool.tables.table(pool.table[0, window, pool.fields.index(field)])
    there = dict(zip(values.tolist(), shares.tolist(), strict=True))
    return max(abs(there.get(v, 0.0) - expected.get(v, 0.0)) for v in there.keys() | expected.keys())


# -- of clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize(
    ("over", "windows"), [("whole", range(72)), ("window", range(40, 41)), ("6h", range(36, 72)), (7200, range(36, 48))]
)
def test_lengths_are_those_of_all_clients_weighted_by_rate(category, over, windows):
    """Weights are parts of 2**30 and tables of 2**32: probabilities are right to 1e-8."""
    pool = shared_pool(category)
    one = sg.naive(pool, cv=2.0, lengths_over=over)
    for field in pool.fields:
        plain = plain_pool(pool, field, windows)
        assert distance(one, 40, field, plain) < 1e-8, field
    unweighted = plain_pool(pool, pool.fields[0], windows, weighted=False)
    assert distance(one, 40, pool.fields[0], unweighted) > 1e-3


def test_spans_are_counted_from_0_on_the_time_axis():
    """Of data that begins an hour into one: its first span is shorter than the others."""
    pool = tiny_pool(windows=30, silent=False, first_window=6)
    one = sg.naive(pool, cv=2.0, lengths_over="2h")
    field = pool.fields[0]
    for window, span in ((0, range(6)), (6, range(6, 18)), (18, range(18, 30))):
        assert distance(one, window, field, plain_pool(pool, field, span)) < 1e-8
    assert distance(one, 0, field, plain_pool(pool, field, range(12))) > 1e-3


def test_blocks_of_spans_change_nothing(monkeypatch):
    pool = shared_pool("multimodal")
    whole = sg.naive(pool, cv=2.0, lengths_over="window")
    monkeypatch.setattr(pooled, "BLOCK_BINS", 7)
    assert sg.naive(pool, cv=2.0, lengths_over="window").digest() == whole.digest()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_client_with_the_rate_of_all(family):
    pool = shared_pool("reason", first_window=5)
    one = sg.naive(pool, family=family, cv="fit" if FAMILIES[family] == EXPONENTIAL else 1.7)
    assert len(one) == 1
    assert (one.name, one.category, one.start_s, one.end_s) == ("tiny-reason-naive", "reason", 3000, pool.end_s)
    np.testing.assert_array_equal(one.own_rps, pool.own_rps)
    active = one.rate_rps > 0
    assert set(one.family[active]) == {FAMILIES[family]}
    assert set(one.cv[active]) == {1.0 if FAMILIES[family] == EXPONENTIAL else 1.7}
    assert not one.measured.any()
    counts = {len(sg.generate(one, duration="2h", seed=seed)) for seed in range(4)}
    assert len(counts) > 1


def test_clones_and_orders_of_clients_change_nothing():
    pool = sg.population("m-small", clients=300)
    one = sg.naive(pool, cv=1.5)
    other = replace(pool, profile=pool.profile[::-1], rate_factor=pool.rate_factor[::-1])
    assert sg.naive(other, cv=1.5).digest() == one.digest()
    cloned = sg.naive(pool.clone(4), cv=1.5)
    np.testing.assert_array_equal(cloned.tables.values, one.tables.values)
    np.testing.assert_array_equal(cloned.tables.thresholds, one.tables.thresholds)


def test_a_silent_window_stays_silent():
    pool = tiny_pool(clients=1)
    one = sg.naive(pool, cv=2.0, lengths_over="window")
    np.testing.assert_array_equal(one.rate_rps, pool.rate_rps)
    assert (one.table[one.rate_rps == 0] == -1).all()


def test_context_limits_are_kept_where_all_clients_have_one():
    assert sg.naive(shared_pool(contexts=(900, 2000)), cv=1.0).context_tokens == 2000
    assert sg.naive(shared_pool(contexts=(900, 0)), cv=1.0).context_tokens == 0


@pytest.mark.parametrize("family", ["gamma", "weibull"])
@pytest.mark.parametrize("cv", [0.4, 1.0, 2.5])
def test_the_fitted_cv_is_that_of_the_clients_together(family, cv):
    """One client with a known CV: 24 windows of 6,000 gaps give it within 5 %; it is what a trace of it gives, too."""
    pool = sg.pool([sg.client(rate=20, arrivals=family, cv=cv, input_tokens=10, output_tokens=10)])
    one = sg.naive(pool, family=family)
    assert one.cv.max() == pytest.approx(cv, rel=0.05)
    assert sg.fitted_cv(sg.stream(one, start="3h", duration="2h")) == pytest.approx(cv, rel=0.06)
    assert sg.naive(pool, family="poisson").cv.max() == 1


def test_conversations_are_not_the_baselines():
    """Half of the requests are second turns; the baseline has none, and its CV is fitted without them."""
    model = sg.TurnModel(1.0, turns=sg.distributions.Constant(2), gap_s=sg.distributions.Constant(60))
    pool = sg.pool([sg.client(rate=5, arrivals="gamma", cv=2, input_tokens=10, output_tokens=10)])
    talking = pool.with_conversations(model)
    assert sg.naive(talking).digest() == sg.naive(pool).digest()
    assert "turn" not in sg.generate(sg.naive(talking), duration="10m")
    np.testing.assert_array_equal(sg.naive(talking, cv=1.0).own_rps, talking.own_rps)


def test_a_sample_for_the_cv_is_bounded(monkeypatch):
    pool = sg.pool([sg.client(rate=200, arrivals="gamma", cv=2, input_tokens=10, output_tokens=10)])
    seen = []
    real = naive_module.gap_cvs
    monkeypatch.setattr(naive_module, "gap_cvs", lambda w, s: real((seen.append(len(t)) or t for t in w), s))
    for most in (1 << 20, 1 << 18, 1 << 15):
        seen.clear()
        monkeypatch.setattr(naive_module, "SAMPLE_REQUESTS", most)
        assert naive_module.sampled_cv(pool) == pytest.approx(2, rel=0.1)
        assert most / 4 < sum(seen) < 1.1 * most


def test_burstiness_that_changes_late_counts():
    """A clock that ticks for ten minutes, then Poisson arrivals for fifty."""
    poisson = sg.generate(sg.pool([sg.client(rate=10, input_tokens=1, output_tokens=1)]), duration="50m")
    late_us = poisson["arrival_us"] + 600_000_000
    arrival_us = np.concatenate((np.arange(0, 600_000_000, 100_000), late_us))
    trace = sg.Trace(
        {"arrival_us": arrival_us, **{f"{n}_tokens": np.ones(len(arrival_us), int) for n in ("input", "output")}}
    )
    cv = sg.naive(trace).cv
    assert np.unique(cv[cv > 0]).tolist() == [pytest.approx(1.0, abs=0.05)]


def test_pooled_dependence_is_that_of_all_requests():
    """Two kinds of clients, one with long inputs and short outputs: ranks over all requests say so, within 0.02."""
    make = {"input_tokens": sg.distributions.LogNormal, "output_tokens": sg.distributions.LogNormal}
    kinds = [
        sg.client(rate=3, **{f: d(median=m, sigma=1.0) for (f, d), m in zip(make.items(), ms, strict=True)})
        for ms in ((2000, 100), (200, 500))
    ]
    tied = sg.client(
        rate=2,
        input_tokens=sg.distributions.LogNormal(median=300, sigma=1.0),
        output_tokens=sg.distributions.LogNormal(median=300, sigma=1.0),
        rank_correlation={"input_tokens:output_tokens": 0.8},
    )
    for specs in (kinds, [*kinds, tied], [tied]):
        pool = sg.pool(specs)
        trace = sg.generate(pool, duration="3h")
        rho = stats.spearmanr(trace["input_tokens"], trace["output_tokens"]).statistic
        for one in (sg.naive(pool, cv=1.0, dependence="pooled"), sg.naive(trace, cv=1.0, dependence="pooled")):
            assert one.correlations[0, 0, 1] == pytest.approx(rho, abs=0.02)
            again = sg.generate(one, duration="1h", seed=1)
            assert stats.spearmanr(again["input_tokens"], again["output_tokens"]).statistic == pytest.approx(
                rho, abs=0.03
            )
        plain = sg.generate(sg.naive(pool, cv=1.0), duration="1h", seed=1)
        assert abs(stats.spearmanr(plain["input_tokens"], plain["output_tokens"]).statistic) < 0.03
        assert abs(rho) > 0.2


def test_every_backend_gives_the_same():
    one = sg.naive(shared_pool(), cv=2.0, dependence="pooled")
    known = sg.generate(one, duration="30m", seed=3, backend="numpy")
    assert len(known) > 500
    for row in describe_backends():
        if row["state"] != "ready" or row["name"] == "numpy":
            continue
        trace = sg.generate(one, duration="30m", seed=3, backend=row["name"])
        assert len(trace) == len(known)
        assert np.abs(trace["arrival_us"] - known["arrival_us"]).max() <= (row["name"] == "jax")
        for name in ("input_tokens", "output_tokens"):
            np.testing.assert_array_equal(trace[name], known[name])
    shards = [sg.generate(one, duration="30m", seed=3, shard=f"{k}/3") for k in (1, 2, 3)]
    assert sum(len(part) for part in shards) == len(known)


def test_rates_and_schedules_apply():
    one = sg.naive(shared_pool(), cv=1.0)
    trace = sg.generate(one, rate={0: 5, 1800: 20}, duration="1h")
    counts = np.bincount(trace["arrival_us"] // 1_800_000_000)
    assert np.abs(counts - [9_000, 36_000]).max() < 5 * 190  # standard deviations of Poisson counts: 95 and 190


# -- of traces ---------------------------------------------------------------------------------------------------------


def made(category: str = "language", rate: float = 20, duration: str = "25m", **keywords) -> sg.Trace:
    return sg.generate(shared_pool(category), rate=rate, duration=duration, seed=5, **keywords)


def slabs_of(trace: sg.Trace, rows: int) -> list[sg.Trace]:
    return [trace.rows(lo, lo + rows) for lo in range(0, len(trace), rows)]


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize(("over", "last"), [("whole", 3), ("window", 1), ("20m", 2)])
def test_lengths_and_rates_are_those_of_the_trace(category, over, last):
    trace = made(category)
    one = sg.naive(trace, cv=2.0, lengths_over=over)
    counts = np.bincount(trace["arrival_us"] // 600_000_000)
    np.testing.assert_allclose(one.rate_rps[0], counts / [600, 600, 300])
    mine = trace["arrival_us"] < last * 600_000_000
    if over == "window":
        assert (np.diff(one.table[0, :, 0]) == 1).all()
    fields = {"input_tokens", "output_tokens", "text_tokens"} & set(one.fields)
    columns = {name: trace[name][mine] for name in fields}
    if category == "multimodal":
        images = trace["image_tokens"]
        columns["image_count"] = images.lengths[mine]
        columns["image_tokens"] = images.values[np.repeat(mine, images.lengths)]
        columns["video_tokens"] = np.zeros(1)  # none at all
    for name, column in columns.items():
        values, weights = np.unique(column, return_counts=True)
        expected = dict(zip(values.tolist(), (weights / weights.sum()).tolist(), strict=True))
        assert distance(one, 0, name, expected) < 1e-9, name
    assert sg.naive(slabs_of(trace, 777), cv=2.0, lengths_over=over).digest() == one.digest()


def test_shares_of_reasoning_survive():
    """Short outputs round them: they are right to a few parts in a hundred."""
    trace = made("reason")
    again = sg.generate(sg.naive(trace, cv=1.0), duration="25m")
    parts = []
    for t in (trace, again):
        long = t["output_tokens"] > 100
        share = t["reason_tokens"][long] / t["output_tokens"][long]
        parts.append(np.histogram(share, [0, 0.2, 0.4, 0.6, 0.8, 1])[0] / len(share))
    assert parts[0][2] > 0.45
    np.testing.assert_allclose(parts[1], parts[0], atol=0.03)


def test_a_trace_of_columns_alone_ends_a_gap_after_its_last_request():
    n = np.arange(1, 1001, dtype=np.int32)
    trace = sg.Trace({"arrival_us": n.astype(np.int64) * 1_000_000, "input_tokens": n, "output_tokens": n})
    one = sg.naive(trace, family="poisson")
    np.testing.assert_allclose(one.rate_rps[0], [599 / 600, 1], rtol=1e-2)
    assert one.name == "trace-naive"
    assert sg.naive([trace.rows(0, 400), trace.rows(400, 1000)], family="poisson").digest() == one.digest()
    fitted = sg.naive(sg.generate(sg.naive(trace, cv=0.5), rate=10, duration="1h"))
    assert fitted.cv.max() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(OptionError, match="CV of all arrivals"):  # a metronome
        sg.naive(trace)


def test_silence_at_the_end_of_a_trace_counts():
    pool = sg.pool([sg.client(rate={"0h": 5, "10m": 0}, input_tokens=100, output_tokens=50)])
    trace = sg.generate(pool, duration="55m")
    one = sg.naive(trace)
    assert one.windows == 6
    assert one.rate_rps[0, 1:].max() == 0
    assert len(sg.generate(one, duration="1h")) == pytest.approx(len(trace), rel=0.1)
    for stated in ("long", None, float("nan"), float("inf"), 5.0):  # a file may say anything
        assert sg.naive(sg.Trace(trace.columns, {"duration_s": stated}), cv=1).windows == 1
    with pytest.raises(OptionError, match="16,777,216 windows"):
        sg.naive(sg.Trace(trace.columns, {"duration_s": 2.0**32}), window_s=1)


def test_a_trace_and_its_baseline_have_the_same_figures():
    """A day in an hour: totals within five standard deviations of a renewal count, means within 3 %."""
    trace = made(rate=100, duration="1h")
    again = sg.generate(sg.naive(trace), duration="1h", seed=9)
    cv = sg.fitted_cv(trace)
    assert abs(len(again) - len(trace)) < 5 * cv * len(trace) ** 0.5
    assert sg.fitted_cv(again) == pytest.approx(cv, rel=0.05)
    for name in ("input_tokens", "output_tokens"):
        assert again[name].mean() == pytest.approx(trace[name].mean(), rel=0.03)


# -- refusals ----------------------------------------------------------------------------------------------------------

SILENT = replace(tiny_pool(clients=1), rate_rps=np.zeros((1, 144)))
EMPTY = made().rows(0, 0)
LISTS = made("multimodal")


@pytest.mark.parametrize(
    ("source", "keywords", "expected"),
    [
        (tiny_pool(), {"family": "pareto"}, "a family among poisson, exponential, gamma, weibull, lognormal"),
        (tiny_pool(), {"family": None}, "a family"),
        (tiny_pool(), {"cv": 0.0}, "a cv from 0.01 to 1000"),
        (tiny_pool(), {"cv": float("nan")}, "a cv from"),
        (tiny_pool(), {"cv": 1e4, "family": "weibull"}, "a cv from"),
        (tiny_pool(), {"cv": True}, "cv as a number"),
        (tiny_pool(), {"cv": None}, "the shape or the cv"),
        (tiny_pool(), {"cv": "guess"}, "cv as a number, or 'fit'"),
        (tiny_pool(), {"cv": 2.0, "family": "poisson"}, "exponential gaps"),
        (tiny_pool(), {"cv": 2.0, "lengths_over": "5m"}, "lengths_over as 'whole', 'window'"),
        (tiny_pool(), {"cv": 2.0, "lengths_over": "day"}, "lengths_over"),
        (tiny_pool(), {"cv": 2.0, "dependence": "comonotone"}, "dependence among independent, pooled"),
        (tiny_pool(), {"cv": 2.0, "window_s": 60}, "window_s with a trace only"),
        (tiny_pool(rate_rps=0.001), {}, "at least 30 inter-arrival times"),
        (SILENT, {}, "a pool with requests"),
        ("trace.parquet", {}, "a file that is there, or a workload"),
        (7, {}, "a pool, a Trace, or its slabs"),
        ([7], {}, "slabs of a trace"),
        ([], {}, "a trace with requests"),
        (EMPTY, {}, "a trace with requests"),
        (made(), {"window_s": 0}, "window_s of at least 1 s"),
        (made(), {"window_s": 5000}, "window_s as an integer from 0 to 4294"),
        ([made()], {"dependence": "pooled"}, "a Trace in memory"),
    ],
)
def test_bad_input_is_refused(source, keywords, expected):
    with pytest.raises(OptionError, match=expected):
        sg.naive(source, **keywords)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"arrival_us": np.arange(3)[::-1]}, "ascending order"),
        ({"arrival_us": np.arange(3) - 1}, "arrivals from 0 on"),
        ({"arrival_us": np.array([0, 1, 2**62])}, "at most 16,777,216 windows"),
        ({"input_tokens": np.array([1, -1, 1])}, "input_tokens from 0 to"),
        ({"input_tokens": np.array([1, 2**31, 1])}, "input_tokens from 0 to"),
        ({"output_tokens": np.array([1.0, 2.0, 3.0])}, "output_tokens as whole numbers"),
        ({"output_tokens": None}, "the columns arrival_us, input_tokens, output_tokens"),
        ({"reason_tokens": np.array([1, 2, 9])}, "reason_tokens as a part of output_tokens"),
        ({"image_tokens": LISTS["image_tokens"].rows(0, 3)}, "the columns arrival_us, text_tokens"),
        ({"text_tokens": np.arange(3), "image_tokens": np.arange(3)}, "image_tokens as lists"),
    ],
)
def test_odd_traces_are_refused(change, expected):
    columns = {"arrival_us": np.arange(3), "input_tokens": np.arange(3), "output_tokens": np.arange(3)} | change
    with pytest.raises(OptionError, match=expected):
        sg.naive(sg.Trace.trusted({name: c for name, c in columns.items() if c is not None}), cv=1.0)


def test_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(pooled, "MAX_BINS", 100)
    with pytest.raises(OptionError, match="pooled tables of at most 100 bins"):
        sg.naive(shared_pool(), cv=1.0, lengths_over="window")
    many = sg.Trace({name: np.arange(500) for name in ("arrival_us", "input_tokens", "output_tokens")})
    with pytest.raises(OptionError, match="pooled tables of at most 100 bins"):
        sg.naive(many, cv=1.0)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_makes_baselines_of_workloads_and_of_traces(tmp_path, capsys):
    first, second = (str(tmp_path / name) for name in ("a.parquet", "b.csv"))
    common = ["--duration", "10m", "--rate", "20"]
    assert (
        main(["generate", "m-small", "--clients", "50", "--naive", "gamma", "--naive-cv", "2", "-o", first, *common])
        == 0
    )
    assert "one gamma process, CV 2, lengths" in capsys.readouterr().err
    trace = sg.read_trace(first)
    assert trace.provenance["workload"] == "m-small-naive"
    known = sg.generate(sg.naive(sg.population("m-small", clients=50), cv=2), rate=20, duration="10m")
    np.testing.assert_array_equal(trace["arrival_us"], known["arrival_us"])
    assert main(["generate", first, "--naive", "weibull", "--naive-lengths", "window", "-o", second, *common]) == 0
    note = capsys.readouterr().err
    assert "(fitted)" in note
    assert "lengths of all requests of a window" in note
    again = sg.read_trace(second)
    assert set(again["client"]) == {0}
    assert np.isin(again["input_tokens"], trace["input_tokens"]).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["m-small", "--naive-cv", "2"],
        ["m-small", "--naive", "gamma", "--naive-cv", "-1"],
        ["m-small", "--naive", "poisson", "--naive-cv", "2"],
        ["m-small", "--naive", "gamma", "--naive-lengths", "7m"],
        ["nothing.parquet", "--naive", "gamma"],
        ["{trace}", "--naive", "poisson", "--clones", "2"],
        ["{trace}"],
    ],
)
def test_bad_options_end_with_status_2(arguments, tmp_path, capsys):
    trace = tmp_path / "t.csv"
    sg.generate(tiny_pool(), duration="10m").write(trace)
    out = tmp_path / "out.csv"
    arguments = [a.format(trace=trace) for a in arguments]
    assert main(["generate", *arguments, "-o", str(out), "--duration", "10m"]) == 2
    message = capsys.readouterr().err
    assert "expected" in message
    assert "Traceback" not in message
    assert not out.exists()


def test_unused_tables_of_a_pool_do_not_matter():
    pool = shared_pool()
    more = replace(pool, tables=type(pool.tables).join([pool.tables, tables_of([{9: 1.0}])]))
    assert sg.naive(more, cv=1.0).digest() == sg.naive(pool, cv=1.0).digest()
