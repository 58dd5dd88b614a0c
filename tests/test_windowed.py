"""Figures of a trace in short windows, against loops over windows; burstiness of known processes."""

from __future__ import annotations

import numpy as np
import pytest
from profiles import tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.errors import OptionError
from servegen_gpu.windowed import gap_cvs


def made(category: str = "language", **keywords) -> sg.Trace:
    return sg.generate(tiny_pool(category), duration="1000s", **({"rate": 8} | keywords))


def slabs_of(trace: sg.Trace, rows: int) -> list[sg.Trace]:
    return [trace.rows(lo, lo + rows) for lo in range(0, len(trace), rows)]


def bare(arrival_us, provenance=None) -> sg.Trace:
    n = len(arrival_us)
    return sg.Trace(
        {"arrival_us": np.array(arrival_us, np.int64), "input_tokens": np.ones(n, np.int32)}, provenance or {}
    )


@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
@pytest.mark.parametrize("window_s", [0.5, 3, 7.25, 300])
def test_windows_are_those_of_a_loop(category, window_s):
    trace = made(category)
    seen = sg.in_windows(trace, window_s)
    assert len(seen) == int(1000 / window_s)  # what is left at the end is no window
    lists = {"image_tokens", "audio_tokens", "video_tokens"}
    assert set(seen.totals) == {name for name in trace if name.endswith("_tokens")}
    for at in (0, 1, len(seen) // 2, len(seen) - 1):
        begin, end = np.searchsorted(trace["arrival_us"] / 1e6, [at * window_s, (at + 1) * window_s])
        assert seen.start_s[at] == at * window_s
        assert seen.requests[at] == end - begin
        assert seen.rate_rps[at] == (end - begin) / window_s
        for name in seen.totals:
            part = trace[name][begin:end]
            total = part.values.sum() if name in lists else part.sum()
            assert seen.totals[name][at] == total
            mean = seen.mean(name)[at]
            assert mean == total / (end - begin) if end > begin else np.isnan(mean)


@pytest.mark.parametrize("rows", [1, 100, 3000])
def test_slabs_change_nothing(rows):
    trace = made("multimodal", rate=2)
    whole, parts = sg.in_windows(trace, 3), sg.in_windows(slabs_of(trace, rows), 3)
    np.testing.assert_array_equal(whole.requests, parts.requests)
    for name, total in whole.totals.items():
        np.testing.assert_array_equal(total, parts.totals[name])
    np.testing.assert_allclose(gap_cvs(slabs_of(trace, rows), 100), gap_cvs(trace, 100), rtol=1e-9)


def test_figures_over_windows():
    trace = made()
    seen = sg.in_windows(trace, 3)
    assert seen.rate_cv == pytest.approx(seen.requests.std() / seen.requests.mean())
    some = seen.requests > 0
    for name in seen.totals:
        means = seen.totals[name][some] / seen.requests[some]
        assert seen.rank_correlation(name) == pytest.approx(stats.spearmanr(seen.requests[some], means).statistic)


def test_silence_at_the_end_counts_where_the_length_is_known():
    arrivals = [500_000, 1_500_000, 2_000_000]
    assert sg.in_windows(bare(arrivals), 1).requests.tolist() == [1, 1]
    assert sg.in_windows(bare(arrivals, {"duration_s": 5.5}), 1).requests.tolist() == [1, 1, 1, 0, 0]
    silent = sg.in_windows(bare([], {"duration_s": 2}), 1)
    assert silent.requests.tolist() == [0, 0]
    assert np.isnan(silent.rate_cv)
    assert np.isnan(silent.rank_correlation("input_tokens"))


def test_gap_cvs_are_those_of_a_loop():
    trace = made()
    arrival_s = trace["arrival_us"] / 1e6
    gaps, window = np.diff(arrival_s), (arrival_s[1:] // 100).astype(int)
    cvs = gap_cvs(trace, 100)
    for at in range(10):
        mine = gaps[window == at]
        assert cvs[at] == pytest.approx(mine.std() / mine.mean())
    assert sg.fitted_cv(trace, 100) == pytest.approx(np.median(cvs))
    assert np.isnan(gap_cvs(bare(np.arange(29) * 10))).all()


def test_thirty_gaps_are_enough():
    for gaps, known in ((29, False), (30, True)):
        cvs = gap_cvs(bare(np.cumsum(np.arange(gaps + 1))))
        assert np.isfinite(cvs).tolist() == [known]
    trace = bare(np.arange(31) * 10_000_000)  # in windows of 300 s: gaps that end at 10, …, 290 s, and one at 300 s
    assert np.isfinite(gap_cvs(trace)).tolist() == [False, False]


def test_the_cv_of_known_processes():
    """Windows of 6,000 gaps: within 3 % of a Gamma process's CV; 1 ± 0.02 for Poisson; 0 for a metronome."""
    for cv in (0.3, 1.0, 2.0):
        pool = sg.pool([sg.client(rate=20, arrivals="gamma", cv=cv, input_tokens=1, output_tokens=1)])
        assert sg.fitted_cv(sg.stream(pool, duration="3h")) == pytest.approx(cv, rel=0.03)
    assert sg.fitted_cv(bare(np.arange(1000) * 1000)) < 1e-6


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: sg.in_windows(made(), 0), "window_s from 0.000001"),
        (lambda: sg.in_windows(made(), "3s"), "window_s from 0.000001"),
        (lambda: sg.in_windows(made(), float("nan")), "window_s from 0.000001"),
        (lambda: sg.in_windows(made(), 1001), "a trace of at least one window"),
        (lambda: sg.in_windows(made(), 1e-6), "at most 16,777,216 windows"),
        (lambda: sg.in_windows([], 3), "a trace of at least one window"),
        (lambda: sg.in_windows("trace.parquet", 3), "a Trace, or an iterable of its slabs"),
        (lambda: sg.in_windows([1], 3), "slabs of a trace"),
        (lambda: sg.in_windows(sg.Trace.trusted({"arrival_us": np.array([3, 2])}), 1), "ascending order"),
        (lambda: sg.in_windows(made(), 3).mean("tokens"), "a column among input_tokens, output_tokens"),
        (lambda: sg.fitted_cv(bare(range(20))), "at least 30 inter-arrival times"),
    ],
)
def test_bad_input_is_refused(call, expected):
    with pytest.raises(OptionError, match=expected):
        call()
