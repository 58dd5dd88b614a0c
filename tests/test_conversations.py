"""Conversations: an oracle written turn by turn, what must not change a trace, how turns wait, published figures."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from native import native
from profiles import TURNS, tiny_pool
from scipy import stats
from traces import between, moved, same, take

import servegen_gpu as sg
from servegen_gpu import Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.backends.reference import NumpyBackend
from servegen_gpu.clients.describe import describe_pool, format_description
from servegen_gpu.clients.pool import FIELDS
from servegen_gpu.clients.turns_toml import turn_model
from servegen_gpu.columns import concat, rows_between
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.conversations.draw import all_turns, find_talks, talks_at
from servegen_gpu.conversations.packed import conversation_id
from servegen_gpu.conversations.stage import _from_start, merged
from servegen_gpu.errors import OptionError, OutputError, ProfileError, RateError
from servegen_gpu.law.address import Purpose, draw
from servegen_gpu.law.growth import with_history
from servegen_gpu.law.tables import find_bin
from servegen_gpu.packing import PackedWorkload, pack
from servegen_gpu.plan import plan
from servegen_gpu.rates import Rate

US = 1_000_000
CATEGORIES = tuple(FIELDS)


def talking(category: str = "reason", **keywords: Any) -> sg.ClientPool:
    """Clients of all three models, and one whose requests stand alone."""
    pool = tiny_pool(category, 5, contexts=keywords.pop("contexts", (3000, 0, 900, 1500)), **keywords)
    return replace(pool, turn_models=tuple(TURNS.values()), turn_model=np.array([0, 1, 2, -1, 0], np.int32))


# -- the law, turn by turn ---------------------------------------------------------------------------------------------


def words_at(packed: PackedWorkload, purpose: Purpose, client: int, window: int, ordinal: int, turn: int) -> list[int]:
    place = {"ordinal": ordinal, "client": client, "window": window % (1 << 24)}
    return [int(word) for word in draw(np, packed.key, purpose, turn=turn, **place)]


def value_of(word: int, table: int, tables: Any) -> int:
    return int(tables.values[find_bin(np, np.array([word], np.uint32), np.array([table]), tables)[0]])


def oracle(pool: sg.ClientPool, start_s: float, duration_s: float, seed: int) -> list[tuple[int, ...]]:
    """Rows of a trace of language or reasoning clients: sessions of the backend, turns drawn one by one."""
    packed, _ = pack(pool, Rate("own"), start_s=start_s, end_s=start_s + duration_s, seed=seed)
    turns = packed.turns
    assert turns is not None
    rows = []
    for slab in plan(packed, 1 << 20):
        columns = NumpyBackend().sample_slab(packed, slab)
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
                word = words_at(packed, Purpose.TURN, client, window, ordinal, 0)[0]
                count = value_of(word, model, turns.counts)
            time_us = at_us
            for turn in range(1, count):
                one, two, three, _ = words_at(packed, Purpose.TURN, client, window, ordinal, turn)
                gap = value_of(one, model, turns.gaps)
                time_us += int(turns.gap_us[gap]) + (int(turns.gap_width_us[gap]) * two >> 32)
                if time_us - at_us > turns.session_us[model]:
                    break
                words = words_at(packed, Purpose.DATA, client, window, ordinal, turn)
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
    pytest.importorskip("jax")
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


def gaps_by_turn(trace: Trace) -> dict[tuple[int, int], int]:
    order = np.lexsort((trace["turn"], trace["conversation"]))
    conversation, turn, at = (trace[name][order] for name in ("conversation", "turn", "arrival_us"))
    inside = np.flatnonzero((np.diff(conversation) == 0) & (np.diff(turn) == 1)) + 1
    gaps = at[inside] - at[inside - 1]
    return dict(zip(zip(conversation[inside].tolist(), turn[inside].tolist(), strict=True), gaps.tolist(), strict=True))


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


# -- how turns wait ----------------------------------------------------------------------------------------------------


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
    sessions = NumpyBackend().sample_slab(packed, slab)
    talks = talks_at(packed, sessions, np.flatnonzero(find_talks(packed, sessions))[:1])
    turns = packed.turns

    def drawn(session_us: int) -> int:
        limits = np.full(len(turns.session_us), session_us)
        return len(all_turns(replace(packed, turns=replace(turns, session_us=limits)), talks)["turn"])

    at_us = np.asarray(all_turns(packed, talks)["arrival_us"])
    longest_us = int(at_us[-1] - at_us[0])
    assert drawn(longest_us) == len(at_us)
    assert drawn(longest_us - 1) == len(at_us) - 1


def test_a_turn_and_the_first_session_of_a_slab_at_once() -> None:
    packed = sg.stream(talking(), duration=1200, warmup=0).packed
    (slab,) = plan(packed, 1 << 20)
    sessions = NumpyBackend().sample_slab(packed, slab)
    talks = talks_at(packed, sessions, np.flatnonzero(find_talks(packed, sessions))[:1])
    turn = rows_between(all_turns(packed, talks), 1, 2)
    at_once = {"arrival_us": np.asarray(sessions["arrival_us"])[:1], "conversation": np.array([2**62])}
    with Carry(US, 1 << 20) as carry:
        carry.add({**turn, **at_once})
        rows = concat(list(_from_start(packed, [sessions], carry)))
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


# -- figures (A8) ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day() -> Trace:
    """A day of deepseek-r1, a tenth of its clients, with all conversations that begin in it."""
    pool = sg.population("deepseek-r1", clients=2500)
    return sg.generate(pool, duration="36h", warmup=0, seed=1)


def sessions_of_a_day(day: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Turns of every session that begins in 24 hours, and all inter-turn times, which have twelve hours to end."""
    begun = day["conversation"][(day["turn"] == 1) & (day["arrival_us"] < 86_400 * US)]
    known = np.isin(day["conversation"], begun)
    order = np.lexsort((day["turn"][known], day["conversation"][known]))
    conversation, at = day["conversation"][known][order], day["arrival_us"][known][order]
    turns = np.unique(conversation, return_counts=True)[1]
    return turns, np.diff(at)[np.diff(conversation) == 0]


