"""Philox: the published known answers, and a scalar version written from the paper as a second oracle."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegen_gpu.law.philox import philox4x32

KAT = Path(__file__).parent / "data" / "philox_kat.txt"
WORD = st.one_of(st.sampled_from([0, 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


def known_answers():
    lines = [line.split() for line in KAT.read_text().splitlines() if not line.startswith("#")]
    rows = [[int(word, 16) for word in line[2:]] for line in lines if line[:2] == ["philox4x32", "10"]]
    return [(row[:4], tuple(row[4:6]), row[6:]) for row in rows]


def scalar_philox(counter, key):
    """Ten rounds in Python's own integers, as figure 2 of Salmon et al. draws them."""
    left0, right0, left1, right1 = counter[1], counter[0], counter[3], counter[2]
    key = list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * right0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * right1, 2**32)
        right0, left0, right1, left1 = high1 ^ left0 ^ key[0], low1, high0 ^ left1 ^ key[1], low0
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return [right0, left0, right1, left1]


def words(counter, key):
    return [int(word[0]) for word in philox4x32(np, tuple(np.array([word], np.uint64) for word in counter), key)]


def test_there_are_three_known_answers():
    assert len(known_answers()) == 3


@pytest.mark.parametrize(("counter", "key", "result"), known_answers(), ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, result):
    assert words(counter, key) == result
    assert scalar_philox(counter, key) == result


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD))
def test_equals_a_scalar_version(counter, key):
    assert words(counter, key) == scalar_philox(counter, key)


def test_counters_broadcast():
    c0 = np.arange(7, dtype=np.uint64)[:, None]
    c1 = np.arange(3, dtype=np.uint64) + np.uint64(2**32 - 3)
    zero = np.zeros((), np.uint64)
    result = np.stack(philox4x32(np, (c0, c1, zero, zero), (8, 9)), axis=-1)
    assert result.shape == (7, 3, 4)
    assert result.dtype == np.uint64
    expected = [[scalar_philox((a, b, 0, 0), (8, 9)) for b in c1.tolist()] for a in range(7)]
    assert result.tolist() == expected


def test_counters_are_left_as_they_were():
    counter = tuple(np.arange(5, dtype=np.uint64) + np.uint64(i) for i in range(4))
    copies = [word.copy() for word in counter]
    philox4x32(np, counter, (1, 2))
    for word, copy in zip(counter, copies, strict=True):
        np.testing.assert_array_equal(word, copy)
