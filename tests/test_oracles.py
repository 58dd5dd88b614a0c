"""Goodness of fit against laws known exactly, each gate with planted defects that it must reject.

The gates share the error budget of `gates`. Most use a *crowd*: many clones of one client in one window, so that a
crowd of m is m independent cells of one law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from profiles import tables_of, tiny_pool
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit, gammainc, logit

import servegen_gpu as sg
from servegen_gpu import pipeline
from servegen_gpu.backends.host import addresses, cell_state
from servegen_gpu.backends.host import arrivals as host_arrivals
from servegen_gpu.backends.host import fields as host_fields
from servegen_gpu.backends.host import gaps as host_gaps
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.law.address import Purpose
from servegen_gpu.request.families import EXPONENTIAL, GAMMA, LOGNORMAL, WEIBULL
from servegen_gpu.request.schema import FIELDS

pytestmark = pytest.mark.statistical

WINDOW_US = 600_000_000
Array = np.ndarray
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _numpy(monkeypatch: Patch) -> None:
    """Defects are planted in the NumPy backend; the others equal it (`test_equivalence`)."""
    monkeypatch.setattr(pipeline, "choose_backend", lambda name: NumpyBackend())


# -- crowds and tests --------------------------------------------------------------------------------------------------


def crowd(clients: int, requests: float, category: str = "language", **keywords: Any) -> ClientPool:
    """Clones that send `requests` each on average, in one window."""
    rate_rps = clients * requests / 600
    return tiny_pool(category, clients=1, windows=1, rate_rps=rate_rps, **keywords).clone(clients)


def positions(pool: ClientPool, **keywords: Any) -> Array:
    """Arrivals as parts of the window in order, float64[clients, requests]; all clients send equally many."""
    trace = sg.generate(pool, duration=600, **keywords)
    arrival, client = trace["arrival_us"], trace["client"]
    order = np.lexsort((arrival, client))
    count = np.bincount(client, minlength=len(pool))
    assert (count == count[0]).all()
    return (arrival[order] / WINDOW_US).reshape(len(pool), -1)


def counts_of(pool: ClientPool, **keywords: Any) -> Array:
    """Number of requests of every client."""
    return np.bincount(sg.generate(pool, duration=600, **keywords)["client"], minlength=len(pool))


def chi_square(observed: Array, probability: Array) -> float:
    """P-value of counts, after neighbours have been joined until each group expects ten."""
    assert abs(probability.sum() - 1) < 1e-6
    expected = probability * observed.sum()
    group = (np.cumsum(expected) - expected / 2) // 10
    group = np.unique(group, return_inverse=True)[1]
    expected, observed = np.bincount(group, expected), np.bincount(group, observed)
    if len(expected) > 1 and expected[-1] < 5:
        expected[-2:-1] += expected[-1]
        observed[-2:-1] += observed[-1]
        expected, observed = expected[:-1], observed[:-1]
    assert len(expected) > 1
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


def binned(sample: Array, law: Any, bins: int = 40) -> float:
    """P-value of a sample in [0, 1] in bins of equal mass, none of which begins where microseconds are coarse."""
    edges = law.ppf(np.arange(1, bins) / bins)
    edges = edges[(edges > 2e-6) & (edges < 1 - 2e-6)]
    mass = np.diff(np.concatenate(([0.0], law.cdf(edges), [1.0])))
    assert len(mass) > 3
    return chi_square(np.bincount(np.searchsorted(edges, sample), minlength=len(mass)), mass)


def uniform(sample: Array) -> float:
    """P-value of a sample from [0, 1)."""
    return float(stats.kstest(sample, "uniform").pvalue)


def unrelated(u: Array, v: Array, parts: int = 8) -> float:
    """P-value of independence, of quantiles in a grid; equal values stay together."""
    inner = np.arange(1, parts) / parts
    grid = stats.contingency.crosstab(*(np.searchsorted(np.quantile(x, inner), x) for x in (u, v))).count
    return float(stats.chi2_contingency(grid).pvalue)


def rejects(p: float) -> bool:
    return not passes(p)


# -- gaps --------------------------------------------------------------------------------------------------------------

GAMMA_CELLS = [(0.02, 30), (0.4, 3), (0.9, 12), (1.0, 5), (3.0, 8), (40.0, 4)]


def first_gap(k: float, n: int) -> float:
    """Under the servegen rule the first arrival is the first gap over the sum of all."""
    x = positions(crowd(20_000, n, family=GAMMA, shape=k), counts="servegen")
    return binned(x[:, 0], stats.beta(k, (n - 1) * k))


def circle_gaps(k: float, n: int) -> tuple[float, float]:
    """On the circle the gap across the window's edge is length-biased, Beta(k + 1, (n - 1) k), and the next one is
    Beta(k, (n - 1) k + 1)."""
    x = positions(crowd(20_000, n, family=GAMMA, shape=k, occupancy=1.0))
    across = 1 - x[:, -1] + x[:, 0]
    following = x[:, 1] - x[:, 0]
    return binned(across, stats.beta(k + 1, (n - 1) * k)), binned(following, stats.beta(k, (n - 1) * k + 1))


@pytest.mark.parametrize(("k", "n"), GAMMA_CELLS)
def test_a_gamma_gap_over_its_sum_is_beta(k: float, n: int) -> None:
    if n * k > 1:  # or else too few arrivals survive the ties at the window's end
        check(first_gap(k, n), f"first gap, shape {k}, {n} gaps")
    across, following = circle_gaps(k, n)
    check(across, f"gap across the edge, shape {k}, {n} gaps")
    check(following, f"gap inside, shape {k}, {n} gaps")


@pytest.mark.parametrize(("k", "n"), GAMMA_CELLS)
def test_wrong_gamma_shapes_are_found(k: float, n: int, monkeypatch: Patch) -> None:
    right = host_gaps.gap_constants
    monkeypatch.setattr(host_gaps, "gap_constants", lambda xp, family, shape: right(xp, family, shape * 1.15))
    assert any(map(rejects, circle_gaps(k, n)))
    if n * k > 1:
        assert rejects(first_gap(k, n))


def test_a_missing_boost_is_found(monkeypatch: Patch) -> None:
    right = host_gaps.gap_constants
    monkeypatch.setattr(
        host_gaps,
        "gap_constants",
        lambda xp, family, shape: replace(right(xp, family, shape), boost=np.zeros_like(shape)),
    )
    assert rejects(first_gap(0.4, 3))


def weibull_pair(k: float) -> float:
    """Of two gaps, (g0 / g1)^k is a ratio of exponentials: P(g0 / (g0 + g1) < x) = r / (1 + r), r = (x / (1 - x))^k."""
    law = SimpleNamespace(
        cdf=lambda x: 1 / (1 + ((1 - x) / x) ** k),
        ppf=lambda u: 1 / (1 + ((1 - u) / u) ** (1 / k)),
    )
    pool = crowd(20_000, 2, family=EXPONENTIAL if k == 1 else WEIBULL, shape=k)
    trace = sg.generate(pool, duration=600, counts="servegen")
    x = np.ones(len(pool))  # a second gap too small for a float leaves the first arrival at the end, outside
    x[trace["client"]] = trace["arrival_us"] / WINDOW_US
    return binned(x, law)


@pytest.mark.parametrize("k", [0.152, 0.5, 1.0, 1.7, 6.0])
def test_weibull_gaps(k: float, monkeypatch: Patch) -> None:
    check(weibull_pair(k), f"share of the first of two gaps, shape {k}")
    right = host_gaps.gap_constants
    monkeypatch.setattr(host_gaps, "gap_constants", lambda xp, family, shape: right(xp, family, shape / 1.1))
    assert rejects(weibull_pair(k))


def lognormal_pair(sigma: float) -> float:
    """Of two gaps, log(g0 / g1) is normal, with sigma sqrt(2)."""
    ratio = stats.norm(scale=sigma * 2**0.5)
    law = SimpleNamespace(cdf=lambda x: ratio.cdf(logit(x)), ppf=lambda u: expit(ratio.ppf(u)))
    return binned(positions(crowd(20_000, 2, family=LOGNORMAL, shape=sigma), counts="servegen")[:, 0], law)


@pytest.mark.parametrize("sigma", [0.05, 0.6, 2.5])
def test_lognormal_gaps(sigma: float, monkeypatch: Patch) -> None:
    check(lognormal_pair(sigma), f"share of the first of two gaps, sigma {sigma}")
    right = host_gaps.gap_constants
    monkeypatch.setattr(host_gaps, "gap_constants", lambda xp, family, shape: right(xp, family, shape * 1.1))
    assert rejects(lognormal_pair(sigma))


def test_gaps_of_one_cell_are_independent(monkeypatch: Patch) -> None:
    def p() -> float:
        x = positions(crowd(20_000, 3, family=GAMMA, shape=0.7), counts="servegen")
        return unrelated(x[:, 0], (x[:, 1] - x[:, 0]) / (1 - x[:, 0]))  # independent for Gamma gaps only

    check(p(), "first gap and the share of the second in the rest")
    right = addresses.draw

    def shared(xp: Any, key: Any, purpose: Any, **address: Any) -> Any:
        return right(xp, key, purpose, **(address | {"ordinal": address["ordinal"] & 0xFFFFFFFE}))

    monkeypatch.setattr(addresses, "draw", shared)
    assert rejects(p())


# -- places in the window ----------------------------------------------------------------------------------------------


def one_of_each(x: Array) -> Array:
    """One arrival of each client, any of them alike."""
    return x[np.arange(len(x)), np.random.default_rng(1).integers(0, x.shape[1], len(x))]


@pytest.mark.parametrize("law", [(GAMMA, 0.05, 1.0), (GAMMA, 3.0, 1 / 3), (WEIBULL, 0.3, 1.0), (EXPONENTIAL, 1, 1.0)])
def test_rotated_arrivals_are_uniform(law: tuple[int, float, float], monkeypatch: Patch) -> None:
    pool = crowd(20_000, 15, family=law[0], shape=law[1], occupancy=law[2])
    check(uniform(one_of_each(positions(pool))), "one arrival of each cell")
    right = host_arrivals.on_circle
    monkeypatch.setattr(
        host_arrivals, "on_circle", lambda xp, s, g, f, v: right(xp, s, g, f, np.zeros_like(v))
    )  # begin at the window's edge
    assert rejects(uniform(one_of_each(positions(pool))))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_run_covers_its_part_of_the_window(scale: float) -> None:
    f, k, n = 0.3, 0.8, int(12 * scale)

    def p(**keywords: Any) -> float:
        x = positions(crowd(20_000, 12, family=GAMMA, shape=k, occupancy=f), scale=scale, **keywords)
        empty = np.diff(x, axis=1, append=x[:, :1] + 1).max(axis=1)
        if not keywords:
            assert (empty >= 1 - f - 1e-8).all()
        return binned(np.clip((1 - empty) / f, 0, 1), stats.beta((n - 1) * k, k))

    check(p(), "part of the run without its first gap")
    assert rejects(p(occupancy="window"))


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.04, 2.3, 70.9])
def test_exact_counts_are_rounded_without_bias(mean: float, monkeypatch: Patch) -> None:
    low = int(mean)

    def p() -> float:
        count = counts_of(crowd(20_000, mean))
        assert set(np.unique(count)) <= {low, low + 1}
        return float(stats.binomtest(int((count > low).sum()), len(count), mean - low).pvalue)

    check(p(), f"share rounded up of {mean}")
    right = cell_state.draw

    def up(*arguments: Any, **address: Any) -> Any:
        words = right(*arguments, **address)
        return (np.full_like(words[0], 2**32 - 1), *words[1:])

    monkeypatch.setattr(cell_state, "draw", up)
    assert rejects(p())


def poisson(mean: float, asked: float, counts: str = "renewal") -> float:
    count = counts_of(crowd(40_000, asked, family=EXPONENTIAL), counts=counts)
    law = stats.poisson(mean)
    top = int(law.isf(1e-7)) + 2
    probability = np.append(law.pmf(np.arange(top)), law.sf(top - 1))
    return chi_square(np.bincount(np.minimum(count, top), minlength=top + 1), probability)


@pytest.mark.parametrize("mean", [0.05, 3.0, 120.0])
def test_exponential_renewal_counts_are_poisson(mean: float) -> None:
    check(poisson(mean, mean), f"counts of mean {mean}")
    assert rejects(poisson(mean, mean + 0.06 * mean**0.5 + 0.01))
    assert rejects(poisson(mean, mean, "exact"))


def equilibrium_tail(k: float, mean: float, top: int) -> Array:
    """P(N >= 0), …, P(N >= top) in a window that expects `mean` gaps: (1/mu) int_0^T [F_(n-1) - F_n] dx, where F_n is
    the CDF of Gamma(nk), whose integral is T F_nk(T) - nk F_(nk+1)(T)."""
    t = mean * k
    a = k * np.arange(1, top + 1)
    integral = np.concatenate(([t], t * gammainc(a, t) - a * gammainc(a + 1, t)))
    return np.concatenate(([1.0], -np.diff(integral) / k))


def equilibrium_counts(k: float, mean: float) -> float:
    top = int(mean * 4 + 30 / np.sqrt(k))
    tail = equilibrium_tail(k, mean, top)
    count = counts_of(crowd(20_000, mean, family=GAMMA, shape=k), counts="renewal")
    return chi_square(np.bincount(np.minimum(count, top), minlength=top + 1), np.append(-np.diff(tail), tail[-1]))


def ordinary_start(law: host_gaps.CellLaw) -> Array:
    cells = np.arange(len(law.shape))
    return host_gaps.log_gaps(law, cells.astype(np.int32), np.zeros(len(cells), np.uint32))


@pytest.mark.parametrize(("k", "mean"), [(0.05, 3.0), (0.3, 0.5), (0.3, 20.0), (2.0, 1.0), (9.0, 5.5)])
def test_renewal_counts_are_in_equilibrium(k: float, mean: float, monkeypatch: Patch) -> None:
    check(equilibrium_counts(k, mean), f"counts of shape {k}, mean {mean}")
    monkeypatch.setattr(cell_state, "log_first_gaps", ordinary_start)
    assert rejects(equilibrium_counts(k, mean))


def weibull_equilibrium(k: float, mean: float) -> tuple[float, float]:
    """Counts 0, 1 and more, and the first arrival where there is one."""
    pool = crowd(20_000, mean, family=WEIBULL, shape=k)
    trace = sg.generate(pool, duration=600, counts="renewal")
    clients, first = np.unique(trace["client"], return_index=True)
    count = np.bincount(trace["client"], minlength=len(pool))
    mu = stats.weibull_min(k).mean()
    t = mean * mu
    # the time to the first arrival has density S(x) / mu, whose integral is gammainc(1/k, x^k)
    some = gammainc(1 / k, t**k)
    # in x = y^2, which takes the cusp at 0 away
    more = quad(lambda y: 2 * y * np.exp(-(y ** (2 * k))) * -np.expm1(-((t - y * y) ** k)) / mu, 0, t**0.5)[0]
    observed = np.bincount(np.minimum(count, 2), minlength=3)
    law = SimpleNamespace(
        cdf=lambda x: gammainc(1 / k, (x * t) ** k) / some,
        ppf=np.vectorize(lambda u: stats.gamma(1 / k).ppf(u * some) ** (1 / k) / t),
    )
    assert len(clients) == (count > 0).sum()
    return (
        chi_square(observed, np.array([1 - some, some - more, more])),
        binned(trace["arrival_us"][first] / WINDOW_US, law),
    )


@pytest.mark.parametrize(("k", "mean"), [(0.2, 3.0), (0.5, 0.7), (1.7, 1.5)])
def test_weibull_renewals_are_in_equilibrium(k: float, mean: float, monkeypatch: Patch) -> None:
    counts, first = weibull_equilibrium(k, mean)
    check(counts, f"counts of shape {k}, mean {mean}")
    check(first, f"first arrival of shape {k}, mean {mean}")
    monkeypatch.setattr(cell_state, "log_first_gaps", ordinary_start)
    assert all(map(rejects, weibull_equilibrium(k, mean)))


def lognormal_equilibrium(sigma: float, mean: float) -> tuple[float, float, float]:
    """Counts 0, 1 and more, the first arrival where there is one, and the mean count."""
    pool = crowd(20_000, mean, family=LOGNORMAL, shape=sigma)
    trace = sg.generate(pool, duration=600, counts="renewal")
    first = np.unique(trace["client"], return_index=True)[1]
    count = np.bincount(trace["client"], minlength=len(pool))
    gap = stats.lognorm(sigma)
    mu, t = gap.mean(), mean * gap.mean()

    def upto(x: Array) -> Array:
        """E[min(X, x)] / E[X]: the time to the first arrival."""
        return stats.norm.cdf(np.log(x) / sigma - sigma) + x * gap.sf(x) / mu

    some = float(upto(t))
    more = quad(lambda x: gap.sf(x) * gap.cdf(t - x) / mu, 0, t, limit=200)[0]
    grid = np.geomspace(1e-9, 1, 200_001)
    cdf = upto(grid * t) / some
    law = SimpleNamespace(cdf=lambda x: upto(x * t) / some, ppf=lambda u: np.interp(u, cdf, grid))
    z = (count.mean() - mean) / count.std() * len(count) ** 0.5
    return (
        chi_square(np.bincount(np.minimum(count, 2), minlength=3), np.array([1 - some, some - more, more])),
        binned(trace["arrival_us"][first] / WINDOW_US, law),
        float(2 * stats.norm.sf(abs(z))),
    )


@pytest.mark.parametrize(("sigma", "mean"), [(0.6, 1.5), (1.3, 3.0), (2.0, 0.7)])
def test_lognormal_renewals_are_in_equilibrium(sigma: float, mean: float, monkeypatch: Patch) -> None:
    counts, first, rate = lognormal_equilibrium(sigma, mean)
    check(counts, f"counts of sigma {sigma}, mean {mean}")
    check(first, f"first arrival of sigma {sigma}, mean {mean}")
    check(rate, f"mean count of sigma {sigma}, mean {mean}")
    monkeypatch.setattr(cell_state, "log_first_gaps", ordinary_start)
    assert all(map(rejects, lognormal_equilibrium(sigma, mean)))


# -- operational time --------------------------------------------------------------------------------------------------

HOUR = np.linspace(0, 3600, 36_001)
SHAPES: dict[str, tuple[Any, Array]] = {
    "steps": ([(0, 20), (250, 5), (900, 60), (1500, 0), (1750, 25)], None),
    "linear": (sg.Schedule([0, 1000, 3600], [5, 40, 0], "linear"), np.interp(HOUR, [0, 1000, 3600], [5, 40, 0])),
    "sine": (lambda t: 20 + 18 * np.sin(t / 130), 20 + 18 * np.sin(HOUR / 130)),
}


def integral_of(shape: str) -> Callable[[Array], Array]:
    """The integral of the rate over the hour as a CDF."""
    target, rates = SHAPES[shape]
    if rates is None:
        knots, rates = np.array([*target, (3600, 0)], float).T
        mass = np.concatenate(([0], np.cumsum(np.diff(knots) * rates[:-1])))
        return lambda t: np.interp(t, knots, mass / mass[-1])
    mass = np.concatenate(([0], np.cumsum((rates[1:] + rates[:-1]) / 2)))
    return lambda t: np.interp(t, HOUR, mass / mass[-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_poisson_arrivals_follow_the_rate(shape: str) -> None:
    pool = tiny_pool(clients=1, windows=6, family=EXPONENTIAL, shape=1, silent=False)
    law = integral_of(shape)
    target = SHAPES[shape][0]
    trace = sg.generate(pool, rate=target, duration=3600, counts="renewal")
    assert len(trace) > 60_000
    check(float(stats.kstest(trace["arrival_us"] / 1e6, law).pvalue), f"arrivals under {shape}")
    means = [(600 * w, float(np.diff(law(np.array([600.0 * w, 600.0 * w + 600])))[0]) * 120) for w in range(6)]
    flat = sg.generate(pool, rate=means, duration=3600, counts="renewal")
    assert rejects(float(stats.kstest(flat["arrival_us"] / 1e6, law).pvalue))


def test_burstiness_survives_a_moving_rate() -> None:
    k, n = 0.4, 12
    pool = crowd(20_000, n, family=GAMMA, shape=k, occupancy=1.0)
    mean = pool.own_rps[0]
    target = [(0, mean * 0.5), (300, mean * 2), (450, mean)]
    clock = positions(pool, rate=target)
    u = np.interp(clock, [0, 0.5, 0.75, 1], [0, 0.25, 0.75, 1])
    law = stats.beta(k, (n - 1) * k + 1)
    check(binned(u[:, 1] - u[:, 0], law), "gaps in operational time")
    check(uniform(one_of_each(u)), "arrivals in operational time")
    assert rejects(binned(clock[:, 1] - clock[:, 0], law))
    assert rejects(uniform(one_of_each(clock)))


# -- request data ------------------------------------------------------------------------------------------------------


def wide(field: str, lane: int) -> dict[int, float]:
    """A histogram of many uneven bins, some of them without mass, and a long tail."""
    rng = np.random.default_rng(lane)
    if field.endswith("_count"):
        return {0: 3, 1: 4, 2: 2, 5: 1, 9: 0.5}
    values = np.arange(501) if field == "reason_ratio" else np.unique(rng.integers(1, 30_000, 400))
    weights = rng.gamma(0.7, size=len(values)) * np.exp(-4.0 * values / values[-1])
    weights[rng.random(len(values)) < 0.2] = 0
    return dict(zip(values.tolist(), weights.tolist(), strict=True))


def even(field: str, lane: int) -> dict[int, float]:
    """4,000 bins of equal mass: value // 1000 is the quartile."""
    return wide(field, lane) if field.endswith("_count") else dict.fromkeys(range(4000), 1.0)


