"""Length tables: exact where 32 bits allow, and never empty."""

import numpy as np
import pytest
from profiles import tables_of

from servegen_gpu.request.tables import WORDS, Tables


def test_one_bin_table_takes_every_word():
    tables = tables_of([{17: 1.0}])
    assert tables.thresholds.tolist() == [WORDS - 1]
    assert tables.widths().tolist() == [WORDS]


def test_binary_probabilities_are_exact():
    values, probabilities = tables_of([{1: 0.25, 2: 0.5, 9: 0.25}]).table(0)
    assert values.tolist() == [1, 2, 9]
    assert probabilities.tolist() == [0.25, 0.5, 0.25]


def test_word_selects_first_bin_not_below_it():
    tables = tables_of([{1: 0.25, 2: 0.75}])
    words = np.array([0, 2**30 - 1, 2**30, WORDS - 1], np.uint32)
    assert tables.values[np.searchsorted(tables.thresholds, words)].tolist() == [1, 1, 2, 2]


def test_fifty_million_counts_keep_single_counts():
    n = 51_000_000
    counts = np.ones(1_000_001, np.int64)
    counts[500_000] = n - 1_000_000
    for weights in (counts, counts / n):
        tables = Tables.from_weights(np.array([0, len(counts)]), np.arange(len(counts)), weights)
        values, probabilities = tables.table(0)
        assert len(values) == len(counts)
        single = np.delete(probabilities, 500_000)
        assert np.abs(single * n - 1).max() < 0.01
        assert np.abs(np.cumsum(probabilities) - np.cumsum(counts) / n).max() <= 1 / WORDS


def test_zero_weight_bins_are_left_out():
    values, probabilities = tables_of([{1: 0.0, 2: 0.5, 3: 0.0, 4: 0.5, 5: 0.0}]).table(0)
    assert values.tolist() == [2, 4]
    assert probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("histogram", "kept"),
    [({1: 1e-12, 2: 1.0}, [2]), ({1: 0.5, 2: 1e-12, 3: 0.5}, [1, 3]), ({1: 1.0, 2: 1e-12}, [1])],
    ids=["first", "middle", "last"],
)
def test_bins_too_light_for_a_word(histogram, kept):
    values, probabilities = tables_of([histogram]).table(0)
    assert values.tolist() == kept
    assert probabilities.sum() == 1


def test_last_bin_takes_the_rest():
    tables = tables_of([{1: 0.1, 2: 0.2, 3: 0.3}])  # weights need not sum to 1
    assert tables.thresholds[-1] == WORDS - 1
    assert tables.table(0)[1] == pytest.approx([1 / 6, 1 / 3, 1 / 2], abs=2**-32)


@pytest.mark.parametrize("scale", [1e-300, 1e-5, 1.0, 1e200])
def test_scale_of_weights_does_not_matter(scale):
    weights = np.array([0.3, 0.1, 0.6])
    one = Tables.from_weights(np.array([0, 3]), np.arange(3), weights)
    other = Tables.from_weights(np.array([0, 3]), np.arange(3), weights * scale)
    assert one.table(0)[1] == pytest.approx(other.table(0)[1], abs=2**-31)


def test_tables_do_not_depend_on_their_neighbours():
    rng = np.random.default_rng(5)
    histograms = [dict(enumerate(rng.random(rng.integers(1, 90)).tolist())) for _ in range(6_000)]
    together = tables_of(histograms)  # enough for the running sum of weights to pass 2**63
    assert (together.widths() > 0).all()
    for t in (0, 1, 2_500, 5_999):
        alone = tables_of([histograms[t]])
        bins = slice(together.offsets[t], together.offsets[t + 1])
        assert together.thresholds[bins].tolist() == alone.thresholds.tolist()
        assert together.values[bins].tolist() == alone.values.tolist()


def test_widths_of_every_table_sum_to_all_words():
    tables = tables_of([{1: 1.0}, {2: 0.5, 3: 0.5}, {4: 1.0}, {5: 0.1, 6: 0.9}])
    assert np.add.reduceat(tables.widths(), tables.offsets[:-1]).tolist() == [WORDS] * 4


def test_select_and_join():
    tables = tables_of([{1: 1.0}, {2: 0.5, 3: 0.5}, {4: 0.25, 5: 0.75}])
    picked = tables.select(np.array([2, 0, 2]))
    assert [picked.table(t)[0].tolist() for t in range(3)] == [[4, 5], [1], [4, 5]]
    joined = Tables.join([tables, picked])
    assert joined.offsets.tolist() == [0, 1, 3, 5, 7, 8, 10]
    assert [joined.table(t)[0].tolist() for t in (1, 3)] == [[2, 3], [4, 5]]
    assert [joined.table(t)[1].tolist() for t in (2, 5)] == [[0.25, 0.75]] * 2


def test_arrays_are_read_only():
    tables = tables_of([{1: 1.0}])
    with pytest.raises(ValueError, match="read-only"):
        tables.values[0] = 3
