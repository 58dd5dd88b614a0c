"""Turns that wait for their time, in memory and in files, and how they come out again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import talking
from servegen_gpu.conversations.draw import all_turns, find_talks, talks_at
from traces import between, moved, same

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.conversations.stage import _from_start, merged
from servegen_gpu.errors import OutputError
from servegen_gpu.law.address import derive_key
from servegen_gpu.plan import plan
from servegen_gpu.request.columns import concat, rows_between
from servegen_gpu.request.schema import FIELDS

US = 1_000_000
CATEGORIES = tuple(FIELDS)
KEY = derive_key(0)


@pytest.mark.parametrize("category", CATEGORIES)
def test_turns_that_wait_in_files_are_the_same(category: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool, keywords = talking(category), {"rate": 10.0, "duration": 2400}
    whole = sg.generate(pool, **keywords)
    spilled: list[int] = []
    spill = Carry._spill
    monkeypatch.setattr(Carry, "_spill", lambda carry: (spilled.append(1), spill(carry)))
    monkeypatch.setattr("servegen_gpu.conversations.stage.BUCKET_TURNS", 300)
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: 500)
    found = Trace.concat(list(replace(sg.stream(pool, **keywords), carry_bytes=20_000)))
    assert same(found, whole)
    assert len(spilled) >= 5
    unfinished = iter(replace(sg.stream(pool, **keywords), carry_bytes=0))
    next(unfinished)
    assert list(tmp_path.iterdir())
    unfinished.close()
    assert not list(tmp_path.iterdir())


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


def test_a_session_may_take_all_of_its_time() -> None:
    packed = sg.stream(talking(), duration=1200, warmup=0).packed
    assert packed.turns is not None
    (slab,) = plan(packed, 1 << 20)
    sessions = NumpyBackend().sample_slab(packed, KEY, slab)
    talks = talks_at(packed, sessions, np.flatnonzero(find_talks(packed, KEY, sessions))[:1])
    turns = packed.turns

    def drawn(session_us: int) -> int:
        limits = np.full(len(turns.session_us), session_us)
        return len(all_turns(replace(packed, turns=replace(turns, session_us=limits)), KEY, talks)["turn"])

    at_us = np.asarray(all_turns(packed, KEY, talks)["arrival_us"])
    longest_us = int(at_us[-1] - at_us[0])
    assert drawn(longest_us) == len(at_us)
    assert drawn(longest_us - 1) == len(at_us) - 1


def test_a_turn_and_the_first_session_of_a_slab_at_once() -> None:
    packed = sg.stream(talking(), duration=1200, warmup=0).packed
    (slab,) = plan(packed, 1 << 20)
    sessions = NumpyBackend().sample_slab(packed, KEY, slab)
    talks = talks_at(packed, sessions, np.flatnonzero(find_talks(packed, KEY, sessions))[:1])
    turn = rows_between(all_turns(packed, KEY, talks), 1, 2)
    at_once = {"arrival_us": np.asarray(sessions["arrival_us"])[:1], "conversation": np.array([2**62])}
    with Carry(US, 1 << 20) as carry:
        carry.add({**turn, **at_once})
        rows = concat(list(_from_start(packed, KEY, [sessions], carry)))
    order = np.lexsort((rows["turn"], rows["conversation"], rows["arrival_us"]))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert 2**62 in rows["conversation"]


def test_merging_breaks_ties_by_conversation() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        parts = []
        for n in rng.integers(0, 200, 2):
            rows = np.stack((rng.integers(0, 25, n), rng.integers(0, 10**6, n), np.ones(n, np.int64)))
            parts.append(rows[:, np.lexsort(rows[::-1])])
        both = np.concatenate(parts, axis=1)
        alone, turns = (dict(zip(("arrival_us", "conversation", "turn"), part, strict=True)) for part in parts)
        found = merged(alone, np.arange(parts[0].shape[1]), turns)
        np.testing.assert_array_equal(np.stack(list(found.values())), both[:, np.lexsort(both[::-1])])
