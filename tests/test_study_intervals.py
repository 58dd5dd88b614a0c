"""Intervals of studies hold as often as they say, and stopping rules err no more often than they may.

Every gate counts misses in simulated studies and takes the probability of so many at the stated rate as its p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import gates
import numpy as np
import pytest
from scipy import stats

from servegen_gpu.errors import OptionError
from servegen_gpu.studies import intervals, stopping
from servegen_gpu.studies.intervals import Interval

ALPHA = 0.05


def misses(intervals: list[Interval], truth: float) -> float:
    """How probable so many misses are, or more, if each has a probability of 5 %."""
    missed = sum(not one.low <= truth <= one.high for one in intervals)
    return float(stats.binom.sf(missed - 1, len(intervals), ALPHA))


@pytest.mark.parametrize("p", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [5, 36, 100, 500])
def test_order_statistics_are_the_narrowest_that_hold(n: int, p: float):
    """In terms of the ranks themselves: each tail has 2.5 % at most, and would have more one rank further in."""
    found = intervals.quantile_interval(np.arange(1.0, n + 1), p, 1 - ALPHA)
    if math.isfinite(found.low):
        assert stats.binom.cdf(found.low - 1, n, p) <= ALPHA / 2 < stats.binom.cdf(found.low, n, p)
    else:
        assert stats.binom.cdf(0, n, p) > ALPHA / 2
    if math.isfinite(found.high):
        assert stats.binom.sf(found.high - 1, n, p) <= ALPHA / 2 < stats.binom.sf(found.high - 2, n, p)
    else:
        assert stats.binom.sf(n - 1, n, p) > ALPHA / 2
    assert math.isfinite(found.low) == (n >= intervals.sample_needed(1 - p, 1 - ALPHA) if p == 0.5 else found.low > 0)
    assert math.isfinite(found.high) == (n >= intervals.sample_needed(p, 1 - ALPHA))


def test_replicas_that_a_finite_interval_takes():
    assert [intervals.sample_needed(p, 0.95) for p in (0.5, 0.9, 0.95, 0.99)] == [6, 36, 72, 368]


@pytest.mark.statistical
def test_quantile_intervals_hold_for_any_distribution():
    rng = np.random.default_rng(1)
    samples = rng.lognormal(sigma=1.5, size=(3000, 80))
    truth = float(np.exp(1.5 * stats.norm.ppf(0.9)))
    gates.check(misses([intervals.quantile_interval(x, 0.9, 0.95) for x in samples], truth), "90 % points")

    def normal(x: np.ndarray) -> Interval:
        """The planted defect: the sample taken as normal."""
        mean, low, high = intervals.mean_interval(x, 0.95)
        shift = 1.2816 * x.std(ddof=1)
        return Interval(mean + shift, low + shift, high + shift)

    assert not gates.passes(misses([normal(x) for x in samples], truth))


@pytest.mark.statistical
def test_quantile_intervals_of_draws_count_draws():
    """50 draws of 8 replicas, half of the variance between draws. Woodruff's are asymptotic: a miss rate of 7 %."""
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(1500, 50, 1)) + rng.normal(size=(1500, 50, 8))
    truth = float(np.sqrt(2) * stats.norm.ppf(0.8))

    def p(found: list[Interval]) -> float:
        missed = sum(not one.low <= truth <= one.high for one in found)
        return float(stats.binom.sf(missed - 1, len(found), 0.07))

    gates.check(p([intervals.clustered_quantile_interval(x, 0.8, 0.95) for x in samples]), "80 % points of draws")
    as_replicas = [intervals.quantile_interval(x.ravel(), 0.8, 0.95) for x in samples]
    assert not gates.passes(p(as_replicas))


@pytest.mark.statistical
def test_share_of_parameters():
    """30 % of the variance is that of draws."""
    rng = np.random.default_rng(3)
    samples = math.sqrt(0.3) * rng.normal(size=(2000, 20, 1)) + math.sqrt(0.7) * rng.normal(size=(2000, 20, 6))
    gates.check(misses([intervals.parameter_share(x, 0.95) for x in samples], 0.3), "shares of parameters")
    assert not gates.passes(misses([intervals.parameter_share(x.T, 0.95) for x in samples], 0.3))


def test_share_of_parameters_at_its_ends():
    only = np.repeat(np.arange(5.0)[:, None], 3, axis=1)
    assert intervals.parameter_share(only, 0.95) == (1.0, 1.0, 1.0)
    assert intervals.parameter_share(only.T, 0.95).value == 0.0
    for nothing in (np.ones((4, 3)), only[:, :1], only[:1], np.empty((0, 3))):
        assert all(map(math.isnan, intervals.parameter_share(nothing, 0.95)))


