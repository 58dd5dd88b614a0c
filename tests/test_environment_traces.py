"""What environments do to traces: clocks, counts, dispersion, and all that traces promise without them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from profiles import tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.fitting.octaves import kernels
from servegen_gpu.law.address import derive_key
from servegen_gpu.law.environment import BY_NUMBER, factors, process
from servegen_gpu.packed import PackedWorkload, unpack_clock
from servegen_gpu.realise import realised
from servegen_gpu.request.families import EXPONENTIAL

KEY = derive_key(4)
WINDOW_S = 600
GAMMA = sg.Environment(sg.Margin.gamma(0.8), {0: 0.2, 4: 0.4, 8: 0.4})
SILENT = sg.Environment(sg.Margin.gamma(6.0, zero=0.6), {2: 0.1, 9: 0.9})
"""Whole windows are silent now and then."""


def m_of(environment: sg.Environment, first: int, cells: int, key: tuple[int, int] = KEY) -> np.ndarray:
    """The factor of all clients in consecutive cells."""
    margin = environment.margin
    z = process(key, BY_NUMBER, environment.number, environment.octaves, first, cells)
    return factors(z, margin.at, margin.values, margin.zero)


def us_of_words(packed: PackedWorkload, window: int, words: np.ndarray) -> np.ndarray:
    """Microseconds from the window's begin, by the clock of the first group."""
    clock = unpack_clock(packed.clock)
    table = int(clock.table[window])
    own = slice(clock.offsets[table], clock.offsets[table + 1])
    s = np.searchsorted(clock.last[own], words)
    inside = ((words - clock.first[own][s].astype(np.int64)) * clock.slope[own][s].astype(np.float64)) * 2.0**-32
    return clock.start_us[own][s] + np.floor(inside)


STEPS = [(0, 1.0), (333.25, 20.0), (900, 0.0), (1700, 6.0), (2100.0005, 2.0)]
STEP_S, STEP_RPS = np.array(STEPS).T
LINEAR = sg.Schedule([0, 900, 2400, 7200], [6.0, 0.2, 12.0, 1.0], "linear")


def wave(t: np.ndarray) -> np.ndarray:
    return 2 + np.sin(t / 90)


RATES: dict[str, tuple[Any, Any, float]] = {
    "constant": (3.0, lambda t: np.full(len(t), 3.0), 2e-6),
    "steps": (STEPS, lambda t: STEP_RPS[np.searchsorted(STEP_S, t, "right") - 1], 2e-6),
    "linear": (LINEAR, lambda t: np.interp(t, [0, 900, 2400, 7200], [6.0, 0.2, 12.0, 1.0]), 3e-4),
    "function": (wave, wave, 3e-4),
}
"""As `generate` takes it, as a function of times, and how far operational time may be off: microseconds, or seconds in
which a rate changes."""


@pytest.mark.parametrize("environment", [GAMMA, SILENT, replace(GAMMA, cell_s=0.25), replace(GAMMA, cell_s=60)])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("counts", ["renewal", "exact"])
def test_clocks_are_those_of_the_oracle(rate: str, counts: str, environment: sg.Environment) -> None:
    """The oracle adds up R(s) M(s) in steps of milliseconds."""
    given, function, within = RATES[rate]
    pool = tiny_pool("language", 2, silent=False).with_environment(environment)
    packed = sg.stream(pool, rate=given, start=100, duration=3500, counts=counts, empty="skip").packed
    real = realised(packed, KEY)
    step_s = 1 / 4000
    inside_s = (np.arange(round(WINDOW_S / step_s)) + 0.5) * step_s
    words = np.linspace(1, 2**32 - 2, 5000).astype(np.int64)
    checked = changed = 0
    for w in range(len(packed.row)):
        at_s = w * WINDOW_S + inside_s
        cell = (at_s / environment.cell_s).astype(np.int64)
        m = m_of(environment, int(cell[0]), int(cell[-1] - cell[0]) + 1)[cell - cell[0]]
        own = function(at_s)
        factor = 1.0 if counts == "exact" else (own * m).sum() / own.sum()
        assert real.window_scale[0, w] == pytest.approx(packed.window_scale[0, w] * factor, rel=max(within, 1e-5))
        silent = not (own * m).any()
        if silent and counts == "renewal":
            continue
        passed = np.concatenate(([0.0], np.cumsum(own if silent else own * m)))
        found = np.interp(us_of_words(real, w, words) * 1e-6, np.arange(len(passed)) * step_s, passed / passed[-1])
        assert np.abs(found - words / 2**32).max() < within
        checked += 1
        by_rate_alone = np.interp(
            us_of_words(packed, w, words) * 1e-6, np.arange(len(passed)) * step_s, passed / passed[-1]
        )
        changed += bool(np.abs(by_rate_alone - words / 2**32).max() > 1e-2)
    assert checked > 2
    assert changed > 1


def test_an_environment_is_a_schedule_that_nobody_knows_before() -> None:
    """Rates R(s) M(s) as steps of a schedule give the same trace, to the rounding of a clock."""
    pool = tiny_pool("language", 4, silent=False)
    m = m_of(GAMMA, 0, 3600)
    moved_by = sg.generate(pool.with_environment(GAMMA), rate=3.0, duration=3600, seed=4, counts="renewal")
    steps = list(enumerate((3.0 * m).tolist()))
    expected = sg.generate(pool, rate=steps, duration=3600, seed=4, counts="renewal")
    assert len(moved_by) == len(expected) > 5000
    assert np.abs(moved_by["arrival_us"] - expected["arrival_us"]).max() <= 2
    assert np.array_equal(np.sort(moved_by["input_tokens"]), np.sort(expected["input_tokens"]))