def one_cell(
    category: str, requests: int, histogram: Callable[[str, int], dict[int, float]] = wide, **fixed: dict[int, float]
) -> ClientPool:
    """A single cell of many requests; `fixed` gives the histograms of fields."""
    pool = tiny_pool(category, clients=1, windows=1, rate_rps=requests / 600, family=EXPONENTIAL, shape=1)
    chosen = [fixed.get(name) or histogram(name, lane) for lane, name in enumerate(FIELDS[category])]
    return replace(pool, tables=tables_of(chosen))


def marginal(sample: Array, histogram: dict[int, float]) -> float:
    values = np.array([v for v, weight in histogram.items() if weight > 0])
    weights = np.array([weight for weight in histogram.values() if weight > 0])
    place = np.minimum(np.searchsorted(values, sample), len(values) - 1)
    if not np.array_equal(values[place], sample):
        return 0.0  # a value that has no mass
    return chi_square(np.bincount(place, minlength=len(values)), weights / weights.sum())


def marginals(category: str, **keywords: Any) -> dict[str, float]:
    """P-values of all fields of one cell of 100,000 requests."""
    fixed = {"output_tokens": {5010: 1.0}} if category == "reason" else {}
    trace = sg.generate(one_cell(category, 100_000, **fixed), duration=600, **keywords)
    lanes = {name: lane for lane, name in enumerate(FIELDS[category])}
    found = {}
    for name, lane in lanes.items():
        if name.endswith("_count"):
            sample = trace[name.replace("count", "tokens")].lengths
        elif name.startswith(("image", "audio", "video")):
            sample = trace[name].values
        elif name == "reason_ratio":
            sample = trace["reason_tokens"] // 10
        elif category == "reason" and name == "output_tokens":
            continue
        else:
            sample = trace[name]
        found[name] = marginal(sample, wide(name, lane))
    return found


