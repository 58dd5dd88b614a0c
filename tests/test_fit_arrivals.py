"""Fitting arrivals: facts of logs, shapes and families of gaps, rates by window."""

from __future__ import annotations

import numpy as np
import pytest

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.gaps import FEWEST, cell_shapes, gap_families
from servegen_gpu.fitting.log_facts import log_facts
from servegen_gpu.fitting.rates import window_rates
from servegen_gpu.request.families import FAMILIES, family_of

N = 20_000
LAWS = {
    "exponential": (1.0, lambda rng, n: rng.exponential(1, n)),
    "gamma": (0.25, lambda rng, n: rng.gamma(0.25, 4, n)),
    "weibull": (0.6, lambda rng, n: rng.weibull(0.6, n)),
    "lognormal": (1.2, lambda rng, n: rng.lognormal(0, 1.2, n)),
}


def one_client(arrival_us: np.ndarray) -> np.ndarray:
    return np.zeros(len(arrival_us), np.int64)


def drifting(gap: np.ndarray, times: float = 4.0, mean_s: float = 10.0) -> np.ndarray:
    """Arrivals of gaps that shrink over the log, microseconds."""
    return np.cumsum(gap * mean_s * 1e6 / np.geomspace(1, times, len(gap))).astype(np.int64)


@pytest.mark.parametrize("name", LAWS)
def test_family_and_shape_of_a_client_whose_rate_drifts(name: str):
    shape, gaps_of = LAWS[name]
    for seed in range(3):
        us = drifting(gaps_of(np.random.default_rng(seed), N))
        client, span_s = one_client(us), (us[-1] + 1) / 1e6
        shapes = cell_shapes(us, client)
        rates = window_rates(us, client, span_s=span_s, window_s=span_s / 40, chance=1 / shapes.shape)
        fit = gap_families(rates.even_us(us, client), client, shapes)
        assert family_of(int(fit.family[0])).name == name
        assert fit.shape[0] == pytest.approx(shape, rel=0.05)  # standard error: about 1 %
        assert fit.ks[0] < 0.03  # a rate that drifts inside windows is part of it
        assert rates.weight[0] > 0.5


def test_moments_take_a_drift_for_burstiness_and_local_variation_does_not():
    us = drifting(np.random.default_rng(5).exponential(1, N), times=20)
    gap = np.diff(us)
    assert gap.mean() ** 2 / gap.var() < 0.5  # the planted defect
    assert cell_shapes(us, one_client(us)).shape[0] == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("tick_us", [1_000_000, 3_000_000])
def test_ticks_are_found_and_do_not_look_bursty(tick_us: int):
    us = np.cumsum(np.random.default_rng(1).exponential(4e6, 5000)).astype(np.int64) // tick_us * tick_us
    facts = log_facts(us)
    assert (facts.tick_us, facts.exact_ticks) == (tick_us, True)
    assert any("ticks" in note for note in facts.notes)
    assert cell_shapes(us, one_client(us), tick_us=tick_us).shape[0] == pytest.approx(1, abs=0.15)
    dense = us // 20 // tick_us * tick_us  # mostly several requests to a tick: nothing is known
    assert cell_shapes(dense, one_client(dense), tick_us=tick_us).shape[0] == 1
    blind = cell_shapes(us, one_client(us)).shape[0]  # the planted defect: equal stamps as short gaps
    assert blind < 0.85


def test_thin_clients_are_exponential_and_others_shrink_to_what_they_have_in_common():
    rng = np.random.default_rng(3)
    sizes = np.array([2, FEWEST, 12, 40, 5000])
    client = np.repeat(np.arange(5), sizes)
    us = np.concatenate([np.cumsum(rng.gamma(0.25, 4e6, n)) for n in sizes]).astype(np.int64)
    order = np.argsort(us, kind="stable")
    shapes = cell_shapes(us[order], client[order])
    assert shapes.gaps.tolist() == (sizes - 1).tolist()
    # a client of few gaps belongs to a parent of its own only if one is named
    own = cell_shapes(us[order], client[order], client=np.arange(5))
    assert own.shape[:2].tolist() == [1, 1]
    assert own.shape[4] == pytest.approx(0.25, rel=0.08)
    assert np.all((shapes.shape > 0.1) & (shapes.shape < 0.6))


