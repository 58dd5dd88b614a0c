"""What traces promise holds under environments: the same rows on all backends, slices, shards, and whom they move."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import talking, tiny_pool
from test_groups import each_backend, sampled
from traces import between, moved, only, same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.law.address import derive_key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.realise import realised

KEY = derive_key(4)
GAMMA = sg.Environment(sg.Margin.gamma(0.8, zero=0.1), {0: 0.2, 4: 0.4, 8: 0.4})
BY_CLIENT = replace(GAMMA, each="client", common=0.5)
POOLS: dict[str, tuple[sg.ClientPool, dict[str, Any]]] = {
    "exact": (tiny_pool("language", 7, rate_rps=2.0).with_environment(GAMMA), {"counts": "exact"}),
    "renewal": (tiny_pool("reason", 7, rate_rps=2.0).with_environment(BY_CLIENT), {"counts": "renewal"}),
    "servegen": (tiny_pool("reason", 7, rate_rps=2.0).with_environment(GAMMA), {"counts": "servegen"}),
    "multimodal": (
        tiny_pool("multimodal", 7, dependent=True).with_environment(GAMMA).with_environment(BY_CLIENT, [1, 4]),
        {"rate": sg.Schedule([0, 6000, 40_000], [6.0, 0.2, 12.0], "linear")},
    ),
    "conversations": (talking("reason").with_environment(BY_CLIENT), {"counts": "renewal"}),
    "edits and history": (talking("language").with_environment(GAMMA).with_environment(None, [0]), {"rate": 3.0}),
    "long cells": (
        tiny_pool("language", 5, rate_rps=2.0).with_environment(replace(GAMMA, cell_s=1200)),
        {"counts": "renewal"},
    ),
}
each_pool = pytest.mark.parametrize("name", POOLS)
SPAN: dict[str, Any] = {"start": 5000.5, "duration": 4000, "seed": 4}


@each_backend
@each_pool
def test_backends_have_the_same_rows(name: str, backend: str) -> None:
    pool, keywords = POOLS[name]
    workload = sg.stream(pool, backend="numpy", **SPAN | keywords)
    expected = Trace.concat(list(workload))
    assert len(expected) > 500
    assert same(sampled(workload, workload.packed, backend), expected)
    assert not same(sg.generate(pool.with_environment(None), backend="numpy", **SPAN | keywords), expected)


@each_pool
def test_slices_prefixes_shards_and_slabs(name: str) -> None:
    pool, keywords = POOLS[name]
    keywords = {"seed": 4} | keywords
    whole = sg.generate(pool, start=3000, duration=6000, **keywords)
    if name != "servegen":  # whose windows end with the span
        assert same(sg.generate(pool, start=3000, duration=2500.25, **keywords), between(whole, 0, 2_500_250_000))
        later = sg.generate(pool, start=4321.5, duration=3000, **keywords)
        assert same(later, moved(between(whole, 1_321_500_000, 4_321_500_000), -1_321_500_000))
    shares = [sg.generate(pool, start=3000, duration=6000, shard=f"{k}/3", **keywords) for k in (1, 2, 3)]
    assert all(len(share) for share in shares)
    assert same(Trace.concat(shares), whole)
    slabs = list(replace(sg.stream(pool, start=3000, duration=6000, **keywords), max_requests=512))
    assert len(slabs) > 3
    assert same(Trace.concat(slabs), whole)
    head = sg.generate(pool, start=3000, requests=100, **keywords)
    assert name == "servegen" or same(head, whole.head(100))


@each_pool
def test_threads_pickles_and_files(name: str, tmp_path: Path) -> None:
    pool, keywords = POOLS[name]
    workload = sg.stream(pool, **SPAN | keywords)
    expected = workload.joined()
    workload.packed.save(tmp_path / "packed")
    for packed in (
        workload.packed,
        PackedWorkload.load(tmp_path / "packed"),
        pickle.loads(pickle.dumps(workload.packed)),
    ):
        assert same(sg.generate(packed, seed=4), expected)
    assert same(pickle.loads(pickle.dumps(workload)).joined(), expected)
    assert same(sg.generate(pickle.loads(pickle.dumps(pool)), **SPAN | keywords), expected)
    with ThreadPoolExecutor(3) as threads:
        replicas = list(threads.map(lambda r: sg.generate(workload.packed, seed=4, replica=r), [0, 1, 2, 0]))
    assert same(replicas[0], expected)
    assert same(replicas[3], expected)
    assert not same(replicas[1], replicas[2])


def scales(pool: sg.ClientPool, cell_s: float = 600) -> dict[int, np.ndarray]:
    """Factors in windows by client."""
    pool = replace(pool, environments=tuple(replace(e, cell_s=cell_s) for e in pool.environments))
    packed = sg.stream(pool, duration=86_400, counts="renewal", backend="numpy").packed
    real = realised(packed, KEY)
    factor = real.window_scale / packed.window_scale[0]
    return {
        int(c): factor[g]
        for c, g in zip(real.client_id, np.broadcast_to(real.group, real.client_id.shape), strict=True)
    }


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of factors."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


FAST = replace(GAMMA, octaves={0: 1.0}, margin=sg.Margin.gamma(1.0))


def test_whom_an_environment_moves() -> None:
    pool = tiny_pool("language", 6, silent=False)
    together = scales(pool.with_environment(FAST))
    assert all(np.array_equal(together[0], factor) for factor in together.values())
    apart = scales(pool.with_environment(replace(FAST, each="client")))
    assert max(abs(alike(apart[0], apart[c])) for c in range(1, 6)) < 0.4
    half = scales(pool.with_environment(replace(FAST, each="client", common=0.8)))
    assert all(0.55 < alike(half[0], half[c]) < 0.95 for c in range(1, 6))
    whole = scales(pool.with_environment(replace(FAST, each="client", common=1.0)))
    assert all(np.array_equal(together[0], factor) for factor in whole.values())

    by_group = pool.with_environment(replace(FAST, each="group")).with_environment(replace(FAST, each="group"), [3, 4])
    factor = scales(by_group)
    assert np.array_equal(factor[0], factor[5])
    assert np.array_equal(factor[3], factor[4])
    assert abs(alike(factor[0], factor[3])) < 0.4
    some = scales(pool.with_environment(FAST, [1, 2]))
    assert np.array_equal(some[1], together[0])
    assert all((some[c] == 1).all() for c in (0, 3, 4, 5))


def test_equal_numbers_move_together_whatever_their_margins() -> None:
    pool = tiny_pool("language", 4, silent=False)
    wild = replace(FAST, margin=sg.Margin.lognormal(3.0))
    factor = scales(pool.with_environment(FAST).with_environment(wild, [2]))
    assert alike(factor[0], factor[2]) == pytest.approx(1)
    assert factor[2].var() > factor[0].var()
    factor = scales(pool.with_environment(FAST).with_environment(replace(wild, number=1), [2]))
    assert abs(alike(factor[0], factor[2])) < 0.4


def test_joined_pools_stay_independent() -> None:
    one = tiny_pool("language", 2, silent=False).with_environment(FAST)
    two = one.with_environment(replace(FAST, number=4), [1])
    joint = sg.join([one, two, tiny_pool("language", 1), one])
    assert [e.number for e in joint.environments] == [0, 1, 5, 6]
    factor = scales(joint)
    assert np.array_equal(factor[0], factor[1])
    assert np.array_equal(factor[0], scales(one)[0])
    assert (factor[4] == 1).all()
    assert np.array_equal(factor[5], factor[6])
    for a, b in ((0, 2), (0, 3), (2, 3), (0, 5), (2, 5), (3, 5)):
        assert abs(alike(factor[a], factor[b])) < 0.4


@pytest.mark.parametrize("each", ["pool", "group", "client"])
def test_selections_send_what_they_sent(each: Any) -> None:
    pool = tiny_pool("language", 5, rate_rps=2.0, measured=False).with_environment(
        replace(GAMMA, each=each, common=0.3)
    )
    pool = pool.with_environment(replace(GAMMA, each=each, number=2), [1, 3])
    keywords = {"duration": 3000, "seed": 4}
    whole = sg.generate(pool, **keywords)
    assert only(sg.generate(pool.select([1, 2]), **keywords), [1, 2]) == only(whole, [1, 2])
    assert only(sg.generate(pool.top(3), **keywords), range(3)) == only(whole, range(3))
    window = pool.filter(cv=(1.0, None))
    assert window.environments == pool.environments
    kept = sg.generate(window, empty="skip", **keywords)
    assert 0 < len(kept) < len(whole)
    assert set(only(kept, range(5))) <= set(only(whole, range(5)))
    shares = sg.generate(pool.select([1, 3]).with_shares_of(pool), rate=4.0, **keywords)
    assert only(shares, [1, 3]) == only(sg.generate(pool, rate=4.0, **keywords), [1, 3])


def test_another_client_changes_nobody_elses_rows() -> None:
    for environment in (GAMMA, BY_CLIENT, replace(GAMMA, each="group")):
        pools = [tiny_pool("language", n, measured=False).with_environment(environment) for n in (4, 5)]
        few, more = (sg.generate(pool, duration=3000, seed=4) for pool in pools)
        assert only(few, range(4)) == only(more, range(4))


def test_pools_made_of_pools_keep_environments() -> None:
    pool = tiny_pool("language", 4, silent=False).with_environment(FAST).with_environment(replace(FAST, number=1), [2])
    for made in (sg.resample(pool, 9, seed=1), pool.clone(2), pool.rescaled(2.0), pool.rescaled(2.0, "naive")):
        assert made.environments == pool.environments
        rows = made.environment[made.profile]
        assert set(rows.tolist()) == {0, 1}
        factor, original = scales(made), scales(pool)
        for client, row in enumerate(rows.tolist()):
            assert np.array_equal(factor[client], original[2 if row else 0])
    assert sg.resample(pool, 9, seed=1).digest() != sg.resample(pool.with_environment(None), 9, seed=1).digest()


def test_pools_without_environments_keep_their_digests() -> None:
    """That of the commit before there were any; traces are in the golden digests."""
    pool = tiny_pool("language")
    assert pool.digest() == "c8103325113db268a71b44bdc828f194b375a1f8c9c0d649890063bfe606f7bb"
    assert pool.with_environment(None).digest() == pool.digest()
    assert pool.with_environment(GAMMA).with_environment(None).digest() == pool.digest()
    found = {pool.with_environment(e).digest() for e in (GAMMA, BY_CLIENT, FAST, replace(GAMMA, number=1))}
    assert len(found | {pool.digest()}) == 5
    packed = sg.stream(pool, duration=600).packed
    assert packed.environment is None
    assert realised(packed, KEY) is packed


def test_cells_longer_than_a_window() -> None:
    long = replace(GAMMA, cell_s=1800, octaves={0: 1.0})
    pool = tiny_pool("language", 2, silent=False).with_environment(long)
    factor = realised(sg.stream(pool, duration=7200, counts="renewal").packed, KEY).window_scale[0]
    base = sg.stream(pool, duration=7200, counts="renewal").packed.window_scale[0]
    by_cell = (factor / base).reshape(4, 3)
    assert (by_cell == by_cell[:, :1]).all()
    assert len(set(by_cell[:, 0].tolist())) == 4
    shifted = realised(sg.stream(pool, start=2400, duration=4800, counts="renewal").packed, KEY)
    assert np.array_equal(shifted.window_scale[0], factor[4:])
    exact = {"duration": 7200, "counts": "exact"}
    assert same(sg.generate(pool, **exact), sg.generate(pool.with_environment(None), **exact))


def test_too_many_cells_are_refused() -> None:
    pool = tiny_pool("language", 3).with_environment(replace(BY_CLIENT, cell_s=0.001))
    with pytest.raises(sg.OptionError, match=r"at most 16,777,216 cells .* 3 groups of clients for 86,400 s"):
        sg.generate(pool, duration="1d")
    assert len(sg.generate(pool, duration="10m")) > 50


def test_windows_in_a_users_jitted_code_are_of_one_replica() -> None:
    pytest.importorskip("jax")
    from servegen_gpu.backends.xla import backend as xla

    pool, _ = POOLS["renewal"]
    packed = sg.stream(pool, start=600, duration=600, counts="renewal").packed
    with pytest.raises(sg.OptionError, match="one with environments"):
        xla.window_cells(packed, first=0)
    real = realised(packed, KEY)
    sample = xla.sample_window(xla.device_tables(real, KEY), xla.window_cells(real, first=0), capacity=1 << 13)
    assert bool(sample.fits)
    expected = sg.generate(packed, seed=4)
    assert np.array_equal(np.asarray(sample.us)[np.asarray(sample.valid)], expected["arrival_us"])


def test_naive_workloads_have_none_but_are_fitted_to_what_they_do() -> None:
    pool = tiny_pool("language", 3, silent=False, rate_rps=2.0)
    stormy = sg.naive(pool.with_environment(replace(GAMMA, margin=sg.Margin.gamma(4.0))))
    assert stormy.environments == ()
    assert stormy.cv.mean() > 1.2 * sg.naive(pool).cv.mean()