@pytest.mark.parametrize("environment", [GAMMA, SILENT])
def test_measured_counts_stay_and_silent_windows_keep_their_clock(environment: sg.Environment) -> None:
    pool = tiny_pool("language", 4)
    plain = sg.generate(pool, duration=86_400, seed=4, counts="exact")
    trace = sg.generate(pool.with_environment(environment), duration=86_400, seed=4, counts="exact")
    quiet = np.flatnonzero(m_of(environment, 0, 86_400).reshape(144, WINDOW_S).max(axis=1) == 0)
    assert len(quiet) > 1 or environment is GAMMA
    for client in range(4):
        a, b = plain.where(plain["client"] == client), trace.where(trace["client"] == client)
        window, later = a["arrival_us"] // (WINDOW_S * 10**6), b["arrival_us"] // (WINDOW_S * 10**6)
        assert np.array_equal(window, later)
        for name in ("input_tokens", "output_tokens"):  # in order of values: ties in time may come in another one
            assert np.array_equal(a[name][np.lexsort((a[name], window))], b[name][np.lexsort((b[name], window))])
        stays = np.isin(window, quiet)
        off = np.abs(a["arrival_us"] - b["arrival_us"])
        assert off[stays].max(initial=0) <= 1  # what comes of cutting a clock into cells
        assert (off > 1000)[~stays].mean() > 0.95


def poisson_pool(environment: sg.Environment | None, rate_rps: float = 5.0) -> sg.ClientPool:
    pool = tiny_pool("language", 1, silent=False, family=EXPONENTIAL, shape=1.0, rate_rps=rate_rps)
    return pool.with_environment(environment)


def counts_of(environment: sg.Environment, replicas: int, rate_rps: float = 5.0) -> np.ndarray:
    """Requests in every second of an hour, int64[replicas, 3600]."""
    pool = poisson_pool(environment)
    packed = sg.stream(pool, rate=rate_rps, duration=3600, counts="renewal").packed
    traces = (sg.generate(packed, seed=17, replica=r) for r in range(replicas))
    return np.stack([np.bincount(trace["arrival_us"] // 10**6, minlength=3600) for trace in traces])


def covariance(margin: sg.Margin, rho: np.ndarray) -> np.ndarray:
    """Cov(Q(Φ(x)), Q(Φ(y))) of normals with correlations rho, by cubature."""
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w /= w.sum()

    def q(z: np.ndarray) -> np.ndarray:
        return np.interp(stats.norm.cdf(z), margin.at, margin.values)

    y = rho[:, None, None] * x[:, None] + np.sqrt(1 - rho * rho)[:, None, None] * x
    return np.einsum("i,j,i,rij->r", w, w, q(x), q(y)) - 1.0


def dispersion_p(counts: np.ndarray, window: int, mean: float, idc: float) -> float:
    """Of the hypothesis that counts of windows have an index of dispersion, by replicas that are independent."""
    inside = counts.reshape(len(counts), -1, window).sum(axis=2)
    found = ((inside - mean * window) ** 2).mean(axis=1) / (mean * window)
    return float(stats.ttest_1samp(found, idc).pvalue)


def test_rate_and_dispersion_are_those_of_the_theory() -> None:
    """IDC = 1 + mean · Var(mean of M over the window); what one octave alone would give is seen to be wrong."""
    environment = sg.Environment(sg.Margin.gamma(0.5), {0: 0.2, 3: 0.4, 6: 0.4})
    counts = counts_of(environment, 200)
    check(float(stats.ttest_1samp(counts.mean(axis=1), 5.0).pvalue), "mean rate over replicas")
    assert not passes(float(stats.ttest_1samp(counts.mean(axis=1), 5.0 * 1.05).pvalue))
    for window in (1, 10, 60):
        lags = np.arange(window)
        weights = np.where(lags == 0, 1.0, 2.0) * (window - lags) / window**2

        def theory(octaves: dict[int, float], lags: np.ndarray = lags, weights: np.ndarray = weights) -> float:
            rho = kernels(lags, tuple(octaves)) @ np.array(list(octaves.values()))
            return float(1 + 5.0 * window * (weights @ covariance(environment.margin, np.minimum(rho, 1.0))))  # noqa: B023

        check(dispersion_p(counts, window, 5.0, theory(dict(environment.octaves))), f"IDC in windows of {window} s")
        if window > 1:
            assert not passes(dispersion_p(counts, window, 5.0, theory({0: 1.0})))
            assert not passes(dispersion_p(counts, window, 5.0, theory({6: 1.0})))


def test_an_environment_moves_pools_where_all_requests_are_of_conversations():
    turns = sg.TurnModel(1.0, turns=sg.distributions.Pmf([2, 4], [1, 1]), gap_s=sg.distributions.Constant(5))
    moved = sg.Environment(sg.Margin.gamma(variance=0.4), {2: 1.0})
    pool = sg.population("m-small", clients=20).with_conversations(turns).with_environment(moved)
    trace = sg.generate(pool, rate=5, duration=600, seed=1)
    assert len(trace) > 1000
    assert (trace["conversation"] >= 0).all()
