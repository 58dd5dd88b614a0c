"""Chosen clients that keep their shares of a rate send what they send in the trace of all clients at that rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native import native
from profiles import talking, tiny_pool, write_servegen
from traces import same, take

import servegen_gpu as sg
from servegen_gpu import ClientPool, Trace
from servegen_gpu.cli import main
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.request.schema import FIELDS

RATES: dict[str, dict[str, Any]] = {
    "own": {},
    "scaled": {"scale": 1.7},
    "constant": {"rate": 2.5},
    "peak": {"peak": 0.4},
    "steps": {"rate": {0: 1.0, 1500: 3.0}},
    "linear": {"rate": sg.Schedule([-50_000, 200_000], [1.0, 4.0], "linear")},
    "function": {"rate": lambda t: 2 + np.sin(t / 500)},
}
POOLS = {category: tiny_pool(category, 5) for category in FIELDS} | {"talking": talking()}
CHOICES = {"ids": lambda pool: pool.select([1, 3]), "largest": lambda pool: pool.top(2)}


def of_whole(pool: ClientPool, some: ClientPool, **keywords: Any) -> Trace:
    """Requests of a trace of all clients whose client is chosen."""
    trace = sg.generate(pool, **keywords)
    return take(trace, np.flatnonzero(np.isin(trace["client"], some.client_ids)))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_kept_is_a_part_of_the_whole_trace(name: str, rate: str, choice: str) -> None:
    pool, keywords = POOLS[name], RATES[rate] | {"duration": "2h", "start": 900, "backend": "numpy"}
    some = CHOICES[choice](pool)
    found = sg.generate(some.with_shares_of(pool), **keywords)
    expected = of_whole(pool, some, **keywords)
    assert len(found) > 200
    assert same(found, expected)
    if rate in ("constant", "steps", "linear", "function"):
        assert len(sg.generate(some, **keywords)) > 1.2 * len(found)


@pytest.mark.parametrize("rate", ["constant", "function"])
def test_windows_keep_their_shares(rate: str) -> None:
    pool = POOLS["language"]
    some = pool.filter(cv=(0.5, 2.0))
    keywords = RATES[rate] | {"duration": "4h", "backend": "numpy"}
    found, trace = sg.generate(some.with_shares_of(pool), **keywords), of_whole(pool, some, **keywords)
    row, window = np.searchsorted(some.client_ids, trace["client"]), trace["arrival_us"] // (pool.window_s * 10**6)
    active = some.rate_rps[some.profile] > 0
    assert 0 < len(found) < len(trace)
    assert same(found, take(trace, np.flatnonzero(active[row, window])))


def test_compiled_kernels_keep_them() -> None:
    pool = POOLS["reason"]
    some = pool.select([0, 4]).with_shares_of(pool)
    keywords: dict[str, Any] = {"rate": 5, "duration": "3h"}
    assert same(native(some, **keywords), sg.generate(some, backend="numpy", **keywords))


def test_shares_follow_what_is_done_to_a_pool() -> None:
    """Cut to a span, chosen again, cloned, denser, joined, and as a naive baseline."""
    pool = POOLS["language"]
    some = pool.select([1, 3]).with_shares_of(pool)
    assert pool.whole_rps is None
    assert np.array_equal(some.total_rps, pool.own_rps)
    rate: dict[str, Any] = {"rate": 5, "duration": "1h", "backend": "numpy"}
    trace = sg.generate(some, **rate)
    assert same(sg.generate(some.span(0, 7200), **rate), trace)
    assert same(sg.generate(some.rescaled(3), **rate), trace)
    assert same(sg.generate(some.select([3]), **rate), of_whole(pool, pool.select([3]), **rate))
    assert same(sg.generate(pool.select([3]).with_shares_of(some), **rate), sg.generate(some.select([3]), **rate))
    joined = sg.join([some, tiny_pool(clients=2)])
    assert np.array_equal(joined.total_rps, order_free_sum(np.stack([pool.own_rps, tiny_pool(clients=2).own_rps])))
    assert sg.join([pool, pool]).whole_rps is None
    for other in (some.clone(4), sg.naive(some, cv=1), sg.resample(some, 7)):
        assert np.array_equal(other.total_rps, pool.own_rps)
        assert len(sg.generate(other, **rate)) == pytest.approx(len(trace), rel=0.15)


def test_requests_of_clients_that_keep_their_shares() -> None:
    pool = POOLS["language"]
    some = pool.select([4]).with_shares_of(pool)
    found = sg.generate(some, rate=2, requests=3000)
    assert len(found) == 3000
    assert same(found, sg.generate(some, rate=2, duration="6h").head(3000))


def test_shares_are_of_a_pool_with_the_same_windows() -> None:
    pool = POOLS["language"]
    for whole in (pool.span(0, 7200), tiny_pool(window_s=300), pool.select([2])):
        with pytest.raises(OptionError, match=r"a pool with the same windows, of which these clients are a part"):
            pool.select([0, 1]).with_shares_of(whole)
    with pytest.raises(ProfileError, match="whole_rps of shape"):
        sg.ClientPool.from_arrays(pool.header(), pool.arrays() | {"whole_rps": np.ones(3)})


def test_digests_of_other_pools_stay() -> None:
    pool = POOLS["language"]
    some = pool.select([1])
    assert some.digest() == pool.select([1]).digest()
    assert some.with_shares_of(pool).digest() != some.digest()
    assert "whole_rps" not in some.arrays()


def test_the_command(tmp_path: Any, capsys: Any) -> None:
    write_servegen(tmp_path / "data", "language", "tiny", clients=4)
    command = ["generate", "tiny", "--profiles", str(tmp_path / "data"), "--rate", "5", "--duration", "2h"]
    assert main([*command, "-o", str(tmp_path / "whole.parquet")]) == 0
    assert main([*command, "--only", "2,4", "--keep-shares", "-o", str(tmp_path / "some.parquet")]) == 0
    whole, some = (sg.read_trace(tmp_path / f"{name}.parquet") for name in ("whole", "some"))
    assert 0 < len(some) < len(whole)
    assert same(some, whole.where(np.isin(whole["client"], [2, 4])))
    assert main([*command, "--keep-shares", "-o", str(tmp_path / "t.parquet")]) == 2
    assert "--only, --where, --largest or --smallest with --keep-shares" in capsys.readouterr().err
