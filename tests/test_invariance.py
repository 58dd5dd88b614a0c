"""What must not change a trace, bit for bit, and what must."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from profiles import tiny_pool
from traces import between, by_cell, flat, joined, moved, only, rows, same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import plan
from servegen_gpu.request.families import EXPONENTIAL
from servegen_gpu.request.schema import FIELDS

CATEGORIES = tuple(FIELDS)
COUNTS = ("exact", "renewal", "servegen")
RATES: dict[str, dict[str, Any]] = {
    "own": {},
    "constant": {"rate": 2.0},
    "scaled": {"scale": 1.5},
    "schedule": {"rate": [(0, 1.0), (900, 4.0), (2500, 0.0), (3300, 1.0)]},
    "linear": {"rate": sg.Schedule([0, 900, 7200], [0.0, 3.0, 0.5], "linear")},
    "function": {"rate": lambda t: 2 + 1.5 * np.sin(t / 400)},
}
OWN: dict[str, Any] = {"dependent": True, "contexts": (100, 0, 2500, 1, 700)}
"""Clients with correlations and limits of their own."""
US = 1_000_000
WINDOW_US = 600 * US


@pytest.fixture(params=CATEGORIES)
def category(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=COUNTS)
def counts(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=RATES)
def rate(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RATES[request.param]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of more than a hundred requests come in parts, slabs hold little."""
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: 100)
    monkeypatch.setattr("servegen_gpu.plan.SLAB_REQUESTS", 700)
    monkeypatch.setattr("servegen_gpu.plan.SLAB_CELLS", 5)


def survey_all(monkeypatch: pytest.MonkeyPatch, chunk: int = 256, limit: int = 64) -> None:
    """Sample slab by slab of about `limit` requests, so that every window but the smallest is surveyed."""
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: limit)
    monkeypatch.setattr("servegen_gpu.backends.host.run_gaps.CHUNK", chunk)


def is_sorted(trace: Trace, span_us: int) -> bool:
    arrival = trace["arrival_us"]
    return bool((np.diff(arrival) >= 0).all() and arrival[0] >= 0 and arrival[-1] < span_us)


# -- order and span ----------------------------------------------------------------------------------------------------


def test_sorted_and_inside_the_span(category: str, counts: str, rate: dict[str, Any]) -> None:
    trace = sg.generate(tiny_pool(category), start=250, duration=3000, counts=counts, **rate)
    assert len(trace) > 500
    assert is_sorted(trace, 3000 * US)
    assert trace["client"].dtype == np.int32


def test_equal_arrivals_are_in_order_of_clients(category: str) -> None:
    pool = tiny_pool(category, clients=1, windows=1, rate_rps=20, shape=0.01).clone(40)
    trace = sg.generate(pool, duration=600)
    ties = np.flatnonzero(np.diff(trace["arrival_us"]) == 0)
    assert len(ties) > 500
    assert (np.diff(trace["client"])[ties] >= 0).all()


def test_a_shorter_trace_is_a_prefix(category: str, counts: str, rate: dict[str, Any]) -> None:
    pool = tiny_pool(category)
    duration = 1800 if counts == "servegen" else 1777.7  # the servegen rule looks at the end of the span
    long = sg.generate(pool, start=0, duration=4000, counts=counts, **rate)
    short = sg.generate(pool, start=0, duration=duration, counts=counts, **rate)
    assert len(short) > 300
    assert same(short, between(long, 0, round(duration * US)))


def test_a_later_start_is_a_slice(category: str, counts: str, rate: dict[str, Any]) -> None:
    pool = tiny_pool(category)
    start, duration = (1200, 1800) if counts == "servegen" else (777.123456, 2100.5)
    whole = sg.generate(pool, start=0, duration=4200, counts=counts, **rate)
    part = sg.generate(pool, start=start, duration=duration, counts=counts, **rate)
    cut = between(whole, round(start * US), round((start + duration) * US))
    assert len(part) > 300
    assert same(part, moved(cut, -round(start * US)))


def test_a_span_of_the_pool_is_a_slice(category: str, counts: str) -> None:
    pool = tiny_pool(category, first_window=3)
    keywords: dict[str, Any] = {"start": 6000, "duration": 1800, "counts": counts}
    assert same(sg.generate(pool, **keywords), sg.generate(pool.span(6000, 9000), **keywords))