@pytest.mark.parametrize("category", FIELDS)
@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
def test_lengths_have_their_distribution(category: str, dependence: str) -> None:
    scalar = min(len(FIELDS[category]), 5)
    matrix = np.where(np.eye(scalar), 1.0, 0.4) if dependence == "copula" else None
    for name, p in marginals(category, dependence=dependence, rank_correlation=matrix).items():
        check(p, f"{name} of {category}, {dependence}")


def off_by_one(word: Array, table: Array, tables: Any) -> Array:
    return np.minimum(LOOKUP(word, table, tables) + 1, tables.guide[(table + 1) * ((1 << tables.guide_bits) + 1) - 1])


def without_tail(word: Array, table: Array, tables: Any) -> Array:
    return LOOKUP(np.minimum(word, np.uint32(int(0.998 * 2**32))), table, tables)


def coarse(word: Array, table: Array, tables: Any) -> Array:
    return LOOKUP(word & np.uint32(0xFF000000), table, tables)  # uniforms of 8 bits


LOOKUP = host_fields.lookup


@pytest.mark.parametrize("defect", [off_by_one, without_tail, coarse])
@pytest.mark.parametrize("category", FIELDS)
def test_wrong_lookups_are_found(category: str, defect: Callable[..., Array], monkeypatch: Patch) -> None:
    monkeypatch.setattr(host_fields, "lookup", defect)
    found = marginals(category)
    assert all(rejects(p) for name, p in found.items() if not name.endswith("_count")), found
    if defect is off_by_one:
        assert all(map(rejects, found.values()))


