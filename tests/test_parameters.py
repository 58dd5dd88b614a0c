"""Parameters of studies: what each does to a pool, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from gates import check, passes
from profiles import TURNS, tiny_pool
from scipy.stats import chisquare

import servegen_gpu as sg
from servegen_gpu import distributions as d
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.request.families import FAMILY_NAMES, WEIBULL, family_of
from servegen_gpu.studies.lengths import relengthened
from servegen_gpu.studies.parameters import (
    PARAMETERS,
    Parameter,
    applied,
    check_vary,
    own_value,
    parse_vary,
    scaled_rate,
)
from servegen_gpu.studies.who import mean_rps, own_conversation_share, own_top_share

LOGNORMAL = d.LogNormal(median=400, sigma=1.2)
STATED = sg.pool(
    [
        sg.client(
            rate=0.2 * (i + 1),
            arrivals=family,
            **({} if family == "exponential" else {"cv": 1.5}),
            input_tokens=LOGNORMAL,
            output_tokens=d.Exponential(200),
            count=4,
        )
        for i, family in enumerate(("exponential", "gamma", "weibull", "lognormal"))
    ]
).with_conversations(TURNS["history"])
POOLS = {
    "stated": STATED,
    "measured": tiny_pool("multimodal", clients=14),
    "population": sg.population("deepseek-r1", clients=200),
}
FACTORS = ["rate", "growth", "burstiness", "length_scale", "length_tail"]


def test_a_parameter_is_a_range_on_a_scale():
    assert Parameter("rate", 1, 3).at(np.array([0, 0.5, 1])).tolist() == [1, 2, 3]
    assert Parameter("rate", 0.25, 4, "log").at(np.array([0, 0.5, 1])) == pytest.approx([0.25, 1, 4], abs=0)
    words = ["rate=0.8:1.2", "burstiness=0.5:2:log"]
    expected = [Parameter("rate", 0.8, 1.2), Parameter("burstiness", 0.5, 2, "log")]
    assert parse_vary(words) == parse_vary({"rate": (0.8, 1.2), "burstiness": (0.5, 2, "log")}) == expected
    assert [str(one) for one in expected] == words
    assert parse_vary(words[0]) == parse_vary(expected[0]) == expected[:1]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("speed=1:2", "expected a parameter among rate, growth, burstiness,"),
        ({"speed": (1, 2)}, "expected a parameter among rate"),
        ("rate", "NAME=LOW:HIGH"),
        ("rate=1", "NAME=LOW:HIGH"),
        ("rate=1:2:log:3", "NAME=LOW:HIGH"),
        ("rate=a:2", "NAME=LOW:HIGH"),
        ([3], "NAME=LOW:HIGH"),
        ({"rate": 3}, r"rate as \(low, high\)"),
        ("rate=1.2:0.8", "exchange the ends"),
        ("rate=0.8:1.2:cubic", "linear or log"),
        ("rate=0:2", "expected rate from 0.001 to 1000, got 0"),
        ("rate=nan:2", "expected rate from"),
        ("growth=0.5:2", "growth from 1 to 100, got 0.5; for a lower rate vary `rate`"),
        ("top_share=0.5:1.5", "top_share from"),
        ("conversation_share=0:0.5:log", "above 0 on a log scale"),
        (["rate=1:2", "rate=1:3"], "every parameter once"),
        ({"rate": ("1", 2)}, "expected rate from"),
    ],
)
def test_what_is_no_range_is_refused(vary, said):
    with pytest.raises(OptionError, match=said):
        parse_vary(vary)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_own_values_change_nothing_and_others_leave_a_valid_pool_at_its_rate(pool):
    assert applied(pool, dict.fromkeys(FACTORS, 1)) == (pool, 1.0)
    assert [own_value(pool, name) for name in FACTORS] == [1.0] * len(FACTORS)
    values = {"rate": 1.5, "growth": 2.5, "burstiness": 1.7, "length_scale": 1.3, "length_tail": 1.2, "clients": 2}
    values["top_share"] = 0.4
    changed, factor = applied(pool, values)
    assert factor == 1.5 * 2.5
    assert changed.own_rps.mean() == pytest.approx(pool.own_rps.mean(), rel=1e-9)
    type(pool).from_arrays(changed.header(), changed.arrays() | {"turn_model": np.full(len(changed.rate_rps), -1)})
    assert not any(array.flags.writeable for array in changed.arrays().values())
    assert changed.digest() != pool.digest()
    assert len(sg.generate(changed, rate=scaled_rate(2, factor), duration="10m", start=pool.start_s)) > 2000


def test_rates_of_all_forms_are_multiplied():
    pool = POOLS["measured"]

    def expected(factor, **given):
        rate = {"rate": None, "scale": None, "peak": None} | given
        target = scaled_rate(rate["rate"], factor, rate["scale"], rate["peak"])
        return sg.stream(pool, rate=target, duration="1h").expected_requests

    forms = {"rate": [None, 3, "3", {0: 1, 1800: 5}, lambda time_s: 2 + np.sin(time_s)], "scale": [2], "peak": [0.5]}
    for name, given in ((name, one) for name, all_of in forms.items() for one in all_of):
        assert expected(1.5, **{name: given}) == pytest.approx(1.5 * expected(1, **{name: given}), rel=1e-6), given


def test_growth_adds_clients_and_leaves_the_old_ones_their_requests():
    pool = STATED.with_conversations(None)
    grown, factor = applied(pool, {"growth": 2.25})
    assert len(grown) == 3 * len(pool)
    before = sg.generate(pool, duration="1h")
    after = sg.generate(grown, rate=scaled_rate(None, factor), duration="1h")
    assert len(after) == pytest.approx(2.25 * len(before), rel=0.1)
    old = after.where(after["client"] < len(pool))
    assert abs(old["arrival_us"] - before["arrival_us"]).max() <= 1
    assert (old["input_tokens"] == before["input_tokens"]).all()


def test_more_clients_are_smoother_than_larger_ones():
    """New clients leave the dispersion in every second as it is; old ones that send more are burstier in it."""
    pool = sg.pool([sg.client(rate=2, arrivals="gamma", cv=4, input_tokens=9, output_tokens=9, count=3)])

    def dispersion(**values):
        changed, factor = applied(pool, values)
        trace = sg.generate(changed, rate=scaled_rate(None, factor), duration="2h")
        per_second = np.bincount(trace["arrival_us"] // 1_000_000, minlength=7200)
        return per_second.var() / per_second.mean()

    assert dispersion(growth=8) == pytest.approx(dispersion(), rel=0.1)
    assert dispersion(rate=8) > 1.3 * dispersion()


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_burstiness_multiplies_cvs(pool, factor):
    burstier = applied(pool, {"burstiness": factor}).pool
    active = pool.rate_rps > 0
    for code in np.unique(pool.family[active]):
        some = active & (pool.family == code)
        family = family_of(int(code))
        now = family_of(int(np.unique(burstier.family[some])[0]))
        assert now.code == (code if family.has_shape else WEIBULL), FAMILY_NAMES[code]
        for old, new in zip(pool.shape[some][:40], burstier.shape[some][:40], strict=True):
            assert now.cv_of(new) == pytest.approx(factor * family.cv_of(old), rel=1e-5)
    assert (burstier.shape[~active] == pool.shape[~active]).all()


def test_burstiness_stays_within_the_families():
    shapes = applied(STATED, {"burstiness": 100}).pool.shape
    assert (shapes > 0).all()
    sg.generate(applied(STATED, {"burstiness": 0.01}).pool, duration="1m")


def test_exponential_gaps_move_continuously():
    """With the same random numbers: so that one value can be compared with another."""
    times = [
        sg.generate(applied(STATED.select([0, 1]), {"burstiness": 1 + e}).pool, duration="10m")["arrival_us"]
        for e in (0, 1e-6)
    ]
    assert abs(times[0] - times[1]).max() < 10_000


def spread(tables, t):
    values, share = tables.table(t)
    values, share = values[values > 0], share[values > 0] / share[values > 0].sum()
    mean = (share * np.log(values)).sum()
    return float(np.sqrt((share * (np.log(values) - mean) ** 2).sum()))


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_lengths_are_multiplied_and_tails_keep_means(pool):
    longer = applied(pool, {"length_scale": 3}).pool
    once = [field.lane for field in pool.schema.fields if field.column and field.unit == 1]
    others = [lane for lane in range(len(pool.fields)) if lane not in once]
    active = pool.rate_rps > 0
    for changed, factor in ((longer, 3), *((applied(pool, {"length_tail": t}).pool, 1) for t in (0.6, 1.25))):
        for lane in once:
            old = pool.tables.means[pool.table[..., lane][active]]
            new = changed.tables.means[changed.table[..., lane][active]]
            np.testing.assert_allclose(new, factor * old, atol=0.5)
            at = pool.table[..., lane][active]
            largest = changed.tables.largest[changed.table[..., lane][active]].max()
            assert largest <= factor * pool.tables.largest[at].max()
        for lane in others:
            a, b = (of.tables.select(of.table[..., lane][active][:50]) for of in (pool, changed))
            assert (a.values == b.values).all()
            assert (a.thresholds == b.thresholds).all()


def test_tails_are_spreads_of_logarithms():
    """As long as the longest length does not bind."""
    lengths = (d.LogNormal(median=3000, sigma=0.8), d.Constant(1_000_000))
    pool = sg.pool([sg.client(rate=1, input_tokens=each, output_tokens=d.Constant(10)) for each in lengths])
    t = int(pool.table[pool.profile[0], 0, 0])
    for tail in (0.5, 1.0, 1.5):
        assert spread(relengthened(pool, 1, tail).tables, t) == pytest.approx(tail * 0.8, rel=0.01)
    capped = relengthened(pool, 1, 4).tables
    assert capped.largest[t] == pool.tables.largest.max()
    assert capped.means[t] == pytest.approx(pool.tables.means[t], rel=1e-3)


def test_a_table_of_lengths_and_counts_keeps_its_counts():
    pool = tiny_pool("multimodal", clients=1)
    shared = pool.table.copy()
    shared[..., pool.schema["image_tokens"].lane] = shared[..., pool.schema["image_count"].lane]
    arrays = pool.arrays() | {"table": shared}
    pool = type(pool).from_arrays(pool.header(), arrays)
    longer = applied(pool, {"length_scale": 2}).pool
    means = {name: longer.tables.means[longer.table[0, 0, longer.schema[name].lane]] for name in longer.fields}
    old = pool.tables.means[shared[0, 0, pool.schema["image_count"].lane]]
    assert means["image_count"] == old
    assert means["image_tokens"] == 2 * old


def test_new_tokens_of_later_turns_are_lengths():
    pool = STATED.with_conversations(TURNS["new"])
    longer = applied(pool, {"length_scale": 2, "length_tail": 0.7}).pool
    old, new = (of.turn_models[0].tables.new for of in (pool, longer))
    assert new.means[0] == pytest.approx(2 * old.means[0], rel=0.01)
    assert spread(new, 0) == pytest.approx(0.7 * spread(old, 0), rel=0.02)
    assert longer.digest() != pool.digest()


def drawn_ids(pool, factor, key):
    return applied(pool, {"clients": factor}, derive_key(5, key)).pool.profile


def test_clients_are_drawn_alike_with_replacement():
    pool = tiny_pool(clients=14)
    assert drawn_ids(pool, 3, 1)[:14].tolist() == drawn_ids(pool, 1, 1).tolist() != drawn_ids(pool, 1, 2).tolist()
    assert len(drawn_ids(pool, 0.01, 1)) == 1
    counts = np.bincount(np.concatenate([drawn_ids(pool, 1, key) for key in range(300)]), minlength=14)
    check(chisquare(counts).pvalue, "each client is drawn alike")
    planted = np.random.default_rng(1).multinomial(counts.sum(), mean_rps(pool) / mean_rps(pool).sum())
    assert not passes(chisquare(planted).pvalue)


def test_shares_are_as_asked():
    pool = POOLS["population"]
    before = mean_rps(pool)
    top = np.argsort(-before)[:10]
    assert own_value(pool, "top_share") == pytest.approx(before[top].sum() / before.sum())
    for share in (0.2, 0.9):
        rate = mean_rps(applied(pool, {"top_share": share}).pool)
        assert rate[top].sum() / rate.sum() == pytest.approx(share)
        assert rate[top] / rate[top[0]] == pytest.approx(before[top] / before[top[0]])
    for share in (0.0, 0.5, 1.0):
        talking = applied(STATED, {"conversation_share": share}).pool
        assert own_conversation_share(talking) == pytest.approx(share) if share else True
        trace = sg.generate(talking, rate=20, duration="30m")
        assert (trace["conversation"] >= 0).mean() == pytest.approx(share, abs=0.06)
    assert own_value(STATED, "conversation_share") == pytest.approx(0.6)


def test_conversations_of_some_clients_have_a_bound():
    half = sg.join([STATED, STATED.with_conversations(None)])
    assert own_conversation_share(applied(half, {"conversation_share": 0.5}).pool) == pytest.approx(0.5)
    with pytest.raises(OptionError, match=r"conversation_share up to 0\.5, .* got 0\.6 in"):
        applied(half, {"conversation_share": 0.6})


@pytest.mark.parametrize(
    ("pool", "values", "said"),
    [
        (STATED, {"speed": 1}, "a parameter among"),
        (STATED, {"rate": float("inf")}, "rate from"),
        (STATED, {"burstiness": True}, "burstiness from"),
        (tiny_pool(clients=10), {"top_share": 0.5}, "expected more than 10 clients with requests.*got 10 in tiny"),
        (tiny_pool(), {"conversation_share": 0.5}, "a pool with conversations.*got tiny-language without any"),
        (tiny_pool(ids=[0, 1, 2**30]), {"growth": 1.5}, "growth up to 1"),
    ],
)
def test_what_a_pool_does_not_carry_is_refused(pool, values, said):
    with pytest.raises(OptionError, match=said):
        applied(pool, values)


def test_ranges_are_checked_at_their_ends_and_together():
    check_vary(STATED, parse_vary(["rate=0.5:2", "conversation_share=0:1", "top_share=0.1:0.9"]))
    with pytest.raises(OptionError, match="more than 10 clients"):
        check_vary(STATED, parse_vary(["clients=0.5:2", "top_share=0.1:0.9"]))
    assert own_top_share(STATED) < 1
    assert set(PARAMETERS) >= set(FACTORS)
