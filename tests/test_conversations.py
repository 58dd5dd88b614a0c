"""Conversations: an oracle written turn by turn, how inputs grow, and what must not change a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native import native
from profiles import TURNS, talking
from traces import between, gaps_by_turn, moved, same, take

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.backends.host.growth import with_history
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key, Purpose, derive_key, draw
from servegen_gpu.law.tables import find_bin
from servegen_gpu.packing import pack
from servegen_gpu.plan import plan
from servegen_gpu.rates import Rate
from servegen_gpu.request.schema import FIELDS

US = 1_000_000
CATEGORIES = tuple(FIELDS)


# -- the law, turn by turn ---------------------------------------------------------------------------------------------


def words_at(key: Key, purpose: Purpose, client: int, window: int, ordinal: int, turn: int) -> list[int]:
    place = {"ordinal": ordinal, "client": client, "window": window % (1 << 24)}
    return [int(word) for word in draw(np, key, purpose, turn=turn, **place)]


def value_of(word: int, table: int, tables: Any) -> int:
    return int(tables.values[find_bin(np, np.array([word], np.uint32), np.array([table]), tables)[0]])


def oracle(pool: sg.ClientPool, start_s: float, duration_s: float, seed: int) -> list[tuple[int, ...]]:
    """Rows of a trace of language or reasoning clients: sessions of the backend, turns drawn one by one."""
    packed, _ = pack(pool, Rate("own"), start_s=start_s, end_s=start_s + duration_s)
    key = derive_key(seed)
    turns = packed.turns
    assert turns is not None
    rows = []
    for slab in plan(packed, 1 << 20):
        columns = NumpyBackend().sample_slab(packed, key, slab)
        for i, (at_us, client, ordinal) in enumerate(
            zip(columns["arrival_us"].tolist(), columns["client"].tolist(), columns["ordinal"].tolist(), strict=True)
        ):
            window = (at_us + packed.start_us) // packed.window_us
            profile = int(packed.profile[np.flatnonzero(packed.client_id == client)[0]])
            row, model, context = int(packed.row[window - packed.first_window]), int(turns.model[profile]), 0
            context = int(packed.context_tokens[profile])
            drawn = [(at_us, int(columns["input_tokens"][i]), int(columns["output_tokens"][i]))]
            reason = [int(columns["reason_tokens"][i])] if "reason_tokens" in columns else [0]
            count = 1
            if model >= 0:
                word = words_at(key, Purpose.TURN, client, window, ordinal, 0)[0]
                count = value_of(word, model, turns.counts)
            time_us = at_us
            for turn in range(1, count):
                one, two, three, _ = words_at(key, Purpose.TURN, client, window, ordinal, turn)
                gap = value_of(one, model, turns.gaps)
                time_us += int(turns.gap_us[gap]) + (int(turns.gap_width_us[gap]) * two >> 32)
                if time_us - at_us > turns.session_us[model]:
                    break
                words = words_at(key, Purpose.DATA, client, window, ordinal, turn)
                table = packed.table[profile, row]
                values = [value_of(w, int(t), packed.tables) for w, t in zip(words, table, strict=False)]
                if turns.new_table[model] >= 0:
                    values[0] = value_of(three, int(turns.new_table[model]), turns.new)
                if context:
                    values[0] = min(values[0], context - 1)
                    values[1] = min(values[1], max(context - values[0], 1))
                drawn.append((time_us, values[0], values[1]))
                reason.append((2 * values[1] * values[2] + 501) // 1002 if len(values) > 2 else 0)
            if model >= 0 and not turns.history[model]:
                order = sorted(range(len(drawn)), key=lambda k: drawn[k][1])
                drawn = [(drawn[j][0], *drawn[k][1:]) for j, k in enumerate(order)]
                reason = [reason[k] for k in order]
            said = before = 0
            lost = False
            identity = client << 37 | (window % (1 << 16)) << 21 | ordinal
            for turn, ((time_us, tokens, output), thought) in enumerate(zip(drawn, reason, strict=True)):
                whole, new = tokens, tokens - (before if turn else 0)
                if model >= 0 and turns.history[model]:
                    history = before + said
                    if context:
                        history = min(history, context - tokens - output)
                    whole = tokens + history
                    lost |= history < before + said
                    new = whole if lost else tokens
                before, said = whole, output - thought
                rows.append((time_us - turns.warmup_us, identity, turn + 1, client, whole, output, thought, new))
    return sorted(row for row in rows if 0 <= row[0] < duration_s * US)


@pytest.mark.parametrize("category", ["language", "reason"])
def test_every_turn_is_that_of_the_law(category: str) -> None:
    pool = talking(category, windows=9, rate_rps=0.3)
    trace = sg.generate(pool, start=1500, duration=1500, seed=5, backend="numpy")
    expected = oracle(pool, 1500, 1500, 5)
    names = (
        "arrival_us",
        "conversation",
        "turn",
        "client",
        "input_tokens",
        "output_tokens",
        "reason_tokens",
        "new_tokens",
    )
    found = zip(*(trace[n].tolist() if n in trace else [0] * len(trace) for n in names), strict=True)
    assert len(expected) > 500
    assert list(found) == expected
    assert {row[2] for row in expected} >= {1, 2, 3, 4, 5}


def test_items_of_later_turns_are_in_their_inputs() -> None:
    trace = sg.generate(talking("multimodal", contexts=(0,)), duration=3000, seed=2)
    alone = sg.generate(talking("multimodal", contexts=(0,)).with_conversations(None), duration=3000, seed=2)
    assert alone.schema().items() <= trace.schema().items()
    later = (trace["turn"] > 1) & (trace["client"] == 0)
    items = sum(np.add.reduceat(np.append(c.values, 0), c.offsets[:-1]) * (c.lengths > 0) for c in lists_of(trace))
    whole = trace["text_tokens"] + items
    assert later.sum() > 50
    np.testing.assert_array_equal(trace["input_tokens"][later], whole[later])
    assert len(np.unique(trace["image_tokens"].lengths[later])) > 1


def lists_of(trace: Trace) -> list[sg.Ragged]:
    return [trace[f"{m}_tokens"] for m in ("image", "audio", "video")]


# -- growth ------------------------------------------------------------------------------------------------------------


def test_history_grows_and_is_cut_at_the_context() -> None:
    first = np.array([1, 0, 0, 0, 1, 0], bool)
    new, output = np.array([10, 5, 7, 1, 30, 3], np.int32), np.array([20, 30, 10, 4, 60, 10], np.int32)
    context = np.array([80, 80, 80, 80, 0, 0], np.int32)
    whole, fresh = with_history(new, output, output, first, context)
    assert whole.tolist() == [10, 35, 70, 76, 30, 93]
    assert fresh.tolist() == [10, 5, 70, 76, 30, 3]  # the third: 65 tokens of history, of which 63 fit


def test_sorted_inputs_ascend_with_their_own_outputs() -> None:
    pool = talking().with_conversations(TURNS["sorted"])
    trace = sg.generate(pool, start=5000, duration=6000, seed=1)
    order = np.lexsort((trace["turn"], trace["conversation"]))
    rows = {name: trace[name][order] for name in trace}
    inside = np.flatnonzero((np.diff(rows["conversation"]) == 0) & (np.diff(rows["turn"]) == 1))
    rise = np.diff(rows["input_tokens"])[inside]
    assert len(inside) > 500
    assert (rise >= 0).all()
    np.testing.assert_array_equal(rows["new_tokens"][inside + 1], rise)
    assert (
        rows["input_tokens"] + rows["output_tokens"] <= np.array([3000, 2**31, 900, 1500, 3000])[rows["client"]]
    ).all()
    alone = rows["turn"] == 1
    np.testing.assert_array_equal(rows["new_tokens"][alone], rows["input_tokens"][alone])


# -- what must not change a trace --------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
def test_backends_slabs_and_shards_give_the_same_trace(category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servegen_gpu.plan.SLICE_REQUESTS", 700)
    pool, keywords = talking(category, silent=False), {"rate": [(0, 4.0), (900, 9.0)], "start": 350, "duration": 2900}
    whole = sg.generate(pool, backend="numpy", **keywords)
    assert same(native(pool, **keywords), whole)
    for limit in (64, 1000, 5000):
        monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size, limit=limit: limit)
        slabs = list(sg.stream(pool, backend="numpy", **keywords))
        assert same(Trace.concat(slabs), whole)
        assert [slab.first_row for slab in slabs] == np.cumsum([0] + [len(slab) for slab in slabs[:-1]]).tolist()
    parts = [sg.generate(pool, backend="numpy", shard=f"{k}/8", **keywords) for k in range(1, 9)]
    assert all(map(len, parts))
    rows = Trace.concat(parts)
    assert same(take(rows, np.lexsort((rows["turn"], rows["conversation"], rows["arrival_us"]))), whole)


@pytest.mark.parametrize("category", CATEGORIES)
def test_jax_gives_the_same_trace(category: str) -> None:
    pytest.importorskip("jax", reason='JAX is not installed: pip install "servegen-gpu[jax]"')
    pool, keywords = talking(category), {"rate": 2.0, "start": 350, "duration": 1200, "warmup": 600}
    assert same(sg.generate(pool, backend="jax", **keywords), sg.generate(pool, backend="numpy", **keywords))


RATES: dict[str, dict[str, Any]] = {
    "own": {},
    "constant": {"rate": 2.0},
    "scaled": {"scale": 1.5},
    "schedule": {"rate": [(1200, 1.0), (2900, 4.0), (3500, 0.0), (4300, 1.0)]},
    "linear": {"rate": sg.Schedule([1200, 2900, 9000], [1.0, 3.0, 0.5], "linear")},
    "function": {"rate": lambda t: 2 + 1.5 * np.sin(np.sqrt(t) / 20)},  # has no value before 0
}


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_part_is_a_slice_and_a_prefix_a_prefix(category: str, rate: dict[str, Any]) -> None:
    pool = talking(category)
    whole = sg.generate(pool, start=1200, duration=4200, **rate)
    part = sg.generate(pool, start=1977.123456, duration=2100.5, **rate)
    begin = round(777.123456 * US)
    assert len(part) > 500
    assert same(part, moved(between(whole, begin, begin + round(2100.5 * US)), -begin))
    assert (part["turn"][np.searchsorted(part["arrival_us"], 100 * US) :] > 1).any()


def test_conversations_from_before_the_start_go_on() -> None:
    pool = talking()
    trace = sg.generate(pool, duration=600)  # at the begin of the data, whose days repeat backwards
    begun_here = np.isin(trace["conversation"], trace["conversation"][trace["turn"] == 1])
    assert (~begun_here).sum() > 20
    cold = sg.generate(pool, duration=600, warmup=0)
    assert cold.provenance["rules"]["warmup_s"] == 0
    assert np.isin(cold["conversation"], cold["conversation"][cold["turn"] == 1]).all()
    assert same(cold, Trace({name: column[begun_here] for name, column in trace.columns.items()}))
    assert any("left out" in note for note in sg.stream(pool, duration=600, warmup=0).notes)
    assert not sg.stream(pool, duration=600).notes


def test_first_turns_are_the_requests_of_a_pool_without_conversations() -> None:
    pool = talking("language", measured=False)
    pool = pool.with_conversations(TURNS["history"])
    talks = sg.generate(pool, duration=1800, warmup=0, seed=3)
    first = talks["turn"] == 1
    silent = sg.generate(pool.with_conversations(None), duration=1800, scale=1 / TURNS["history"].mean_turns, seed=3)
    assert len(silent) == first.sum() > 300
    for name in silent:
        np.testing.assert_array_equal(talks[name][first], silent[name])


def test_inter_turn_times_stay_when_rates_change() -> None:
    """A8: the same conversations, with the same inter-turn times, at any rate."""
    pool = talking(measured=False, silent=False)
    slow, fast = (sg.generate(pool, duration=3000, scale=scale, seed=4, warmup=0) for scale in (1, 3))
    times = [gaps_by_turn(trace) for trace in (slow, fast)]
    common = times[0].keys() & times[1].keys()
    assert len(common) > 300
    assert all(times[0][key] == times[1][key] for key in common)


def test_naive_rescaling_of_a_pool_squeezes_its_conversations() -> None:
    pool = talking(measured=False, silent=False).with_conversations(TURNS["sorted"])
    keywords: dict[str, Any] = {"duration": 3000, "seed": 4, "warmup": 0}
    naive, itt = (sg.generate(pool.rescaled(4, method), **keywords) for method in ("naive", "itt"))
    slow = sg.generate(pool, **keywords)
    times = [gaps_by_turn(trace) for trace in (slow, itt, naive)]
    common = times[0].keys() & times[1].keys() & times[2].keys()
    assert len(common) > 100
    ratios = np.array([times[0][key] / max(times[2][key], 1) for key in common])
    assert np.median(ratios) == pytest.approx(4, rel=0.02)
    assert all(times[0][key] == times[1][key] for key in common)
    assert same(itt, sg.generate(pool, scale=4, **keywords))
    assert len(naive) == pytest.approx(4 * len(slow), rel=0.15)
    with pytest.raises(OptionError, match="itt or naive"):
        pool.rescaled(2, "other")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="factor"):
        pool.rescaled(0)
