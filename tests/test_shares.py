"""Shares of a trace: about equally much in each, in order of time, and all of them together the trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native import native
from profiles import talking, tiny_pool
from traces import same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import write_stream
from servegen_gpu.law.address import ALONE, CONVERSATIONS, Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import Slab, expected_in, share_us, slice_edges_us
from servegen_gpu.request.columns import Columns
from servegen_gpu.request.schema import FIELDS

US = 1_000_000

RATES: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]] = {
    "constant": (3.0, lambda t: np.full(len(t), 3.0)),
    "steps": (
        [(0, 1.0), (333, 20.0), (900, 0.0), (2400, 5.0)],
        lambda t: np.select([t < 333, t < 900, t < 2400], [1.0, 20.0, 0.0], 5.0),
    ),
    "linear": (
        sg.Schedule([0, 900, 7200], [0.0, 3.0, 0.5], "linear"),
        lambda t: np.interp(t, [0, 900, 7200], [0, 3, 0.5]),
    ),
    "function": (lambda t: 2 + 1.9 * np.sin(t / 130), lambda t: 2 + 1.9 * np.sin(t / 130)),
}  # fmt: skip
"""What `rate` says, and the rate at a time in seconds."""

SPANS = {
    "whole windows": (0, 3600),
    "inside windows": (250.5, 2711.25),
    "inside one": (100, 300),
    "ten minutes": (0, 600),
}


def edges_us(packed: PackedWorkload, n: int) -> np.ndarray:
    """Where n shares begin and end, each asked for alone, int64[n + 1]."""
    spans = [share_us(packed, (k, n)) for k in range(n)]
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    return np.array([begin for begin, _ in spans] + [spans[-1][1]])


@pytest.mark.parametrize("n", [2, 4, 7])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("pool", [tiny_pool(silent=False), talking("language", silent=False)], ids=["alone", "talking"])
def test_shares_expect_equally_much(pool: sg.ClientPool, rate: str, span: tuple[float, float], n: int) -> None:
    target, rate_at = RATES[rate]
    workload = sg.stream(pool, rate=target, start=span[0], duration=span[1])
    edges = edges_us(workload.packed, n)
    assert edges[0] == round(span[0] * US)
    assert edges[-1] == round((span[0] + span[1]) * US)
    assert (np.diff(edges) > 0).all()
    middle_s = (np.arange(span[0], span[0] + span[1], 0.01)) + 0.005
    share = np.histogram(middle_s, edges / US, weights=rate_at(middle_s))[0] * 0.01
    np.testing.assert_allclose(share, share.mean(), rtol=0.02)
    assert share.sum() == pytest.approx(workload.expected_requests, rel=1e-3)
    exact = [expected_in(workload.packed, workload.packed.requests, span) for span in pairwise(edges.tolist())]
    np.testing.assert_allclose(exact, workload.expected_requests / n, rtol=1e-5)


def test_what_is_expected_in_a_part_of_a_later_span() -> None:
    target, rate_at = RATES["steps"]
    packed = sg.stream(tiny_pool(silent=False), rate=target, start=2000, duration=3600).packed
    seconds = np.arange(2000, 5600) + 0.5
    for begin, end in ((2000, 5600), (2000, 2400), (2399, 2401), (2500, 3100), (4799.5, 5600)):
        inside = rate_at(seconds)[(seconds > begin) & (seconds < end)].sum()
        found = expected_in(packed, packed.requests, (round(begin * US), round(end * US)))
        assert found == pytest.approx(inside, rel=2e-3)


def test_what_is_expected_of_a_rate_that_begins_at_zero() -> None:
    packed = sg.stream(tiny_pool(silent=False), rate=RATES["linear"][0], duration=600).packed
    for end_s in (1, 5, 20, 60, 599):
        found = expected_in(packed, packed.requests, (0, end_s * US))
        assert found == pytest.approx(end_s**2 / 600, rel=1e-4)


def test_parts_of_a_window_are_equal_and_as_many_as_asked_for() -> None:
    packed = sg.stream(
        tiny_pool(silent=False), rate=[(0, 0.0), (1350, 1.0), (1500, 3.0)], start=1200, duration=1200
    ).packed
    edges_s = [1200, 1537.5, 1625, 1712.5, 1800]  # of 150 requests in its second quarter, and 900 in its second half
    assert (slice_edges_us(packed, 0, 4) / US).tolist() == pytest.approx(edges_s, abs=2e-6)


def test_ten_minutes_of_little_come_in_four_shares() -> None:
    for pool in (tiny_pool(silent=False, measured=False), talking(silent=False)):
        keywords: dict[str, Any] = {"rate": 0.5, "duration": 600}
        parts = [sg.generate(pool, shard=f"{k}/4", **keywords) for k in range(1, 5)]
        assert min(map(len, parts)) > 35  # of 75
        assert max(map(len, parts)) < 130
        assert same(Trace.concat(parts), sg.generate(pool, **keywords))


def test_edges_do_not_depend_on_who_asks(tmp_path: Path) -> None:
    workload = sg.stream(talking(), rate=RATES["steps"][0], start=250.5, duration=5000)
    workload.packed.save(tmp_path / "packed")
    again = PackedWorkload.load(tmp_path / "packed")
    for n in (1, 2, 3, 8, 1000):
        edges = edges_us(workload.packed, n)
        np.testing.assert_array_equal(edges, edges_us(again, n))
        np.testing.assert_array_equal(edges_us(workload.packed, 2 * n)[::2], edges)
    shorter = sg.stream(talking(), rate=RATES["steps"][0], start=250.5, duration=5000, warmup=60).packed
    np.testing.assert_array_equal(edges_us(shorter, 8), edges_us(workload.packed, 8))


def test_where_nothing_is_expected_shares_are_equal_times() -> None:
    packed = sg.stream(tiny_pool(), rate=[(0, 0.0), (9000, 1.0)], start=100, duration=800).packed
    assert edges_us(packed, 4).tolist() == [100 * US, 300 * US, 500 * US, 700 * US, 900 * US]


CASES: dict[str, tuple[sg.ClientPool, dict[str, Any]]] = {
    **{f"{c} alone": (tiny_pool(c), {"start": 250.5, "duration": 2500}) for c in FIELDS},
    **{f"{c} talking": (talking(c), {"start": 250.5, "duration": 2500}) for c in FIELDS},
    "a short warm-up": (talking(), {"duration": 4000, "warmup": 120}),
    "in silence": (talking(), {"rate": RATES["steps"][0], "duration": 3000}),
    "by function": (talking("language"), {"rate": RATES["function"][0], "start": 77.7, "duration": 2000}),
}


@pytest.mark.parametrize("limit", [100, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_all_shares_are_the_trace(case: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, keywords = CASES[case]
    whole = sg.generate(pool, backend="numpy", **keywords)
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: limit)
    for n in (1, 4, 5):
        parts = [sg.stream(pool, shard=(k, n), backend="numpy", **keywords) for k in range(n)]
        slabs = [slab for part in parts for slab in part]  # slab by slab, as they come
        together = Trace.concat(slabs)
        assert same(together, whole)
        assert together.provenance == whole.provenance
        assert together.first_row == 0
        assert same(Trace.concat([native(pool, shard=(k, n), **keywords) for k in range(n)]), whole)


def test_there_may_be_more_shares_than_requests() -> None:
    for pool in (tiny_pool(), talking()):
        keywords: dict[str, Any] = {"rate": 0.5, "duration": 120, "seed": 3}
        parts = [sg.generate(pool, shard=(k, 200), **keywords) for k in range(200)]
        whole = sg.generate(pool, **keywords)
        assert 5 < len(whole) < 150
        assert same(Trace.concat(parts), whole)


@pytest.mark.parametrize("pool", [tiny_pool(), talking()], ids=["alone", "talking"])
def test_an_edge_off_by_a_microsecond_is_found(pool: sg.ClientPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an edge that is the arrival of a request: a share that ends late has it twice, one that begins late never."""
    keywords: dict[str, Any] = {"start": 100, "duration": 2000}
    whole = sg.generate(pool, **keywords)
    workload = sg.stream(pool, **keywords)
    packed = workload.packed
    rows = np.arange(50, len(whole) - 50, 97)
    if "turn" in whole:
        rows = np.concatenate((rows, np.flatnonzero(whole["turn"] > 1)[::97]))
    for row in rows:
        edge = int(whole["arrival_us"][row]) + packed.start_us
        for late in ((0, 0), (1, 0), (0, 1)):
            spans = [(packed.start_us, edge + late[0]), (edge + late[1], packed.end_us)]
            monkeypatch.setattr("servegen_gpu.pipeline.share_us", lambda packed, shard, spans=spans: spans[shard[0]])
            parts = [_share(workload, k) for k in (0, 1)]
            assert same(Trace.concat(parts), whole) == (late == (0, 0))


