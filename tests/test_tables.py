"""Guided lookup: the same bin as a plain search, whatever the table, the word and the guide."""

import numpy as np
import pytest
from gates import check, passes
from profiles import tables_of
from scipy.stats import chisquare

from servegen_gpu.backends.host.fields import lookup
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.tables import find_bin
from servegen_gpu.request import tables as module
from servegen_gpu.request.tables import WORDS, Tables, pack_tables

LAST = WORDS - 1


def of_thresholds(*tables):
    """Length tables with the given last words; values count the bins of all tables."""
    offsets = np.cumsum([0] + [len(thresholds) for thresholds in tables])
    return Tables(
        offsets.astype(np.int64), np.arange(offsets[-1], dtype=np.int32), np.concatenate(tables).astype(np.uint32)
    )


def random_thresholds(bins, seed):
    words = np.random.default_rng(seed).choice(2**32 - 1, bins - 1, replace=False)
    return np.append(np.sort(words), LAST)


THRESHOLDS = {
    "one bin": np.array([LAST]),
    "two bins": np.array([2**31, LAST]),
    "first word alone": np.array([0, LAST]),
    "last word alone": np.array([LAST - 1, LAST]),
    "thousands in the last guide cell": np.arange(LAST - 5_000, LAST + 1),
    "thousands in the first guide cell": np.append(np.arange(5_000), LAST),
    "on the edges of guide cells": np.arange(1, 4_097) * 2**20 - 1,
    "just past the edges of guide cells": np.append(np.arange(1, 4_096) * 2**20, LAST),
    "one word and all the others": np.array([12_345, 12_346, LAST]),
    "random": random_thresholds(3_000, 1),
    "even": np.rint(np.arange(1, 8) / 7 * 2**32).astype(np.int64) - 1,
}
"""Tables that are hard on guides, by name."""


def adversarial_words(thresholds):
    """Words at the ends, at every threshold and one beside it, at edges of guide cells, and anywhere."""
    edges = np.arange(2**12) << 20
    anywhere = np.random.default_rng(len(thresholds)).integers(0, WORDS, 2_000)
    near = [points + step for points in (thresholds.astype(np.int64), edges) for step in (-1, 0, 1)]
    words = np.concatenate([[0, LAST], *near, anywhere])
    return words[(words >= 0) & (words <= LAST)].astype(np.uint32)


def assert_same_bins(tables, packed):
    """Every table by a plain search against both guided ones, all tables in one call."""
    per_table = [tables.thresholds[a:b] for a, b in zip(tables.offsets[:-1], tables.offsets[1:], strict=True)]
    words = [adversarial_words(thresholds) for thresholds in per_table]
    expected = [
        first + np.searchsorted(thresholds, word)
        for first, thresholds, word in zip(tables.offsets[:-1], per_table, words, strict=True)
    ]
    table = np.repeat(np.arange(len(tables)), [len(word) for word in words])
    shuffled = np.random.default_rng(3).permutation(len(table))
    word, table, bins = np.concatenate(words)[shuffled], table[shuffled], np.concatenate(expected)[shuffled]
    np.testing.assert_array_equal(find_bin(np, word, table, packed), bins)
    np.testing.assert_array_equal(lookup(word, table, packed), bins)


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_one_table(name):
    tables = of_thresholds(THRESHOLDS[name])
    assert_same_bins(tables, pack_tables(tables))


def test_many_tables_at_once():
    sizes = np.random.default_rng(8).integers(2, 60, 300)
    tables = of_thresholds(*THRESHOLDS.values(), *(random_thresholds(n, n) for n in sizes), *THRESHOLDS.values())
    assert_same_bins(tables, pack_tables(tables))


@pytest.mark.parametrize(
    ("bits", "entries"), [(1, 1 << 24), (4, 1 << 24), (8, 1 << 24), (15, 1 << 24), (11, 1), (11, 3_000)]
)
def test_guide_does_not_change_bins(monkeypatch, bits, entries):
    tables = of_thresholds(*THRESHOLDS.values())
    usual = pack_tables(tables).guide_bits
    monkeypatch.setattr(module, "MAX_GUIDE_BITS", bits)
    monkeypatch.setattr(module, "MAX_GUIDE_ENTRIES", entries)
    packed = pack_tables(tables)
    assert packed.guide_bits != usual
    assert_same_bins(tables, packed)


def test_guides_shrink_where_there_are_many_tables(monkeypatch):
    monkeypatch.setattr(module, "MAX_GUIDE_ENTRIES", 2_000)
    packed = pack_tables(of_thresholds(*[THRESHOLDS["two bins"]] * 50))
    assert packed.guide_bits == 5
    assert len(packed.guide) == 50 * (2**5 + 1)
    assert pack_tables(of_thresholds(THRESHOLDS["two bins"])).guide_bits == 10


def test_guides_of_one_bin_settle_everything():
    packed = pack_tables(of_thresholds(THRESHOLDS["one bin"], THRESHOLDS["one bin"]))
    assert packed.steps == 0


def test_no_words():
    packed = pack_tables(of_thresholds(*THRESHOLDS.values()))
    nothing = np.empty(0, np.uint32), np.empty(0, np.int64)
    assert len(find_bin(np, *nothing, packed)) == len(lookup(*nothing, packed)) == 0


def test_lookup_is_monotone_in_the_word():
    tables = of_thresholds(THRESHOLDS["random"])
    words = np.sort(adversarial_words(THRESHOLDS["random"]))
    assert (np.diff(find_bin(np, words, np.zeros(len(words), np.int64), pack_tables(tables))) >= 0).all()


def test_fifty_million_counts_are_drawn_by_their_share():
    n = 51_000_000
    counts = np.ones(200_001, np.int64)
    counts[70_000] = n - 200_000
    tables = Tables.from_weights(np.array([0, len(counts)]), np.arange(len(counts)), counts)
    packed = pack_tables(tables)
    assert len(packed.values) == len(counts)

    def drawn(words):
        return packed.values[find_bin(np, words.astype(np.uint32), np.zeros(len(words), np.int64), packed)]

    last = tables.thresholds.astype(np.int64)
    first = np.concatenate(([0], last[:-1] + 1))
    bins = np.arange(len(counts))
    np.testing.assert_array_equal(drawn(first), bins)
    np.testing.assert_array_equal(drawn(last), bins)
    share = (last - first + 1) / WORDS
    assert np.abs(np.delete(share, 70_000) * n - 1).max() < 0.01
    assert share[70_000] == pytest.approx(counts[70_000] / n, abs=1e-8)


@pytest.mark.statistical
def test_draws_follow_the_histogram():
    weights = np.arange(1, 41) ** 1.5
    weights[7] = 0
    packed = pack_tables(tables_of([{0: 1.0}, dict(enumerate(weights.tolist())), {0: 1.0, 9: 2.0}]))
    n = 200_000
    word = draw(np, derive_key(3), Purpose.DATA, ordinal=np.arange(n), client=4, window=5)[0].astype(np.uint32)
    chosen = find_bin(np, word, np.ones(n, np.int64), packed)
    values = packed.values[chosen]
    assert not (values == 7).any()

    def p_value(values):
        kept = np.flatnonzero(weights)
        return chisquare(np.bincount(values, minlength=40)[kept], weights[kept] / weights.sum() * n).pvalue

    check(p_value(values), "draws from a histogram")
    # the defect: the bin beside the right one
    assert not passes(p_value(packed.values[np.clip(chosen + 1, 1, 39)]))
    assert not passes(p_value(packed.values[np.clip(chosen - 1, 1, 39)]))
