"""Selecting windows and clients: against plain loops, without changing what the rest sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profiles import REAL_DATA, needs_real_data, tables_of, tiny_pool

import servegen_gpu as sg
from servegen_gpu.clients.describe.figures import STATISTICS, client_figure
from servegen_gpu.clients.pool import AXES
from servegen_gpu.errors import OptionError
from servegen_gpu.request.schema import FIELDS


def shared_pool(category="language", **keywords):
    """Nine clients on three profiles, with rates of their own; 1 and 5 are alike."""
    factor = np.array([1.0, 2.0, 0.5, 4.0, 0.1, 2.0, 3.0, 1.5, 0.7])
    pool = tiny_pool(category, windows=30, **keywords)
    profile = np.array([0, 1, 2, 1, 0, 1, 2, 2, 0], np.int32)
    return replace(pool, client_ids=np.arange(0, 90, 10), profile=profile, rate_factor=factor)


def slow_figure(pool, client, window, name):
    """A figure of one window, from its length tables."""
    p = pool.profile[np.searchsorted(pool.client_ids, client)]
    if name in ("cv", "shape", "occupancy"):
        return getattr(pool, name)[p, window]
    if name == "rate_rps":
        return pool.client(client).rate_rps[window]
    statistic, field = name.split("_", 1)

    def draws(field):
        values, probabilities = pool.tables.table(pool.table[p, window, pool.fields.index(field)])
        return values / (501 if field == "reason_ratio" else 1), probabilities

    if field not in pool.fields:
        items = sum(np.dot(*draws(f"{m}_count")) * np.dot(*draws(f"{m}_tokens")) for m in ("image", "audio", "video"))
        return np.dot(*draws("text_tokens")) + items
    values, probabilities = draws(field)
    if statistic == "mean":
        return np.dot(values, probabilities)
    if statistic in ("min", "max"):
        return getattr(values, statistic)()
    return next(v for v, c in zip(values, np.cumsum(probabilities), strict=True) if c >= float(statistic[1:]) / 100)


def slow_filter(pool, ranges):
    """Rates of the clients that are left, float64[windows] by id."""
    kept = {}
    for client in pool.client_ids.tolist():
        rate = pool.client(client).rate_rps.copy()
        for w in np.flatnonzero(rate):
            for name, (low, high) in ranges.items():
                x = slow_figure(pool, client, w, name)
                if not (low is None or x >= low) or not (high is None or x <= high):
                    rate[w] = 0
        if rate.any():
            kept[client] = rate
    return kept


def same(pool, expected):
    """Whether a pool has the clients and rates of `slow_filter`, and silent windows as they must be."""
    assert pool.client_ids.tolist() == list(expected)
    for client, rate in expected.items():
        assert np.array_equal(pool.client(client).rate_rps, rate)
    silent = pool.rate_rps == 0
    for name in ("cv", "family", "shape", "occupancy"):
        assert not getattr(pool, name)[silent].any()
        assert (name == "cv") or getattr(pool, name)[~silent].all()
    assert (pool.table[silent] == -1).all()
    assert (pool.table[~silent] >= 0).all()


RANGES = {
    "language": [
        {"cv": (1, 3)},
        {"cv": (None, 1.0)},
        {"rate_rps": (0.2, 0.6)},
        {"rate_rps": (0.3, None), "cv": (1, None), "mean_input_tokens": (None, 560)},
        {"p50_output_tokens": (30, 41), "shape": (0.3, None)},
        {"p97.5_input_tokens": (2003, 2009)},
        {"min_input_tokens": (6, 20), "max_output_tokens": (None, 715), "occupancy": (1, 1)},
    ],
    "reason": [
        {"mean_reason_ratio": (0.4, 0.5), "cv": (None, 1)},
        {"p95_reason_ratio": (500 / 501, 1), "cv": (2, None)},
    ],
    "multimodal": [
        {"mean_input_tokens": (1150, 1180)},
        {"mean_image_count": (1.25, 1.25), "max_text_tokens": (303, 316)},
        {"p50_image_tokens": (260, None), "mean_audio_count": (0.5, None), "rate_rps": (0.1, 0.4)},
    ],
}


@pytest.mark.parametrize(("category", "ranges"), [(c, r) for c, each in RANGES.items() for r in each])
def test_filter_is_what_a_loop_over_windows_keeps(category, ranges):
    pool = shared_pool(category)
    expected = slow_filter(pool, ranges)
    assert 0 < sum((rate > 0).sum() for rate in expected.values()) < (pool.rate_rps[pool.profile] > 0).sum()
    same(pool.filter(**ranges), expected)


def test_filter_exactly():
    pool = tiny_pool(windows=7, silent=False)  # means 546.25 + 7 * client + quarter, two windows a quarter
    left = pool.filter(mean_input_tokens=(553.25, 555.25))
    assert left.client_ids.tolist() == [1]
    assert np.flatnonzero(left.client(1).rate_rps).tolist() == [0, 1, 2, 3, 4, 5]
    assert left.client(1).family[6] == ""
    assert left.table[0, 6].tolist() == [-1, -1]


def test_ends_of_ranges_belong_to_them():
    pool = tiny_pool(silent=False)
    cv = float(pool.cv[0, 0])
    assert len(pool.filter(cv=(cv, cv))) == 3
    assert pool.filter(cv=(cv, cv)).rate_rps[0, 0] > 0
    assert pool.filter(cv=(np.nextafter(cv, 9), None)).rate_rps[0, 0] == 0


def test_ratios_are_of_501_steps():
    pool = tiny_pool("reason", silent=False)
    assert (pool.filter(max_reason_ratio=(500 / 501, 500 / 501)).rate_rps == pool.rate_rps).all()
    with pytest.raises(OptionError, match="at least one client"):
        pool.filter(max_reason_ratio=(1, None))


@pytest.mark.parametrize("category", list(FIELDS))
def test_what_is_kept_sends_the_very_same_requests(category):
    pool = shared_pool(category)
    some = pool.filter(cv=(1, None), rate_rps=(0.2, None)).clients_where(activity=(0.1, None)).top(4)
    whole, part = sg.generate(pool, duration=18_000, seed=3), sg.generate(some, duration=18_000, seed=3)
    kept = {(c, w) for c in some.client_ids.tolist() for w in np.flatnonzero(some.client(c).rate_rps).tolist()}
    rows = np.array([key in kept for key in zip(whole["client"], whole["arrival_us"] // 600_000_000, strict=True)])
    assert 0 < rows.sum() < len(rows)
    for name in ("arrival_us", "client", "output_tokens"):
        assert np.array_equal(part[name], whole[name][rows])


def test_nothing_changes_the_pool_itself_or_what_was_cut_before():
    pool = shared_pool()
    before = pool.digest()
    cut = pool.span(3000, 9000)
    once = cut.filter(cv=(1, None))
    twice = once.where(lambda w: w.cv < 5)
    assert replace(pool).digest() == before
    assert replace(once).digest() == once.digest() != twice.digest()
    assert once.first_window == cut.first_window == 5
    assert cut.filter(cv=(1, 4)).digest() == cut.filter(cv=(1, None)).filter(cv=(None, 4)).digest()
    later = pool.filter(cv=(1, 4)).span(3000, 9000).filter()
    assert later.client_ids.tolist() == cut.filter(cv=(1, 4)).client_ids.tolist()
    for client in later.client_ids:
        assert np.array_equal(later.client(client).rate_rps, cut.filter(cv=(1, 4)).client(client).rate_rps)
    with pytest.raises(ValueError, match="read-only"):
        once.rate_rps[0, 0] = 1


def test_a_filter_that_keeps_all_is_the_pool():
    pool = shared_pool()
    assert pool.filter(cv=(0, None)) is pool
    assert pool.filter() is pool
    assert pool.where(lambda w: np.True_) is pool
    assert pool.clients_where(requests=(0, None)) is pool


def test_silent_clients_are_left_out():
    pool = tiny_pool(windows=10).span(1800, 2400)  # client 0 is silent there
    assert pool.filter().client_ids.tolist() == [1, 2]
    assert pool.filter(cv=(0, None)).client_ids.tolist() == [1, 2]


# profiles are split only where they must be


def test_clones_stay_together():
    pool = tiny_pool(silent=False).clone(1000)
    for some in (pool.filter(cv=(1, 3)), pool.filter(rate_rps=(2e-4, 4e-4)), pool.where(lambda w: w.cv > 1)):
        assert len(some) > 1000
        assert len(some.rate_rps) <= 3
    one = pool.where(lambda w: (w.client != 7) | (w.start_s > 3000))
    assert len(one.rate_rps) == 4
    assert one.rate_rps[one.profile[7], :6].tolist() == [0] * 6
    assert one.profile[8] == one.profile[6]


def test_alike_clients_share_the_split_profile():
    pool = shared_pool()
    some = pool.filter(rate_rps=(0.4, 0.8))
    profile = dict(zip(some.client_ids.tolist(), some.profile.tolist(), strict=True))
    assert profile[10] == profile[50]
    assert len(set(profile.values())) < len(profile)
    kept = [(old, (row > 0).tobytes()) for old, row in zip(pool.profile, pool.rate_rps[pool.profile], strict=True)]
    assert len(some.rate_rps) <= len(set(kept)) * len(some)


@pytest.mark.parametrize("name", [name for name, axes in AXES.items() if axes[0] == "profiles"])
def test_tensors_of_profiles_stay_with_their_clients(name):
    pool = replace(shared_pool(), measured=np.array([True, False, True]))
    some = pool.where(lambda w: w.start_s + w.client < 12_000)
    for client in some.client_ids.tolist():
        here = getattr(pool, name)[pool.profile[np.searchsorted(pool.client_ids, client)]]
        there = getattr(some, name)[some.profile[np.searchsorted(some.client_ids, client)]]
        if AXES[name][1:2] != ("windows",):
            assert np.array_equal(here, there)
            continue
        active = some.client(client).rate_rps > 0
        assert np.array_equal(here[active], there[active])


# predicates


def test_windows_show_every_figure():
    pool = shared_pool("reason")
    seen = {}

    def look(w):
        seen.update(windows=w, calls=seen.get("calls", 0) + 1)
        return w.cv > 1

    assert pool.where(look).digest() == pool.filter(cv=(np.nextafter(1, 2), None)).digest()
    w = seen["windows"]
    assert seen["calls"] == 1
    assert w.client.shape == (9, 1)
    assert w.start_s.tolist() == [[600 * i for i in range(30)]]
    for name in ("rate_rps", "cv", "shape", "occupancy"):
        assert w[name].shape == (9, 30)
    assert w.rate_rps[6].tolist() == pool.client(60).rate_rps.tolist()
    assert tuple(w.family[6].tolist()) == pool.client(60).family
    for i, client in enumerate(pool.client_ids.tolist()):
        for window in (0, 11, 29):
            if w.rate_rps[i, window]:
                for name in ("mean_input_tokens", "p50_output_tokens", "p99.9_reason_ratio", "min_input_tokens"):
                    assert w[name][i, window] == pytest.approx(slow_figure(pool, client, window, name), rel=1e-12)
            else:
                assert np.isnan(w["mean_input_tokens"][i, window])
    assert np.array_equal(w.mean("output_tokens"), w["mean_output_tokens"], equal_nan=True)
    assert np.array_equal(w.max("output_tokens"), w["max_output_tokens"], equal_nan=True)
    assert np.array_equal(w.quantile("output_tokens", 0.999), w["p99.9_output_tokens"], equal_nan=True)
    assert np.array_equal(w.quantile("output_tokens", 1), w["max_output_tokens"], equal_nan=True)


def test_predicates_of_windows():
    pool = shared_pool()
    weibull = pool.where(lambda w: w.family == "Weibull")
    assert {name for c in weibull.client_ids for name in weibull.client(c).family} == {"", "Weibull"}
    evening = pool.where(lambda w: w.start_s >= 12_000)
    assert (evening.own_rps[:20] == 0).all()
    assert evening.own_rps[20:] == pytest.approx(pool.own_rps[20:])
    peak = pool.where(lambda w: w.rate_rps >= w.rate_rps.max(axis=1, keepdims=True))
    assert ((peak.rate_rps > 0).sum(axis=1) == 1).all()
    assert peak.client_ids.tolist() == pool.client_ids.tolist()


def slow_client(pool, client):
    rate = pool.client(client).rate_rps
    active = np.flatnonzero(rate)

    def weighted(name, items=lambda w: 1.0):
        weight = np.array([rate[w] * items(w) for w in active])
        return np.dot(weight, [slow_figure(pool, client, w, name) for w in active]) / weight.sum()

    figures = {
        "activity": len(active) / len(rate),
        "requests": rate.sum() * 600,
        "rate_rps": rate.mean(),
        "peak_rps": rate.max(),
        "cv": weighted("cv"),
        "max_output_tokens": max(slow_figure(pool, client, w, "max_output_tokens") for w in active),
        "mean_input_tokens": weighted("mean_input_tokens"),
    }
    if pool.category == "multimodal":
        images = lambda w: slow_figure(pool, client, w, "mean_image_count")  # noqa: E731
        figures["mean_image_tokens"] = weighted("mean_image_tokens", images)
    return figures


@pytest.mark.parametrize("category", list(FIELDS))
def test_clients_where(category):
    pool = shared_pool(category)
    slow = {client: slow_client(pool, client) for client in pool.client_ids.tolist()}
    for name in slow[0]:
        expected = [slow[client][name] for client in slow]
        assert client_figure(pool, name) == pytest.approx(expected, rel=1e-12)
        middle = float(np.mean(expected))
        some = {client for client in slow if slow[client][name] >= middle}
        if 0 < len(some) < 9 and np.ptp(expected) > 1e-9:
            assert set(pool.clients_where(**{name: (middle, None)}).client_ids.tolist()) == some
            assert (
                set(pool.clients_where(lambda c, name=name, middle=middle: c[name] >= middle).client_ids.tolist())
                == some
            )
    both = pool.clients_where(lambda c: (c.requests > 2000) & (c.client != 30) & (c.activity > 0), cv=(0, None))
    expected = [c for c in slow if slow[c]["requests"] > 2000 and c != 30]
    assert both.client_ids.tolist() == expected
    assert both.rate_rps is pool.rate_rps


def test_silent_clients_have_no_mean():
    pool = tiny_pool(windows=10).span(1800, 2400)
    assert np.isnan(client_figure(pool, "cv")).tolist() == [True, False, False]
    assert np.isnan(client_figure(pool, "max_input_tokens")).tolist() == [True, False, False]
    assert pool.clients_where(cv=(0, None)).client_ids.tolist() == [1, 2]


# the largest and the smallest


def test_top_and_bottom():
    pool = tiny_pool(clients=6, silent=False, ids=(2, 3, 5, 7, 11, 13))
    assert pool.top(2).client_ids.tolist() == [2, 3]
    assert pool.bottom(2).client_ids.tolist() == [11, 13]
    assert pool.top(6).digest() == pool.top(100).digest() == pool.digest()
    sizes = client_figure(pool, "requests")
    assert client_figure(pool.top(np.int64(3)), "requests").tolist() == sizes[:3].tolist()


def test_ties_go_by_id():
    pool = tiny_pool(silent=False).clone(4)
    assert pool.top(6).client_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert pool.bottom(6).client_ids.tolist() == [4, 5, 8, 9, 10, 11]


def test_top_of_a_span_counts_only_its_windows():
    pool = tiny_pool(windows=10)
    assert pool.top(1).client_ids.tolist() == [0]
    hour = pool.span(1800, 2400)
    assert hour.top(1).client_ids.tolist() == [1]
    assert hour.bottom(3).client_ids.tolist() == [1, 2]
    with pytest.raises(OptionError, match="none of the 1 clients of tiny-language with any requests"):
        hour.select([0]).top(1)


# refusals


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", True, None, np.nan])
def test_bad_k(k):
    for choose in (tiny_pool().top, tiny_pool().bottom):
        with pytest.raises(OptionError, match="a number of clients from 1"):
            choose(k)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cvs", "cv"),
        ("rate", "rate_rps"),
        ("mean_input", "mean_input_tokens"),
        ("p95_imput_tokens", "p95_input_tokens"),
        ("p42_output", "p42_output_tokens"),
        ("median_output_tokens", "mean_output_tokens"),
        ("p101_output_tokens", "p50_output_tokens"),
        ("p0_output_tokens", "p50_output_tokens"),
        ("", ""),
    ],
)
def test_unknown_names_get_the_nearest(name, nearest):
    with pytest.raises(OptionError, match=f"the nearest name is {nearest}"):
        tiny_pool().filter(**{name: (1, 2)})


def test_unknown_names_of_clients():
    with pytest.raises(OptionError, match="the nearest name is activity"):
        tiny_pool().clients_where(activty=(0, 1))
    with pytest.raises(OptionError, match=r"filter\(p95_input_tokens=…\)"):
        tiny_pool().clients_where(p95_input_tokens=(0, 1))
    with pytest.raises(OptionError, match="the nearest name is"):
        tiny_pool("reason").filter(mean_image_tokens=(0, 1))


def test_multimodal_inputs_have_a_mean_only():
    pool = tiny_pool("multimodal")
    for name in ("p95_input_tokens", "max_input_tokens"):
        with pytest.raises(OptionError, match="how text and items go together"):
            pool.filter(**{name: (0, 1)})


@pytest.mark.parametrize("pair", [(3, 1), 5, (1,), (1, 2, 3), ("1", 2), (np.nan, None), (True, 2), None, "12"])
def test_bad_ranges(pair):
    pool = tiny_pool()
    for choose in (pool.filter, pool.clients_where):
        with pytest.raises(OptionError, match="expected cv as a") as caught:
            choose(cv=pair)
        assert caught.value.fix


def test_nothing_left():
    pool = tiny_pool()
    with pytest.raises(OptionError, match=r"none of the 3 clients of tiny-language with cv in \[90, None\]; widen"):
        pool.filter(cv=(90, None))
    with pytest.raises(OptionError, match="with the predicate"):
        pool.where(lambda w: w.cv > 90)
    with pytest.raises(OptionError, match=r"with requests in \[None, 1\]"):
        pool.clients_where(requests=(None, 1))


@pytest.mark.parametrize(
    ("predicate", "got"),
    [
        (lambda w: w.cv, "float64 of shape"),
        (lambda w: w.cv[:, :3] > 1, r"\(3, 3\)"),
        (lambda w: (w.cv > 1)[None], r"\(1, 3, 144\)"),
        (lambda w: None, "object"),
        ("cv > 1", "'cv > 1'"),
    ],
)
def test_bad_predicates(predicate, got):
    with pytest.raises(OptionError, match=got):
        tiny_pool().where(predicate)


def test_bad_predicates_of_clients():
    for predicate in (lambda c: c.cv, lambda c: (c.cv > 1)[:2], 7):
        with pytest.raises(OptionError):
            tiny_pool().clients_where(predicate)


def test_thousands_of_statistics_of_tables():
    rng = np.random.default_rng(5)
    histograms = [
        dict(zip(np.sort(rng.choice(3000, n, replace=False)).tolist(), rng.random(n).tolist(), strict=True))
        for n in (1, 2, 900, 40_000 % 2999, 1, 7, *rng.integers(1, 2500, 60).tolist())
    ]
    tables = tables_of(histograms)
    for t in range(len(tables)):
        values, p = tables.table(t)
        assert tables.means[t] == pytest.approx(np.dot(values, p), rel=1e-13)
        assert (tables.smallest[t], tables.largest[t]) == (values[0], values[-1])
        for level in (1e-9, 0.5, 0.95, 0.999, 1):
            assert tables.quantile(level)[t] == values[np.searchsorted(np.cumsum(p), round(level * 2**32) / 2**32)]


def test_a_share_of_exactly_the_level_reaches_it():
    tables = tables_of([{1: 19, 2: 1}, {1: 1, 2: 1}, {1: 99, 2: 1}])
    assert tables.quantile(0.95).tolist() == [1, 2, 1]
    assert tables.quantile(0.5).tolist() == [1, 1, 1]
    assert tables.quantile(0.99).tolist() == [2, 2, 1]


# the released profiles


@needs_real_data
@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-image"])
def test_released_profiles(workload):
    pool = sg.load_servegen(REAL_DATA, workload, cache=False)
    field = "input_tokens" if workload == "deepseek-r1" else "text_tokens"
    ranges = {"cv": (1, 5), f"p95_{field}": (100, 3000), "mean_output_tokens": (None, 1500), "rate_rps": (0.01, None)}
    same(pool.filter(**ranges), slow_filter(pool, ranges))
    assert pool.top(5).own_rps.sum() / pool.own_rps.sum() == pytest.approx(
        {"deepseek-r1": 0.53, "mm-image": 0.56}[workload], abs=0.006
    )
    for statistic in STATISTICS:
        assert pool.filter(**{f"{statistic}_output_tokens": (0, None)}) is pool