def test_shares_and_turns_are_as_published(day: Trace) -> None:
    turns, _ = sessions_of_a_day(day)
    several = turns[turns > 1]
    assert several.sum() / turns.sum() == pytest.approx(0.096, abs=0.004)
    assert several.mean() == pytest.approx(3.5, abs=0.15)  # twelve hours cut a few
    # cut to twelve hours, as the paper's own counts are (188,986 / 57,205 = 3.30): fewer
    cut = day["conversation"][(day["arrival_us"] >= 43_200 * US) & (day["arrival_us"] < 86_400 * US)]
    seen = np.unique(cut, return_counts=True)[1]
    assert 3.1 < seen[seen > 1].mean() < several.mean() - 0.05


def test_numbers_of_turns_and_times_have_their_distributions(day: Trace) -> None:
    model = turn_model("deepseek-r1")
    generous = replace(model, session_s=14 * 86_400)
    pool = sg.pool([sg.client(rate=2.0, input_tokens=100, output_tokens=50)]).with_conversations(generous)
    trace = sg.generate(pool, duration="3d", warmup=0, seed=9)
    begun = trace["conversation"][(trace["turn"] == 1) & (trace["arrival_us"] < 20_000 * US)]  # all of theirs is inside
    known = np.isin(trace["conversation"], begun)
    order = np.lexsort((trace["turn"][known], trace["conversation"][known]))
    conversation, at = trace["conversation"][known][order], trace["arrival_us"][known][order]
    turns = np.unique(conversation, return_counts=True)[1]
    values, share = model.tables.count.table(0)
    seen = np.array([(turns == value).sum() for value in values])
    assert np.isin(turns, values).all()

    def of_turns(weights: np.ndarray) -> float:
        return float(stats.chisquare(seen, weights / weights.sum() * len(turns)).pvalue)

    check(of_turns(share), "turns of a session")
    assert not passes(of_turns(np.roll(share, 1))), "a shift by one bin is found"

    gaps_s = np.diff(at)[np.diff(conversation) == 0] / US
    uniform = model.gap_s.cut_at_most(gaps_s * 1e6, 1_000_000)
    assert len(gaps_s) > 2000
    check(float(stats.kstest(uniform, "uniform").pvalue), "inter-turn times")
    longer = model.gap_s.cut_at_most(gaps_s * 1.15e6, 1_000_000)
    assert not passes(float(stats.kstest(longer, "uniform").pvalue)), "times 15 % longer are found"
    short = gaps_s[gaps_s < np.quantile(gaps_s, 0.75)]  # where the paper's plot is cut
    density, edges = np.histogram(short, bins=np.arange(0, short.max(), 25))
    assert 50 <= edges[density.argmax()] <= 125  # around 100 s
    assert gaps_s.max() > 20 * np.median(gaps_s)  # extremely long tail


