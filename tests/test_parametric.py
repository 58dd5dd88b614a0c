"""Clients of one's own: what is asked for is what the pool holds and what the trace shows; pools join."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from profiles import tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.clients.stated.distributions import Beta, Constant, Exponential, LogNormal, Mixture, Pareto
from servegen_gpu.clients.stated.tabulate import TOKENS, tabulate
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.request.families import EXPONENTIAL, GAMMA, LOGNORMAL, WEIBULL, family_of
from servegen_gpu.request.schema import FIELDS

LENGTHS = {"input_tokens": LogNormal(300, 1.1), "output_tokens": Exponential(400)}


def client(**keywords: Any) -> sg.ClientSpec:
    return sg.client(**({"rate": 1.0} | LENGTHS | keywords))


def one(**keywords: Any) -> sg.ClientPool:
    pool_keywords = {key: keywords.pop(key) for key in ("window_s", "period") if key in keywords}
    return sg.pool([client(**keywords)], **pool_keywords)


# layout


def test_clients_are_numbered_in_order_and_share_profiles():
    pool = sg.pool([client(count=3), client(rate=2), client(count=2)], name="mine")
    assert repr(pool) == "<ClientPool mine: 6 clients (language), 1 days>"
    assert pool.client_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert pool.profile.tolist() == [0, 0, 0, 1, 2, 2]
    assert pool.rate_rps.shape == (3, 144)
    assert (pool.own_rps == 7).all()
    assert not pool.measured.any()
    assert len(pool.tables) == 2  # equal distributions are tabulated once


def test_many_clients_cost_a_pointer_each():
    pool = one(count=1_000_000, rate=1e-5)
    assert len(pool) == 1_000_000
    assert pool.rate_rps.size == 144
    assert pool.own_rps == pytest.approx(10)


def test_fields_decide_the_category():
    assert client().category == "language"
    assert client(reason_ratio=0.5).category == "reason"
    multimodal = sg.client(
        rate=1, text_tokens=50, output_tokens=9, image_count={0: 1, 2: 3}, image_tokens={256: 1, 1280: 2}
    )
    assert multimodal.category == "multimodal"
    pool = sg.pool([multimodal])
    tables = {field: pool.tables.table(pool.table[0, 0, f]) for f, field in enumerate(FIELDS["multimodal"])}
    assert tables["image_count"][0].tolist() == [0, 2]
    assert tables["image_tokens"][0].tolist() == [256, 1280]
    assert tables["video_count"][0].tolist() == tables["audio_tokens"][0].tolist() == [0]


def test_pools_of_one_description_are_equal():
    assert one().digest() == one().digest() != one(rate=2).digest()
    assert one(cv=2, arrivals="gamma").digest() != one(cv=3, arrivals="gamma").digest()
    assert one(context_tokens=4096).digest() != one().digest()


# rates


def test_rates_in_every_form():
    assert (one(rate=0.25).rate_rps == 0.25).all()
    for steps in ({"0h": 1, "8h": 4}, {28_800: 4, 0: 1}, [("0s", 1), ("8h", 4)]):
        rate = one(rate=steps).rate_rps[0]
        assert (rate[:48] == 1).all()
        assert (rate[48:] == 4).all()
    linear = one(rate=sg.Schedule([0, 43_200, 86_400], [0, 6, 0], "linear")).rate_rps[0]
    assert linear[:72] == pytest.approx((np.arange(72) + 0.5) / 72 * 6)
    assert linear[72:] == pytest.approx(linear[:72][::-1])
    function = one(rate=lambda t: t / 86_400).rate_rps[0]
    assert function == pytest.approx((np.arange(144) + 0.5) / 144)


def test_a_window_has_the_mean_of_a_rate_that_varies_inside_it():
    rate = one(rate={0: 2, "5min": 0, "55min": 6, "1h": 2}).rate_rps[0]
    assert rate[:7] == pytest.approx([1, 0, 0, 0, 0, 3, 2])
    fine = one(rate={0: 2, "5min": 0, "55min": 6, "1h": 2}, window_s=60).rate_rps[0]
    assert fine[[0, 4, 5, 54, 55, 60]].tolist() == [2, 2, 0, 0, 6, 2]


@pytest.mark.parametrize("window_s", [60, 600, 3600])
def test_a_diurnal_curve_has_its_mean_peak_and_swing(window_s):
    rate = one(rate=sg.Diurnal(mean=3, swing=0.8, peak_hour=14), window_s=window_s).rate_rps[0]
    assert rate.mean() == pytest.approx(3, rel=1e-7)
    hour = (np.arange(len(rate)) + 0.5) * window_s / 3600
    assert abs(hour[rate.argmax()] - 14) <= window_s / 3600
    assert rate.max() / rate.min() == pytest.approx(np.exp(1.6), rel=0.02)
    week = one(rate=sg.Diurnal(mean=3), period="7d", window_s=3600).rate_rps[0].reshape(7, 24)
    assert week == pytest.approx(np.tile(week[0], (7, 1)))


def test_a_diurnal_curve_is_a_target_rate_too():
    trace = sg.generate(one(), rate=sg.Diurnal(mean=2, swing=1, peak_hour=6), duration="1d")
    count = np.histogram(trace["arrival_us"] / 3.6e9, 24, (0, 24))[0]
    assert count.sum() == pytest.approx(172_800, rel=0.02)
    assert count[:12].sum() > 2 * count[12:].sum()


# burstiness


@pytest.mark.parametrize("cv", [0.01, 0.3, 1, 1.46, 2.5, 30, 1000])
@pytest.mark.parametrize("family", [GAMMA, WEIBULL, LOGNORMAL])
def test_shapes_have_the_cv_that_was_asked_for(family, cv):
    lowest, highest = family_of(family).cv_range
    cv = min(cv, highest)
    assert lowest == 0.01
    assert highest == (pytest.approx(90.01, abs=0.01) if family == LOGNORMAL else 1000)
    shape = family_of(family).shape_of(cv)
    assert family_of(family).cv_of(shape) == pytest.approx(cv, rel=1e-6)
    low, high = family_of(family).shape_range
    assert low <= shape <= high * 1.001
    if cv < 50:  # SciPy's own variance loses its digits beyond
        law = {GAMMA: stats.gamma, WEIBULL: stats.weibull_min, LOGNORMAL: stats.lognorm}[family](shape)
        assert law.std() / law.mean() == pytest.approx(cv, rel=1e-6)


def test_families_shapes_and_cvs():
    pool = sg.pool(
        [
            client(),
            client(arrivals="gamma", cv=2),
            client(arrivals="weibull", shape=0.7),
            client(arrivals="exponential", cv=1),
            client(arrivals=sg.Arrivals("gamma", shape=3)),
            client(arrivals="lognormal", shape=1.1),
            client(arrivals="lognormal", cv=2),
        ]
    )
    assert pool.family[:, 0].tolist() == [EXPONENTIAL, GAMMA, WEIBULL, EXPONENTIAL, GAMMA, LOGNORMAL, LOGNORMAL]
    assert pool.shape[:, 0] == pytest.approx([1, 0.25, 0.7, 1, 3, 1.1, np.sqrt(np.log(5))])
    assert pool.cv[:, 0] == pytest.approx([1, 2, 1.46242, 1, 3**-0.5, 1.534107, 2], rel=1e-5)
    assert pool.client(5).family[0] == "Lognormal"
    assert (pool.occupancy == 1).all()


def test_burstiness_and_lengths_change_in_time():
    spec = client(
        arrivals="gamma",
        cv={"0h": 1, "8h": 4},
        input_tokens={"0h": 100, "12h": {200: 1, 300: 1}},
        rate={"0h": 1, "6h": 0, "18h": 1},
    )
    pool = sg.pool([spec])
    assert set(pool.shape[0, :36]) == {1}
    assert set(pool.shape[0, 108:]) == {1 / 16}
    silent = slice(36, 108)
    for name in ("rate_rps", "shape", "cv", "family", "occupancy"):
        assert not getattr(pool, name)[0, silent].any()
    assert (pool.table[0, silent] == -1).all()
    trace = sg.generate(pool, duration="1d")
    early = trace["arrival_us"] < 12 * 3600e6
    assert set(trace["input_tokens"][early]) == {100}
    assert set(trace["input_tokens"][~early]) == {200, 300}
    by_name = client(arrivals={"0h": sg.Arrivals(), "8h": sg.Arrivals("weibull", cv=2)})
    assert set(sg.pool([by_name]).family[0]) == {EXPONENTIAL, WEIBULL}


# what the trace shows: gates


def binned(values: np.ndarray, cdf: Any, parts: int = 40) -> float:
    """P-value of whole numbers, in groups of about equal mass."""
    ends = np.unique(np.searchsorted(cdf(np.arange(200_000) + 0.5), np.arange(1, parts) / parts))
    mass = np.diff(np.concatenate(([0.0], cdf(ends + 0.5), [1.0])))
    counts = np.bincount(np.searchsorted(ends, values), minlength=len(mass))
    assert (mass * len(values) > 20).all()
    return float(stats.chisquare(counts, mass * len(values)).pvalue)


LAWS = {
    "lognormal": (LogNormal(300, 1.1), stats.lognorm(1.1, scale=300).cdf, stats.lognorm(1.12, scale=300).cdf),
    "exponential": (Exponential(400), stats.expon(scale=400).cdf, stats.expon(scale=412).cdf),
    "pareto": (Pareto(1.5, 200), stats.pareto(1.5, scale=200).cdf, stats.pareto(1.5, scale=198).cdf),
    "scipy": (stats.gamma(2, scale=300), stats.gamma(2, scale=300).cdf, stats.gamma(2.03, scale=300).cdf),
    "mixture": (
        Mixture([LogNormal(300, 1.1), Pareto(1.5, 2000)], [0.9, 0.1]),
        lambda x: 0.9 * stats.lognorm(1.1, scale=300).cdf(x) + 0.1 * stats.pareto(1.5, scale=2000).cdf(x),
        lambda x: 0.88 * stats.lognorm(1.1, scale=300).cdf(x) + 0.12 * stats.pareto(1.5, scale=2000).cdf(x),
    ),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", LAWS)
def test_lengths_follow_what_was_stated(name):
    stated, cdf, wrong = LAWS[name]
    trace = sg.generate(one(rate=100, input_tokens=stated), duration="30min", seed=11)
    assert len(trace) > 150_000
    check(binned(trace["input_tokens"], cdf), name)
    assert not passes(binned(trace["input_tokens"], wrong)), "a law that is slightly off"


@pytest.mark.statistical
def test_reasoning_shares_follow_what_was_stated():
    share = Mixture([Beta(17, 28), Beta(4.6, 1.25)], [0.3, 0.7])
    trace = sg.generate(one(rate=100, output_tokens=50_100, reason_ratio=share), duration="20min", seed=3)
    steps = np.rint(trace["reason_tokens"] / 100)
    low, high = stats.beta(17, 28), stats.beta(4.6, 1.25)
    for weight, good in ((0.3, True), (0.32, False)):

        def cdf(x: np.ndarray, weight: float = weight) -> np.ndarray:
            return weight * low.cdf(x / 501) + (1 - weight) * high.cdf(x / 501)

        assert passes(binned(steps, cdf)) == good


@pytest.mark.statistical
@pytest.mark.parametrize("family", ["exponential", "gamma", "weibull", "lognormal"])
def test_gaps_and_counts_follow_what_was_stated(family):
    """One client, windows of an hour: of 7,200 gaps the two at the ends do not matter."""
    cv = None if family == "exponential" else 1.6
    pool = one(rate=2, arrivals=family, cv=cv, window_s=3600)
    trace = sg.generate(pool, duration="1d", seed=5)
    gaps_s = np.diff(trace["arrival_us"]) / 1e6 * 2

    def p_value(cv: float) -> float:
        if family == "weibull":
            shape = family_of(WEIBULL).shape_of(cv)
            law = stats.weibull_min(shape, scale=1 / stats.weibull_min(shape).mean())
        elif family == "lognormal":
            law = stats.lognorm(np.log1p(cv**2) ** 0.5, scale=(1 + cv**2) ** -0.5)
        else:
            law = stats.gamma(cv**-2, scale=cv**2)
        edges = law.ppf(np.linspace(0.1, 0.975, 36))
        counts = np.bincount(np.searchsorted(edges, gaps_s), minlength=37)
        return float(stats.chisquare(counts, np.diff(np.r_[0, law.cdf(edges), 1]) * len(gaps_s)).pvalue)

    check(p_value(cv or 1.0), f"gaps of {family}")
    assert not passes(p_value(1.05 * (cv or 1.0))), "a CV that is slightly off"
    z = (len(trace) - 172_800) / np.sqrt(172_800) / (cv or 1.0)
    check(2 * stats.norm.sf(abs(z)), f"count of {family}")


@pytest.mark.statistical
def test_fields_have_the_rank_correlation_that_was_asked_for():
    pairs = {"input_tokens:output_tokens": 0.6, ("input_tokens", "reason_ratio"): -0.4}
    pool = one(rate=50, reason_ratio=Beta(2, 3), output_tokens=LogNormal(5000, 0.5), rank_correlation=pairs)
    trace = sg.generate(pool, duration="20min", seed=2)
    n = len(trace)
    ratio = trace["reason_tokens"] / trace["output_tokens"]
    for other, rho in ((trace["output_tokens"], 0.6), (ratio, -0.4)):
        found = stats.spearmanr(trace["input_tokens"], other).statistic

        def p_value(rho: float, found: float = found) -> float:
            return float(2 * stats.norm.sf(abs(np.arctanh(found) - np.arctanh(rho)) / np.sqrt((1 + rho**2 / 2) / n)))

        check(p_value(rho), f"rank correlation {rho}")
        assert not passes(p_value(0.9 * rho))


def test_contexts_are_kept():
    pool = sg.pool([client(rate=20, context_tokens=1000), client(rate=20)])
    trace = sg.generate(pool, duration="20min")
    total = trace["input_tokens"] + trace["output_tokens"]
    assert total[trace["client"] == 0].max() == 1000
    assert total[trace["client"] == 1].max() > 3000


# joining


def contents(pool: sg.ClientPool, at: int, window: int) -> list[Any]:
    p, row = pool.profile[at], int(pool.row(np.array(window)))
    tables = [tuple(map(tuple, pool.tables.table(t))) for t in pool.table[p, row] if t >= 0]
    matrix = pool.correlations[pool.correlation[p]].tolist() if pool.correlation[p] >= 0 else None
    numbers = [getattr(pool, name)[p, row] for name in ("rate_rps", "cv", "shape", "family", "occupancy")]
    return [*numbers, tables, matrix, pool.measured[p], pool.context_tokens[p], pool.rate_factor[at]]


def test_joined_pools_hold_every_client_unchanged():
    pools = [
        tiny_pool(ids=(5, 9, 700), dependent=True, contexts=(0, 4096)),
        replace(one(count=2, rank_correlation={"input_tokens:output_tokens": 0.3}), rate_factor=np.array([1.0, 3.0])),
        tiny_pool(clients=4, measured=False),
    ]
    pool = sg.join(pools)
    assert pool.name == "tiny-language+custom+tiny-language"
    assert pool.client_ids.tolist() == list(range(9))
    assert pool.own_rps == pytest.approx(sum(part.own_rps for part in pools))
    at = 0
    for part in pools:
        for client_at in range(len(part)):
            for window in (0, 3, 70, 143):
                assert contents(pool, at, window) == contents(part, client_at, window)
            at += 1
    assert sg.join(pools, name="all").name == "all"
    assert sg.join(pools).digest() == pool.digest() != sg.join(pools[::-1]).digest()


def test_a_pool_joined_with_itself_sends_twice_as_much_and_not_the_same():
    pool = one(rate=3)
    trace = sg.generate(sg.join([pool, pool]), duration="1h")
    first, second = (trace["arrival_us"][trace["client"] == c] for c in (0, 1))
    assert len(first) == pytest.approx(10_800, rel=0.1)
    assert len(np.intersect1d(first, second)) < 100
    alone = sg.generate(pool, duration="1h")
    assert np.array_equal(alone["arrival_us"], first)  # id 0 in both: same address, same numbers


def test_different_periods_come_out_even():
    day, week = one(rate=sg.Diurnal(1)), one(rate=sg.Diurnal(2), period="7d")
    pool = sg.join([day, week])
    assert pool.windows == pool.period_windows == 7 * 144
    assert pool.own_rps == pytest.approx(np.tile(day.own_rps, 7) + week.own_rps)
    short = sg.join([one(period="1h"), one(period="90min")])
    assert short.windows == short.period_windows == 18
    odd = sg.join([tiny_pool(windows=150), tiny_pool(windows=150)])
    assert odd.windows == 150


BAD_JOINS = {
    "nothing": ([], "at least one pool"),
    "categories": ([one(), one(reason_ratio=0)], "same category.*language and reason"),
    "windows": ([one(), one(window_s=60)], "same window_s.*60 and 600"),
    "begins": ([one(), tiny_pool(first_window=3)], "same start_s.*1800"),
    "periods": ([tiny_pool(windows=100), one()], None),
    "uneven periods": ([tiny_pool(windows=100), tiny_pool(windows=90)], "even in whole days.*54,000 s and 60,000 s"),
}


@pytest.mark.parametrize(("pools", "said"), BAD_JOINS.values(), ids=BAD_JOINS)
def test_pools_that_do_not_fit_are_refused(pools, said):
    if said is None:  # 100 windows and a day meet after 25 days
        assert sg.join(pools).windows == 3600
        return
    with pytest.raises(OptionError, match=said):
        sg.join(pools)


# bad input

BAD = {
    "no rate": (lambda: client(rate=0), "rate"),
    "negative rate": (lambda: client(rate=-1), "-1"),
    "no such rate": (lambda: client(rate=None), "state the rate"),
    "rate of zeros": (lambda: client(rate={0: 0}), "zeros only"),
    "a function of zeros": (lambda: one(rate=lambda t: 0 * t, name="x"), "zeros only of client 'x'"),
    "a function below zero": (lambda: one(rate=lambda t: -1 + 0 * t), "from 0 to"),
    "steps from later": (lambda: one(rate={"1h": 5}), "from 0 s on.*3600"),
    "steps past the period": (lambda: one(rate={0: 1, "25h": 5}), "within the period.*90000"),
    "knots too few": (lambda: one(rate=sg.Schedule([0, 60], [1, 2], "linear")), "up to the end of the period"),
    "a time of nonsense": (lambda: client(rate={"soon": 5}), "soon"),
    "unknown family": (lambda: client(arrivals="pareto"), "exponential, gamma, weibull, lognormal.*pareto"),
    "shape and cv": (lambda: client(arrivals="gamma", shape=1, cv=1), "shape or cv.*both"),
    "gamma of nothing": (lambda: client(arrivals="gamma"), "shape or the cv"),
    "exponential with a cv": (lambda: client(cv=2), "choose gamma or weibull"),
    "cv zero": (lambda: client(arrivals="gamma", cv=0), "0.01 to 1000"),
    "cv NaN": (lambda: client(arrivals="gamma", cv=float("nan")), "nan"),
    "cv text": (lambda: client(arrivals="gamma", cv="high"), "high"),
    "sigma too large": (lambda: client(arrivals="lognormal", shape=3.1), "shape from 0.005 to 3, got 3.1"),
    "sigma zero": (lambda: client(arrivals="lognormal", shape=0), "shape from 0.005 to 3, got 0"),
    "sigma NaN": (lambda: client(arrivals="lognormal", shape=float("nan")), "nan"),
    "cv beyond a log-normal's": (lambda: client(arrivals="lognormal", cv=100), "cv from 0.01 to 90.0116, got 100"),
    "lognormal of nothing": (lambda: client(arrivals="lognormal"), "the shape or the cv of lognormal gaps"),
    "shape huge": (lambda: client(arrivals="weibull", shape=1e9), "shape from"),
    "arrivals twice": (lambda: client(arrivals=sg.Arrivals(), cv=1), "inside Arrivals"),
    "arrivals of a kind": (lambda: client(arrivals=7), "Arrivals"),
    "cv in steps that come late": (lambda: client(arrivals="gamma", cv={"1h": 2}), "begin at 0"),
    "cv inside a window": (lambda: one(arrivals="gamma", cv={0: 2, 700: 3}), r"multiples of window_s \(600 s\).*700"),
    "lengths inside a window": (lambda: one(input_tokens={"0h": 1, "5min": 2}), "multiples of window_s"),
    "lengths past the period": (lambda: one(input_tokens={"0h": 1, "2d": 2}), "within the period"),
    "no input": (lambda: sg.client(rate=1, output_tokens=5), "input_tokens of a client"),
    "fields of two categories": (lambda: client(text_tokens=4), "multimodal.*input_tokens as well"),
    "items without sizes": (lambda: sg.client(rate=1, text_tokens=1, output_tokens=1, image_count=1), "image_tokens"),
    "fraction": (lambda: client(input_tokens=1.5, name="x"), "1.5 for input_tokens of client 'x'"),
    "share above one": (lambda: client(reason_ratio=2), "reason_ratio"),
    "correlation beyond one": (lambda: client(rank_correlation={"input_tokens:output_tokens": 1.2}), "1.2"),
    "correlation NaN": (lambda: client(rank_correlation={"input_tokens:output_tokens": float("nan")}), "nan"),
    "correlation of others": (lambda: client(rank_correlation={"input_tokens:reason": 0.2}), "input_tokens:reason"),
    "correlation with itself": (lambda: client(rank_correlation={"input_tokens:input_tokens": 1}), "a pair"),
    "correlation of one": (lambda: client(rank_correlation={"input_tokens": 1}), "a pair"),
    "correlations that differ": (
        lambda: client(rank_correlation={"input_tokens:output_tokens": 0.1, "output_tokens:input_tokens": 0.2}),
        "one rank correlation",
    ),
    "lopsided matrix": (lambda: client(rank_correlation=[[1, 0.5], [0.4, 1]]), "symmetric"),
    "ragged matrix": (lambda: client(rank_correlation=[[1], [0.4, 1]]), "symmetric"),
    "context of one": (lambda: client(context_tokens=1), "at least 2"),
    "context of a fraction": (lambda: client(context_tokens=10.5), "at least 2"),
    "count zero": (lambda: client(count=0, name="x"), "count.*0 of client 'x'"),
    "count fraction": (lambda: client(count=1.5), "count"),
    "count true": (lambda: client(count=True), "count"),
    "too many clients": (lambda: sg.pool([client(count=2**31 - 1), client()]), "2,147,483,648"),
    "no clients": (lambda: sg.pool([]), "at least one client"),
    "no client": (lambda: sg.pool(["chat"]), "chat"),
    "categories": (lambda: sg.pool([client(), client(reason_ratio=0)]), "language and reason"),
    "another category": (lambda: sg.pool([client()], category="reason"), "language and reason"),
    "window of zero": (lambda: one(window_s=0), "window_s"),
    "window too long": (lambda: one(window_s=5000), "4294"),
    "period in the window": (lambda: one(period=60), "period"),
    "period uneven": (lambda: one(period="36h"), "whole days"),
    "period of no windows": (lambda: one(period="1d", window_s=700), "whole windows"),
    "too much": (lambda: one(period="365d", window_s=1), "windows of all kinds"),
    "diurnal of nothing": (lambda: sg.Diurnal(0), "mean"),
    "diurnal swing": (lambda: sg.Diurnal(1, swing=-1), "swing"),
    "diurnal hour": (lambda: sg.Diurnal(1, peak_hour=30), "peak_hour"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_bad_descriptions_are_refused(make, said):
    with pytest.raises(ServeGenError, match=said):
        make()


def test_matrices_that_cannot_be_are_repaired_when_sampled():
    impossible = [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]
    pool = one(reason_ratio=Beta(2, 2), rank_correlation=impossible)
    assert pool.correlations[0].tolist() == impossible
    assert len(sg.generate(pool, duration="10min")) > 0


def test_constants_are_tables_of_one():
    assert tabulate(Constant(64), TOKENS).values.tolist() == [64]
    trace = sg.generate(one(input_tokens=64), duration="10min")
    assert set(trace["input_tokens"]) == {64}
