import time

import numpy as np
import pytest

from servegen_gpu.clients.lengths import WORDS
from servegen_gpu.clients.pool import EXPONENTIAL, GAMMA, WEIBULL
from servegen_gpu.clients.population import PRESETS, population
from servegen_gpu.clients.presets import deepseek_r1
from servegen_gpu.errors import OptionError

SEEDS = (0, 1, 2, 3)
PUBLISHED_RPS = 14.0e6 / (7 * 86_400)


def volume(pool):
    """Share of the requests of each profile."""
    return np.bincount(pool.profile, pool.rate_factor, len(pool.rate_rps)) / pool.rate_factor.sum()


def pooled(pool, field):
    """Values and probabilities of a field over all requests of the pool."""
    share = np.bincount(pool.table[:, 0, field], volume(pool), len(pool.tables))
    values, chances = zip(*(pool.tables.table(t) for t in range(len(pool.tables))), strict=True)
    value = np.concatenate(values)
    chance = np.concatenate([c * s for c, s in zip(chances, share, strict=True)])
    value, chance = value[chance > 0], chance[chance > 0]  # leaves the tables of other fields
    order = np.argsort(value, kind="stable")
    return value[order], chance[order]


def quantile(value, chance, q):
    return value[np.searchsorted(np.cumsum(chance), q)]


def test_presets():
    assert PRESETS == ("deepseek-r1",)
    for kinds in (deepseek_r1.STYLES, deepseek_r1.GAPS, deepseek_r1.RHYTHMS):
        assert sum(kind.share for kind in kinds) == pytest.approx(1)


def test_the_published_population():
    pool = population("deepseek-r1")
    assert len(pool) == 25_913
    assert (pool.category, pool.windows, pool.window_s, pool.first_window) == ("reason", 144, 600, 0)
    assert not pool.measured.any()
    assert (pool.occupancy == 1).all()
    assert 48 <= len(pool.rate_rps) <= 96
    assert len(np.unique(pool.profile)) == len(pool.rate_rps)
    share = pool.rate_factor / pool.rate_factor.sum()
    assert share[:10].sum() == pytest.approx(0.5, abs=0.03)
    assert (np.diff(share) <= 0).all()


@pytest.mark.parametrize("clients", [1, 2, 100, 25_913, 100_000])
def test_any_number_of_clients_makes_the_published_rate(clients):
    pool = population(clients=clients)
    assert pool.client_ids.tolist() == list(range(clients))
    assert pool.own_rps.mean() == pytest.approx(PUBLISHED_RPS, rel=1e-9)


def test_the_number_of_clients_changes_one_factor_only():
    few, many = population(clients=700, seed=5), population(clients=4_000, seed=5)
    np.testing.assert_array_equal(few.profile, many.profile[:700])
    ratio = few.rate_factor / many.rate_factor[:700]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-14)
    assert population(clients=3, seed=5).profile.tolist() == many.profile[:3].tolist()


def test_the_seed_decides_who_is_who():
    pools = [population(seed=seed) for seed in (0, 0, 1, 2**64 - 1)]
    digests = [pool.digest() for pool in pools]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    np.testing.assert_array_equal(pools[0].rate_factor, pools[2].rate_factor)
    np.testing.assert_array_equal(pools[0].tables.thresholds, pools[2].tables.thresholds)
    # 80 profiles of unequal shares: two seeds agree on few clients
    assert np.mean(pools[0].profile == pools[2].profile) < 0.05
    assert np.mean(pools[0].profile[:256] == pools[2].profile[:256]) < 0.1


