"""Client pools: spans, clones and selections mean the same requests; bad pools are refused."""

from dataclasses import replace

import numpy as np
import pytest
from profiles import tiny_pool

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.request.families import GAMMA, WEIBULL
from servegen_gpu.request.schema import FIELDS


def permuted(pool, order):
    """The same clients under other ids."""
    return replace(pool, profile=pool.profile[order], rate_factor=pool.rate_factor[order])


# sums


def test_order_free_sum_is_exact_enough_and_order_free():
    rng = np.random.default_rng(1)
    terms = rng.lognormal(0, 8, (500, 20)) * (rng.random((500, 20)) < 0.5)
    total = order_free_sum(terms)
    assert total == pytest.approx(terms.sum(axis=0), rel=1e-14)
    for _ in range(5):
        assert np.array_equal(order_free_sum(rng.permutation(terms)), total)


def test_order_free_sum_of_little():
    assert order_free_sum(np.zeros((0, 3))).tolist() == [0, 0, 0]
    assert order_free_sum(np.zeros((2, 3))).tolist() == [0, 0, 0]
    assert order_free_sum(np.array([[0.1], [0.0]])).tolist() == [0.1]
    assert order_free_sum(np.full((1000, 1), 5e-324)).tolist() == [1000 * 5e-324]


def test_own_rps_is_the_sum_over_clients_in_any_order():
    pool = replace(tiny_pool(clients=5).clone(40), rate_factor=np.random.default_rng(2).lognormal(0, 3, 200))
    direct = sum(pool.client(c).rate_rps for c in pool.client_ids)
    assert pool.own_rps == pytest.approx(direct)
    order = np.random.default_rng(3).permutation(200)
    assert np.array_equal(permuted(pool, order).own_rps, pool.own_rps)


# one client


def test_client():
    pool = replace(tiny_pool(ids=(3, 8, 900), first_window=2), rate_factor=np.array([1.0, 2.0, 3.0]))
    client = pool.client(8)
    assert client.id == 8
    assert client.start_s[:2].tolist() == [1200, 1800]
    assert client.rate_rps.tolist() == (2 * pool.rate_rps[1]).tolist()
    assert client.family[1] == ""
    assert set(client.family) == {"", "Gamma", "Weibull", "Exponential"}
    for absent in (-1, 4, 901):
        with pytest.raises(OptionError, match=f"client {absent}"):
            pool.client(absent)


# spans


def test_span_keeps_windows_in_place():
    pool = tiny_pool()
    cut = pool.span(1000, 2400)
    assert (cut.first_window, cut.windows, cut.start_s, cut.end_s) == (1, 3, 600, 2400)
    for name in ("rate_rps", "cv", "family", "shape", "occupancy", "table"):
        assert np.array_equal(getattr(cut, name), getattr(pool, name)[:, 1:4])
    assert cut.span(1200, 1201).first_window == 2


@pytest.mark.parametrize(("windows", "period"), [(144, 144), (150, 144), (300, 288), (100, 100)])
def test_past_the_end_whole_days_repeat(windows, period):
    pool = tiny_pool(windows=windows)
    assert pool.period_windows == period
    cut = pool.span(0, 600 * 700)
    assert cut.windows == 700
    rows = np.arange(700) % period
    assert np.array_equal(cut.rate_rps, pool.rate_rps[:, rows])
    far = pool.span(600 * 650, 600 * 651)
    assert np.array_equal(far.rate_rps[:, 0], pool.rate_rps[:, 650 % period])


def test_wrap_keeps_the_time_of_day_for_data_that_begins_later():
    pool = tiny_pool(windows=150, first_window=10)
    assert pool.row(np.array([10, 153, 154, 10 + 2 * 144])).tolist() == [0, 143, 0, 0]


def test_past_end_stop():
    pool = tiny_pool()
    cut = pool.span(85_000, 100_000, past_end="end")
    assert cut.end_s == 86_400
    with pytest.raises(OptionError, match="86400 s"):
        pool.span(86_400, 90_000, past_end="end")


@pytest.mark.parametrize("span", [(5, 5), (10, 5), (-1, 5), (np.nan, 5), (0, np.inf)])
def test_bad_span(span):
    with pytest.raises(OptionError, match="start <"):
        tiny_pool().span(*span)


