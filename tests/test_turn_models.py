"""Models of conversations: the published figures, in pools, in files, fitted, refused."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from native import native
from profiles import TURNS, talking, tiny_pool
from scipy import special, stats
from traces import gaps_by_turn, same

import servegen_gpu as sg
from servegen_gpu import Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.clients.describe.describe import describe_pool, format_description
from servegen_gpu.clients.stated.turn_tables import STEPS
from servegen_gpu.clients.stated.turns_toml import turn_model
from servegen_gpu.errors import OptionError, ProfileError, RateError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packed_turns import most_new_tokens, pack_turns
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.request.tables import unpack_tables

US = 1_000_000
CATEGORIES = tuple(FIELDS)


# -- figures (A8) ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day() -> Trace:
    """A day of deepseek-r1, a tenth of its clients, with all conversations that begin in it."""
    pool = sg.population("deepseek-r1", clients=2500)
    return sg.generate(pool, duration="36h", warmup=0, seed=1)


def begun_in_a_day(day: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Turns of all that begins in 24 hours, requests alone included; and inter-turn times, with twelve hours to end."""
    begun = day["conversation"][(day["turn"] == 1) & (day["arrival_us"] < 86_400 * US)]
    known = np.isin(day["conversation"], begun)
    order = np.lexsort((day["turn"][known], day["conversation"][known]))
    conversation, at = day["conversation"][known][order], day["arrival_us"][known][order]
    turns = np.unique(conversation, return_counts=True)[1]
    return turns, np.diff(at)[np.diff(conversation) == 0]


def test_shares_and_turns_are_as_published(day: Trace) -> None:
    turns, _ = begun_in_a_day(day)
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
    pool = sg.pool([sg.client(rate=5.0, input_tokens=100, output_tokens=50)]).with_conversations(generous)
    trace = sg.generate(pool, duration="3d", warmup=0, seed=9)
    begins = (trace["conversation"] >= 0) & (trace["turn"] == 1)
    begun = trace["conversation"][begins & (trace["arrival_us"] < 20_000 * US)]  # all of theirs is inside
    known = np.isin(trace["conversation"], begun)
    order = np.lexsort((trace["turn"][known], trace["conversation"][known]))
    conversation, at = trace["conversation"][known][order], trace["arrival_us"][known][order]
    turns = np.unique(conversation, return_counts=True)[1]
    values, share = model.tables.count.table(0)
    seen = np.array([(turns == value).sum() for value in values])
    assert np.isin(turns, values).all()

    def of_turns(weights: np.ndarray) -> float:
        return float(stats.chisquare(seen, weights / weights.sum() * len(turns)).pvalue)

    check(of_turns(share), "turns of a conversation")
    assert not passes(of_turns(np.roll(share, 1))), "a shift by one bin is found"

    gaps_s = np.diff(at)[np.diff(conversation) == 0] / US
    uniform = model.gap_s.cut_at_most(gaps_s * 1e6, 1_000_000)
    assert len(gaps_s) > 6000
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
    warm, cold = (sg.stream(pool, warmup=warmup, **keywords).packed for warmup in (None, 0))
    assert warm.window_scale.shape == cold.window_scale.shape == (1, 2)
    assert warm.conversations.window_scale.shape[1] > cold.conversations.window_scale.shape[1] == 2
    for packed in (warm, warm.conversations, cold.conversations):
        np.testing.assert_allclose(packed.window_scale, cold.window_scale[0, 0])


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
    begins = (trace["conversation"] >= 0) & (trace["turn"] == 1)
    begun = trace["conversation"][begins & (trace["arrival_us"] < (36_000 - session_s) * US)]
    turns = np.unique(trace["conversation"][np.isin(trace["conversation"], begun)], return_counts=True)[1]
    error = turns.std() / np.sqrt(len(turns))
    assert abs(turns.mean() - model.mean_turns) < 4 * error + 0.003  # times are followed on a grid
    assert error < 0.04


