"""Lengths from a dataset for arrivals of another origin."""

from __future__ import annotations

import numpy as np
import pytest
from gates import check, passes
from profiles import REAL_DATA, needs_real_data
from scipy import stats
from traces import flat, rows, same

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.errors import OptionError

N = 60_000
PARTS = {"offsets": 1, "values": 0}
WITH = {"input_tokens": {10: 1, 20: 2, 500: 1}, "output_tokens": {1: 3, 7: 1}}


def arrivals(n: int = N) -> Trace:
    time = np.cumsum(np.arange(n) % 7).astype(np.int64)
    return Trace({"arrival_us": time, "client": (np.arange(n) % 3).astype(np.int32)}, {"duration_s": 1.0})


def fits(drawn: np.ndarray, weights: dict[int, float]) -> float:
    values, counts = np.unique(drawn, return_counts=True)
    assert set(values.tolist()) <= set(weights)
    share = np.array([weights[v] for v in values.tolist()]) / sum(weights.values())
    return float(stats.chisquare(counts, share / share.sum() * len(drawn)).pvalue)


def unequal() -> sg.ClientPool:
    """Two clients, one of them three times as busy in one half of its day."""
    busy = sg.client(rate={"0h": 3, "12h": 1}, input_tokens={"0h": 100, "12h": 200}, output_tokens={5: 1, 6: 1})
    calm = sg.client(rate=1, input_tokens=300, output_tokens=7)
    return sg.pool([busy, calm])


@pytest.mark.statistical
def test_stated_distributions_are_drawn_independently():
    found = sg.with_lengths(arrivals(), WITH, seed=3)
    assert list(found) == ["arrival_us", "client", "input_tokens", "output_tokens"]
    assert same(Trace({n: found[n] for n in ("arrival_us", "client")}), Trace(arrivals().columns))
    for name, weights in WITH.items():
        check(fits(found[name], weights), name)
    table = stats.contingency.crosstab(found["input_tokens"], found["output_tokens"]).count
    check(stats.chi2_contingency(table).pvalue, "independence of fields")
    again = stats.contingency.crosstab(found["input_tokens"][1:], found["input_tokens"][:-1]).count
    check(stats.chi2_contingency(again).pvalue, "independence of rows")
    assert not passes(fits(found["input_tokens"], {10: 1, 20: 1, 500: 1})), "planted: other weights"


@pytest.mark.statistical
def test_a_pool_is_pooled_by_requests():
    found = sg.with_lengths(arrivals(), unequal(), seed=4)
    check(fits(found["input_tokens"], {100: 3, 200: 1, 300: 2}), "input tokens over clients and windows")
    check(fits(found["output_tokens"], {5: 2, 6: 2, 7: 2}), "output tokens over clients and windows")
    assert not passes(fits(found["input_tokens"], {100: 1, 200: 1, 300: 2})), "planted: rates ignored"


@pytest.mark.statistical
def test_items_are_pooled_by_items():
    many = sg.client(rate=1, text_tokens=10, output_tokens=1, image_count=5, image_tokens=1_000)
    one = sg.client(rate=3, text_tokens=20, output_tokens=1, image_count={0: 1, 1: 1}, image_tokens=2_000)
    found = sg.with_lengths(arrivals(), sg.pool([many, one]), seed=5)
    images = found["image_tokens"]
    assert isinstance(images, Ragged)
    check(fits(images.lengths, {5: 2, 1: 3, 0: 3}), "items per request")
    check(fits(images.values, {1_000: 10, 2_000: 3}), "sizes of items")
    sums = [sum(row) for row in zip(found["text_tokens"].tolist(), map(sum, images), strict=True)]
    assert found["input_tokens"].tolist() == sums
    assert len(found["video_tokens"].values) == 0
    ours = sg.generate(sg.pool([many, one]), duration="1m")
    assert found.schema() == ours.schema()


def multimodal(n: int = 4_000) -> Trace:
    """Five fields, two of them with the same values, and four items of two modalities with the same sizes."""
    even = dict.fromkeys(range(64), 1)
    lengths = {"text_tokens": even, "output_tokens": 5, "image_count": 4, "audio_count": 4, "video_count": even}
    sizes = {f"{modality}_tokens": even for modality in ("image", "audio", "video")}
    return sg.with_lengths(arrivals(n), lengths | sizes)


def test_no_two_fields_and_no_two_modalities_share_a_word():
    found = multimodal()
    rolled = np.roll(found["text_tokens"], 1)
    for one, other in (
        (found["text_tokens"], found["video_tokens"].lengths),  # the first and the fifth field
        (found["image_tokens"].values, found["audio_tokens"].values),
        (found["image_tokens"].values[::4], found["image_tokens"].values[1::4]),
        (found["text_tokens"], rolled),
    ):
        assert np.mean(one == other) == pytest.approx(1 / 64, abs=0.015)  # 7 standard deviations of 4,000 rows


def test_row_numbers_have_more_than_32_bits():
    """A row 2**32 further on has other lengths; a row keeps its own wherever its slab begins."""
    near, far = (
        sg.with_lengths(Trace(arrivals(64).columns, {}, first), {"input_tokens": d.Uniform(0, 1e6), "output_tokens": 1})
        for first in (0, 2**32)
    )
    assert np.count_nonzero(near["input_tokens"] == far["input_tokens"]) < 3
    across = sg.with_lengths(
        Trace(arrivals(64).columns, {}, 2**32 - 10), {"input_tokens": d.Uniform(0, 1e6), "output_tokens": 1}
    )
    np.testing.assert_array_equal(across["input_tokens"][10:], far["input_tokens"][:54])