# clones and selections


def test_clones_share_profiles_and_the_rate():
    pool = tiny_pool(ids=(5, 6, 9))
    clones = pool.clone(4)
    assert len(clones) == 12
    assert clones.client_ids.tolist() == list(range(12))
    assert clones.profile.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert clones.rate_rps is pool.rate_rps
    assert clones.own_rps == pytest.approx(pool.own_rps)
    for n in (0, 3_333_334):
        with pytest.raises(OptionError, match="clones"):
            pool.clone(n)


def test_select():
    pool = tiny_pool(clients=5, ids=(1, 3, 5, 7, 9))
    some = pool.select([7, 1, 7])
    assert some.client_ids.tolist() == [1, 7]
    assert np.array_equal(some.client(7).rate_rps, pool.client(7).rate_rps)
    with pytest.raises(OptionError, match=r"\[2, 99\]"):
        pool.select([1, 99, 2])
    with pytest.raises(ProfileError, match="at least one client"):
        pool.select([])


# identity


@pytest.mark.parametrize("category", list(FIELDS))
def test_digest_tells_pools_apart(category):
    pool = tiny_pool(category)
    assert pool.digest() == tiny_pool(category).digest()
    assert len(pool.digest()) == 64
    others = [
        tiny_pool(category, rate_rps=0.6),
        tiny_pool(category, first_window=1),
        tiny_pool(category, measured=False),
        tiny_pool(category, ids=(0, 1, 4)),
        tiny_pool(category, dependent=True),
        tiny_pool(category, contexts=(0, 100)),
        pool.span(0, 600),
        pool.clone(2),
        permuted(pool, [1, 0, 2]),
    ]
    assert len({pool.digest(), *(other.digest() for other in others)}) == len(others) + 1


@pytest.mark.parametrize("category", list(FIELDS))
def test_arrays_and_back(category):
    for pool in (tiny_pool(category), tiny_pool(category, dependent=True, contexts=(0, 4096))):
        assert ClientPool.from_arrays(pool.header(), pool.arrays()).digest() == pool.digest()


@pytest.mark.parametrize("category", list(FIELDS))
def test_correlations_and_limits_may_be_left_out(category):
    pool = tiny_pool(category)
    arrays = pool.arrays()
    scalar = {"language": 2, "reason": 3, "multimodal": 5}[category]
    assert arrays.pop("correlations").shape == (0, scalar, scalar)
    assert arrays.pop("correlation").tolist() == [-1, -1, -1]
    assert arrays.pop("context_tokens").tolist() == [0, 0, 0]
    assert ClientPool.from_arrays(pool.header(), arrays).digest() == pool.digest()


def test_pools_do_not_change():
    pool = tiny_pool()
    for array in pool.arrays().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        pool.name = "other"
    assert repr(pool) == "<ClientPool tiny-language: 3 clients (language), 1 days>"
    assert repr(pool.span("1h", "2h")) == "<ClientPool tiny-language: 3 clients (language), 1 h>"


def test_a_span_ends_after_its_start():
    with pytest.raises(OptionError, match=r"start 7200\.0, end 3600\.0; let it end after its start"):
        tiny_pool().span("2h", "1h")


def test_tiny_pools_are_diverse():
    pool = tiny_pool(clients=6)
    assert {0, 1, GAMMA, WEIBULL} == set(pool.family.ravel().tolist())
    assert pool.shape[pool.shape > 0].min() == 0.02
    assert 0 < (pool.rate_rps == 0).mean() < 0.5
    assert set(pool.occupancy.ravel().tolist()) == {0, 1 / 3, 1}
    assert (tiny_pool(silent=False, family=WEIBULL, shape=0.5, occupancy=1.0).shape == 0.5).all()


# bad pools


def at(name, value):
    """A pool with one value of client 1, window 5 replaced."""
    pool = tiny_pool()
    array = getattr(pool, name).copy()
    array[1, 5] = value
    return {name: array}


def matrices(upper, lower):
    """A matrix as it should be, and one with these entries beside its diagonal."""
    return np.array([np.eye(2), [[1.0, upper], [lower, 1.0]]])


SOME = {"correlations": matrices(0.5, 0.5)}