def lengths(dependence: str, histogram: Callable[[str, int], dict[int, float]] = wide, **keywords: Any) -> sg.Trace:
    return sg.generate(one_cell("language", 400_000, histogram), duration=600, dependence=dependence, **keywords)


def spearman(trace: sg.Trace) -> Any:
    return stats.spearmanr(trace["input_tokens"], trace["output_tokens"])


def test_independent_fields_are_independent_inside_a_cell() -> None:
    independent = lengths("independent")
    check(float(spearman(independent).pvalue), "rank correlation of input and output")
    check(unrelated(independent["input_tokens"], independent["output_tokens"]), "input and output")
    assert abs(spearman(independent).statistic) < 5 / np.sqrt(len(independent))
    comonotone = lengths("comonotone")
    assert spearman(comonotone).statistic > 0.99
    assert rejects(float(spearman(comonotone).pvalue))


def test_all_pairs_of_multimodal_fields_are_independent() -> None:
    trace = sg.generate(one_cell("multimodal", 50_000), duration=600)
    columns = [trace["text_tokens"], trace["output_tokens"], *(trace[f"{m}_tokens"].lengths for m in MODALITIES)]
    for i, a in enumerate(columns):
        for j, b in enumerate(columns[:i]):
            check(unrelated(a, b, 4), f"fields {j} and {i}")


