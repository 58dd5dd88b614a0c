"""The order of a slab: by time, and equal times as they came."""

import numpy as np
import pytest

from servegen_gpu import merge
from servegen_gpu.merge import merge_order

SHORT, LONG = 86_400_000_000, 2**62
"""Spans that leave room for a position beside the time, and that do not."""
TIMES = {
    "none": [],
    "one": [7],
    "ascending": [0, 1, 2],
    "descending": [2, 1, 0],
    "ties": [5, 3, 5, 3, 5, 3, 0, 0, 5],
    "all equal": [4] * 100,
    "ends of the span": [SHORT - 1, 0, SHORT - 1, 0],
    "random with ties": np.random.default_rng(6).integers(0, 300, 5_000).tolist(),
    "random": np.random.default_rng(7).integers(0, SHORT, 5_000).tolist(),
}


@pytest.fixture
def argsorts(monkeypatch):
    """Lengths of what was sorted by the fallback."""
    calls = []
    plain = np.argsort
    monkeypatch.setattr(merge.np, "argsort", lambda a, **how: calls.append(len(a)) or plain(a, **how))
    return calls


@pytest.mark.parametrize("name", list(TIMES))
@pytest.mark.parametrize("span_us", [SHORT, LONG])
def test_order_is_stable(name, span_us, argsorts):
    times = np.array(TIMES[name], np.int64)
    before = times.copy()
    sorted_us, order = merge_order(times, span_us)
    assert order.tolist() == sorted(range(len(times)), key=lambda i: TIMES[name][i])  # Python's sort is stable
    assert sorted_us.tolist() == sorted(TIMES[name])
    assert sorted_us.dtype == order.dtype == np.int64
    np.testing.assert_array_equal(times, before)
    assert len(argsorts) == (span_us == LONG)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 1_024, 1_025])
def test_both_ways_agree_where_one_takes_over(n, argsorts):
    position_bits = max(1, n - 1).bit_length()
    span_us = 2 ** (63 - position_bits) - 1  # the largest that fits
    times = np.random.default_rng(n).choice([0, 1, span_us // 2, span_us - 2, span_us - 1], n)
    expected = np.argsort(times, kind="stable")
    argsorts.clear()
    packed = merge_order(times, span_us)
    assert not argsorts
    fallback = merge_order(times, span_us + 1)
    assert argsorts == [n]
    for sorted_us, order in (packed, fallback):
        np.testing.assert_array_equal(order, expected)
        np.testing.assert_array_equal(sorted_us, times[expected])
