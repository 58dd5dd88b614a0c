"""Turns of conversations by the native backend: bit for bit those of NumPy, in any batches, in order."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native import each_extension, library, native, plain
from profiles import REPOSITORY, TURNS, talking, tiny_pool
from traces import same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.native import library as native_library
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.backends.native.turns import ordered
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.errors import RateError
from servegen_gpu.law.session_ids import LAYOUTS
from servegen_gpu.request.schema import FIELDS, of
from servegen_gpu.request.turn_rows import turn_row

CATEGORIES = tuple(FIELDS)
SPAN: dict[str, Any] = {"rate": [(0, 4.0), (900, 9.0)], "start": 350, "duration": 1900}
LONG = sg.TurnModel(
    0.5, turns=d.Pmf([2, 3, 9], [2, 2, 1]), gap_s=d.LogNormal(median=600, sigma=1.8), session_s=10 * 3600
)
"""Most conversations that begin hours before a trace are over when it begins, a few are not."""


def in_c(name: str) -> list[str]:
    """Fields of a structure of kernels/job.h."""
    text = (REPOSITORY / "kernels" / "job.h").read_text().split(f"struct {name} {{")[1].split("};")[0]
    lines = [line.split("//")[0].strip().rstrip(";") for line in text.splitlines()]
    return [re.split(r"[ *]", field)[-1] for line in lines if line for field in line.split(",")]


def test_structures_have_the_fields_of_c() -> None:
    for name, ours in (("SgSessions", native_library.Sessions), ("SgTurns", native_library.Turns)):
        assert in_c(name) == [field for field, _ in ours._fields_]
        assert ctypes.sizeof(ours) == 8 * len(ours._fields_)
    row = turn_row("reason")
    names = list(row.names or ())
    assert in_c("SgTurnRow") == [*names[:5], "field[SG_NAMESPACE::TURN_FIELDS]"]
    assert row.itemsize == turn_row("language").itemsize == 40
    assert names[5:] == [field.column for field in of("reason").scalars]
    assert [turn_row("language").fields[name] for name in names[:7]] == [row.fields[name] for name in names[:7]]


# -- the same rows as NumPy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dependence", ["independent", "comonotone", "auto"])
@pytest.mark.parametrize("contexts", [(0,), (3000, 0, 900, 1500)], ids=["unlimited", "limited"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_kind_of_client(category: str, contexts: tuple[int, ...], dependence: str) -> None:
    pool = talking(category, contexts=contexts, dependent=True)
    expected = plain(pool, dependence=dependence, **SPAN)
    assert (expected["turn"] > 1).sum() > 2000
    assert same(native(pool, dependence=dependence, **SPAN), expected)


@pytest.mark.parametrize("counts", ["exact", "renewal", "servegen"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_rule_of_counts(category: str, counts: str) -> None:
    pool = talking(category, silent=False)
    assert same(native(pool, counts=counts, **SPAN), plain(pool, counts=counts, **SPAN))


@each_extension
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_vector_extension(category: str, extension: str) -> None:
    pool = talking(category, dependent=True)
    assert same(native(pool, extension, **SPAN), plain(pool, **SPAN))


@pytest.mark.parametrize("warmup", [None, 0, 500, 3000], ids=["default", "0", "500", "3000"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_warmup_of_any_length(category: str, warmup: float | None) -> None:
    pool = talking(category)
    assert same(native(pool, warmup=warmup, **SPAN), plain(pool, warmup=warmup, **SPAN))


@pytest.mark.parametrize("category", ["reason", "multimodal"])
def test_conversations_that_are_over_are_left_out_and_no_others(category: str) -> None:
    pool = tiny_pool(category, 4).with_conversations(LONG)
    keywords: dict[str, Any] = {"rate": 5.0, "start": 40_000, "duration": 300}
    found = native(pool, **keywords)
    begun = found["conversation"][found["turn"] == 1]
    assert (~np.isin(found["conversation"], begun) & (found["conversation"] >= 0)).sum() > 100
    assert same(found, plain(pool, **keywords))


def test_conversations_of_thousands_of_turns() -> None:
    model = sg.TurnModel(0.9, turns=d.Pmf([2, 5000], [9, 1]), gap_s=d.Exponential(mean=0.3), session_s=3000)
    pool = tiny_pool("reason", 2, measured=False).with_conversations(model)
    keywords: dict[str, Any] = {"rate": 20.0, "start": 6000, "duration": 400}
    found = native(pool, **keywords)
    assert found["turn"].max() > 2000
    assert same(found, plain(pool, **keywords))


# -- in any batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
def test_sizes_of_slabs_and_batches_never_show(category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = talking(category, silent=False)
    whole = plain(pool, **SPAN)
    for limit in (64, 1000, 5000):
        monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size, limit=limit: limit)
        monkeypatch.setattr("servegen_gpu.backends.native.backend.TURNS_AT_ONCE", ctypes.c_int64(limit // 10))
        assert same(native(pool, **SPAN), whole)


def test_shares_and_threads_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = talking("language", silent=False)
    whole = plain(pool, **SPAN)
    parts = [native(pool, shard=f"{k}/5", **SPAN) for k in range(1, 6)]
    assert all(map(len, parts))
    assert same(Trace.concat(parts), whole)
    monkeypatch.setenv("SERVEGEN_GPU_THREADS", "7")
    assert same(native(pool, **SPAN), whole)


@pytest.mark.parametrize("category", CATEGORIES)
def test_records_may_wait_in_files(category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spilled = []
    spill = Carry._spill
    monkeypatch.setattr(Carry, "_spill", lambda carry: (spilled.append(1), spill(carry)))
    monkeypatch.setattr("servegen_gpu.conversations.stage.BUCKET_TURNS", 300)
    pool, backend = talking(category), NativeBackend(library())
    workload = replace(sg.stream(pool, backend="numpy", **SPAN), backend=backend, max_requests=700, carry_bytes=9000)
    slabs = [Trace(slab.columns) for slab in workload]
    assert len(spilled) > 3
    assert same(Trace.concat(slabs), plain(pool, **SPAN))


def test_a_slab_with_turns_alone() -> None:
    """Nobody begins anything in the second window; conversations of the first go on in it."""
    pool = tiny_pool("reason", 2, silent=False).with_conversations(TURNS["sorted"])
    keywords: dict[str, Any] = {"rate": [(0, 9.0), (600, 0.0), (1200, 5.0)], "duration": 1800}
    found = native(pool, **keywords)
    between = (found["arrival_us"] >= 600e6) & (found["arrival_us"] < 1200e6)
    assert between.sum() > 100
    assert (found["turn"][between] > 1).all()
    assert same(found, plain(pool, **keywords))


# -- order and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span_us", [1, 50, 10**6, 10**14])
@pytest.mark.parametrize("count", [1, 5000, 100_000])
def test_rows_of_several_parts_come_in_order(count: int, span_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    rows = np.zeros(count, turn_row("reason"))
    rows["arrival_us"] = rng.integers(-span_us, span_us, count)
    rows["conversation"], rows["turn"] = rng.integers(0, 60, count), rng.permutation(count)
    rows["output_tokens"] = np.arange(count)
    expected = rows[np.lexsort((rows["turn"], rows["conversation"], rows["arrival_us"]))]
    parts = np.split(rows, np.sort(rng.integers(0, count, 6)))
    for threads in ("1", "5"):
        monkeypatch.setenv("SERVEGEN_GPU_THREADS", threads)
        assert (ordered(library(), parts) == expected).all()


@pytest.mark.parametrize("start", [0, 30_000 * 600], ids=["early", "late"])
@pytest.mark.parametrize("ids", [(0, 1, 70_000), (5, 2**19, 2**20 + 3)], ids=["first", "large"])
def test_ids_in_every_layout(ids: tuple[int, ...], start: int) -> None:
    pool = tiny_pool("language", 3, ids=ids, measured=False).with_conversations(TURNS["sorted"])
    keywords: dict[str, Any] = {"rate": 60.0, "start": start, "duration": 900}
    found = native(pool, **keywords)
    assert same(found, plain(pool, **keywords))
    session = np.where(found["conversation"] < 0, ~found["conversation"], found["conversation"])
    layouts = np.unique(np.searchsorted([layout.base for layout in LAYOUTS], session, side="right"))
    assert len(layouts) > 1


@pytest.mark.parametrize("share", [0.9, 0.02], ids=["conversations", "alone"])
def test_an_id_without_room_is_said_in_words(share: float) -> None:
    model = replace(TURNS["sorted"], share=share)
    pool = tiny_pool("language", 1, ids=(2**31 - 1,)).with_conversations(model)
    for run in (native, plain):
        with pytest.raises(RateError, match=r"that fit 63 bits, got request \d+ of client 2147483647 in window 5,000"):
            run(pool, rate=0.8, start=5000 * 600, duration=600, warmup=0)