def test_reasoning_is_a_part_of_the_output():
    found = sg.with_lengths(arrivals(), {"input_tokens": 5, "output_tokens": 1_002, "reason_ratio": {0.25: 1, 0.5: 1}})
    pool = sg.population("deepseek-r1", clients=20).with_conversations(None)
    assert found.schema() == sg.generate(pool, duration="1m").schema()
    assert set(found["reason_tokens"].tolist()) == {250, 500} or set(found["reason_tokens"].tolist()) <= set(
        range(1_003)
    )
    assert abs(found["reason_tokens"].mean() - 375) < 5


@pytest.mark.statistical
def test_requests_of_a_trace_are_drawn_whole():
    dataset = Trace(
        {
            "arrival_us": np.arange(5),
            "turn": np.ones(5, np.int32),
            "input_tokens": np.array([21, 22, 23, 24, 25], np.int32),
            "image_tokens": Ragged(np.array([0, 1, 1, 3, 3, 6]), np.array([9, 8, 8, 7, 7, 7], np.int32)),
        }
    )
    found = sg.with_lengths(arrivals(), dataset, seed=6)
    assert list(found) == ["arrival_us", "client", "input_tokens", "image_tokens"]
    kinds = {row[2:] for row in rows(found)}
    assert kinds == {row[2:] for row in rows(dataset)}
    check(fits(found["input_tokens"], dict.fromkeys(range(21, 26), 1)), "rows of the dataset")


@pytest.mark.parametrize(
    "lengths", [WITH, unequal(), sg.with_lengths(arrivals(50), WITH)], ids=["stated", "pool", "trace"]
)
def test_slabs_prefixes_and_seeds(lengths):
    whole = sg.with_lengths(arrivals(1_000), lengths, seed=1)
    slabs = [arrivals(1_000).rows(a, a + 77) for a in range(0, 1_000, 77)]
    assert same(whole, Trace.concat(list(sg.with_lengths(iter(slabs), lengths, seed=1))))
    assert same(whole.rows(0, 100), sg.with_lengths(arrivals(100), lengths, seed=1))
    assert not same(whole, sg.with_lengths(arrivals(1_000), lengths, seed=2))
    far = Trace(arrivals(10).columns, {}, 2**32 - 5)
    near = Trace(arrivals(10).columns, {}, 0)
    assert not same(sg.with_lengths(far, lengths).rows(5, 10), sg.with_lengths(near, lengths).rows(0, 5))
    assert whole.provenance["changes"][-1]["seed"] == 1


def test_conversations_are_left_out():
    trace = Trace(arrivals(9).columns | {"conversation": np.arange(9), "turn": np.ones(9, np.int32)})
    assert list(sg.with_lengths(trace, WITH)) == ["arrival_us", "client", "input_tokens", "output_tokens"]


def test_no_rows():
    none = sg.with_lengths(arrivals(0), sg.population("mm-image", clients=20))
    assert {name: len(column) for name, column in flat(none).items() if name != "arrival_us"} == {
        **dict.fromkeys(("client", "input_tokens", "output_tokens", "text_tokens"), 0),
        **{f"{m}_tokens.{part}": size for m in ("image", "audio", "video") for part, size in PARTS.items()},
    }


@needs_real_data
def test_released_lengths_have_the_pool_s_means():
    pool = sg.load_servegen(REAL_DATA, "mm-image", cache=False)
    tables = sg.naive(pool, cv=1.0).tables  # one of each field, over all clients and windows
    sent = sg.generate(pool, duration="24h", scale=0.3, dependence="independent", counts="exact")
    found = sg.with_lengths(arrivals(200_000), pool)
    for lane, field in enumerate(pool.fields):
        if field in ("text_tokens", "output_tokens"):
            assert tables.means[lane] == pytest.approx(sent[field].mean(), rel=0.02)
            assert found[field].mean() == pytest.approx(tables.means[lane], rel=0.02)
    assert found["image_tokens"].values.mean() == pytest.approx(sent["image_tokens"].values.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"input_tokens": 5, "outputs": 5}, "distributions of .*output_tokens.*outputs"),
        ({"input_tokens": 5}, "output_tokens"),
        ({"input_tokens": d.LogNormal(median=100, sigma=1), "output_tokens": -1}, "-1"),
        ([1, 2, 3], "a pool, a trace, or distributions.*list"),
        (arrivals(0), "a dataset of requests"),
        (arrivals(5), "columns among input_tokens"),
        (
            {"text_tokens": 1, "output_tokens": 1, "image_count": 3, "image_tokens": 2**30},
            r"inputs below 2\*\*31 tokens",
        ),
    ],
)
def test_refusals(lengths, message):
    with pytest.raises(OptionError, match=message):
        sg.with_lengths(arrivals(10), lengths)


def test_what_is_no_slab_is_refused():
    with pytest.raises(OptionError, match="slabs of a trace"):
        list(sg.with_lengths([3], WITH))


def test_bad_seeds_are_refused():
    with pytest.raises(OptionError, match="seed"):
        sg.with_lengths(arrivals(10), WITH, seed=-1)