MODALITIES = ("image", "audio", "video")
QUARTILES = [0.25, 0.5, 0.75]


def gaussian_copula(pearson: float, trace: sg.Trace) -> float:
    """P-value of the quartiles of two fields, 4 by 4."""
    edge = np.concatenate(([-9], stats.norm.ppf(QUARTILES), [9]))
    normal = stats.multivariate_normal(cov=[[1, pearson], [pearson, 1]])
    corner = np.array([[normal.cdf([a, b]) for b in edge] for a in edge])
    mass = np.diff(np.diff(corner, axis=0), axis=1).ravel()
    place = trace["input_tokens"] // 1000 * 4 + trace["output_tokens"] // 1000
    return chi_square(np.bincount(place, minlength=16), mass / mass.sum())


@pytest.mark.parametrize("rho", [0.6, -0.7, 0.05])
def test_the_copula_has_its_latent_correlation(rho: float) -> None:
    trace = lengths("copula", even, rank_correlation=np.array([[1, rho], [rho, 1]]))
    latent = 2 * np.sin(np.pi * rho / 6)
    check(gaussian_copula(latent, trace), f"quartiles under rank correlation {rho}")
    assert abs(spearman(trace).statistic - rho) < 0.01
    if abs(rho) > 0.1:
        assert rejects(gaussian_copula(rho, trace))  # Spearman taken as Pearson
    assert rejects(gaussian_copula(0.0, trace))


