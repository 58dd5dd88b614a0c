"""Figures of the paper that hold for whole workloads: rates and shares of clients (A1), and Fig. 19 in numbers (A3).

Fig. 19 shows three hours in windows of three seconds: rates against mean lengths, of clients and of a naive baseline.
It has no numbers; those here were measured with alibaba/ServeGen 0.1.0 (seed 0) on its released profiles, against a
Gamma renewal process with the same rate in every window of ten minutes and pooled lengths. With other seeds its rate
CVs move by 0.015, its rank correlations by 0.05.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gates import check, passes
from profiles import REAL_DATA, needs_real_data, tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.request.families import EXPONENTIAL

# -- A1: the sum over clients is the rate, in every window; shares are those of the pool -------------------------------


def counts_of(trace: sg.Trace, windows: int, clients: int) -> np.ndarray:
    """Requests by window and client, int64[windows, clients]."""
    window = trace["arrival_us"] // 600_000_000
    return np.bincount(window * clients + trace["client"], minlength=windows * clients).reshape(windows, clients)


def wanted_of(pool: sg.ClientPool, rates: np.ndarray) -> np.ndarray:
    """What every client should send in every window on average, float64[windows, clients]."""
    own = pool.rate_rps[pool.profile, : len(rates)] * pool.rate_factor[:, None]
    return (own / own.sum(axis=0) * rates * 600).T


def at_most_one_off(counts: np.ndarray, wanted: np.ndarray) -> bool:
    """Exact counts are rounded up or down; sums are within five standard deviations of that rounding."""
    spread = np.sqrt((wanted % 1 * (1 - wanted % 1)).sum(axis=1))
    sums = np.abs(counts.sum(axis=1) - wanted.sum(axis=1))
    return bool((np.abs(counts - wanted) < 1).all() and (sums <= 5 * spread + 1e-6).all())


@pytest.mark.parametrize("name", ["m-small", "deepseek-r1", "mm-image"])
def test_sums_and_shares_of_exact_counts(name):
    pool, rates = sg.population(name, clients=400).with_conversations(None), np.array([3.0, 30, 12, 0.5, 60, 7])
    steps = {600 * w: rate for w, rate in enumerate(rates)}
    trace = sg.generate(pool, rate=steps, duration="1h", counts="exact", seed=11)
    counts = counts_of(trace, 6, len(pool))
    assert at_most_one_off(counts, wanted_of(pool, rates))
    # defects: shares that do not follow the weights, rates that do not follow the schedule
    even = np.repeat(rates[:, None] * 600 / len(pool), len(pool), axis=1)
    assert not at_most_one_off(counts, even)
    assert not at_most_one_off(counts, wanted_of(pool, np.roll(rates, 1)))


@needs_real_data
@pytest.mark.parametrize("name", ["deepseek-r1", "mm-image"])
def test_sums_and_shares_of_released_clients(name):
    pool = sg.load_servegen(REAL_DATA, name, cache=False)
    trace = sg.generate(pool, duration="6h", seed=11)
    trace.columns["client"] = np.searchsorted(pool.client_ids, trace["client"])
    assert at_most_one_off(counts_of(trace, 36, len(pool)), wanted_of(pool, pool.own_rps[:36]))


@pytest.mark.statistical
def test_sums_and_shares_of_random_counts():
    """Clients of Poisson processes: all counts together are Poisson around what is wanted."""
    pool = tiny_pool(clients=12, windows=24, measured=False, family=EXPONENTIAL, shape=1.0)
    rates = 4 + 3 * np.sin(np.arange(24))
    trace = sg.generate(pool, rate={600 * w: r for w, r in enumerate(rates)}, duration="4h", seed=11)
    counts, wanted = counts_of(trace, 24, 12), wanted_of(pool, rates)

    def p(wanted: np.ndarray) -> float:
        some = wanted > 0
        assert not counts[~some].any()
        return float(stats.chi2.sf(((counts - wanted)[some] ** 2 / wanted[some]).sum(), some.sum()))

    check(p(wanted), "counts by window and client")
    check(float(stats.chi2.sf(((counts - wanted).sum(1) ** 2 / wanted.sum(1)).sum(), 24)), "counts by window")
    assert not passes(p(wanted * 1.1))
    assert not passes(p(np.where(wanted > 0, np.roll(wanted, 1, axis=0) + 1e-9, 0)))


# -- A3: Fig. 19 in numbers --------------------------------------------------------------------------------------------

SEEDS = (0, 1, 2)
RATE_CV_TOLERANCE, RANK_TOLERANCE = 0.02, 0.06
"""Of means over three seeds: standard errors are below 0.003 and 0.012, those of the single measurements twice that."""

UPSTREAM = {"counts": "servegen", "dependence": "comonotone", "occupancy": "window"}
MEASURED = {  # workload, hour: rate CV, rank correlation of the rate with two mean lengths; of clients, and naive
    ("mm-image", 9): ((0.401, -0.46, -0.59), (0.235, 0.07, 0.01)),
    ("mm-image", 15): ((0.439, -0.46, None), (0.260, 0.01, None)),
    ("deepseek-r1", 3): ((0.353, -0.31, -0.28), (0.345, 0.04, 0.07)),
    ("deepseek-r1", 18): ((0.423, -0.42, -0.38), (0.386, 0.05, 0.06)),
}
OURS = {  # the same of the default rules: exact counts, independent fields, bursts as short as they were
    ("mm-image", 9): (0.391, -0.475, -0.597),
    ("mm-image", 15): (0.424, -0.455, -0.534),
    ("deepseek-r1", 3): (0.366, -0.303, -0.299),
    ("deepseek-r1", 18): (0.454, -0.419, -0.438),
}
COLUMNS = {"mm-image": ("image_tokens", "text_tokens"), "deepseek-r1": ("input_tokens", "output_tokens")}


def figures(make: Callable[[int], sg.Trace], columns: tuple[str, str]) -> tuple[float, ...]:
    """Rate CV and two rank correlations in windows of three seconds, means over seeds."""
    rows = []
    for seed in SEEDS:
        seen = sg.in_windows(make(seed), 3.0)
        assert len(seen) == 3600
        rows.append([seen.rate_cv, *(seen.rank_correlation(column) for column in columns)])
    return tuple(np.mean(rows, axis=0).tolist())


def near(found: tuple[float, ...], known: tuple[float | None, ...]) -> bool:
    tolerances = (RATE_CV_TOLERANCE, RANK_TOLERANCE, RANK_TOLERANCE)
    return all(k is None or abs(f - k) <= t for f, k, t in zip(found, known, tolerances, strict=True))


@needs_real_data
@pytest.mark.parametrize(("name", "hour"), MEASURED)
def test_figure_19_on_released_clients(name, hour):
    pool = sg.load_servegen(REAL_DATA, name, cache=False)
    known, known_naive = MEASURED[name, hour]
    where = {"start": f"{hour}h", "duration": "3h"}
    upstream = figures(lambda seed: sg.generate(pool, seed=seed, **where, **UPSTREAM), COLUMNS[name])
    ours = figures(lambda seed: sg.generate(pool, seed=seed, **where), COLUMNS[name])
    part = pool.span(hour * 3600, (hour + 3) * 3600)
    cv = sg.fitted_cv(sg.generate(pool, **where, **UPSTREAM))
    baselines = {family: sg.naive(part, family=family, cv=cv) for family in ("gamma", "weibull")}
    naive = {f: figures(lambda s, b=b: sg.generate(b, seed=s, **where), COLUMNS[name]) for f, b in baselines.items()}
    assert near(upstream, known), upstream
    assert near(ours, OURS[name, hour]), ours
    for found in naive.values():
        assert near(found, known_naive), found
        assert found[0] < min(upstream[0], ours[0]) - 0.005  # too narrow in rate
        assert not near(found, known)  # one would not be taken for the other
        assert not near(upstream, (*known_naive[:2], 0.0))
    # a baseline that pools each ten minutes alone keeps what correlation there is between them
    mixed = sg.naive(part, cv=cv, lengths_over="window")
    moved = figures(lambda seed: sg.generate(mixed, seed=seed, **where), COLUMNS[name])
    assert moved[0] == pytest.approx(naive["gamma"][0], abs=0.005)
    if name == "deepseek-r1":
        assert moved[1] < -0.3


@pytest.mark.parametrize(
    ("name", "hour", "wider"),
    [("mm-image", 9, 1.3), ("m-small", 9, 1.1), ("m-large", 14, 1.3), ("deepseek-r1", 9, 1.05)],
)
def test_presets_vary_more_than_their_baselines(name, hour, wider):
    """Rates of short windows spread more; where large clients have lengths of their own, lengths go with the rate."""
    pool = sg.population(name).with_conversations(None)
    where = {"start": f"{hour}h", "duration": "3h", "rate": 20}
    columns = COLUMNS.get(name, ("input_tokens", "output_tokens"))
    part = pool.span(hour * 3600, (hour + 3) * 3600)
    clients = figures(lambda seed: sg.generate(pool, seed=seed, **where), columns)
    baseline = sg.naive(part)
    naive = figures(lambda seed: sg.generate(baseline, seed=seed, **where), columns)
    assert clients[0] > wider * naive[0]
    assert np.abs(naive[1:]).max() < 0.08
    if name == "mm-image":
        assert max(clients[1:]) < -0.2