def test_servegen_cuts_windows_at_the_span() -> None:
    pool = tiny_pool(clients=1, rate_rps=1, family=EXPONENTIAL, shape=1, silent=False)
    trace = sg.generate(pool, start=300, duration=600, counts="servegen", rate=1)
    in_first = int(np.searchsorted(trace["arrival_us"], 300 * US))
    assert (in_first, len(trace) - in_first) == (299, 299)


# -- how it is computed ------------------------------------------------------------------------------------------------


def test_memory_never_shows(category: str, counts: str) -> None:
    pool = tiny_pool(category, silent=False)
    keywords: dict[str, Any] = {"start": 100, "duration": 1200, "counts": counts, "rate": [(0, 30), (700, 80)]}
    large = sg.generate(pool, memory="1GB", **keywords)
    slabs = list(sg.stream(pool, memory="1MB", **keywords))
    assert len(slabs) > 3
    assert sum(map(len, slabs)) == len(large) > 50_000
    assert [s.first_row for s in slabs] == np.cumsum([0] + [len(s) for s in slabs[:-1]]).tolist()
    assert same(Trace.concat(slabs), large)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_surveyed_windows_equal_whole_ones(
    category: str, counts: str, rate: dict[str, Any], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tiny_pool(category)
    keywords: dict[str, Any] = {"start": 250, "duration": 2500, "counts": counts, **rate}
    whole = sg.generate(pool, **keywords)
    survey_all(monkeypatch, chunk)
    workload = sg.stream(pool, **keywords)
    assert any(slab.surveyed for slab in plan(workload.packed, workload.max_requests))
    assert same(joined(pool, **keywords), whole)


def test_sizes_of_slabs_never_show(
    category: str, counts: str, rate: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    pool = tiny_pool(category)
    keywords: dict[str, Any] = {"start": 250, "duration": 5500, "counts": counts, **rate}
    whole = sg.generate(pool, **keywords)
    request.getfixturevalue("small_parts")
    slabs = list(sg.stream(pool, **keywords))
    assert len(slabs) > 4
    assert same(Trace.concat(slabs), whole)


@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
def test_blocks_and_threads_never_show(
    category: str, counts: str, dependence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tiny_pool(category)
    fields = 5 if category == "multimodal" else len(FIELDS[category])
    matrix = np.where(np.eye(fields), 1.0, 0.3) if dependence == "copula" else None
    keywords: dict[str, Any] = {
        "duration": 1800, "rate": 3, "counts": counts, "dependence": dependence, "rank_correlation": matrix,
    }  # fmt: skip
    usual = sg.generate(pool, **keywords)
    assert len(usual) > 5000
    for block, threads in ((1000, 1), (1000, 2), (333, 3), (1 << 20, 2)):
        monkeypatch.setattr("servegen_gpu.blocks.BLOCK", block)
        monkeypatch.setenv("SERVEGEN_GPU_THREADS", str(threads))
        assert same(sg.generate(pool, **keywords), usual), (block, threads)


@pytest.mark.parametrize("block", [32, 1024])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_cells_at_the_edges_of_blocks(
    category: str, counts: str, block: int, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tiny_pool(category, clients=2, windows=3, silent=False)
    keywords: dict[str, Any] = {"duration": 1200, "rate": (block + offset) / 600, "counts": counts}
    usual = sg.generate(pool, **keywords)
    monkeypatch.setattr("servegen_gpu.blocks.BLOCK", block)
    assert same(sg.generate(pool, **keywords), usual)


@pytest.mark.parametrize("requests", [1, 2, 31, 32, 33, 1023, 1024, 1025])
def test_one_client_of_any_size(requests: int, category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tiny_pool(category, clients=1, windows=1, rate_rps=requests / 600)
    trace = sg.generate(pool, duration=600)
    assert len(trace) == requests
    survey_all(monkeypatch, 32, 32)
    assert same(joined(pool, duration=600), trace)


def test_backends_may_be_used_again_and_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    survey_all(monkeypatch)
    workload = sg.stream(tiny_pool(), duration=1800, rate=2)
    first, again = list(workload), list(workload)
    assert same(Trace.concat(first), Trace.concat(again))
    slabs = list(plan(workload.packed, workload.max_requests))
    backwards = [Trace(workload.backend.sample_slab(workload.packed, workload.key, slab)) for slab in reversed(slabs)]
    assert same(Trace.concat(backwards[::-1]), Trace.concat(first))


@pytest.mark.parametrize("parts", ["usual", "small_parts"])
def test_shards_together_are_the_trace(
    category: str, counts: str, rate: dict[str, Any], parts: str, request: pytest.FixtureRequest
) -> None:
    pool = tiny_pool(category)
    keywords: dict[str, Any] = {"start": 250, "duration": 5000, "counts": counts, **rate}
    whole = sg.generate(pool, **keywords)
    if parts != "usual":
        request.getfixturevalue(parts)
    for n in (2, 5):
        shards = [sg.generate(pool, shard=f"{k + 1}/{n}", **keywords) for k in range(n)]
        assert all(map(len, shards))
        assert same(Trace.concat(shards), whole)


def test_a_shard_does_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, keywords = tiny_pool(), {"duration": 1800, "rate": 2, "shard": (1, 3)}
    large = sg.generate(pool, **keywords)
    survey_all(monkeypatch)
    assert same(joined(pool, **keywords), large)


@pytest.mark.parametrize("own", [{}, OWN])
def test_a_packed_workload_travels(category: str, counts: str, own: dict[str, Any], tmp_path: Any) -> None:
    workload = sg.stream(tiny_pool(category, **own), start=250, duration=2500, counts=counts, **RATES["schedule"])
    workload.packed.save(tmp_path / "packed")
    loaded = replace(workload, packed=PackedWorkload.load(tmp_path / "packed"))
    assert same(Trace.concat(list(loaded)), Trace.concat(list(workload)))


# -- who is there ------------------------------------------------------------------------------------------------------


def shuffled(pool: ClientPool, order: list[int]) -> ClientPool:
    """The same clients, their profiles stored in another order."""
    place = np.argsort(order)
    tensors = (
        *("rate_rps", "cv", "family", "shape", "occupancy", "table", "measured"),
        *("correlation", "context_tokens"),
    )
    return replace(
        pool,
        profile=place[pool.profile].astype(np.int32),
        **{name: getattr(pool, name)[order] for name in tensors},
    )


def test_the_order_of_profiles_never_shows(category: str, counts: str, rate: dict[str, Any]) -> None:
    pool = tiny_pool(category, clients=5, ids=[3, 14, 15, 92, 2**31 - 1])
    keywords: dict[str, Any] = {"duration": 2500, "counts": counts, **rate}
    usual = sg.generate(pool, **keywords)
    assert set(usual["client"].tolist()) == set(pool.client_ids.tolist())
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert same(sg.generate(shuffled(pool, order), **keywords), usual)


def test_what_clients_have_of_their_own_stays_with_them(category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tiny_pool(category, clients=7, **OWN)
    keywords: dict[str, Any] = {"start": 100, "duration": 2500}
    usual = sg.generate(pool, **keywords)
    assert len(usual) > 1000
    assert not same(usual, sg.generate(tiny_pool(category, clients=7), **keywords))
    # neither order nor neighbours
    assert same(sg.generate(shuffled(pool, [6, 2, 0, 4, 5, 1, 3]), **keywords), usual)
    assert rows(sg.generate(pool.select([1, 4, 6]), **keywords)) == only(usual, [1, 4, 6])
    turned = replace(
        pool,
        correlations=pool.correlations[::-1].copy(),
        correlation=np.array([-1, 1, 0], np.int32)[pool.correlation + 1],
    )
    assert same(sg.generate(turned, **keywords), usual)
    # a client that has nothing of its own is what it was
    plain = only(sg.generate(tiny_pool(category, clients=7), **keywords), [3, 6])
    assert only(sg.generate(tiny_pool(category, clients=7, dependent=True), **keywords), [3, 6]) == plain
    # neither shards nor slabs
    parts = [joined(pool, shard=(k, 3), **keywords) for k in range(3)]
    assert same(Trace.concat(parts), usual)
    survey_all(monkeypatch)
    assert same(joined(pool, **keywords), usual)


def test_one_rule_for_all_clients_overrides_their_own(category: str) -> None:
    own, none = tiny_pool(category, dependent=True), tiny_pool(category)
    scalar = own.correlations.shape[1]
    one = {"dependence": "copula", "rank_correlation": np.where(np.eye(scalar), 1.0, 0.25)}
    for rule in ({"dependence": "independent"}, {"dependence": "comonotone"}, one):
        assert same(sg.generate(own, duration=1800, **rule), sg.generate(none, duration=1800, **rule))
    assert not same(sg.generate(own, duration=1800), sg.generate(none, duration=1800))
    assert same(sg.generate(none, duration=1800), sg.generate(none, duration=1800, dependence="independent"))


@pytest.mark.parametrize("scale", [1.0, 0.3, 1.7])
@pytest.mark.parametrize("windows", [6, 144])
def test_a_new_client_changes_nobody_elses_requests(category: str, counts: str, scale: float, windows: int) -> None:
    pool = tiny_pool(category, clients=4)
    keywords: dict[str, Any] = {"duration": 600 * windows, "counts": counts, "scale": scale}
    more, fewer = sg.stream(pool, **keywords), sg.stream(pool.select([0, 2]), **keywords)
    assert (more.packed.window_scale == scale).all()
    assert (fewer.packed.window_scale == scale).all()
    if windows < 10:
        assert only(Trace.concat(list(more)), [0, 2]) == rows(Trace.concat(list(fewer)))


def test_clients_are_told_apart_by_id() -> None:
    first, second = (tiny_pool(clients=1, ids=[c]) for c in (7, 8))
    a, b = sg.generate(first, duration=1200), sg.generate(second, duration=1200)
    assert len(a) == len(b)
    assert not set(a["arrival_us"].tolist()) & set(b["arrival_us"].tolist())


# -- how many ----------------------------------------------------------------------------------------------------------


def test_exact_counts_are_the_profile_rounded(category: str) -> None:
    pool = tiny_pool(category, clients=6)
    cells = by_cell(sg.generate(pool, duration=86_400))
    expected = pool.rate_rps * 600
    count = np.array([[len(cells.get((c, w), ())) for w in range(144)] for c in range(6)])
    assert ((count == np.floor(expected)) | (count == np.ceil(expected))).all()
    assert abs(count.sum() - expected.sum()) < 6 * np.sqrt(expected.size / 4)
    whole = replace(pool, rate_rps=np.round(expected) / 600)  # counts of a log
    cells = by_cell(sg.generate(whole, duration=86_400))
    assert all(len(cells.get((c, w), ())) == np.round(expected[c, w]) for c in range(6) for w in range(144))


def test_the_servegen_rule_loses_one(category: str) -> None:
    pool = tiny_pool(category, shape=2.0)
    cells = by_cell(sg.generate(pool, duration=86_400, counts="servegen"))
    gaps = np.ceil(pool.rate_rps * 600)
    assert all(len(cells.get((c, w), ())) == max(gaps[c, w] - 1, 0) for c in range(3) for w in range(144))


def test_auto_takes_the_rule_of_the_client(category: str) -> None:
    for measured, rule in ((True, "exact"), (False, "renewal")):
        pool = tiny_pool(category, measured=measured)
        assert same(sg.generate(pool, duration=1800), sg.generate(pool, duration=1800, counts=rule))
    mixed = replace(tiny_pool(category), measured=np.array([True, False, True]))
    trace = sg.generate(mixed, duration=1800)
    for client, rule in ((0, "exact"), (1, "renewal"), (2, "exact")):
        assert only(trace, [client]) == only(sg.generate(mixed, duration=1800, counts=rule), [client])


@pytest.mark.parametrize(("rate", "duration", "start"), [
    (10, 300, 0), (10, 1000, 250), ([(0, 1), (300, 50)], 300, 0), ([(0, 1), (300, 50)], 450, 200),
])  # fmt: skip
def test_expected_requests(counts: str, rate: Any, duration: float, start: float) -> None:
    pool = tiny_pool(silent=False, clients=2, family=EXPONENTIAL, shape=1)
    keywords: dict[str, Any] = {"rate": rate, "duration": duration, "start": start, "counts": counts}
    expected = sg.stream(pool, **keywords).expected_requests
    number = len(sg.generate(pool, **keywords))
    assert abs(number - expected) < 5 * np.sqrt(expected) + 5


# -- which random numbers ----------------------------------------------------------------------------------------------


def test_seeds_and_replicas_differ(category: str, counts: str) -> None:
    pool = tiny_pool(category)
    of = [(0, 0), (0, 1), (1, 0), (1, 1), (2**32, 0), (2**64 - 1, 0), (0, 2**32 - 1)]
    sets = [
        set(sg.generate(pool, duration=3000, counts=counts, seed=s, replica=r)["arrival_us"].tolist()) for s, r in of
    ]
    for i, a in enumerate(sets):
        for b in sets[:i]:
            assert len(a & b) < 0.01 * min(len(a), len(b))


def test_seed_0_is_the_default_and_repeats() -> None:
    pool = tiny_pool()
    assert same(sg.generate(pool, duration=1800), sg.generate(pool, duration=1800, seed=0))
    assert same(sg.generate(pool, duration=1800), sg.generate(pool, duration=1800, replica=0))


def test_scenarios_share_their_numbers(category: str, counts: str) -> None:
    pool = tiny_pool(category, clients=6)
    few, many = (
        by_cell(sg.generate(pool, duration=6000, rate=rate, counts=counts, occupancy="window")) for rate in (1.0, 1.4)
    )
    assert len(few) > 40
    for cell, requests in few.items():
        more = many[cell]
        assert len(requests) <= len(more)
        if counts == "exact":  # the rotation hides which is first
            assert Counter(requests) <= Counter(more)
        else:
            assert more[: len(requests)] == requests


def test_a_shape_changes_neither_counts_nor_lengths(category: str) -> None:
    a, b = (by_cell(sg.generate(tiny_pool(category, shape=k), duration=3000)) for k in (0.5, 2.0))
    assert a.keys() == b.keys()
    assert all(Counter(a[cell]) == Counter(b[cell]) for cell in a)


def test_an_unpaired_dependence_leaves_arrivals_and_first_field(category: str) -> None:
    independent, comonotone = (
        sg.generate(tiny_pool(category), duration=3000, dependence=d) for d in ("independent", "comonotone")
    )
    first = FIELDS[category][0]
    for name in ("arrival_us", "client", first):
        assert np.array_equal(independent[name], comonotone[name])
    assert not np.array_equal(independent["output_tokens"], comonotone["output_tokens"])


def test_wrapped_days_repeat_rates_but_not_requests(category: str, counts: str) -> None:
    pool = tiny_pool(category)
    keywords: dict[str, Any] = {"duration": "2d", "counts": counts, "scale": 0.2}
    packed = sg.stream(pool, **keywords).packed
    assert np.array_equal(packed.expected[:144], packed.expected[144:])
    trace = sg.generate(pool, **keywords)
    day = 86_400 * US
    first, second = between(trace, 0, day), moved(between(trace, day, 2 * day), -day)
    assert abs(len(first) - len(second)) < 0.2 * len(first)
    same_time = set(first["arrival_us"].tolist()) & set(second["arrival_us"].tolist())
    assert len(same_time) < 0.01 * len(first)


def test_past_end_may_end_the_trace(category: str) -> None:
    pool = tiny_pool(category)
    ended = sg.generate(pool, start="23h", duration="2h", past_end="end")
    assert same(ended, sg.generate(pool, start="23h", duration="1h"))


def test_occupancy_window_is_a_full_profile(category: str) -> None:
    trace = sg.generate(tiny_pool(category), duration=3000, occupancy="window")
    assert same(trace, sg.generate(tiny_pool(category, occupancy=1.0), duration=3000))
    assert not same(trace, sg.generate(tiny_pool(category), duration=3000))


def test_columns_of_an_empty_trace(category: str) -> None:
    pool = tiny_pool(category, clients=1)
    empty = sg.generate(pool, start=1800, duration=600, rate=1, empty="skip")
    full = sg.generate(pool, duration=600)
    assert len(empty) == 0
    assert {k: v.dtype for k, v in flat(empty).items()} == {k: v.dtype for k, v in flat(full).items()}