@pytest.mark.parametrize("turns", [20_000, 300])
def test_mean_turns_of_long_conversations_of_short_gaps(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hours, every = 43_200.0, np.arange(1, turns)
    for gap_s, inside in (
        (d.Constant(6), 6 * every <= hours),
        (d.Exponential(2), special.gammainc(every, hours / 2)),  # Erlang
        (d.Exponential(200), special.gammainc(every, hours / 200)),
    ):
        exact = 1 + float(np.sum(inside))
        assert TurnModel(1.0, d.Constant(turns), gap_s).mean_turns == pytest.approx(exact, rel=1e-3)

    def rounded(weight: np.ndarray, ends: np.ndarray) -> np.ndarray:
        return np.bincount(np.rint((ends[1:] + ends[:-1]) / 2).astype(int), weight, STEPS + 1)[: STEPS + 1]

    monkeypatch.setattr("servegen_gpu.clients.stated.turn_tables._gap_on_grid", rounded)
    found = TurnModel(1.0, d.Constant(20_000), d.Constant(6)).mean_turns
    assert found == pytest.approx(4097, abs=1), "gaps rounded to the grid are found"


# -- pools and files ---------------------------------------------------------------------------------------------------


def test_pools_keep_their_conversations() -> None:
    pool = talking()
    both = sg.join([pool, pool.with_conversations(None), pool.with_conversations(TURNS["new"])])
    assert both.turn_model.tolist() == [0, 1, 2, -1, 3] + [-1] * 5 + [4] * 5
    assert pool.select([1, 3]).turn_model is pool.turn_model
    digests = {p.digest() for p in (pool, pool.with_conversations(None), *map(pool.with_conversations, TURNS.values()))}
    assert len(digests) == 6
    assert sg.population("deepseek-r1", clients=10).turn_models
    assert not sg.population("m-large", clients=10).turn_models


def test_provenance_names_the_models() -> None:
    found = sg.generate(talking(), duration=60).provenance["conversations"]
    assert [model["share"] for model in found] == [0.4, 0.6, 0.5, 0.7]
    assert found[0]["turns"] == {"kind": "pmf", "values": [2.0, 3.0, 7.0], "weights": [3.0, 2.0, 1.0]}
    assert found[2]["new_tokens"]["kind"] == "lognormal"
    assert "conversations" not in sg.generate(talking().with_conversations(None), duration=60).provenance


def test_packed_workloads_keep_their_conversations(tmp_path: Any) -> None:
    workload = sg.stream(talking(), duration=900)
    workload.packed.save(tmp_path / "packed.bin")
    again = replace(workload, packed=PackedWorkload.load(tmp_path / "packed.bin"))
    assert same(again.joined(), workload.joined())


def test_most_new_tokens_are_those_of_a_profile_s_model() -> None:
    two = d.Constant(2)
    new = [d.Uniform(low=5, high=high) for high in (40, 900)]
    models = (*(TurnModel(0.5, two, two, "history", more) for more in new), TurnModel(0.5, two, two, "sorted"))
    pool = replace(talking(), turn_models=models, turn_model=np.array([1, -1, 0, 1, 2], np.int32))
    packed = pack_turns(pool, np.zeros(1)).most_new_tokens()
    assert most_new_tokens(pool).tolist() == packed.tolist() == [900, 0, 40, 900, 0]


def test_every_packed_model_has_its_own_gaps() -> None:
    pool = talking()
    packed = pack_turns(pool, np.zeros(1))
    tables = unpack_tables(packed.gaps)
    assert len(tables) == len(pool.turn_models) == 4
    for k, model in enumerate(pool.turn_models):
        values = tables.values[tables.offsets[k] : tables.offsets[k + 1]]
        assert np.array_equal(packed.gap_us[values], model.tables.gap_us[model.tables.gap.values])


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
    pool, keywords = sg.population("deepseek-r1", clients=300), {"rate": 15, "duration": "10m", "warmup": "10m"}
    whole = sg.generate(pool, backend="numpy", **keywords)
    assert (whole["turn"] > 1).sum() > 200
    assert same(native(pool, **keywords), whole)
    if importlib.util.find_spec("jax"):
        assert same(sg.generate(pool, backend="jax", **keywords), whole)
    assert same(Trace.concat([native(pool, shard=f"{k}/8", **keywords) for k in range(1, 9)]), whole)
    for limit in (2_000, 9_000, 100_000):
        monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size, limit=limit: limit)
        assert same(native(pool, **keywords), whole)


@pytest.mark.parametrize("name", ["sorted", "new", "edit"])
def test_models_are_fitted_to_traces(name: str) -> None:
    model = TURNS[name]
    pool = sg.pool([sg.client(rate=5.0, input_tokens=d.LogNormal(median=200, sigma=1), output_tokens=50)])
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
    assert model.mean_turns == pytest.approx(2.5, rel=1e-6)
    assert turn_model(str(path)).digest() == model.digest()


def test_edits_may_add_nothing(tmp_path: Any) -> None:
    path = tmp_path / "turns.toml"
    path.write_text(TOML.replace("history", "edit").replace('"exponential", mean = 50', '"uniform", low = 0, high = 5'))
    added = {name: TurnModel(0.5, d.Constant(2), d.Constant(1), name, d.Exponential(2)) for name in ("history", "edit")}
    assert {name: model.tables.new.values[0] for name, model in added.items()} == {"history": 1, "edit": 0}
    assert turn_model(path).tables.new.values.tolist() == [0, 1, 2, 3, 4, 5]


FAULTS = {
    "an unknown key": (("share", "shares"), "did you mean 'share'"),
    "a share above one": (("0.3", "1.3"), "share from 0 to 1.*line 3"),
    "one turn": (("[2, 3]", "[1, 3]"), "2 turns or more.*line 4"),
    "too many turns": (("[2, 3]", "[2, 70000]"), "65,535.*line 4"),
    "a negative gap": (("= 60", "= -60"), "line 5"),
    "an unknown growth": (('"history"', '"wild"'), "sorted, history"),
    "new tokens of sorted inputs": (('"history"', '"sorted"'), "growth='history' or 'edit'"),
    "edits without new tokens": (('"history"\nnew_tokens', '"edit"\n#'), "growth='edit' with new_tokens.*line 2"),
    "a session of a month": (('"1h"', '"31d"'), "line 8, turns, session"),
    "no session": (('"1h"', "0"), "1 to 1,209,600 s.*line 8, turns, session"),
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
    "edits of unknown size": (
        lambda: TurnModel(0.1, d.Constant(3), d.Constant(1), "edit"),
        OptionError,
        "with new_tokens",
    ),
    "more than all": (lambda: TurnModel(1.1, d.Constant(3), d.Constant(1)), OptionError, "share as a number, up to 1,"),
    "a device": (lambda: sg.stream(talking(), device=True), OptionError, "with_conversations"),
    "a negative warm-up": (lambda: sg.stream(talking(), warmup=-1), OptionError, "warm-up"),
    "new tokens beside items": (lambda: sg.stream(images(d.Constant(2**30))), OptionError, "483,647 tokens"),
    "too many": (lambda: sg.stream(talking(), rate=3e7), RateError, "clone"),
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