def test_all_requests_may_be_in_conversations() -> None:
    pool = talking("language").with_conversations(replace(TURNS["new"], share=1.0))
    keywords: dict[str, Any] = {"duration": 2000, "warmup": 0}
    trace = sg.generate(pool, backend="numpy", **keywords)
    assert same(native(pool, **keywords), trace)
    begun = trace["conversation"][trace["arrival_us"] < 1100 * US]  # a second turn comes within 300 s
    turns = np.unique(trace["conversation"][np.isin(trace["conversation"], begun)], return_counts=True)[1]
    assert len(turns) > 50
    assert turns.min() > 1


def test_a_peak_is_that_of_the_trace() -> None:
    pool = talking("language", silent=False)
    keywords: dict[str, Any] = {"start": 20 * 600, "duration": 1200, "peak": 0.3}  # when it ebbs
    packed, alone = (sg.stream(pool, warmup=warmup, **keywords).packed for warmup in (None, 0))
    assert len(packed.window_scale) > len(alone.window_scale) == 2
    np.testing.assert_allclose(packed.window_scale, alone.window_scale[0])


def test_rates_are_those_of_requests() -> None:
    pool = talking("language", silent=False).with_conversations(TURNS["sorted"])
    trace = sg.generate(pool, rate=5.0, duration="4h", start=600, seed=2)
    per_window = np.histogram(trace["arrival_us"], np.arange(0, 14_401, 1200) * US)[0]
    assert len(trace) / 14_400 == pytest.approx(5.0, rel=0.02)
    assert per_window / 1200 == pytest.approx(5.0, rel=0.12)
    assert sg.stream(pool, rate=5.0, duration="4h", start=600).expected_requests == pytest.approx(72_000)


@pytest.mark.parametrize("session_s", [60.0, 600.0, 30_000.0])
def test_mean_turns_within_a_session_is_what_is_drawn(session_s: float) -> None:
    model = TurnModel(0.7, d.Pmf([2, 4, 9], [2, 2, 1]), d.LogNormal(median=50, sigma=1), session_s=session_s)
    pool = sg.pool([sg.client(rate=5.0, input_tokens=9, output_tokens=9)]).with_conversations(model)
    trace = sg.generate(pool, duration="10h", warmup=0, seed=3)
    begun = trace["conversation"][(trace["turn"] == 1) & (trace["arrival_us"] < (36_000 - session_s) * US)]
    turns = np.unique(trace["conversation"][np.isin(trace["conversation"], begun)], return_counts=True)[1]
    error = turns.std() / np.sqrt(len(turns))
    assert abs(turns.mean() - model.mean_turns) < 4 * error + 0.003  # times are followed on a grid
    assert error < 0.04


# -- pools and files ---------------------------------------------------------------------------------------------------


def test_ids_of_conversations_have_room_for_their_parts() -> None:
    client, window = np.array([2**26 - 1]), np.array([-1])
    assert conversation_id(client, window, np.array([2**21 - 1], np.uint32)).tolist() == [2**63 - 1]
    with pytest.raises(RateError, match="2,097,153"):
        conversation_id(client, window, np.array([2**21], np.uint32))


def test_pools_keep_their_conversations() -> None:
    pool = talking()
    both = sg.join([pool, pool.with_conversations(None), pool.with_conversations(TURNS["new"])])
    assert both.turn_model.tolist() == [0, 1, 2, -1, 0] + [-1] * 5 + [3] * 5
    assert pool.select([1, 3]).turn_model is pool.turn_model
    digests = {p.digest() for p in (pool, pool.with_conversations(None), *map(pool.with_conversations, TURNS.values()))}
    assert len(digests) == 5
    assert sg.population("deepseek-r1", clients=10).turn_models
    assert not sg.population("m-large", clients=10).turn_models


