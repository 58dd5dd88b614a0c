"""From gaps to microseconds: sums that fit, circles that close, clocks that never step back."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegen_gpu.backends.host.arrivals import first_renewals
from servegen_gpu.backends.host.run_gaps import Runs, reached
from servegen_gpu.law.position import RENEWAL_BITS, clock_us, from_start, on_circle, tick_bits
from servegen_gpu.law.variates import gap_ticks
from servegen_gpu.rules import CountRule

CIRCLE = 2**32
COUNTS = sorted(
    {*range(1, 5_001)} | {2**e + d for e in range(31) for d in (-1, 0, 1) if 2**e + d > 0} | {2**31 - 1, 2**31}
)
PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=150)


def run_of_gaps(n, seed, *, spread=8.0):
    """Ticks before the end of each gap, and in all, of gaps whose logarithms spread widely."""
    log_gap = np.random.default_rng(seed).normal(0, spread, n)
    bits = int(tick_bits(np, np.array([n]))[0])
    ticks = gap_ticks(np, log_gap, log_gap.max(), 2.0**bits)
    sums = np.cumsum(ticks)
    return sums, np.full(n, sums[-1])


def test_tick_bits():
    bits = tick_bits(np, np.array(COUNTS, np.int64)).tolist()
    assert bits == [62 - (n - 1).bit_length() for n in COUNTS]  # the bit length is ceil(log2 n)


def test_sums_never_overflow():
    for n, bits in zip(COUNTS, tick_bits(np, np.array(COUNTS, np.int64)).tolist(), strict=True):
        largest = int(gap_ticks(np, np.array([0.0]), 0.0, 2.0**bits)[0])
        assert largest == 2**bits
        assert n * largest <= 2**62 < 2**63
        assert n == 1 or 2 * n * largest > 2**62  # and no bit is wasted


def test_a_renewal_sum_passes_the_end_before_it_overflows():
    unit = 2**RENEWAL_BITS
    assert (unit - 1) + unit < 2**63


def test_a_renewal_sum_at_the_end_of_the_window_is_outside():
    """Of two runs; gaps of a window and more count as a window, so that sums are often just there."""
    end = 2**RENEWAL_BITS
    runs = Runs(np.array([0, 1]), np.array([1, 1]), np.array([3, 2]), np.array([5, 5]))
    inside, last = reached(runs, np.array([end - 1, end, end + 1, 7, end - 1]))
    assert (inside.tolist(), last.tolist()) == ([1, 2], [end + 1, end - 1])
    cells = SimpleNamespace(rule=np.full(3, CountRule.RENEWAL), first_ticks=np.array([0, end - 1, end]))
    assert first_renewals(cells).cell.tolist() == [0, 1]


@PROPERTY
@given(
    n=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    occupancy=st.one_of(st.just(1.0), st.floats(1e-9, 1.0)),
    rotation=st.integers(0, CIRCLE - 1),
)
def test_on_circle(n, seed, occupancy, rotation):
    before, in_all = run_of_gaps(n, seed)
    still = on_circle(np, before, in_all, occupancy, np.zeros(n, np.int64))
    turned = on_circle(np, before, in_all, occupancy, np.full(n, rotation))
    for x in (still, turned):
        assert x.dtype == np.int64
        assert ((x >= 0) & (x < CIRCLE)).all()
    # turning is a shift around the circle
    np.testing.assert_array_equal(turned, (still + rotation) % CIRCLE)
    # arrivals ascend up to the end of the run, which is the start where the run fills the circle
    run = np.where((still == 0) & (before == in_all), CIRCLE, still) if occupancy == 1 else still
    assert (np.diff(run) >= 0).all()
    assert run[-1] == int(occupancy * CIRCLE)


def test_on_circle_to_the_word():
    before, in_all = np.array([1, 2, 3, 4], np.int64), np.full(4, 4, np.int64)
    assert on_circle(np, before, in_all, 1.0, np.int64(5)).tolist() == [2**30 + 5, 2**31 + 5, 3 * 2**30 + 5, 5]
    assert on_circle(np, before, in_all, 0.5, np.int64(0)).tolist() == [2**29, 2**30, 3 * 2**29, 2**31]


@PROPERTY
@given(n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_from_start_drops_the_last(n, seed):
    before, in_all = run_of_gaps(n, seed, spread=1.0)
    x, inside = from_start(np, before, in_all)
    assert inside.tolist() == [True] * (n - 1) + [False]
    assert ((x >= 0) & (x < CIRCLE)).all()
    assert (np.diff(x[inside]) >= 0).all()


def test_from_start_to_the_word():
    x, inside = from_start(np, np.array([0, 1, 2, 3, 4], np.int64), np.full(5, 4, np.int64))
    assert x[inside].tolist() == [0, 2**30, 2**31, 3 * 2**30]
    assert inside.tolist() == [True] * 4 + [False]


def test_from_start_drops_what_the_last_gap_does_not_set_apart():
    """Sums within 2**-54 of the whole are the window's end, as in the floating-point sums of upstream."""
    whole = 2**61
    x, inside = from_start(np, np.array([whole - 2**9, whole - 1, whole, whole], np.int64), np.full(4, whole, np.int64))
    assert inside.tolist() == [True, False, False, False]
    assert x[0] == CIRCLE - 1


@PROPERTY
@given(
    window_us=st.integers(1_000_000, 4_294_000_000),
    segments=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_clock_is_monotone_and_stays_in_the_window(window_us, segments, seed):
    rng = np.random.default_rng(seed)
    cuts = np.unique(rng.integers(1, CIRCLE, segments - 1))
    first = np.concatenate(([0], cuts)).astype(np.uint64)
    width = np.diff(first, append=np.uint64(CIRCLE))
    # stretches of nothing between segments are allowed: start and length of each are drawn apart
    marks = np.sort(rng.integers(0, window_us + 1, 2 * len(first)))
    marks[0], marks[-1] = 0, window_us
    start_us = marks[::2].astype(np.uint64)
    length_us = marks[1::2].astype(np.uint64) - start_us
    slope = (length_us << np.uint64(32)) // width

    at = np.concatenate([first, first + width - np.uint64(1), rng.integers(0, CIRCLE, 500).astype(np.uint64)])
    x = np.sort(at)
    of = np.searchsorted(first, x, side="right") - 1
    time_us = clock_us(np, x, first[of], start_us[of], slope[of])
    assert time_us.dtype == np.uint64
    assert (np.diff(time_us.astype(np.int64)) >= 0).all()
    assert (time_us < window_us).all()
    assert (time_us >= start_us[of]).all()
    assert (time_us <= start_us[of] + length_us[of]).all()
    assert time_us[0] == 0
    # against integers without a limit
    exact = [s + ((a - f) * m >> 32) for a, f, s, m in np.stack([x, first[of], start_us[of], slope[of]], 1).tolist()]
    assert time_us.tolist() == exact


@pytest.mark.parametrize("window_us", [1_000_000, 600_000_000, 4_294_000_000])
def test_clock_of_a_constant_window(window_us):
    zero = np.uint64(0)
    x = np.array([0, 1, 2**31, CIRCLE - 1], np.uint64)
    time_us = clock_us(np, x, zero, zero, np.uint64(window_us))
    assert time_us.tolist() == [0, 0, window_us // 2, window_us - 1]
