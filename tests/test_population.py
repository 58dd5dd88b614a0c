"""Populations of any size: rates, who is who, what stays when the number of clients changes; refusals."""

from __future__ import annotations

import numpy as np
import pytest

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.population.population import HEAD, STEPS, population
from servegen_gpu.clients.population.presets import PRESETS, built_in
from servegen_gpu.clients.population.strata import uniforms
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.packing import pack
from servegen_gpu.rates import Rate

SEEDS = (0, 1, 2)


def what_client_is(pool: ClientPool, client: int) -> tuple:
    """Everything that a client draws from, but its rate."""
    p = pool.profile[client]
    lengths = tuple(b"".join(part.tobytes() for part in pool.tables.table(int(t))) for t in pool.table[p, ::36].ravel())
    arrays = (pool.rate_rps, pool.cv, pool.family, pool.shape)
    return (*(a[p].tobytes() for a in arrays), lengths, int(pool.context_tokens[p]))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_clients_and_its_rate(name):
    preset = built_in(name)
    pool = population(name)
    assert (len(pool), pool.category, pool.windows) == (preset.clients, preset.category, preset.windows)
    assert pool.own_rps.mean() == pytest.approx(preset.rate_rps, rel=1e-9)
    assert (np.diff(pool.rate_factor) <= 0).all()
    assert not pool.measured.any()
    assert len(np.unique(pool.profile)) == len(pool.rate_rps) <= (len(preset.top) + len(preset.kinds)) * 225


@pytest.mark.parametrize("clients", [1, 2, 100, 2_412, 100_000])
def test_any_number_of_clients_makes_the_published_rate(clients):
    pool = population("m-small", clients=clients)
    assert pool.client_ids.tolist() == list(range(clients))
    assert pool.own_rps.mean() == pytest.approx(767e6 / (30 * 86_400), rel=1e-9)


@pytest.mark.parametrize("name", ["deepseek-r1", "m-small", "mm-image"])
def test_the_number_of_clients_changes_one_factor_only(name):
    few, many = population(name, clients=300, seed=5), population(name, clients=4_000, seed=5)
    ratio = few.rate_factor / many.rate_factor[:300]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-14)
    for client in (0, 1, 5, 60, 255, 256, 299):
        assert what_client_is(few, client) == what_client_is(many, client)
    assert what_client_is(population(name, clients=2, seed=5), 1) == what_client_is(many, 1)


def test_the_seed_decides_who_is_who():
    pools = [population(seed=seed) for seed in (0, 0, 1, 2**64 - 1)]
    digests = [pool.digest() for pool in pools]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    np.testing.assert_array_equal(pools[0].rate_factor, pools[2].rate_factor)
    same = [what_client_is(pools[0], c) == what_client_is(pools[2], c) for c in range(1, 200)]
    assert np.mean(same) < 0.1
    assert what_client_is(pools[0], 0) == what_client_is(pools[2], 0)  # C1 is stated, not drawn


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PRESETS)
def test_kinds_get_their_shares_of_requests_and_of_clients(name, seed):
    preset = built_in(name)
    kind, steps = who(name, seed)
    top = len(preset.top)
    weight = population(name, seed=seed).rate_factor
    rest = weight[top:] / weight[top:].sum()
    by_requests = np.bincount(kind[top:] - top, rest, len(preset.kinds))
    by_clients = np.bincount(kind[HEAD:] - top, minlength=len(preset.kinds)) / max(len(kind) - HEAD, 1)
    # a client may overshoot what its kind is due by its own share; the head has most requests, not all
    largest = rest[0]
    np.testing.assert_allclose(by_requests, [k.share for k in preset.kinds], atol=0.05 + largest / 2)
    if len(kind) > 4 * HEAD:  # binomial: 0.05 is 3.9 sigma at the 780 clients of mm-image's tail
        np.testing.assert_allclose(by_clients, [k.tail_share for k in preset.kinds], atol=0.07)
    for lane, count in enumerate(STEPS.values()):
        by_step = np.bincount(steps[lane, HEAD:], minlength=count) / max(len(kind) - HEAD, 1)
        if len(kind) > 4 * HEAD:
            np.testing.assert_allclose(by_step, 1 / count, atol=0.07)