def test_provenance_names_the_models() -> None:
    found = sg.generate(talking(), duration=60).provenance["conversations"]
    assert [model["share"] for model in found] == [0.4, 0.6, 0.5]
    assert found[0]["turns"] == {"kind": "pmf", "values": [2.0, 3.0, 7.0], "weights": [3.0, 2.0, 1.0]}
    assert found[2]["new_tokens"]["kind"] == "lognormal"
    assert "conversations" not in sg.generate(talking().with_conversations(None), duration=60).provenance


def test_packed_workloads_keep_their_conversations(tmp_path: Any) -> None:
    workload = sg.stream(talking(), duration=900)
    workload.packed.save(tmp_path / "packed.bin")
    again = replace(workload, packed=PackedWorkload.load(tmp_path / "packed.bin"))
    assert same(again.joined(), workload.joined())


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_files_keep_conversations(category: str, suffix: str, tmp_path: Path) -> None:
    trace = sg.generate(talking(category), duration=900)
    trace.write(tmp_path / f"trace{suffix}")
    assert same(sg.read_trace(tmp_path / f"trace{suffix}"), trace)


def test_ids_take_three_bytes_in_a_file(tmp_path: Path) -> None:
    trace = sg.generate(sg.population("deepseek-r1", clients=2000), duration="2h", warmup=0)
    ids = Trace({name: trace[name] for name in ("arrival_us", "conversation")})
    ids.write(tmp_path / "ids.parquet")
    arrivals = Trace({"arrival_us": trace["arrival_us"]})
    arrivals.write(tmp_path / "arrivals.parquet")
    more = (tmp_path / "ids.parquet").stat().st_size - (tmp_path / "arrivals.parquet").stat().st_size
    assert more / len(trace) < 3.5


def test_a_preset_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, keywords = sg.population("deepseek-r1", clients=300), {"rate": 15, "duration": "10m", "warmup": "20m"}
    whole = sg.generate(pool, backend="numpy", **keywords)
    assert (whole["turn"] > 1).sum() > 300
    assert same(native(pool, **keywords), whole)
    if importlib.util.find_spec("jax"):
        assert same(sg.generate(pool, backend="jax", **keywords), whole)
    parts = Trace.concat([native(pool, shard=f"{k}/8", **keywords) for k in range(1, 9)])
    assert same(take(parts, np.lexsort((parts["turn"], parts["conversation"], parts["arrival_us"]))), whole)
    for limit in (2_000, 9_000, 100_000):
        monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size, limit=limit: limit)
        assert same(native(pool, **keywords), whole)


@pytest.mark.parametrize("name", ["sorted", "new"])
def test_models_are_fitted_to_traces(name: str) -> None:
    model = TURNS[name]
    pool = sg.pool([sg.client(rate=4.0, input_tokens=d.LogNormal(median=200, sigma=1), output_tokens=50)])
    trace = sg.generate(pool.with_conversations(model), duration="3h", seed=6)
    fitted = sg.fit_turns(trace, session_s=model.session_s, growth=model.growth)
    assert fitted.share == pytest.approx(model.share, abs=0.03)
    assert fitted.mean_turns == pytest.approx(model.mean_turns, rel=0.03)
    again = sg.generate(pool.with_conversations(fitted), duration="3h", seed=7)
    gaps = [np.array(list(gaps_by_turn(t).values())) for t in (trace, again)]
    check(float(stats.ks_2samp(*gaps).pvalue), "fitted inter-turn times")
    new = [t["new_tokens"][t["turn"] > 1] for t in (trace, again)]
    check(float(stats.ks_2samp(*new).pvalue), "new tokens of a fitted model")


def test_there_must_be_something_to_fit() -> None:
    pool = talking().with_conversations(TURNS["new"])
    trace = sg.generate(pool, duration=300)
    with pytest.raises(OptionError, match="lower session_s"):
        sg.fit_turns(trace)
    for session_s in (-1, float("nan"), "1h"):
        with pytest.raises(OptionError, match="session_s as a number"):
            sg.fit_turns(trace, session_s=session_s)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'conversation'"):
        sg.fit_turns(sg.generate(pool.with_conversations(None), duration=300))


def test_figures_of_a_pool_name_its_conversations() -> None:
    figures = describe_pool(sg.population("deepseek-r1", clients=50))
    (found,) = figures["conversations"]
    assert (found["clients"], found["share"], found["growth"]) == (50, 0.096, "sorted")
    assert found["mean_turns"] == pytest.approx(3.5, abs=0.1)
    assert "conversations of 3.48 turns" in format_description(figures)
    assert describe_pool(tiny_pool())["conversations"] == []


