"""The built-in populations as a whole, at their own rates: burstiness, dispersion, and lengths that go together.

`bench/bench_preset_figures.py` has the figures of all of them. "Published" is ServeGen (arXiv 2505.09999, NSDI '26),
"released" the profiles released with alibaba/ServeGen, measured in the same way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.clients.population.preset_toml import parse_preset
from servegen_gpu.clients.population.presets import PRESETS, built_in, preset_text
from servegen_gpu.clients.stated.environment import Environment, Margin
from servegen_gpu.windowed import gap_cvs

LANGUAGE = ("m-large", "m-mid", "m-small", "m-long", "m-rp", "m-code")
AFTERNOON = {"start": "14h", "duration": "3h"}


def local_dispersion(requests: np.ndarray, windows: int) -> float:
    """Variance over mean of counts, around a straight line through the neighbours of each: the day is left out."""
    counts = requests[: len(requests) // windows * windows].reshape(-1, windows).sum(axis=1)
    return float((np.diff(counts, 2) ** 2).mean() / 6 / counts.mean())


def by_second(name: str, seed: int = 0) -> np.ndarray:
    return sg.in_windows(sg.generate(sg.population(name, seed=seed), **AFTERNOON, seed=seed), 1.0).requests


# CV of five minutes, over the whole period


def median_over_the_period(pool: sg.ClientPool) -> float:
    """At 20 req/s: 6,000 gaps a window, 144 windows or more, so that the error of the median is about 0.005."""
    slabs = sg.stream(pool, rate=20, duration=pool.period_windows * pool.window_s, memory="1GB")
    return float(np.nanmedian(gap_cvs(slabs)))


RELEASED_CV = {"m-large": 1.19, "m-mid": 1.55, "m-small": 1.20}


@pytest.mark.parametrize("name", RELEASED_CV)
@pytest.mark.parametrize("seed", [0, 1])
def test_cv_over_the_period_is_as_released(name, seed):
    """Which client is bursty is drawn: medians of ten populations lie within 0.04."""
    assert median_over_the_period(sg.population(name, seed=seed)) == pytest.approx(RELEASED_CV[name], abs=0.08)


def test_calmer_clients_are_found():
    text = preset_text("m-mid")
    for cv, calmer in (("cv = 3.0 ", "cv = 2.2 "), ("cv = 3.3 ", "cv = 2.5 "), ("cv = 2.1 ", "cv = 1.8 ")):
        assert cv in text
        text = text.replace(cv, calmer)
    calm = median_over_the_period(sg.population(parse_preset(text, Path("calm.toml"))))
    assert abs(calm - RELEASED_CV["m-mid"]) > 0.08


# Dispersion of requests: no two scales are alike in what makes them, so each has its own bound


@pytest.mark.parametrize("name", ["m-large", "m-mid", "m-small", "m-long", "m-code", "mm-image"])
def test_bursty_workloads_are_dispersed_from_a_second_on(name):
    """Above Poisson's 1 by far more than the error, sqrt(2 / windows) of it or so: 2 % at 1 s, 6 % at 10 s."""
    requests = by_second(name)
    assert local_dispersion(requests, 1) > 1.2
    assert local_dispersion(requests, 10) > 1.2


@pytest.mark.parametrize("name", ["m-rp", "deepqwen-r1"])
def test_calm_workloads_are_poisson_at_every_scale(name):
    """Published: M-rp is not bursty, deepqwen-r1 is about Poisson."""
    requests = by_second(name)
    for windows, error in ((1, 0.1), (10, 0.2), (60, 0.4)):
        assert local_dispersion(requests, windows) == pytest.approx(1.0, abs=error)


def test_mm_image_is_as_dispersed_as_released():
    """Released, in the same hours: 4.5 at 1 s, 6.9 at 10 s, 9.6 at 60 s."""
    requests = np.stack([by_second("mm-image", seed) for seed in range(3)])
    for windows, released in ((1, 4.5), (10, 6.9), (60, 9.6)):
        found = np.mean([c.var() / c.mean() for c in (r.reshape(-1, windows).sum(axis=1) for r in requests)])
        assert found == pytest.approx(released, rel=0.35)