def _share(workload: Workload, k: int) -> Trace:
    about = workload.provenance | {"shard": f"{k + 1}/2"}
    return replace(workload, shard=(k, 2), provenance=about).joined()


# -- shares as traces --------------------------------------------------------------------------------------------------


def parts_of(n: int = 3, **keywords: Any) -> list[Trace]:
    return [sg.generate(tiny_pool(), duration=900, shard=(k, n), **keywords) for k in range(n)]


def test_slabs_of_one_share_are_joined_as_they_were() -> None:
    (first, second, third) = parts_of()
    assert Trace.concat([second.rows(0, 10), second.rows(10, 20)]).provenance["shard"] == "2/3"
    bare = [Trace(part.columns) for part in (third, first)]  # who knows what they are
    assert len(Trace.concat(bare)) == len(first) + len(third)


def changed(part: Trace, **about: Any) -> Trace:
    return replace(part, provenance=dict(part.provenance) | about)


def picked(*order: int) -> Callable[[], list[Trace]]:
    return lambda: [parts_of()[k] for k in order]


REFUSED: dict[str, tuple[Callable[[], list[Trace]], str]] = {
    "out of order": (picked(1, 0, 2), "shares in order, 1/3 to 3/3, got 1/3 after 2/3; sort"),
    "a missing one": (picked(0, 2), "all 3 shares, got 2, without 2/3; generate --shard 2/3"),
    "the last missing": (picked(0, 1), "all 3 shares, got 2, without 3/3"),
    "a doubled one": (picked(0, 1, 1, 2), "row .* of share 2/3 next, got row 0; join every"),
    "a doubled one later": (picked(0, 1, 0, 2), "shares in order, .* got 1/3 after 2/3"),
    "a slab missing": (
        lambda: [parts_of()[0].rows(5, 10**9), *picked(1, 2)()],
        "row 0 of share 1/3 next, got row 5; join every",
    ),
    "another seed": (lambda: [*picked(0, 1)(), parts_of(seed=7)[2]], "one trace, got seed 0 in part 1 and 7 in part 3"),
    "another number": (lambda: [*picked(0, 1)(), parts_of(4)[2]], "number of shares 3 in part 1 and 4 in part 3"),
    "another workload": (
        lambda: [parts_of()[0], *(changed(part, workload="x") for part in picked(1, 2)())],
        "workload tiny-language in part 1 and x in part 2",
    ),
    "another version": (
        lambda: [changed(part, stream_version=0) for part in parts_of()],
        r"stream version \d+, got 0 in part 1; generate",
    ),
    "none of whom": (
        lambda: [parts_of()[0], Trace(parts_of()[1].columns)],
        "provenance, got none in part 2; .* --shard",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_trace_is_refused(make: Callable[[], list[Trace]], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Trace.concat(make())


def test_shares_are_written_apart_or_joined(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"slabs of shard 1/3, got some of 2/3; .*servegen-gpu join"):
        write_stream(parts_of(), tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


# -- what a warm-up costs ----------------------------------------------------------------------------------------------


def test_a_warm_up_that_costs_more_than_the_trace_is_told() -> None:
    pool = sg.population("deepseek-r1", clients=300)
    (note,) = sg.stream(pool, rate=100, duration="10m").notes
    first = sg.stream(pool, rate=100, duration="10m").packed.conversations
    assert first is not None
    before = first.expected[:-1].sum()
    assert note == (
        f"for later turns in a trace of 60,000 requests, {before:,.0f} conversations are drawn that begin up to 12 h "
        "before it; a shorter --warmup draws fewer and leaves out turns of older ones"
    )
    assert before > 100_000
    assert not sg.stream(pool, rate=100, duration="3h").notes
    (told,) = sg.stream(pool, rate=100, duration="3h", shard="10/10").notes  # a share pays its own
    assert "a trace of 108,000 requests" in told
    (note,) = sg.stream(pool, rate=100, duration="10m", warmup="1h").notes
    assert note == "conversations that began more than 3600 s before the start are left out"
    assert not sg.stream(pool.with_conversations(None), rate=100, duration="10m").notes


class Watching(NumpyBackend):
    """Notes what it samples: stream, begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, int]] = []

    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        self.seen.append((packed.stream, slab.from_us, slab.to_us))
        return super().sample_slab(packed, key, slab)


def test_a_share_samples_its_own_time_and_its_own_warm_up() -> None:
    workload = sg.stream(sg.population("deepseek-r1", clients=50), rate=0.5, duration="4d", shard="8/8")
    watching = Watching()
    list(replace(workload, backend=watching))
    begin_us, end_us = share_us(workload.packed, (7, 8))
    assert end_us - begin_us < workload.packed.end_us / 6
    for stream, from_us in ((ALONE, begin_us), (CONVERSATIONS, begin_us - 43_200 * US)):
        spans = [(begin, end) for number, begin, end in watching.seen if number == stream]
        assert spans[0][0] == from_us
        assert spans[-1][1] == end_us
        assert sum(end - begin for begin, end in spans) == end_us - from_us
