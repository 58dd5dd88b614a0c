"""Conversations: an oracle written turn by turn, how inputs grow, and what must not change a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from native import native
from profiles import TURNS, talking
from traces import between, gaps_by_turn, moved, same

import servegen_gpu as sg
from servegen_gpu import Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.backends.host.growth import with_history
from servegen_gpu.clients.stated.turns import GROWTHS
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import CONVERSATIONS, Key, Purpose, derive_key, draw
from servegen_gpu.law.tables import find_bin
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packing import pack
from servegen_gpu.plan import plan
from servegen_gpu.rates import Rate
from servegen_gpu.request.schema import FIELDS

US = 1_000_000
CATEGORIES = tuple(FIELDS)


# -- the law, turn by turn ---------------------------------------------------------------------------------------------


def words_at(key: Key, purpose: Purpose, client: int, window: int, ordinal: int, turn: int) -> list[int]:
    """Words of the stream of conversations."""
    place = {"ordinal": ordinal, "client": client, "window": window % (1 << 24) + (CONVERSATIONS << 29)}
    return [int(word) for word in draw(np, key, purpose, turn=turn, **place)]


def value_of(word: int, table: int, tables: Any) -> int:
    return int(tables.values[find_bin(np, np.array([word], np.uint32), np.array([table]), tables)[0]])


Row = tuple[int, ...]


def sampled_rows(packed: PackedWorkload, key: Key) -> Iterator[tuple[Row, Row]]:
    """What a backend samples of a stream: arrival, client, window and ordinal; and input, output and reason tokens."""
    for slab in plan(packed, 1 << 20):
        columns: dict[str, Any] = NumpyBackend().sample_slab(packed, key, slab)
        columns.setdefault("reason_tokens", np.zeros(len(columns["client"]), np.int32))
        window = (columns["arrival_us"] + packed.start_us) // packed.window_us
        place = np.stack((columns["arrival_us"], columns["client"], window, columns["ordinal"]), axis=1)
        fields = np.stack([columns[f"{name}_tokens"] for name in ("input", "output", "reason")], axis=1)
        yield from zip(map(tuple, place.tolist()), map(tuple, fields.tolist()), strict=True)


def turns_of(packed: PackedWorkload, key: Key, place: Row, fields: Row) -> Iterator[Row]:
    """Turns of a conversation drawn one by one: time since the first, turn, whole input, output, reason, new tokens."""
    turns, (_, client, window, ordinal) = packed.turns, place
    assert turns is not None
    profile = int(packed.profile[np.flatnonzero(packed.client_id == client)[0]])
    row, model = int(packed.row[window - packed.first_window]), int(turns.model[profile])
    context = int(packed.context_tokens[profile])
    times_us, drawn = [0], [fields]
    word = words_at(key, Purpose.TURN, client, window, ordinal, 0)[0]
    for turn in range(1, value_of(word, model, turns.counts)):
        one, two, three, _ = words_at(key, Purpose.TURN, client, window, ordinal, turn)
        gap = value_of(one, model, turns.gaps)
        time_us = times_us[-1] + int(turns.gap_us[gap]) + (int(turns.gap_width_us[gap]) * two >> 32)
        if time_us > turns.session_us[model]:
            break
        words = words_at(key, Purpose.DATA, client, window, ordinal, turn)
        values = [value_of(w, int(t), packed.tables) for w, t in zip(words, packed.table[profile, row], strict=False)]
        if turns.new_table[model] >= 0:
            values[0] = value_of(three, int(turns.new_table[model]), turns.new)
        if context:
            values[0] = min(values[0], context - 1)
            values[1] = min(values[1], max(context - values[0], 1))
        times_us.append(time_us)
        drawn.append((values[0], values[1], (2 * values[1] * values[2] + 501) // 1002 if len(values) > 2 else 0))
    growth = GROWTHS[turns.growth[model]]
    if growth == "sorted":
        drawn.sort(key=lambda fields: fields[0])  # stable
    said = before = 0
    lost = False
    for turn, (time_us, (tokens, output, thought)) in enumerate(zip(times_us, drawn, strict=True)):
        whole, new = tokens, tokens - (before if turn else 0)
        if growth != "sorted":
            repeated = before + (said if growth == "history" else 0)
            fits = min(repeated, context - tokens - output) if context else repeated
            whole = tokens + fits
            lost |= fits < repeated
            new = whole if lost else tokens
        before, said = whole, output - thought
        yield time_us, turn + 1, whole, output, thought, new


def code_of(client: int, window: int, number: int) -> int:
    """The first layout of ids, where there is room for all that these tests have."""
    assert max(client, window) < 1 << 16
    assert number < 1 << 20
    return client << 36 | window << 20 | number


def oracle(pool: sg.ClientPool, start_s: float, duration_s: float, seed: int) -> list[Row]:
    """Rows of a trace of language or reasoning clients: what the backend samples, and turns drawn one by one."""
    packed, _ = pack(pool, Rate("own"), start_s=start_s, end_s=start_s + duration_s)
    begun, key = packed.conversations, derive_key(seed)
    assert begun is not None
    rows: list[tuple[Row, Row]] = []  # with what they are in order of
    for (at_us, client, window, ordinal), (tokens, output, thought) in sampled_rows(packed, key):
        identity = -1 - code_of(client, window, ordinal)
        row = (at_us, identity, 1, client, tokens, output, thought, tokens)
        rows.append(((at_us, 0, client, window, ordinal), row))
    for place, fields in sampled_rows(begun, key):
        at_us, client, window, ordinal = place
        identity = code_of(client, 2 * window if window >= 0 else -2 * window - 1, 2 * ordinal)
        for since_us, turn, *tokens_of_turn in turns_of(begun, key, place, fields):
            time_us = at_us + since_us + begun.start_us - packed.start_us
            rows.append(((time_us, 1, identity, turn), (time_us, identity, turn, client, *tokens_of_turn)))
    return [row for _, row in sorted(rows) if 0 <= row[0] < duration_s * US]


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
    assert 0 < sum(row[1] < 0 for row in expected) < len(expected)


def test_an_edit_with_the_answer_in_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, span = talking("reason", windows=9).with_conversations(TURNS["edit"]), {"start": 600, "duration": 300}

    def rows() -> list[Row]:
        trace = sg.generate(pool, seed=5, backend="numpy", **span)
        return list(zip(*(trace[n].tolist() for n in ("input_tokens", "new_tokens")), strict=True))

    expected = [(row[4], row[7]) for row in oracle(pool, 600, 300, 5)]
    assert (len(expected) > 100, rows() == expected) == (True, True)
    monkeypatch.setattr("servegen_gpu.backends.host.turns.EDIT", 99)
    assert rows() != expected


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


def test_edits_repeat_the_input_and_not_the_answer() -> None:
    pool = talking("language", contexts=(0, 900)).with_conversations(TURNS["edit"])
    trace = sg.generate(pool, duration=3000, seed=1)
    order = np.lexsort((trace["turn"], trace["conversation"]))
    rows = {name: trace[name][order].astype(np.int64) for name in trace}
    later = np.flatnonzero((np.diff(rows["conversation"]) == 0) & (np.diff(rows["turn"]) == 1)) + 1
    cut = rows["new_tokens"][later] == rows["input_tokens"][later]
    limited = rows["client"][later] % 2 == 1
    assert cut[limited].sum() > 50
    assert not cut[~limited].any()
    whole = later[~cut]
    np.testing.assert_array_equal(np.diff(rows["input_tokens"])[whole - 1], rows["new_tokens"][whole])
    assert set(np.unique(rows["new_tokens"][whole])) == {0, 1, 3, 250}
    odd = rows["client"] % 2 == 1
    assert (rows["input_tokens"] + rows["output_tokens"])[odd].max() == 900


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
    assert same(Trace.concat(parts), whole)


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


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_turn_at_the_end_of_its_session_is_in_it(backend: str) -> None:
    """Gaps of a second spread over a millisecond: in one conversation of a thousand the turn comes at the very end."""
    model = TurnModel(1.0, turns=d.Constant(2), gap_s=d.Constant(1), session_s=1)
    pool = sg.pool([sg.client(rate=20, input_tokens=9, output_tokens=9)]).with_conversations(model)
    times = gaps_by_turn(made_by(backend)(pool, duration=600))
    assert max(times.values()) == US
    assert min(times.values()) >= US - 500


def made_by(backend: str) -> Callable[..., Trace]:
    return native if backend == "native" else partial(sg.generate, backend="numpy")


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_turns_at_the_edges_of_a_trace_are_in_or_out(backend: str) -> None:
    """A trace has what arrives at its first microsecond, and not what arrives at the one after its last."""
    model = TurnModel(1.0, turns=d.Constant(4), gap_s=d.Constant(60), session_s=240)
    pool = sg.pool([sg.client(rate=0.5, input_tokens=9, output_tokens=9)]).with_conversations(model)
    made = made_by(backend)
    whole = made(pool, duration=1200)
    last = np.flatnonzero((whole["turn"] == 4) & (whole["arrival_us"] > 300 * US))[[0, 1]]  # after it nothing comes
    from_us, to_us = whole["arrival_us"][last].tolist()
    part = made(pool, start=from_us / US, duration=(to_us - from_us) / US)
    assert same(part, moved(between(whole, from_us, to_us), -from_us))
    assert (part["arrival_us"][0], part["turn"][0]) == (0, 4)


def test_conversations_from_before_the_start_go_on() -> None:
    pool = talking()
    trace = sg.generate(pool, duration=600)  # at the begin of the data, whose days repeat backwards
    begun_here = np.isin(trace["conversation"], trace["conversation"][trace["turn"] == 1])
    assert begun_here[trace["conversation"] < 0].all()
    assert (~begun_here).sum() > 20
    cold = sg.generate(pool, duration=600, warmup=0)
    assert cold.provenance["rules"]["warmup_s"] == 0
    assert np.isin(cold["conversation"], cold["conversation"][cold["turn"] == 1]).all()
    assert same(cold, Trace({name: column[begun_here] for name, column in trace.columns.items()}))
    assert any("left out" in note for note in sg.stream(pool, duration=600, warmup=0).notes)
    assert not sg.stream(pool, duration=600).notes


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