def tied_clients(category: str) -> ClientPool:
    """Three clients of 60,000 requests each: one with independent fields, two with matrices of their own."""
    pool = tiny_pool(category, 3, 1, rate_rps=100, silent=False, family=EXPONENTIAL, shape=1, dependent=True)
    fixed = {"output_tokens": range(6000, 10_000), "reason_ratio": range(501)}  # a ratio can be told from its tokens
    chosen = [dict.fromkeys(fixed.get(name, range(4000)), 1.0) for name in FIELDS[category]]
    return replace(pool, rate_rps=np.full((3, 1), 100.0), tables=tables_of(chosen * 3))


def rank_correlations(pool: ClientPool) -> dict[str, float]:
    """P-values of the Spearman correlations of every client's fields, against its own matrix."""
    trace, found = sg.generate(pool, duration=600), {}
    columns = [trace["input_tokens"], trace["output_tokens"]]
    if pool.category == "reason":
        columns.append(np.rint(trace["reason_tokens"] * 501 / trace["output_tokens"]))
    for client, row in enumerate(pool.correlation.tolist()):
        own = trace["client"] == client
        expected = pool.correlations[row] if row >= 0 else np.eye(len(columns))
        for i, j in zip(*np.tril_indices(len(columns), -1), strict=True):
            rho = stats.spearmanr(columns[i][own], columns[j][own]).statistic
            # 1.1 / sqrt(n) is above the standard error at any correlation
            found[f"{client}: {j}, {i}"] = float(
                2 * stats.norm.sf(abs(rho - expected[i, j]) / (1.1 / own.sum() ** 0.5))
            )
    return found


