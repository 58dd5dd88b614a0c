"""Figures of one trace, against definitions in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from profiles import REPOSITORY, TURNS, tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.comparing import seen as seen_module
from servegen_gpu.comparing.figures import ABOUT, figures_of
from servegen_gpu.comparing.histograms import gap_bin, gap_of_bin
from servegen_gpu.comparing.ticks import on_ticks, tick_us_of
from servegen_gpu.errors import OptionError
from servegen_gpu.prefixes.lru import lru_curve

CODE = REPOSITORY.parent / "shared" / "data" / "traces" / "azure-2023-code.csv"


def made(category: str = "language", **keywords) -> sg.Trace:
    return sg.generate(tiny_pool(category), duration="1500s", **({"rate": 4} | keywords))


def talking(**keywords) -> sg.Trace:
    trace = sg.generate(tiny_pool().with_conversations(TURNS["history"]), duration="2h", rate=1, **keywords)
    return trace.with_hash_ids(64, system_tokens=100)


def slabs_of(trace: sg.Trace, rows: int) -> list[sg.Trace]:
    return [trace.rows(lo, lo + rows) for lo in range(0, len(trace), rows)]


def windows(trace: sg.Trace, window_s: int, step_s: int, column: str | None = None) -> np.ndarray:
    """Requests, or tokens, of windows that begin every so often, in a loop."""
    at = trace["arrival_us"]
    found = []
    for start in range(0, 1500 - window_s + 1, step_s):
        inside = (at >= start * 10**6) & (at < (start + window_s) * 10**6)
        found.append(inside.sum() if column is None else trace[column][inside].sum())
    return np.array(found, np.float64)


def test_dispersion_peaks_and_empty_seconds_are_those_of_a_loop():
    trace = made()
    found = figures_of(trace)
    for window_s, step_s in ((1, 1), (10, 10), (60, 6), (600, 30)):
        counts = windows(trace, window_s, step_s)
        assert found[f"idc_{window_s}s"] == pytest.approx(counts.var(ddof=1) / counts.mean())
        for side in ("input", "output"):
            tokens = windows(trace, window_s, step_s, f"{side}_tokens")
            per_request = tokens.sum() / counts.sum()
            assert found[f"{side}_idc_{window_s}s"] == pytest.approx(tokens.var(ddof=1) / tokens.mean() / per_request)
            if window_s < 600:
                most = windows(trace, window_s, 1, f"{side}_tokens").max()
                assert found[f"{side}_peak_{window_s}s"] == most
        if window_s < 600:
            assert found[f"peak_{window_s}s"] == windows(trace, window_s, 1).max()
    assert found["empty_1s"] == np.mean(windows(trace, 1, 1) == 0)
    assert found["rate_rps"] == pytest.approx(len(trace) / 1500)
    assert found["requests"] == len(trace)
    gaps = np.diff(trace["arrival_us"])
    assert found["gap_cv"] == pytest.approx(gaps.std() / gaps.mean())
    x = windows(trace, 10, 10)
    x -= x.mean()
    for lag in range(1, 7):
        assert found[f"acf_{lag}"] == pytest.approx((x[:-lag] * x[lag:]).mean() / (x * x).mean())


def test_correlations_are_those_of_scipy_and_of_windows():
    trace = made()
    found = figures_of(trace)
    sides = {"input": trace["input_tokens"], "output": trace["output_tokens"]}
    assert found["io_spearman"] == pytest.approx(stats.spearmanr(*sides.values()).statistic)
    for side, column in sides.items():
        assert found[f"mean_{side}"] == pytest.approx(column.mean())
        assert found[f"serial_{side}"] == pytest.approx(stats.spearmanr(column[:-1], column[1:]).statistic)
        for window_s in (3, 10):
            rate = sg.in_windows(trace, window_s).rank_correlation(f"{side}_tokens")
            assert found[f"rate_{side}_{window_s}s"] == pytest.approx(rate)


def test_matches_are_those_of_a_loop_and_chance_is_that_of_shuffling():
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 4000, 800)
    copied = rng.random(800) < 0.4
    for at in np.flatnonzero(copied[5:]) + 5:
        tokens[at] = tokens[at - rng.integers(1, 5)] + rng.integers(-3, 4)
    tokens = np.maximum(tokens, 0)

    def share(x: np.ndarray) -> float:
        return np.mean([any(abs(int(x[i]) - int(y)) <= 5 for y in x[i - 20 : i]) for i in range(20, len(x))])

    found = figures_of(sg.Trace({"arrival_us": np.arange(800) * 1000, "input_tokens": tokens}))
    assert found["match_share"] == pytest.approx(share(tokens))
    shuffled = [share(rng.permutation(tokens)) for _ in range(60)]
    chance = found["match_share"] - found["match_excess"]
    assert chance == pytest.approx(np.mean(shuffled), abs=5 * np.std(shuffled) / np.sqrt(60))
    assert found["match_excess"] > 0.3


def test_caches_are_those_of_lru_curves():
    trace = talking()
    found = figures_of(trace)
    blocks = trace["hash_ids"].values
    distinct = len(np.unique(blocks))
    assert found.blocks.tolist() == [round(share * distinct) for share in (0.01, 0.03, 0.1, 0.3, 1)]
    curve = lru_curve(trace, found.blocks)
    assert [found[f"cache_{percent}pct"] for percent in (1, 3, 10, 30, 100)] == pytest.approx(curve)
    assert found["cache_100pct"] == pytest.approx(1 - distinct / len(blocks))
    other = figures_of(talking(replica=1), like=found)
    assert other.blocks is found.blocks


def test_conversations_and_clients_are_those_of_a_loop():
    trace = talking()
    found = figures_of(trace)
    turns: dict[int, list[tuple[int, int]]] = {}
    for conversation, at, tokens in zip(
        trace["conversation"].tolist(), trace["arrival_us"].tolist(), trace["input_tokens"].tolist(), strict=True
    ):
        turns.setdefault(conversation, []).append((at, tokens))
    several = [x for x in turns.values() if len(x) > 1]
    assert found["talk_share"] == pytest.approx(sum(map(len, several)) / len(trace))
    assert found["talk_turns"] == pytest.approx(np.mean([len(x) for x in several]))
    steps = np.concatenate([np.diff(np.array(x), axis=0) for x in several])
    assert found["turn_gap_p50_s"] == pytest.approx(np.quantile(steps[:, 0], 0.5) / 1e6)
    assert found["turn_gap_p90_s"] == pytest.approx(np.quantile(steps[:, 0], 0.9) / 1e6)
    assert found["turn_growth"] == pytest.approx(steps[:, 1].mean())
    most = np.sort(np.bincount(trace["client"]))[::-1]
    assert found["top_1_share"] == most[0] / len(trace)
    assert found["top_5_share"] == 1


def test_items_and_reasoning():
    trace = made("multimodal")
    found = figures_of(trace)
    images = trace["image_tokens"].lengths
    assert found["image_share"] == pytest.approx(np.mean(images > 0))
    assert found["image_count"] == pytest.approx(images[images > 0].mean())
    reasons = made("reason")
    some = reasons["output_tokens"] > 0
    shares = reasons["reason_tokens"][some] / reasons["output_tokens"][some]
    assert figures_of(reasons)["reason_share"] == pytest.approx(shares.mean(), abs=1 / 4096)


@pytest.mark.parametrize("trace", [made(), made("multimodal", rate=1), made("reason"), talking()], ids=lambda t: len(t))
def test_slabs_change_nothing(trace):
    whole = dict(figures_of(trace).values)
    for rows in (7, 1000):
        assert dict(figures_of(slabs_of(trace, rows)).values) == pytest.approx(whole, rel=1e-12, nan_ok=True)
    assert list(whole) == [name for name in ABOUT if name in whole]


def test_long_traces_keep_some_rows_and_slabs_change_nothing(monkeypatch):
    """Stretches of 1,024 rows of 200,000 requests: a correlation of 20,000 is within 0.03 (4 standard errors)."""
    pool = sg.pool([sg.client(rate=200, input_tokens={5: 1, 90: 2, 300: 1}, output_tokens={1: 1, 700: 1}, count=3)])
    talks = pool.with_conversations(TURNS["sorted"])
    trace = sg.generate(talks, duration="1000s", rate=200, warmup=0)
    whole = figures_of(trace)
    monkeypatch.setattr(seen_module, "MOST_ROWS", 20_000)
    one, many = figures_of(trace), figures_of(slabs_of(trace, 30_011))
    assert dict(one.values) == pytest.approx(dict(many.values), rel=1e-12)
    assert one.seen.sampled
    assert not whole.seen.sampled
    assert 5_000 < len(one.seen.kept["row"]) <= 20_000
    assert 5_000 < len(one.seen.talks["conversation"]) <= 20_000
    exact = [name for name in whole.values if name.startswith(("idc", "peak", "rate", "empty", "acf", "gap", "mean"))]
    assert {name: one[name] for name in exact} == {name: whole[name] for name in exact}
    for name in ("io_spearman", "serial_input", "match_share"):
        assert one[name] == pytest.approx(whole[name], abs=0.03)
    assert one["talk_share"] == pytest.approx(whole["talk_share"], abs=0.03)


def test_cells_become_longer_where_there_would_be_too_many(monkeypatch):
    trace = made()
    fine = figures_of(trace)
    monkeypatch.setattr(seen_module, "MOST_CELLS", 200)
    coarse = figures_of(slabs_of(trace, 500))
    assert coarse.seen.cell_s == 10
    assert "idc_1s" not in coarse
    assert "empty_1s" not in coarse
    assert coarse["idc_10s"] == pytest.approx(fine["idc_10s"])
    assert coarse["acf_1"] == pytest.approx(fine["acf_1"])
    monkeypatch.setattr(seen_module, "MOST_CELLS", 1)
    with pytest.raises(OptionError, match="a trace of at most"):
        figures_of(sg.Trace({"arrival_us": [0, 10**13], "input_tokens": [1, 1]}))


def test_bins_of_gaps_are_fine():
    gaps = np.concatenate((np.arange(3000), [10**6, 10**12, 2**52]))
    middle = gap_of_bin(gap_bin(gaps))
    np.testing.assert_array_equal(middle[:2048], gaps[:2048])
    np.testing.assert_allclose(middle[1:], gaps[1:], rtol=1 / 1024)
    assert (np.diff(gap_bin(np.sort(gaps))) >= 0).all()


def test_ticks():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(40_000, 5000)).astype(np.int64)
    assert tick_us_of(times) == 1
    assert tick_us_of(times // 1000 * 1000) == 1000
    assert tick_us_of(times // 3_000_000 * 3_000_000) == 3_000_000
    jittered = times // 100_000 * 100_000 + rng.integers(0, 15_000, 5000)
    assert tick_us_of(np.sort(jittered)) == 100_000
    regular = np.cumsum(rng.gamma(100, 1000, 5000)).astype(np.int64)  # one about every 100 ms, without ticks
    assert tick_us_of(regular) == 1
    assert tick_us_of(times[:10]) == 1
    # gaps off the ticks fall on the two next to them
    ticks, weights = on_ticks(np.array([250.0, 400.0]), np.array([4, 2]), 100, 1)
    assert dict(zip(ticks.tolist(), weights.tolist(), strict=True)) == {2: 2, 3: 2, 4: 2, 5: 0}
    ticks, weights = on_ticks(np.array([249.0]), np.array([4]), 100, 200)
    assert dict(zip(ticks.tolist(), weights.tolist(), strict=True)) == {2: 4, 3: 0}


def test_little_traces_have_what_can_be_said():
    one = figures_of(sg.Trace({"arrival_us": [5], "input_tokens": [3]}))
    assert one["requests"] == 1
    assert np.isnan(one["gap_cv"])
    same = figures_of(sg.Trace({"arrival_us": np.arange(100) * 10**6, "input_tokens": [3] * 100}))
    assert same["gap_cv"] == pytest.approx(0, abs=1e-6)
    assert same["idc_1s"] == 0
    assert np.isnan(same["serial_input"])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: figures_of(made().rows(0, 0)), "a trace with requests"),
        (lambda: figures_of([]), "a trace with requests"),
        (lambda: figures_of("trace.parquet"), "a Trace, or an iterable of its slabs"),
        (lambda: figures_of(slabs_of(made(), 500)[::-1]), "slabs in order of time"),
        (lambda: figures_of(sg.Trace.trusted({"input_tokens": np.array([1])})), "the column arrival_us"),
    ],
)
def test_bad_input_is_refused(call, expected):
    with pytest.raises(OptionError, match=expected):
        call()


@pytest.mark.skipif(not CODE.is_file(), reason="the published trace is not beside the tree")
def test_a_published_trace_has_its_known_figures():
    found = figures_of(sg.read_trace(CODE))
    known = {"gap_cv": 13.2, "idc_1s": 13.2, "idc_10s": 72, "idc_60s": 156, "idc_600s": 202, "empty_1s": 0.73}
    assert {name: found[name] for name in known} == pytest.approx(known, rel=0.006)
    assert [found[f"peak_{window_s}s"] for window_s in (1, 10, 60)] == [67, 411, 723]
    assert found["match_share"] == pytest.approx(0.35, abs=0.005)
    assert found["match_share"] - found["match_excess"] == pytest.approx(0.08, abs=0.005)
    assert found.tick_us == 100_000


def test_a_stated_length_of_years_makes_longer_cells():
    """Few requests at the begin of a trace that says it lasts three years: no cell for each second of it."""
    columns = {"arrival_us": [0, 5], "client": [0, 0], "input_tokens": [3, 4], "output_tokens": [1, 2]}
    seen = seen_module.Seen()
    seen.add(sg.Trace(columns, {"duration_s": 1e8}))
    assert seen.cell_s > 1
    assert len(seen.cells["requests"]) <= seen_module.MOST_CELLS
    assert seen.cells["requests"].sum() == 2
