"""Turns that wait for their time, in memory and in files, and how they come out again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native import library
from profiles import talking
from traces import between, moved, same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.backends.host.turns import all_turns, course_of, starts_of
from servegen_gpu.backends.native.backend import NativeBackend
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.conversations.stage import CARRY_SHARE, bytes_per_request, merged
from servegen_gpu.errors import OutputError
from servegen_gpu.law.address import derive_key
from servegen_gpu.plan import plan
from servegen_gpu.request.schema import FIELDS

US = 1_000_000
CATEGORIES = tuple(FIELDS)
KEY = derive_key(0)


@pytest.mark.parametrize("compiled", [False, True], ids=["columns", "records"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_turns_that_wait_in_files_are_the_same(
    category: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool, keywords = talking(category), {"rate": 10.0, "duration": 2400}
    whole = sg.generate(pool, **keywords)
    spilled: list[int] = []
    spill = Carry._spill
    monkeypatch.setattr(Carry, "_spill", lambda carry: (spilled.append(1), spill(carry)))
    monkeypatch.setattr("servegen_gpu.conversations.stage.BUCKET_TURNS", 300)
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: 500)
    backend = NativeBackend(library()) if compiled else NumpyBackend()
    workload = replace(sg.stream(pool, **keywords), backend=backend)
    found = Trace.concat(list(replace(workload, carry_bytes=20_000)))
    assert same(found, whole)
    assert len(spilled) >= 5
    unfinished = iter(replace(workload, carry_bytes=0))
    next(unfinished)
    assert list(tmp_path.iterdir())
    unfinished.close()
    assert not list(tmp_path.iterdir())


def test_what_is_due_arrives_before_the_time() -> None:
    """In the middle of a bucket, where it begins, and where it ends."""
    columns = {name: np.arange(40) for name in ("arrival_us", "conversation", "turn")}
    for at in (7, 10, 20, 39):
        with Carry(10, 10**6) as carry:
            carry.add(dict(columns))
            early, late = carry.due(at), carry.due(None)
        assert early is not None
        assert late is not None
        assert (early["arrival_us"][-1], late["arrival_us"][0]) == (at - 1, at)


def test_files_of_later_times_are_not_read_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    columns = {name: np.arange(40) for name in ("arrival_us", "conversation", "turn")}
    with Carry(10, 0) as carry:
        carry.add(columns)
        for at, left in ((5, 3), (12, 2), (20, 1), (35, 0)):
            assert carry.due(at) is not None
            assert len(list(tmp_path.rglob("*.bin"))) == left


def test_memory_is_counted_with_turns_among_the_requests_and_turns_that_wait() -> None:
    backend = NumpyBackend()
    alone = backend.bytes_per_request("language")
    assert alone + 96 <= bytes_per_request(backend, "language") * (CARRY_SHARE - 1) / CARRY_SHARE < alone + 200


def test_a_full_disk_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("servegen_gpu.conversations.carry.np.save", full)
    workload = replace(sg.stream(talking(), rate=10.0, duration=2400), carry_bytes=0)
    with pytest.raises(OutputError, match=r"No space left on device: .*TMPDIR"):
        list(workload)
    assert not list(tmp_path.iterdir())


def test_rows_come_out_of_the_carry_in_order() -> None:
    rng = np.random.default_rng(0)
    with Carry(1000, 3000) as carry:
        rows = []
        for now in range(0, 20_000, 700):
            n = int(rng.integers(0, 60))
            new = np.stack((now + rng.integers(0, 9000, n), rng.integers(0, 40, n), rng.integers(1, 5, n)))
            rows.append(new)
            carry.add(dict(zip(("arrival_us", "conversation", "turn"), new, strict=True)))
            due = carry.due(now + 700)
            out = np.stack([due[name] for name in due]) if due else np.empty((3, 0), np.int64)
            have = np.concatenate(rows, axis=1)
            expected = have[:, have[0] < now + 700]
            expected = expected[:, np.lexsort(expected[::-1])]
            np.testing.assert_array_equal(out, expected)
            rows = [have[:, have[0] >= now + 700]]


def test_a_trace_may_begin_with_a_later_turn() -> None:
    pool = talking()
    whole = sg.generate(pool, duration=1200, seed=2)
    for row in np.flatnonzero(whole["turn"] > 1)[:3]:
        start_us = int(whole["arrival_us"][row])
        late = sg.generate(pool, start=start_us / US, duration=1200 - start_us / US, seed=2)
        assert late["arrival_us"][0] == 0
        assert same(late, moved(between(whole, start_us, 1200 * US), -start_us))


def test_a_conversation_may_take_all_of_its_time() -> None:
    packed = sg.stream(talking(), duration=1200, warmup=0).packed.conversations
    assert packed is not None
    assert packed.turns is not None
    (slab,) = plan(packed, 1 << 20)
    starts, turns = starts_of(packed, NumpyBackend().sample_slab(packed, KEY, slab)), packed.turns

    def drawn(conversation: int, session_us: int = 2**62) -> np.ndarray:
        """When the turns of a conversation arrive, if it may last so long."""
        limited = replace(packed, turns=replace(turns, session_us=np.full(len(turns.session_us), session_us)))
        course = course_of(limited, KEY, starts.take(np.array([conversation])), 0)
        return np.asarray(all_turns(limited, KEY, course)["arrival_us"])

    for conversation in range(20):
        at_us = drawn(conversation)
        longest_us = int(at_us[-1] - at_us[0])
        assert len(at_us) > 1
        np.testing.assert_array_equal(drawn(conversation, longest_us), at_us)
        np.testing.assert_array_equal(drawn(conversation, longest_us - 1), at_us[:-1])


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_of_equal_arrivals_requests_alone_come_first(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servegen_gpu.blocks.BLOCK", block)
    rng = np.random.default_rng(1)
    names = ("arrival_us", "conversation", "turn")
    for _ in range(30):
        alone, turns = (np.stack((rng.integers(0, 25, n), rng.integers(0, 10**6, n), rng.integers(1, 5, n)))
                        for n in rng.integers(0, 200, 2))  # fmt: skip
        alone, turns = alone[:, np.argsort(alone[0], kind="stable")], turns[:, np.lexsort(turns[::-1])]
        both = np.concatenate((alone, turns), axis=1)
        expected = both[:, np.argsort(both[0], kind="stable")]
        found = merged(*(dict(zip(names, part, strict=True)) for part in (alone, turns)))
        np.testing.assert_array_equal(np.stack(list(found.values())), expected)


def test_turns_arrive_in_the_silence_after_the_last_request() -> None:
    pool, keywords = talking("language"), {"rate": [(0, 5.0), (600, 0.0)], "duration": 1800, "empty": "skip"}
    trace = sg.generate(pool, **keywords)
    assert (trace["arrival_us"][trace["turn"] == 1] < 600 * US).all()
    assert (trace["arrival_us"] >= 600 * US).sum() > 200
    for backend in ("numpy", "native"):
        slabs = list(replace(sg.stream(pool, backend=backend, **keywords), max_requests=300))
        assert same(Trace.concat(slabs), trace)