def controlled(rng: np.random.Generator, n: int, off: float = 0.0) -> intervals.Controlled:
    """Units of mean 2 that two controls make up to 90 % of, whose mean is off by so many standard deviations."""
    controls = rng.normal(size=(n, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    units = 2 + controls @ np.array([3.0, -0.5]) + rng.normal(size=n)
    found = intervals.controlled_mean(units, controls + off, 0.95)
    assert found is not None
    return found


@pytest.mark.statistical
def test_means_with_control_variates():
    rng = np.random.default_rng(4)
    found = [controlled(rng, 40) for _ in range(2000)]
    gates.check(misses([one.mean for one in found], 2.0), "means with control variates")
    # the controls have a variance of 6.75 of 7.75, of which 38 of 37 - 2 degrees of freedom are left
    assert np.mean([one.reduction for one in found]) == pytest.approx(1 - 1 / 7.75, abs=0.03)
    biased = [controlled(rng, 40, off=0.2) for _ in range(500)]
    assert not gates.passes(misses([one.mean for one in biased], 2.0))


def test_controls_that_say_nothing_are_left_out():
    rng = np.random.default_rng(5)
    units, control = rng.normal(size=100), rng.normal(size=100)
    one = intervals.controlled_mean(units, control[:, None], 0.95)
    assert one is not None
    thrice = np.stack([control, np.zeros(100), 2 * control], axis=1)
    twice = intervals.controlled_mean(units, thrice, 0.95)
    assert twice is not None
    assert twice.mean == pytest.approx(one.mean)
    assert intervals.controlled_mean(units, np.zeros((100, 2)), 0.95) is None
    assert intervals.controlled_mean(units, np.empty((100, 0)), 0.95) is None
    assert intervals.controlled_mean(units[:10], control[:10, None], 0.95) is None
    assert intervals.controlled_mean(np.ones(100), control[:, None], 0.95) is None
    itself = intervals.controlled_mean(units, units[:, None], 0.95)
    assert itself is not None
    assert itself.mean == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert itself.reduction == pytest.approx(1.0)


def test_means_of_few():
    assert intervals.mean_interval(np.array([2.0]), 0.95) == (2.0, -math.inf, math.inf)
    assert all(map(math.isnan, intervals.mean_interval(np.empty(0), 0.95)))
    low, high = stats.t.interval(0.9, 3, 2.5, stats.sem([1, 2, 3, 4]))
    assert intervals.mean_interval(np.arange(1.0, 5), 0.9) == pytest.approx((2.5, low, high))


def missed_ever(width: Callable[[np.ndarray], np.ndarray]) -> float:
    """p-value of intervals of skewed means, each of which may miss at any of 2,000 looks with 5 % at most."""
    rng = np.random.default_rng(6)
    n = np.arange(stopping.FEWEST, 2001)
    missed = 0
    for _ in range(600):
        x = rng.gumbel(size=2000) - np.euler_gamma
        mean = np.cumsum(x)[n - 1] / n
        sd = np.sqrt((np.cumsum(x * x)[n - 1] - n * mean**2) / (n - 1))
        missed += bool((np.abs(mean) > width(n) * sd).any())
    return float(stats.binom.sf(missed - 1, 600, ALPHA))


@pytest.mark.statistical
def test_intervals_of_means_hold_at_all_times_at_once():
    gates.check(missed_ever(np.vectorize(lambda n: stopping.mean_width(n, 0.95))), "means at all times")
    assert not gates.passes(missed_ever(lambda n: stats.t.ppf(0.975, n - 1) / np.sqrt(n)))  # looked at once


def wrong_decisions(share: float, seed: int) -> float:
    """p-value of studies that look after every replica whether 95 % are on one side, where exactly so many are."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(400):
        watch = stopping.Watch([stopping.Decision("x", False, 1.0, share)], ["x"], 0.95)
        values = np.where(rng.random(400) < share, 1.0, 2.0).tolist()
        wrong += any(watch.add([{"x": value}]) for value in values)
    return float(stats.binom.sf(wrong - 1, 400, ALPHA))


@pytest.mark.statistical
def test_decisions_err_no_more_often_than_they_may(monkeypatch: pytest.MonkeyPatch):
    gates.check(wrong_decisions(0.9, 7), "decisions, looked at after every replica")

    def as_if_once(self: stopping.Share, p: float) -> float:
        """The planted defect: the exact test of one look, made at every look."""
        total = round(self.total)
        one = min(stats.binom.cdf(total, self.n, p), stats.binom.sf(total - 1, self.n, p))
        return -math.log(max(2 * one, 1e-300))

    def quick(self: stopping.Share, p: float) -> float:
        return as_if_once(self, p) if self.n % 10 == 0 else 0.0  # ten times as rarely: scipy is slow

    monkeypatch.setattr(stopping.Share, "against", quick)
    assert not gates.passes(wrong_decisions(0.9, 7))


@pytest.mark.statistical
def test_means_of_studies_that_stop_are_right():
    """Studies of skewed values that stop at 5 %: the interval then holds the mean."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(300):
        watch = stopping.Watch(stopping.parse_until("x:5%"), ["x", "y"], 0.95)
        values = rng.lognormal(sigma=0.4, size=2000).tolist()
        assert any(watch.add([{"x": value, "y": math.nan}]) for value in values)
        found.append(watch.verdicts()[0].interval)
        assert stopping.relative_reach(found[-1]) <= 0.05
    gates.check(misses(found, math.exp(0.08)), "means of studies that stop")


def test_the_interval_of_a_share_is_what_is_not_out():
    share = stopping.Share(0.95)
    assert share.interval(0.95)[1:] == (0.0, 1.0)
    for i in range(200):
        share.add(float(i % 10 > 0))
    value, low, high = share.interval(0.95)
    assert value == pytest.approx(0.9)
    for end, out in ((low, low - 1e-6), (high, high + 1e-6)):
        assert share.against(out) > math.log(20) > share.against((end + value) / 2)
    all_of_them = stopping.Share(0.95, n=100, total=100.0)
    assert all_of_them.interval(0.95).high == 1.0


def test_the_mixture_of_a_share_is_a_likelihood_that_sums_to_one():
    """Over all outcomes of n units the mixture is a probability: what Ville's inequality needs."""
    n = 12
    a = [stopping.Share(0.7, n, float(k)).against(0.5) - n * math.log(2) for k in range(n + 1)]
    assert sum(math.comb(n, k) * math.exp(log) for k, log in enumerate(a)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("until", "rules"),
    [
        (None, []),
        ("1%", ["1%"]),
        (0.015, ["1.5%"]),
        (
            ["peak : 2.5 %", "peak<=1e3@99.9%", "x_p99_10s >= -2 @ 50%"],
            ["peak:2.5%", "peak<=1000@99.9%", "x_p99_10s>=-2@50%"],
        ),
        ("tokens<=12345678901.5@95%", ["tokens<=12345678901.5@95%"]),
    ],
)
def test_rules_are_read_and_written(until: object, rules: list[str]):
    found = stopping.parse_until(until)  # type: ignore[arg-type]
    assert [str(rule) for rule in found] == rules
    assert stopping.parse_until(rules) == found


@pytest.mark.parametrize(
    "until",
    [
        "",
        "1",
        "%",
        "0%",
        "100%",
        "-1%",
        "x:",
        "x<5@95%",
        "x<=5",
        "x<=5@0%",
        "x<=1e999@5%",
        "a b:1%",
        True,
        0,
        1.0,
        "nan%",
    ],
)
def test_rules_that_say_nothing(until: object):
    with pytest.raises(OptionError, match=r"expected until as 1%, METRIC:1%, METRIC<=NUMBER@95%"):
        stopping.parse_until(until)  # type: ignore[arg-type]


def test_rules_about_metrics_that_there_are_not():
    with pytest.raises(OptionError, match="expected until about a, b, got 'c'"):
        stopping.Watch(stopping.parse_until("c:1%"), ["a", "b"], 0.95)


def test_all_rules_must_be_met():
    watch = stopping.Watch(stopping.parse_until(["a:10%", "b<=1@90%"]), ["a", "b"], 0.95)
    met = [watch.add([{"a": 5.0, "b": 1.0}, {"a": 5.0, "b": 1.0}]) for _ in range(200)]
    decided = next(n for n in range(1, 200) if stopping.Share(0.9, n, float(n)).against(0.9) >= math.log(20))
    assert met.index(True) + 1 == max(stopping.FEWEST, decided)
    assert [(str(v), v.met, v.answer) for v in watch.verdicts()] == [
        ("mean of a to ±10 %: yes (±0 %)", True, ""),
        (str(watch.verdicts()[1]), True, "yes"),
    ]
    no = stopping.Watch(stopping.parse_until("b>=2@90%"), ["b"], 0.95)
    assert any(no.add([{"b": math.nan if i % 2 else 1.0}]) for i in range(100))
    assert no.verdicts()[0].answer == "no"


def test_nothing_is_known_of_a_mean_of_zero_or_of_no_values():
    for values, said in (((math.nan,) * 2, "before 50 replicas or draws have a value"), ((1.0, -1.0), "yet")):
        watch = stopping.Watch(stopping.parse_until("1%"), ["a"], 0.95)
        assert not any(watch.add([{"a": value}]) for value in values * 100)
        assert f"no (not known {said})" in str(watch.verdicts()[0])