@pytest.mark.parametrize("seed", range(20))
def test_kinds_get_their_shares_of_requests_and_of_clients(seed):
    pool = population(seed=seed)
    shape = (len(deepseek_r1.GAPS), len(deepseek_r1.STYLES), len(deepseek_r1.RHYTHMS))
    by_requests = volume(pool).reshape(shape)
    by_clients = (np.bincount(pool.profile, minlength=len(pool.rate_rps)) / len(pool)).reshape(shape)
    for axis, kinds in enumerate((deepseek_r1.GAPS, deepseek_r1.STYLES, deepseek_r1.RHYTHMS)):
        others = tuple({0, 1, 2} - {axis})
        due = np.array([kind.share for kind in kinds])
        np.testing.assert_allclose(by_clients.sum(others), due, atol=0.02)
        # a client of 13 % may overshoot a kind of 10 %
        np.testing.assert_allclose(by_requests.sum(others), due, atol=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_lengths_are_as_released(seed):
    pool = population(seed=seed)
    value, chance = pooled(pool, 0)
    assert value @ chance == pytest.approx(1270, rel=0.10)
    for q, tokens in ((0.25, 41), (0.5, 208), (0.75, 482), (0.9, 2092), (0.95, 6714), (0.99, 23_423)):
        assert quantile(value, chance, q) == pytest.approx(tokens, rel=0.15)
    assert value.min() == 1
    assert value.max() <= 57_344

    value, chance = pooled(pool, 1)
    assert value @ chance == pytest.approx(1527, rel=0.20)
    for q, tokens in ((0.1, 287), (0.25, 427), (0.5, 792), (0.75, 1499)):
        assert quantile(value, chance, q) == pytest.approx(tokens, rel=0.15)
    for q, tokens in ((0.9, 3432), (0.95, 5701), (0.99, 12_607)):
        assert quantile(value, chance, q) == pytest.approx(tokens, rel=0.30)
    assert value.max() == 32_768


def test_bins_are_distinct_and_whole():
    tables = population(clients=1).tables
    for t in range(len(tables)):
        value, chance = tables.table(t)
        assert (np.diff(value) > 0).all()
        assert chance.sum() == 1
        if t % 3 < 2:
            assert value[0] >= 1
            assert len(value) < 800
            at_most = np.cumsum(chance)
            likely = value[
                (at_most > 1e-3) & (at_most < 0.999)
            ]  # far out, bins without a word of their own are left out
            assert (np.diff(likely) <= 0.03 * likely[1:] + 1).all()
        else:
            assert value[-1] <= 500
    assert (tables.thresholds[tables.offsets[1:] - 1] == WORDS - 1).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_share_of_reasoning_has_two_modes(seed):
    pool = population(seed=seed)
    value, chance = pooled(pool, 2)
    density = np.bincount(value, chance, 501)
    assert density @ np.arange(501) / 501 == pytest.approx(0.703, abs=0.015)
    smooth = np.convolve(density, np.ones(15) / 15, "same")
    low, dip, high = smooth[:250].argmax(), 200 + smooth[200:350].argmin(), 350 + smooth[350:].argmax()
    assert 0.34 <= low / 501 <= 0.41
    assert 0.47 <= dip / 501 <= 0.61
    assert 0.89 <= high / 501 <= 0.96
    assert smooth[dip] < 0.7 * smooth[low] < 0.7 * smooth[high]


def test_reason_tokens_outnumber_answers():
    pool = population()
    output, ratio = (np.array([np.dot(*pool.tables.table(t)) for t in range(f, len(pool.tables), 3)]) for f in (1, 2))
    share = np.bincount(pool.table[:, 0, 1] // 3, volume(pool))
    reason = share @ (output * ratio / 501)
    # fields of a request are drawn independently: less than the published 4
    assert 2.2 <= reason / (share @ output - reason) <= 4


def test_most_clients_are_calm():
    pool = population()
    cv, family, shape = pool.cv[:, 0], pool.family[:, 0], pool.shape[:, 0]
    assert set(family.tolist()) == {EXPONENTIAL, GAMMA, WEIBULL}
    np.testing.assert_allclose(cv[family == GAMMA], shape[family == GAMMA] ** -0.5)
    assert (cv[family == EXPONENTIAL] == 1).all()
    np.testing.assert_allclose(cv[family == WEIBULL], 1.46, atol=0.01)
    share = volume(pool)
    assert share[cv <= 1].sum() == pytest.approx(0.7, abs=0.03)
    assert share[cv > 3].sum() == pytest.approx(0.1, abs=0.03)


def test_the_day_has_a_rhythm():
    rate = population().own_rps / PUBLISHED_RPS
    hour = (np.arange(144) + 0.5) / 6
    harmonic = 2 * np.mean(rate * np.exp(-2j * np.pi * hour / 24))
    assert abs(harmonic) == pytest.approx(0.52, abs=0.04)
    assert -np.angle(harmonic) * 24 / (2 * np.pi) == pytest.approx(0.6, abs=0.5)


@pytest.mark.parametrize("clients", [0, -1, 2**31, 1.5, True, "5", float("nan")])
def test_bad_counts_are_refused(clients):
    with pytest.raises(OptionError, match="clients"):
        population(clients=clients)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(OptionError, match="seed"):
        population(seed=seed)


def test_unknown_workloads_are_refused_with_a_list():
    with pytest.raises(OptionError, match="deepseek-r1") as caught:
        population("m-smal")
    assert "m-smal" in caught.value.got


def test_building_is_fast():
    best = min(timed_build() for _ in range(3))
    assert best < 0.5


def timed_build():
    begin = time.perf_counter()
    population(seed=3)
    return time.perf_counter() - begin