# Fig. 19: rates in windows of three seconds spread more than a naive baseline's


@pytest.mark.parametrize("name", ["m-large", "m-mid", "m-small", "mm-image"])
def test_rates_of_three_seconds_spread_more_than_naive_ones(name):
    pool = sg.population(name)
    spread = [sg.in_windows(sg.generate(each, **AFTERNOON), 3.0).rate_cv for each in (pool, sg.naive(pool))]
    assert spread[0] > 1.1 * spread[1]


def test_mean_lengths_of_mm_image_go_with_the_rate():
    """Released: Spearman correlations of -0.61 and +0.30, a naive baseline's within 0.05 of 0."""
    pool = sg.population("mm-image")
    mine, naive = (sg.in_windows(sg.generate(each, **AFTERNOON), 3.0) for each in (pool, sg.naive(pool)))
    assert mine.rank_correlation("input_tokens") == pytest.approx(-0.61, abs=0.12)
    assert mine.rank_correlation("output_tokens") == pytest.approx(0.30, abs=0.12)
    assert abs(naive.rank_correlation("input_tokens")) < 0.08


# Fig. 4: input and output, all requests of a workload together


def lengths(name: str) -> tuple[np.ndarray, np.ndarray]:
    trace = sg.generate(sg.population(name), rate=20, start="14h", duration="2h")
    return trace["input_tokens"].astype(float), trace["output_tokens"].astype(float)


@pytest.mark.parametrize("name", LANGUAGE)
def test_input_and_output_of_all_requests_go_together_weakly(name):
    """Published: weak, a rough positive trend in M-mid and M-code. Error of a correlation of 144,000: 0.003."""
    into, out = lengths(name)
    assert 0.05 < stats.spearmanr(into, out).statistic < 0.35
    fifths = np.digitize(into, np.quantile(into, [0.2, 0.4, 0.6, 0.8]))
    assert np.median(out[fifths == 4]) > 1.1 * np.median(out[fifths == 0])


@pytest.mark.parametrize("name", ["deepseek-r1", "deepqwen-r1"])
def test_reason_and_answer_go_together_more_than_input_and_output(name):
    """Published. Released, by marginals alone: -0.38 of input and output over the day, 0.26 of reason and answer."""
    trace = sg.generate(sg.population(name), rate=2, duration="1d")
    into, out, reason = (trace[column].astype(float) for column in ("input_tokens", "output_tokens", "reason_tokens"))
    together = stats.spearmanr(into, out).statistic
    assert stats.spearmanr(reason, out - reason).statistic > together + 0.2
    assert abs(together) < 0.4


# From ten minutes to ten minutes


def changes(pool: sg.ClientPool, seed: int) -> float:
    requests = sg.in_windows(sg.stream(pool, duration="1d", seed=seed, memory="1GB"), 600.0).requests
    return float(np.sqrt((np.diff(np.log(requests), 2) ** 2).mean() / 6))


def test_no_preset_moves_all_clients_together():
    """Released clients change their rates each for itself, as `test_real_data` shows."""
    assert not [name for name in PRESETS if built_in(name).environment is not None]


def test_environments_of_single_clients_make_rates_as_restless_as_released():
    """Released: 0.14 of 69 % of the requests, so 0.096 of all; the burstiness of five minutes stays."""
    moved = Environment(Margin.gamma(0.30), {0: 1}, cell_s=300, each="client")
    calm = sg.population("deepseek-r1").with_conversations(None)
    restless = calm.with_environment(moved, clients=range(20))
    assert changes(calm, 0) < 0.03
    assert np.mean([changes(restless, seed) for seed in range(8)]) == pytest.approx(0.096, rel=0.25)
    cvs = [sg.fitted_cv(sg.generate(pool, **AFTERNOON)) for pool in (calm, restless)]
    assert cvs[1] == pytest.approx(cvs[0], abs=0.04)