@pytest.mark.parametrize("category", ["language", "reason"])
def test_every_client_has_the_rank_correlations_of_its_matrix(category: str, monkeypatch: Patch) -> None:
    pool = tied_clients(category)
    for pair, p in rank_correlations(pool).items():
        check(p, f"Spearman of client and fields {pair}")
    right = host_fields._mixed
    defects: list[Callable[..., Any]] = [
        lambda words, mixing, of: right(words, np.roll(mixing, 1, axis=0), of),  # the matrix of another client
        lambda words, mixing, of: right(words, mixing, np.roll(of, len(of) // 10)),  # of another request, and its cell
        lambda words, mixing, of: right(words, mixing, np.maximum(of, 1)),  # no client is independent
        lambda words, mixing, of: right(words, mixing.swapaxes(1, 2), of),  # a matrix turned over
    ]
    for defect in defects:
        monkeypatch.setattr(host_fields, "_mixed", defect)
        assert any(map(rejects, rank_correlations(pool).values()))


def test_requests_of_a_cell_are_independent_of_each_other_and_of_time() -> None:
    pool = one_cell("language", 100_000)
    for counts in ("exact", "renewal", "servegen"):
        trace = sg.generate(pool, duration=600, counts=counts)
        tokens, gap = trace["input_tokens"], np.diff(trace["arrival_us"])
        check(unrelated(tokens[:-1], tokens[1:]), "lengths of successive requests")
        check(unrelated(tokens[1:], gap), "lengths and gaps")
        check(unrelated(gap[:-1], gap[1:]), "successive gaps")
    assert rejects(unrelated(np.repeat(tokens[::2], 2)[:-1], np.repeat(tokens[::2], 2)[1:]))


@pytest.mark.parametrize("k", [0, 1, 167, 250, 500])
def test_reason_tokens_are_the_rounded_share(k: int) -> None:
    trace = sg.generate(one_cell("reason", 20_000, reason_ratio={k: 1.0}), duration=600)
    for output, reason in np.unique(np.stack((trace["output_tokens"], trace["reason_tokens"])), axis=1).T.tolist():
        assert reason == (Fraction(output * k, 501) + Fraction(1, 2)) // 1
        assert 0 <= reason <= output


def test_inputs_are_text_and_all_items() -> None:
    trace = sg.generate(one_cell("multimodal", 20_000), duration=600)
    total = trace["text_tokens"].astype(np.int64)
    for modality in MODALITIES:
        items = trace[f"{modality}_tokens"]
        total += np.bincount(np.repeat(np.arange(len(trace)), items.lengths), items.values, len(trace)).astype(int)
    assert np.array_equal(trace["input_tokens"], total)


@pytest.mark.parametrize("modality", MODALITIES)
def test_items_of_a_request_are_independent(modality: str, monkeypatch: Patch) -> None:
    pool = one_cell("multimodal", 50_000, **{f"{modality}_count": {6: 1.0}})

    def p(a: int, b: int) -> float:
        items = sg.generate(pool, duration=600)[f"{modality}_tokens"].values.reshape(-1, 6)
        return unrelated(items[:, a], items[:, b])

    check(p(0, 1), f"{modality}s 0 and 1")
    check(p(1, 5), f"{modality}s 1 and 5, in two draws")
    right = host_gaps.CellLaw.words

    def shared(self: Any, purpose: Purpose, *address: Any, **keywords: Any) -> Any:
        words = right(self, purpose, *address, **keywords)
        return (words[0],) * 4 if purpose >= Purpose.IMAGE else words

    monkeypatch.setattr(host_gaps.CellLaw, "words", shared)
    assert rejects(p(0, 1))


def test_modalities_do_not_share_numbers() -> None:
    fixed = {f"{m}_count": {1: 1.0} for m in MODALITIES}
    trace = sg.generate(one_cell("multimodal", 50_000, even, **fixed), duration=600)
    image, audio, video = (trace[f"{m}_tokens"].values for m in MODALITIES)
    check(unrelated(image, audio), "image and audio")
    check(unrelated(audio, video), "audio and video")
    check(unrelated(image, trace["text_tokens"]), "image and text")


# -- independence between cells ----------------------------------------------------------------------------------------


def places(pool: ClientPool, **keywords: Any) -> Array:
    """The one arrival of every client and window, float64[clients, windows]."""
    trace = sg.generate(pool, duration=600 * pool.windows, **keywords)
    window, place = np.divmod(trace["arrival_us"], WINDOW_US)
    out = np.full((len(pool), pool.windows), np.nan)
    out[trace["client"], window] = place / WINDOW_US
    assert not np.isnan(out).any()
    return out


def cells_apart() -> dict[str, float]:
    """P-values of independence between cells that differ in one part of their address."""
    pool = tiny_pool(clients=1, windows=8, silent=False)
    pool = replace(pool, rate_rps=np.full((1, 8), 5000 / 600)).clone(5000)
    here, other, seed = places(pool), places(pool, replica=1), places(pool, seed=1)
    found = {f"clients {d} apart": unrelated(here[d:].ravel(), here[:-d].ravel()) for d in (1, 2, 16)}
    found |= {f"windows {d} apart": unrelated(here[:, d:].ravel(), here[:, :-d].ravel()) for d in (1, 4)}
    found["replicas"] = unrelated(here.ravel(), other.ravel())
    found["seeds"] = unrelated(here.ravel(), seed.ravel())
    found["replica and seed"] = unrelated(other.ravel(), seed.ravel())
    return found


def test_cells_and_replicas_are_independent() -> None:
    for pair, p in cells_apart().items():
        check(p, pair)


@pytest.mark.parametrize(
    ("part", "shift", "found"), [("client", 1, "clients 1 apart"), ("window", 1, "windows 1 apart")]
)
def test_shared_addresses_are_found(part: str, shift: int, found: str, monkeypatch: Patch) -> None:
    right = cell_state.draw

    def shared(*arguments: Any, **address: Any) -> Any:
        return right(*arguments, **(address | {part: address[part] >> np.uint64(shift)}))

    monkeypatch.setattr(cell_state, "draw", shared)
    assert rejects(cells_apart()[found])


def test_a_seed_plus_replica_is_found(monkeypatch: Patch) -> None:
    right = pipeline.derive_key
    monkeypatch.setattr(pipeline, "derive_key", lambda seed, replica: right(seed + replica))
    assert rejects(cells_apart()["replica and seed"])


def test_counts_and_places_are_independent() -> None:
    count, mean = [], 0.5
    for window in range(2):
        pool = tiny_pool(clients=1, windows=2, silent=False)
        pool = replace(pool, rate_rps=np.full((1, 2), 40_000 * mean / 600)).clone(40_000)
        trace = sg.generate(pool, start=600 * window, duration=600)
        count.append(np.bincount(trace["client"], minlength=40_000))
    for a, b, what in (
        (count[0], count[1], "counts of two windows"),
        (count[0][:-1], count[0][1:], "counts of neighbours"),
    ):
        grid = stats.contingency.crosstab(a, b).count
        check(float(stats.chi2_contingency(grid).pvalue), what)
    check(uniform(trace["arrival_us"] / WINDOW_US), "places of those rounded up")