def mean_tokens(pool):
    """Mean input and output of all requests, float64[2]."""
    lanes = [pool.fields.index(name) for name in ("input_tokens", "output_tokens")]
    weight = np.bincount(pool.profile, pool.rate_factor)[:, None] * pool.rate_rps
    return (weight[..., None] * pool.tables.means[pool.table[..., lanes]]).sum(axis=(0, 1)) / weight.sum()


@pytest.mark.parametrize("name", ["deepseek-r1", "m-code"])
def test_every_seed_gives_the_lengths_of_the_workload(name, monkeypatch):
    """Means of 100 seeds have a standard deviation of up to 1.4 %; that of 24 stays below 2 % in 999 of 1,000 runs."""

    def spread():
        means = np.array([mean_tokens(population(name, seed=seed)) for seed in range(24)])
        return means.std(axis=0, ddof=1) / means.mean(axis=0)

    assert (spread() < 0.02).all()

    def independent(shares, tail_shares, group, weight, seed, lane, begin=0):
        ends = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        return (uniforms(seed, lane, np.arange(len(group)))[:, None] >= ends[group, :-1]).sum(axis=1)

    monkeypatch.setattr("servegen_gpu.clients.population.population.stratified", independent)
    assert (spread() > 0.03).all(), "independent draws are found"


def who(name, seed):
    from servegen_gpu.clients.population import population as module
    from servegen_gpu.clients.population.skew import weights

    preset = built_in(name)
    weight = weights(preset.skew.law(preset.clients), max(preset.clients, HEAD))
    kind, steps = module._who(preset, weight, seed)
    return kind[: preset.clients], steps[:, : preset.clients]


def test_burstiness_and_rate_go_together():
    """In deepseek-r1 small clients are the bursty ones, in m-small large ones are."""
    for name, sign in (("deepseek-r1", -1), ("m-small", 1)):
        pool = population(name)
        cv = pool.cv[pool.profile].mean(axis=1)
        head, tail = cv[4:HEAD] > 1.6, cv[HEAD:] > 1.6
        assert sign * (np.average(head, weights=pool.rate_factor[4:HEAD]) - tail.mean()) > 0.03


def test_clients_of_one_kind_differ_in_lengths_and_share_tables():
    pool = population("deepseek-r1")
    means = pool.tables.means[pool.table[pool.profile, 0, 0]]
    assert len(np.unique(means)) == 1 + 6 * STEPS["input_tokens"]
    assert len(pool.tables) < 80
    assert np.log(means[1:]).std() > 1


def test_the_largest_population_is_small_in_memory():
    pool = population("deepseek-r1", clients=25_913)
    packed, _ = pack(pool, Rate("own"), start_s=0, end_s=86_400)
    held = sum(getattr(packed, name).nbytes for name in vars(packed) if hasattr(getattr(packed, name), "nbytes"))
    assert held + sum(array.nbytes for array in pool.arrays().values()) < 200e6
    assert held > 1e6  # there is something


@pytest.mark.parametrize("clients", [0, -1, 10_000_001, 2**31, 1.5, True, "5", float("nan")])
def test_bad_counts_are_refused(clients):
    with pytest.raises(OptionError, match="clients"):
        population(clients=clients)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(OptionError, match="seed"):
        population(seed=seed)


@pytest.mark.parametrize("workload", ["m-smal", "M-Small", "", "m small"])
def test_unknown_workloads_are_refused_with_a_list_and_the_nearest(workload):
    with pytest.raises(OptionError, match="deepseek-r1") as caught:
        population(workload)
    assert workload in caught.value.got
    if workload:
        assert "m-small" in caught.value.fix


@pytest.mark.parametrize("workload", [None, 5, b"m-small", object(), "there-is-none.toml"])
def test_other_things_are_refused(workload):
    with pytest.raises(ServeGenError):
        population(workload)