def test_millions_of_clients_of_one_request_each():
    us = np.arange(2_000_000, dtype=np.int64) * 40_000
    client = np.random.default_rng(0).permutation(len(us))
    shapes = cell_shapes(us, client, client=np.arange(len(us)))
    fit = gap_families(us, client, shapes)
    rates = window_rates(us, client, span_s=80_000)
    assert np.all(shapes.shape == 1)
    assert np.all(fit.family == FAMILIES["exponential"].code)
    assert np.all(rates.weight == 0)
    assert np.allclose(rates.mean_rps, 1 / 80_000)


def test_rates_shrink_by_what_is_chance():
    rng = np.random.default_rng(4)
    steady = np.sort(rng.uniform(0, 86_400e6, 20_000)).astype(np.int64)
    daily = steady[rng.uniform(size=len(steady)) < 0.5 + 0.5 * np.sin(steady / 86_400e6 * 2 * np.pi)]
    us, client = np.concatenate((steady, daily)), np.repeat([0, 1], (len(steady), len(daily)))
    rates = window_rates(us, client, span_s=86_400)
    assert rates.weight[0] == 0
    assert rates.weight[1] > 0.8
    assert rates.dispersion[0] == pytest.approx(1, abs=0.4)  # ± 0.12
    dense = rates.dense()
    assert dense.shape == (2, 144)
    assert np.allclose(dense.mean(axis=1), [len(steady) / 86_400, len(daily) / 86_400])
    naive = window_rates(us, client, span_s=86_400, chance=0.0)  # the planted defect: no shrinking copies the noise
    assert naive.dense()[0].std() > 10 * dense[0].std()


def test_the_last_window_may_be_cut():
    us = np.arange(0, 1_500_000_000, 1_000_000)
    rates = window_rates(us, span_s=1500, window_s=600)
    assert rates.windows == 3
    assert rates.requests.tolist() == [600, 600, 300]
    assert np.allclose(rates.rps, 1)
    assert rates.dispersion[0] == pytest.approx(0, abs=1e-9)
    with pytest.raises(OptionError, match="within 1000 s"):
        window_rates(us, span_s=1000)


def test_the_request_that_a_log_ends_with_makes_no_rate():
    """It would be a million times the mean in the microsecond after the last whole window."""
    us = np.append(np.sort(np.random.default_rng(7).integers(0, 7_200_000_000, 3600)), 7_200_000_000)
    us[us < 3_600_000_000] //= 4
    us.sort()
    for span_s, windows in ((7200.000001, 12), (7220.0, 12), (7260.0, 13)):
        rates = window_rates(us, span_s=span_s)
        assert rates.windows == windows
        assert rates.weight[0] > 0.9
        assert rates.rps.max() < 8 * rates.mean_rps[0]
        assert rates.own_rps[-1] < 1.1 * (1.0 if windows == 13 else 1.2) * rates.mean_rps[0]


def test_facts_of_a_log():
    rng = np.random.default_rng(6)
    steady = np.sort(rng.uniform(0, 6_000e6, 5000)).astype(np.int64)
    facts = log_facts(steady)
    assert (facts.requests, facts.tick_us) == (5000, 1)
    assert facts.horizon_s == pytest.approx(600, rel=0.01)
    assert abs(facts.drift) < 4 * facts.drift_error
    assert log_facts(np.sort(rng.uniform(0, 86_400e6, 5000)).astype(np.int64)).notes == ()
    (note,) = [n for n in log_facts(steady // 10).notes if "min long" in n]
    assert "windows of 59" in note or "windows of 60" in note
    half = np.concatenate((steady[:2500], steady[2500::4]))
    assert any("drifts" in note for note in log_facts(half).notes)


@pytest.mark.parametrize(
    ("us", "word"),
    [
        (np.arange(500) * 2_000_000, "All gaps are 2 s"),
        (np.sort(np.random.default_rng(0).integers(0, 900_000, 500)), "All requests lie within"),
        (np.concatenate((np.arange(300) ** 2, 604_800_000_000 + np.arange(300) ** 2)), "silence of 7 days"),
    ],
)
def test_odd_logs_have_a_note(us: np.ndarray, word: str):
    assert any(word in note for note in log_facts(us.astype(np.int64)).notes)


@pytest.mark.parametrize("us", [[], [5], [5, 5, 5]])
def test_too_little_to_say_anything(us: list[int]):
    with pytest.raises(OptionError, match="at least 2 requests at different times") as raised:
        log_facts(np.array(us, np.int64), name="log.csv")
    assert "log.csv" in raised.value.got
