"""Figures of a pool, against plain sums over clients; figures of a trace, against its rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
from profiles import REAL_DATA, needs_real_data, tiny_pool

import servegen_gpu as sg
from servegen_gpu.clients.describe.describe import describe_pool, format_description
from servegen_gpu.clients.released.servegen import load_servegen
from servegen_gpu.describe import describe_trace
from servegen_gpu.request.families import GAMMA
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.trace import Ragged, Trace


def shared_pool(category="language"):
    """Seven clients on three profiles, with rates of their own."""
    factor = np.array([1.0, 2.0, 0.5, 4.0, 0.1, 1.0, 3.0])
    pool = tiny_pool(category, windows=30)
    profile = np.array([0, 1, 2, 1, 0, 1, 2], np.int32)
    return replace(pool, client_ids=np.arange(0, 70, 10), profile=profile, rate_factor=factor)


def draws(pool, field):
    """Values and expected numbers of a field, one entry a bin of each client's windows."""
    lane = pool.fields.index(field)
    count = f"{field.removesuffix('_tokens')}_count"
    values, weights = [], []
    for p, factor in zip(pool.profile, pool.rate_factor, strict=True):
        for w in np.flatnonzero(pool.rate_rps[p]):
            v, probabilities = pool.tables.table(pool.table[p, w, lane])
            requests = factor * pool.rate_rps[p, w] * pool.window_s
            if count in pool.fields:
                requests *= np.dot(*pool.tables.table(pool.table[p, w, pool.fields.index(count)]))
            values.append(v)
            weights.append(probabilities * requests)
    return np.concatenate(values), np.concatenate(weights)


def test_requests_and_shares():
    pool = shared_pool()
    d = describe_pool(pool, top=3)
    own = np.array([pool.client(c).rate_rps.sum() * 600 for c in pool.client_ids])
    assert d["requests"] == pytest.approx(own.sum())
    assert d["share_of_top"]["1"] == pytest.approx(own.max() / own.sum())
    assert d["share_of_top"]["5"] == pytest.approx(np.sort(own)[-5:].sum() / own.sum())
    assert d["share_of_top"]["20"] == pytest.approx(1)
    assert [row["client"] for row in d["top"]] == (10 * np.argsort(-own)[:3]).tolist()
    needed = next(n for n in range(8) if np.sort(own)[::-1][:n].sum() >= 0.9 * own.sum())
    assert d["clients_for_90_percent"] == needed
    assert d["rate_rps"]["mean"] * 30 * 600 == pytest.approx(own.sum())
    assert (d["clients"], d["profiles"], d["window_s"]) == (7, 3, 600)
    assert d["digest"] == pool.digest()


def test_skew_and_windows_of_clients():
    pool = shared_pool()
    d = describe_pool(pool)
    assert list(d["share_of_top_part"]) == ["1%", "5%", "10%", "50%"]
    own = np.sort([pool.client(c).rate_rps.sum() for c in pool.client_ids])[::-1]
    assert d["share_of_top_part"]["50%"] == pytest.approx((own[:3].sum() + own[3] / 2) / own.sum())
    assert d["share_of_top_part"]["1%"] == pytest.approx(0.07 * own[0] / own.sum())
    means, weights = [], []
    for p, factor in zip(pool.profile, pool.rate_factor, strict=True):
        for w in np.flatnonzero(pool.rate_rps[p]):
            means.append(np.dot(*pool.tables.table(pool.table[p, w, 0])))
            weights.append(factor * pool.rate_rps[p, w])
    means, weights = np.array(means), np.array(weights)
    for q in (10, 50, 90):
        found = d["lengths_across_clients"]["input_tokens"]["mean"][f"p{q}"]
        assert weights[means <= found * (1 + 1e-9)].sum() >= q / 100 * weights.sum() * (1 - 1e-9)
        assert weights[means < found * (1 - 1e-9)].sum() < q / 100 * weights.sum()
    assert set(d["lengths_across_clients"]["output_tokens"]) == {"mean", "p50", "p95", "p99"}


def test_only_profiles_in_use_are_counted():
    assert describe_pool(tiny_pool(clients=5).top(2))["profiles"] == 2


def test_burstiness_is_weighted_by_requests():
    pool = shared_pool()
    d = describe_pool(pool)
    rate = pool.rate_rps[pool.profile] * pool.rate_factor[:, None]
    gamma = rate[pool.family[pool.profile] == GAMMA].sum() / rate.sum()
    assert d["families"]["Gamma"] == pytest.approx(gamma)
    assert sum(d["families"].values()) == pytest.approx(1)
    cv = pool.cv[pool.profile]
    for q in (50, 90, 99):
        assert rate[cv <= d["cv"][f"p{q}"]].sum() >= q / 100 * rate.sum() * (1 - 1e-12)
        assert rate[cv < d["cv"][f"p{q}"]].sum() < q / 100 * rate.sum()