TOML = """
[turns]
share = 0.3
turns = { kind = "pmf", values = [2, 3], weights = [1, 1] }
gap_s = 60
growth = "history"
new_tokens = { kind = "exponential", mean = 50 }
session = "1h"
"""


def test_models_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "turns.toml"
    path.write_text(TOML)
    model = turn_model(path)
    assert (model.share, model.growth, model.session_s) == (0.3, "history", 3600)
    assert model.mean_turns == pytest.approx(1 / (1 - 0.3 + 0.3 / 2.5), rel=1e-6)
    assert turn_model(str(path)).digest() == model.digest()


FAULTS = {
    "an unknown key": (("share", "shares"), "did you mean 'share'"),
    "a share above one": (("0.3", "1.3"), "share from 0 to 1.*line 3"),
    "one turn": (("[2, 3]", "[1, 3]"), "2 turns or more.*line 4"),
    "too many turns": (("[2, 3]", "[2, 3000]"), "1,023.*line 4"),
    "a negative gap": (("= 60", "= -60"), "line 5"),
    "an unknown growth": (('"history"', '"wild"'), "sorted, history"),
    "new tokens of sorted inputs": (('"history"', '"sorted"'), "growth='history'"),
    "a session of a month": (('"1h"', '"31d"'), "session"),
    "no session": (('"1h"', "0"), "session"),
    "no section": (("[turns]", "[talks]"), r"section \[turns\]"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_of_a_file_are_named(change: tuple[str, str], message: str, tmp_path: Any) -> None:
    path = tmp_path / "turns.toml"
    path.write_text(TOML.replace(*change))
    with pytest.raises(ProfileError, match=message):
        tiny_pool().with_conversations(path)


def images(new: d.Distribution) -> sg.ClientPool:
    """Clients that say little beside large images."""
    client = sg.client(rate=1, text_tokens=10, image_count=2, image_tokens=2**29, output_tokens=5)
    model = TurnModel(0.9, d.Constant(5), d.Constant(5), growth="history", new_tokens=new, session_s=600)
    return sg.pool([client]).with_conversations(model)


def test_the_largest_inputs_are_tokens_still() -> None:
    trace = sg.generate(images(d.Constant(2**30 - 1)), duration="10m")
    assert (trace["input_tokens"] > 2**30).all()
    assert trace["input_tokens"].max() == 2**31 - 1


REFUSED = {
    "an unknown workload": (lambda: tiny_pool().with_conversations("m-large"), OptionError, "deepseek-r1"),
    "a number": (lambda: tiny_pool().with_conversations(3), OptionError, "TurnModel"),  # type: ignore[arg-type]
    "no distribution": (lambda: TurnModel(0.1, 3, d.Constant(1)), OptionError, "turns as a distribution"),  # type: ignore[arg-type]
    "a negative share": (lambda: TurnModel(-0.1, d.Constant(3), d.Constant(1)), OptionError, "share .* at least 0"),
    "more than all": (lambda: TurnModel(1.1, d.Constant(3), d.Constant(1)), OptionError, "share as a number, up to 1,"),
    "a device": (lambda: sg.stream(talking(), device=True), OptionError, "with_conversations"),
    "a negative warm-up": (lambda: sg.stream(talking(), warmup=-1), OptionError, "warm-up"),
    "a large id": (
        lambda: sg.stream(tiny_pool(ids=[0, 1, 2**26]).with_conversations(TURNS["new"])),
        OptionError,
        "67,108,864",
    ),
    "new tokens beside items": (lambda: sg.stream(images(d.Constant(2**30))), OptionError, "483,647 tokens"),
    "too late": (lambda: sg.stream(talking(), start="460d"), OptionError, "65,53"),
    "too many": (lambda: sg.stream(talking(), rate=30_000), RateError, "clone"),
}


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_a_trace_of_nobody_has_the_columns() -> None:
    pool = talking(windows=2, rate_rps=1e-9)
    trace = sg.generate(pool, duration=60)
    assert len(trace) == 0
    assert list(trace)[-3:] == ["conversation", "turn", "new_tokens"]
