"""CDFs over clients and the skew between them: exact on tiny pools, against plain loops on more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gates import check, passes
from profiles import REAL_DATA, needs_real_data, tables_of, tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.clients.describe.cdfs import Cdf
from servegen_gpu.errors import OptionError
from servegen_gpu.request.schema import FIELDS


def exact_pool():
    """Two windows, three clients of rates 1, 2, 1 and 1, 0, 3, with means and CVs that are easy to weigh."""
    pool = tiny_pool(windows=2, silent=False, first_window=4)
    histograms = [{10: 1, 30: 1}, {8: 1}, {20: 1}, {1: 19, 2: 1}, {5: 1}, {7: 1}]
    rate = np.array([[1.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
    active = rate > 0
    table = np.arange(6).reshape(3, 1, 2).repeat(2, axis=1)
    return replace(
        pool,
        rate_rps=rate,
        cv=np.array([[2.0, 1.0], [0.5, 0.0], [2.0, 4.0]]),
        family=np.where(active, pool.family, 0).astype(np.uint8),
        shape=np.where(active, pool.shape, 0),
        table=np.where(active[..., None], table, -1).astype(np.int32),
        tables=tables_of(histograms),
    )


def test_windows_exactly():
    cdfs = exact_pool().cdfs()
    assert cdfs.start_s.tolist() == [2400, 3000]
    assert cdfs.end_s.tolist() == [3000, 3600]
    assert cdfs.figures[:3] == ("rate_rps", "cv", "mean_input_tokens")
    assert len(cdfs.figures) == 10

    def steps(figure, start_s):
        cdf = cdfs.cdf(figure, start_s)
        return list(zip(cdf.values.tolist(), cdf.probabilities.tolist(), strict=True))

    assert steps("rate_rps", 2400) == [(1, 1 / 3), (1, 2 / 3), (2, 1)]
    assert steps("rate_rps", 3000) == [(1, 0.5), (3, 1)]
    assert steps("cv", 2400) == [(0.5, 0.5), (2, 0.75), (2, 1)]
    assert steps("cv", 3000) == [(1, 0.25), (4, 1)]
    assert steps("mean_input_tokens", 2400) == [(5, 0.25), (20, 0.5), (20, 1)]
    assert steps("p50_input_tokens", 2400) == [(5, 0.25), (10, 0.5), (20, 1)]
    assert steps("p95_output_tokens", 2400) == [(1, 0.5), (7, 0.75), (8, 1)]
    assert steps("p99_output_tokens", 2400) == [(2, 0.5), (7, 0.75), (8, 1)]
    assert steps("mean_output_tokens", 3599) == [(7, 0.75), (8, 1)]


def test_a_span_exactly():
    cdfs = exact_pool().cdfs("span")
    assert (cdfs.start_s.tolist(), cdfs.end_s.tolist()) == ([2400], [3600])
    rate = cdfs.cdf("rate_rps")
    assert (rate.values.tolist(), rate.probabilities.tolist()) == ([1, 1, 2], [1 / 3, 2 / 3, 1])
    cv = cdfs.cdf("cv", 3000)
    assert cv.values.tolist() == [0.5, 1, 2, 2, 4]
    assert cv.probabilities.tolist() == [2 / 8, 3 / 8, 4 / 8, 5 / 8, 1]


def test_a_cdf_answers():
    cdf = exact_pool().cdfs("span").cdf("cv")
    assert cdf.quantile([0.01, 0.25, 0.26, 0.5, 0.625, 0.63, 1]).tolist() == [0.5, 0.5, 1, 2, 2, 4, 4]
    assert cdf.at([0.4, 0.5, 2, 3.9, 4, 99]).tolist() == [0, 0.25, 0.625, 0.625, 1, 1]
    assert float(cdf.quantile(0.5)) == 2


def shared_pool(category="language"):
    """Nine clients on three profiles, with rates of their own; 1 and 5 are alike."""
    factor = np.array([1.0, 2.0, 0.5, 4.0, 0.1, 2.0, 3.0, 1.5, 0.7])
    pool = tiny_pool(category, windows=30, first_window=2)
    profile = np.array([0, 1, 2, 1, 0, 1, 2, 2, 0], np.int32)
    return replace(pool, client_ids=np.arange(0, 90, 10), profile=profile, rate_factor=factor)


def slow_statistic(values, probabilities, statistic):
    if statistic == "mean":
        return float(np.dot(values, probabilities))
    level = float(statistic[1:]) / 100
    reached = np.cumsum(probabilities) >= round(level * 2**32) / 2**32  # probabilities are multiples of this
    return float(values[np.argmax(reached)])


def slow_cdfs(pool, windows, statistics=("mean", "p50", "p95", "p99")):
    """Values and weights by figure, client by client and window by window."""
    found = {"rate_rps": []}
    for window in windows:
        for client, p, factor in zip(pool.client_ids, pool.profile, pool.rate_factor, strict=True):
            rate = pool.rate_rps[p, window] * factor
            if not rate:
                continue
            found["rate_rps"].append((rate, 1))
            found.setdefault("cv", []).append((pool.cv[p, window], rate))
            means = {}
            for lane, field in enumerate(pool.fields):
                values, probabilities = pool.tables.table(pool.table[p, window, lane])
                values = values / 501 if field == "reason_ratio" else values
                means[field] = np.dot(values, probabilities)
                for s in statistics:
                    found.setdefault(f"{s}_{field}", []).append((slow_statistic(values, probabilities, s), rate))
            if pool.category == "multimodal":
                items = sum(means[f"{m}_count"] * means[f"{m}_tokens"] for m in ("image", "audio", "video"))
                found.setdefault("mean_input_tokens", []).append((means["text_tokens"] + items, rate))
            assert client in pool.client_ids
    return found


def same_distribution(cdf, pairs):
    """A CDF against values and weights: equal where it matters, which is between different values."""
    values, weights = np.array(sorted(pairs)).T
    ends = np.append(np.flatnonzero(np.diff(values) > 1e-9 * np.abs(values[1:])), len(values) - 1)
    expected = np.cumsum(weights)[ends] / weights.sum()
    assert cdf.at(values[ends] * (1 + 1e-10)) == pytest.approx(expected, rel=1e-12)
    assert cdf.probabilities[-1] == 1
    assert (np.diff(cdf.probabilities) > 0).all()
    assert (np.diff(cdf.values) >= 0).all()


@pytest.mark.parametrize("category", list(FIELDS))
def test_cdfs_are_those_of_a_loop_over_clients(category):
    pool = shared_pool(category)
    cdfs = pool.cdfs()
    for window in (0, 3, 17, 29):
        slow = slow_cdfs(pool, [window])
        assert set(slow) == set(cdfs.figures)
        for figure, pairs in slow.items():
            same_distribution(cdfs.cdf(figure, (2 + window) * 600), pairs)
    whole = pool.cdfs("span")
    slow = slow_cdfs(pool, range(30))
    del slow["rate_rps"]
    slow["rate_rps"] = [(pool.client(c).rate_rps.mean(), 1) for c in pool.client_ids]
    for figure, pairs in slow.items():
        same_distribution(whole.cdf(figure), pairs)
    hour = pool.span(6000, 9600).cdfs("span")
    for figure, pairs in slow_cdfs(pool, range(8, 14)).items():
        if figure != "rate_rps":
            same_distribution(hour.cdf(figure), pairs)


def test_one_step_a_client_where_profiles_are_their_own():
    """The arrays that alibaba/ServeGen gives: ascending values, ties by weight."""
    pool = tiny_pool(clients=7, windows=20, family=2, shape=0.25)  # all CVs are 2
    cdfs = pool.cdfs()
    for window in range(20):
        rate = np.sort(pool.rate_rps[:, window][pool.rate_rps[:, window] > 0])
        cdf = cdfs.cdf("cv", window * 600)
        assert cdf.values.tolist() == [2] * len(rate)
        assert cdf.probabilities == pytest.approx(np.cumsum(rate) / rate.sum(), rel=1e-15)
        assert cdfs.cdf("rate_rps", window * 600).values.tolist() == rate.tolist()


def test_clones_weigh_as_much_together():
    pool = tiny_pool(windows=20)
    one, many = pool.cdfs(), pool.clone(50).cdfs()
    for figure in one.figures:
        assert len(one.values[figure]) == len(many.values[figure])
        assert many.probabilities[figure] == pytest.approx(one.probabilities[figure], rel=1e-12)
        scale = 1 / 50 if figure == "rate_rps" else 1
        assert many.values[figure] == pytest.approx(scale * one.values[figure], rel=1e-12)


def test_order_of_clients_does_not_matter():
    pool = shared_pool()
    order = np.random.default_rng(2).permutation(9)
    other = replace(pool, profile=pool.profile[order], rate_factor=pool.rate_factor[order])
    for figure, values in pool.cdfs().values.items():
        assert np.array_equal(other.cdfs().values[figure], values)
        assert other.cdfs().probabilities[figure] == pytest.approx(pool.cdfs().probabilities[figure], rel=1e-14)


def test_other_statistics():
    pool = tiny_pool()
    cdfs = pool.cdfs(statistics=("max", "p99.9"))
    assert cdfs.figures[2:] == tuple(f"{s}_{f}" for f in FIELDS["language"] for s in ("max", "p99.9"))
    assert cdfs.cdf("max_input_tokens", 0).values.tolist() == [2000, 2007, 2014]


def test_silent_windows_and_pools():
    pool = tiny_pool(clients=1, windows=10)
    cdfs = pool.cdfs()
    assert np.diff(cdfs.offsets["cv"]).tolist() == [int(rate > 0) for rate in pool.rate_rps[0]]
    with pytest.raises(OptionError, match="a silent one at 1800 s"):
        cdfs.cdf("cv", 1800)
    silent = pool.span(1800, 2400)
    for per in ("window", "span"):
        cdfs = silent.cdfs(per)
        assert all(len(values) == 0 for values in cdfs.values.values())
        assert len(cdfs.to_pandas()) == 0
        with pytest.raises(OptionError, match="a silent one"):
            cdfs.cdf("rate_rps", 1800)


@pytest.mark.parametrize(("figure", "start_s"), [("cvs", 0), ("cv", None), ("cv", -1), ("cv", 86_400), ("cv", np.nan)])
def test_questions_without_an_answer(figure, start_s):
    with pytest.raises(OptionError):
        tiny_pool().cdfs().cdf(figure, start_s)


def test_bad_arguments():
    with pytest.raises(OptionError, match="'day'"):
        tiny_pool().cdfs("day")
    with pytest.raises(OptionError, match="'median_input_tokens'"):
        tiny_pool().cdfs(statistics=("median",))


@pytest.mark.parametrize("category", list(FIELDS))
def test_a_tidy_table(category):
    pool = shared_pool(category)
    cdfs = pool.cdfs()
    table = cdfs.to_pandas()
    assert list(table) == ["figure", "start_s", "end_s", "value", "probability"]
    assert table["figure"].cat.categories.tolist() == list(cdfs.figures)
    for figure in cdfs.figures:
        for start_s in (1200, 9000):
            rows = table[(table["figure"] == figure) & (table["start_s"] == start_s)]
            cdf = cdfs.cdf(figure, start_s)
            assert rows["value"].tolist() == cdf.values.tolist()
            assert rows["probability"].tolist() == cdf.probabilities.tolist()
            assert set(rows["end_s"]) == {start_s + 600}
    assert len(table) == sum(len(values) for values in cdfs.values.values())
    assert repr(cdfs) == f"<Cdfs of {len(cdfs.figures)} figures over 30 spans>"


# skew


def test_skew_exactly():
    pool = replace(exact_pool(), client_ids=np.array([4, 6, 9]))
    skew = pool.skew()
    assert skew.client_ids.tolist() == [9, 4, 6]
    assert skew.requests.tolist() == [2400, 1200, 1200]
    assert skew.share.tolist() == [0.5, 0.75, 1]
    assert [skew.of_top(n) for n in (-1, 0, 1, 2, 3, 9)] == [0, 0, 0.5, 0.75, 1, 1]
    assert [skew.of_top_part(x) for x in (0, 1 / 6, 1 / 3, 2 / 3, 1)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [skew.clients_for(share) for share in (0.1, 0.5, 0.51, 0.75, 0.9, 1)] == [1, 1, 2, 2, 3, 3]
    table = skew.to_pandas()
    assert table["client"].tolist() == [9, 4, 6]
    assert table["request_share"].tolist() == [0.5, 0.75, 1]
    assert table["client_share"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])


def test_skew_of_silence():
    skew = tiny_pool(windows=10).span(1800, 2400).select([0]).skew()
    assert skew.share.tolist() == [0]
    assert skew.clients_for(0.9) == 0


# drawing


def test_sampling_is_inversion():
    values, probabilities = [3, 5, 8], [0.25, 0.5, 1]
    uniforms = np.array([[0, 0.25, np.nextafter(0.25, 1)], [0.5, 0.75, 1]])
    assert sg.sample_from_cdf(values, probabilities, uniforms=uniforms).tolist() == [[3, 3, 5], [5, 8, 8]]
    u = np.linspace(0, 1, 1001)
    drawn = sg.sample_from_cdf(values, probabilities, uniforms=u)
    assert (np.diff(drawn) >= 0).all()
    assert sg.sample_from_cdf(["a", "b"], [0.5, 1], uniforms=[0.4, 0.6]).tolist() == ["a", "b"]


def test_steps_without_probability_are_never_drawn():
    values, probabilities = [1, 2, 3, 4, 5], [0, 0, 0.5, 1 - 1e-9, 1 - 1e-9]
    drawn = sg.sample_from_cdf(values, probabilities, uniforms=[0, 0.5, 0.6, 1])
    assert drawn.tolist() == [3, 3, 4, 4]


@pytest.mark.statistical
def test_the_package_draws_from_its_own_stream():
    cdf = exact_pool().cdfs("span").cdf("cv")
    n = 20_000
    drawn = cdf.sample(n, seed=5)
    assert np.array_equal(drawn[:999], cdf.sample(999, seed=5))
    assert not np.array_equal(drawn, cdf.sample(n, seed=6))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.5, 1, 2, 4]
    check(stats.chisquare(counts, n * np.array([2, 1, 2, 3]) / 8).pvalue, "draws from a CDF")
    shifted = np.bincount(np.searchsorted(values, np.roll(values, 1)[np.searchsorted(values, drawn)]))
    assert not passes(stats.chisquare(shifted, n * np.array([2, 1, 2, 3]) / 8).pvalue)
    assert cdf.sample(0).shape == (0,)


def test_draws_are_what_they_were():
    """Part of the random stream: the uniforms of a seed, over a block of draws."""
    steps = np.arange(1, 1001)
    drawn = sg.sample_from_cdf(steps, steps / 1000, 70_000, seed=1)
    assert drawn[[0, 1, 2, 3, 4, 65_535, 65_536, 69_999]].tolist() == DRAWN


DRAWN = [256, 609, 493, 864, 661, 157, 981, 191]


@pytest.mark.parametrize(
    ("values", "probabilities", "keywords", "match"),
    [
        ([], [], {"n": 1}, "at least one"),
        ([1, 2], [1], {"n": 1}, "as many values"),
        ([1, 2], [0.5, 0.4], {"n": 1}, "never fall"),
        ([1, 2], [0.5, 0.9], {"n": 1}, "end at 1"),
        ([1, 2], [-0.5, 1], {"n": 1}, "never fall"),
        ([1, 2], [np.nan, 1], {"n": 1}, "never fall"),
        ([1, 2], [0.5, 1], {}, "neither"),
        ([1, 2], [0.5, 1], {"n": 1, "uniforms": [0.5]}, "both"),
        ([1, 2], [0.5, 1], {"uniforms": [0.5, 1.5]}, "1.5"),
        ([1, 2], [0.5, 1], {"uniforms": [np.nan]}, "nan"),
        ([1, 2], [0.5, 1], {"n": -1}, "n as an integer"),
        ([1, 2], [0.5, 1], {"n": 1.5}, "n as an integer"),
        ([1, 2], [0.5, 1], {"n": 1, "seed": -1}, "seed as an integer"),
    ],
)
def test_bad_cdfs(values, probabilities, keywords, match):
    with pytest.raises(OptionError, match=match):
        sg.sample_from_cdf(values, probabilities, **keywords)


def test_a_cdf_from_elsewhere():
    assert Cdf(np.array([1.0, 2.0]), np.array([0.5, 1.0])).sample(uniforms=[0.1, 0.9]).tolist() == [1, 2]


# the released profiles


@needs_real_data
@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-image"])
def test_released_profiles(workload):
    pool = sg.load_servegen(REAL_DATA, workload, cache=False)
    cdfs = pool.cdfs()
    for window in (0, 60, 143):
        slow = slow_cdfs(pool, [window])
        for figure, pairs in slow.items():
            cdf = cdfs.cdf(figure, window * 600)
            values, weights = np.array(sorted(pairs)).T
            assert cdf.values == pytest.approx(values, rel=1e-9)
            tied = np.append(np.diff(values) > 1e-9, True)
            assert cdf.probabilities[tied] == pytest.approx((np.cumsum(weights) / weights.sum())[tied], rel=1e-9)
    skew = pool.skew()
    assert skew.of_top(5) == pytest.approx({"deepseek-r1": 0.53, "mm-image": 0.56}[workload], abs=0.006)
    assert skew.clients_for(0.9) == {"deepseek-r1": 25, "mm-image": 15}[workload]