@pytest.mark.parametrize("category", list(FIELDS))
def test_lengths_are_weighted_by_requests_or_items(category):
    pool = shared_pool(category)
    d = describe_pool(pool)
    for field in pool.fields:
        values, weights = draws(pool, field)
        if not weights.sum():
            assert d["lengths"][field] is None
            continue
        summary = d["lengths"][field]
        values = values / 501 if field == "reason_ratio" else values
        assert summary["mean"] == pytest.approx(np.dot(values, weights) / weights.sum())
        assert summary["max"] == values[weights > 0].max()
        for q in (50, 90, 99):
            below = weights[values <= summary[f"p{q}"]].sum() / weights.sum()
            assert below >= q / 100 - 1e-9
            assert weights[values < summary[f"p{q}"]].sum() / weights.sum() <= q / 100 + 1e-9
    assert (d["lengths"].get("video_tokens", 0) is None) == (category == "multimodal")


def test_clones_describe_alike():
    pool = tiny_pool()
    one, many = describe_pool(pool), describe_pool(pool.clone(7))
    assert many["clients"] == 21
    assert many["requests"] == pytest.approx(one["requests"])
    assert many["lengths"]["input_tokens"]["mean"] == pytest.approx(one["lengths"]["input_tokens"]["mean"])
    assert many["share_of_top"]["1"] == pytest.approx(one["share_of_top"]["1"] / 7)


def test_silent_pool():
    pool = tiny_pool(windows=10).span(1800, 2400).select([0])
    assert pool.own_rps.tolist() == [0]
    d = describe_pool(pool)
    assert d["requests"] == 0
    assert d["cv"] is None
    assert d["lengths_across_clients"] == {}
    assert "tiny-language" in format_description(d)


@pytest.mark.parametrize("category", list(FIELDS))
def test_json_and_text(category):
    d = describe_pool(tiny_pool(category))
    assert json.loads(json.dumps(d, allow_nan=False)) == d
    text = format_description(d)
    for word in (f"tiny-{category}", "gap CV", "digest", *FIELDS[category]):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


@needs_real_data
def test_deepseek_r1():
    d = describe_pool(load_servegen(REAL_DATA, "deepseek-r1", cache=False))
    assert d["requests"] == pytest.approx(1.384e6, rel=1e-3)
    assert d["share_of_top"] == pytest.approx({"1": 0.29, "5": 0.53, "10": 0.68, "20": 0.86}, abs=0.006)
    assert d["clients_for_90_percent"] == 25
    assert d["families"]["Gamma"] == pytest.approx(0.741, abs=1e-3)
    assert d["cv"] == pytest.approx({"p50": 1.02, "p90": 5.5, "p99": 17}, rel=0.02)


def test_quantiles_of_a_trace_are_values_of_it():
    """The smallest value that so many requests, rounded up, do not exceed; in slabs of any cut."""
    for values in ([7], [1, 2], [5, 1, 1], [3, 1, 2, 9], list(range(10)), list(range(101))):
        trace = Trace({"arrival_us": np.arange(len(values)), "output_tokens": np.array(values, np.int32)})
        for slabs in ([trace], [trace.rows(row, row + 1) for row in range(len(values))]):
            found = describe_trace(slabs)["lengths"]["output_tokens"]
            rank = {name: -(-len(values) * percent // 100) for name, percent in (("p50", 50), ("p90", 90), ("p99", 99))}
            assert {name: found[name] for name in rank} == {name: sorted(values)[r - 1] for name, r in rank.items()}
            assert (found["mean"], found["max"]) == (pytest.approx(np.mean(values)), max(values))


def test_names_are_no_lengths():
    blocks = Ragged(np.array([0, 2, 3]), np.array([10**15, 5, 5]))
    columns = {"arrival_us": np.arange(2), "client": np.array([3, 4]), "conversation": np.array([7, 10**15])}
    trace = Trace(columns | {"turn": np.ones(2, np.int32), "input_tokens": np.full(2, 9), "hash_ids": blocks})
    lengths = describe_trace([trace])["lengths"]
    assert set(lengths) == {"turn", "input_tokens", "hash_ids per request"}
    assert lengths["hash_ids per request"]["max"] == 2


def test_a_share_lasts_from_its_first_request_to_its_last():
    share = sg.generate(sg.population("m-small", clients=20), rate=20, duration="10m", shard="2/4")
    found = describe_trace([share])
    assert found["duration_s"] == (share["arrival_us"][-1] - share["arrival_us"][0]) / 1e6
    assert found["rate_rps"] == pytest.approx(20, rel=0.2)
