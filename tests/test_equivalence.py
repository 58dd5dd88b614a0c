"""Every backend gives the same columns, bit for bit: all categories, rules and sizes around the bounds of strips,
blocks and slabs. A backend that is not here is skipped with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native import each_extension, native, plain
from profiles import tiny_pool
from test_golden import CASES
from traces import same

import servegen_gpu as sg
from servegen_gpu.request.families import GAMMA, LOGNORMAL, WEIBULL
from servegen_gpu.request.schema import FIELDS

EDGES = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 8191, 8192, 8193, 65535, 65536, 65537)
MATRIX = {2: -0.5, 3: 0.3, 5: 0.2}


def dependence_of(category: str, name: str) -> dict[str, Any]:
    fields = 5 if category == "multimodal" else len(FIELDS[category])
    if name != "copula":
        return {"dependence": name}
    return {"dependence": name, "rank_correlation": np.where(np.eye(fields), 1.0, MATRIX[fields])}


def agree(pool: sg.ClientPool, extension: str | None = None, **keywords: Any) -> sg.Trace:
    expected = plain(pool, **keywords)
    assert same(native(pool, extension, **keywords), expected)
    return expected


@each_extension
@pytest.mark.parametrize("name", CASES)
def test_the_cases_of_the_golden_digests(extension, name):
    pool, keywords = CASES[name]
    assert len(agree(pool, extension, **keywords))


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
@pytest.mark.parametrize("category", FIELDS)
def test_rules(category, dependence, counts):
    pool = tiny_pool(category, 7, rate_rps=2.0)
    keywords = {"counts": counts, "start": 250.5, "duration": 4000, "seed": 11} | dependence_of(category, dependence)
    assert len(agree(pool, **keywords)) > 1000


@each_extension
@pytest.mark.parametrize("contexts", [(0,), (100, 0, 2500, 1, 700)])
@pytest.mark.parametrize("category", FIELDS)
def test_clients_with_correlations_and_limits_of_their_own(category, contexts, extension):
    keywords = {"duration": 3000, "rate": 5, "seed": 8}
    pool = tiny_pool(category, 7, dependent=True, contexts=contexts)
    trace = agree(pool, extension, **keywords)
    assert len(trace) > 10_000
    agree(tiny_pool(category, 7, contexts=contexts), extension, **keywords)
    agree(pool, extension, dependence="comonotone", **keywords)
    agree(pool.clone(300), extension, **keywords)  # many clients to a strip


@pytest.mark.parametrize("family", [GAMMA, WEIBULL, LOGNORMAL])
@pytest.mark.parametrize("counts", ["exact", "servegen", "renewal"])
@pytest.mark.parametrize("n", EDGES)
def test_one_client_of_so_many_requests(n, counts, family):
    pool = tiny_pool("language", 1, silent=False, family=family, shape=0.3)
    trace = agree(pool, rate=n / 600, duration=600, counts=counts, seed=n)
    assert counts != "exact" or abs(len(trace) - n) <= 1


@pytest.mark.parametrize("each", [2, 64, 65, 66, 130])
def test_runs_pass_the_end_of_the_window_at_every_position(each):
    """Runs of a circle begin anywhere: of 2,000 some pass the window's end behind each of their requests."""
    pool = tiny_pool("language", 1, windows=1, silent=False, occupancy=1.0).clone(2_000)
    assert len(agree(pool, rate=2_000 * each / 600, duration=600, counts="exact")) == pytest.approx(
        2_000 * each, rel=0.1
    )


@pytest.mark.parametrize("each", [0.01, 0.9, 1.1, 5, 33, 300])
@pytest.mark.parametrize("counts", ["exact", "servegen", "renewal"])
def test_many_clients(each, counts):
    pool = tiny_pool("reason", 40, silent=False).clone(25)
    agree(pool, rate=1000 * each / 600, duration=1800, counts=counts, seed=5)


@each_extension
def test_blocks_with_large_and_small_cells(extension):
    for seed in range(3):
        agree(tiny_pool("language", 60), extension, rate=300, duration=1200, seed=seed)


@pytest.mark.parametrize("counts", ["exact", "servegen", "renewal"])
@pytest.mark.parametrize("category", ["language", "multimodal"])
@pytest.mark.parametrize("memory", ["1MB", "3MB"])
def test_windows_larger_than_the_budget(category, counts, memory):
    pool = tiny_pool(category, 5, silent=False)
    schedule = [(0, 50.0), (200, 150.0), (500, 10.0), (900, 80.0)]
    keywords = {"rate": schedule, "start": 100, "duration": 900, "counts": counts, "seed": 3}
    whole = plain(pool, **keywords)
    assert same(native(pool, memory=memory, **keywords), whole)


@pytest.mark.parametrize(
    ("family", "shape"),
    [*((GAMMA, k) for k in (1e-6, 0.0067, 0.02, 0.152, 1.0, 40.0)), *((WEIBULL, k) for k in (0.05, 0.152, 1.0, 40.0))],
)
@pytest.mark.parametrize("counts", ["exact", "servegen", "renewal"])
def test_shapes(family, shape, counts):
    pool = tiny_pool("language", 4, family=family, shape=shape, occupancy=0.01)
    agree(pool, rate=20, duration=1200, counts=counts, seed=2)


@each_extension
@pytest.mark.parametrize("sigma", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("counts", ["exact", "servegen", "renewal"])
def test_lognormal_gaps(sigma, counts, extension):
    """By themselves, and beside gaps of other families, which have strips of their own."""
    keywords = {"rate": 30, "duration": 1500, "counts": counts, "seed": 4}
    agree(tiny_pool("reason", 6, silent=False, family=LOGNORMAL, shape=sigma).clone(20), extension, **keywords)
    mixed = tiny_pool("language", 6, silent=False)
    family = np.where(np.arange(6)[:, None] % 2 == 0, LOGNORMAL, mixed.family).astype(np.uint8)
    agree(replace(mixed, family=family, shape=np.where(family == LOGNORMAL, sigma, mixed.shape)), extension, **keywords)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_threads(monkeypatch, threads):
    pool = tiny_pool("multimodal", 9)
    expected = plain(pool, rate=100, duration=1200, seed=1)
    monkeypatch.setenv("SERVEGEN_GPU_THREADS", threads)
    assert same(native(pool, rate=100, duration=1200, seed=1), expected)


def test_shards():
    pool = tiny_pool("reason", 9)
    keywords = {"rate": 20, "duration": 7200, "seed": 1}
    parts = [native(pool, shard=f"{k}/3", **keywords) for k in (1, 2, 3)]
    assert same(sg.Trace.concat(parts), plain(pool, **keywords))
    for k, part in enumerate(parts, 1):
        assert same(part, plain(pool, shard=f"{k}/3", **keywords))


def test_long_and_thin():
    pool = tiny_pool("language", 2, rate_rps=0.002)
    assert len(agree(pool, duration="60d", seed=4)) > 1000


@pytest.mark.parametrize("rate", [1e-9, 0.0017])
def test_hardly_a_request(rate):
    for seed in range(3):
        agree(tiny_pool("multimodal", 3), rate=rate, duration=600, seed=seed)


def test_late_in_time():
    agree(tiny_pool("language", 3), start="1000d", duration=1200, seed=4)