BAD = {
    "category": ({"category": "poetry"}, "poetry"),
    "window too long": ({"window_s": 5000}, "4,294 s"),
    "no window": ({"window_s": 0}, "0 s"),
    "no clients": ({n: getattr(tiny_pool(), n)[:0] for n in ("client_ids", "profile", "rate_factor")}, "one client"),
    "ids repeat": ({"client_ids": np.array([1, 1, 2])}, "ids unique"),
    "ids descend": ({"client_ids": np.array([3, 2, 1])}, "ids unique"),
    "id negative": ({"client_ids": np.array([-1, 2, 3])}, "ids unique"),
    "id too large": ({"client_ids": np.array([1, 2, 2**31])}, "ids unique"),
    "profile absent": ({"profile": np.array([0, 1, 3], np.int32)}, "point at one of"),
    "factor zero": ({"rate_factor": np.array([1.0, 0.0, 1.0])}, "rate factors"),
    "factor NaN": ({"rate_factor": np.array([1.0, np.nan, 1.0])}, "rate factors"),
    "rate NaN": (at("rate_rps", np.nan), r"a rate of 0, or from 1e-30.*client \[1\], window 3000 s"),
    "rate negative": (at("rate_rps", -1), r"a rate of 0, or from 1e-30.*client \[1\], window 3000 s"),
    "rate infinite": (at("rate_rps", np.inf), r"a rate of 0, or from 1e-30.*client \[1\], window 3000 s"),
    "family unknown": (at("family", 9), r"gap family.*client \[1\], window 3000 s"),
    "family missing": (at("family", 0), r"gap family.*client \[1\], window 3000 s"),
    "shape zero": (at("shape", 0), r"a shape that gaps can have.*client \[1\], window 3000 s"),
    "shape NaN": (at("shape", np.nan), r"a shape that gaps can have.*client \[1\], window 3000 s"),
    "occupancy zero": (at("occupancy", 0), r"occupancy.*client \[1\], window 3000 s"),
    "occupancy above one": (at("occupancy", 1.5), r"occupancy.*client \[1\], window 3000 s"),
    "table missing": (at("table", -1), r"length table.*client \[1\], window 3000 s"),
    "table absent": (at("table", 10**6), r"length table.*client \[1\], window 3000 s"),
    "windows differ": ({"shape": np.ones((3, 7))}, r"shape of shape \(3, 144\).*\(3, 7\)"),
    "fields differ": ({"table": np.zeros((3, 144, 5), np.int32)}, r"table of shape \(3, 144, 2\)"),
    "correlation absent": ({"correlation": np.array([-1, 0, -1], np.int32)}, r"-1, or a row.*0 at client \[1\]"),
    "correlation below": ({"correlation": np.array([-1, -1, -2], np.int32)}, r"-1, or a row.*-2 at client \[2\]"),
    "correlation above": (SOME | {"correlation": np.array([0, 2, 1], np.int32)}, r"row of the 2.*2 at client \[1\]"),
    "correlations missing": (SOME | {"correlation": np.array([0, 1], np.int32)}, r"correlation of shape \(3,\)"),
    "matrices too large": ({"correlations": np.ones((1, 3, 3))}, r"correlations of shape \(1, 2, 2\)"),
    "matrix lopsided": ({"correlations": matrices(0.5, 0.4)}, r"Spearman.*0.4.*row 1 of"),
    "matrix beyond one": ({"correlations": matrices(1.5, 1.5)}, r"Spearman.*1.5.*row 1 of"),
    "matrix NaN": ({"correlations": matrices(np.nan, np.nan)}, r"Spearman.*nan.*row 1 of"),
    "matrix diagonal": ({"correlations": np.full((1, 2, 2), 0.5)}, r"Spearman.*row 0 of"),
    "context negative": ({"context_tokens": np.array([0, -5, 0], np.int32)}, r"0, or the most.*-5 at client \[1\]"),
    "contexts differ": ({"context_tokens": np.zeros(4, np.int32)}, r"context_tokens of shape \(3,\)"),
    "clients differ": ({"rate_factor": np.ones(4)}, r"rate_factor of shape \(3,\)"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_pool(change, message):
    with pytest.raises(ProfileError, match=message):
        replace(tiny_pool(), **change)
