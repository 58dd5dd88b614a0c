"""Tables of normals: errors in every row against SciPy, borders, order, the way there and back, gates at large n."""

import numpy as np
import pytest
from gates import check, passes
from scipy.special import ndtr, ndtri
from scipy.stats import kstest

from servegen_gpu.law import normal
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.normal import (
    FIRST_QUARTER,
    HALF,
    LAST,
    MASS,
    QUANTILE,
    QUARTER_BITS,
    ROWS_PER_UNIT,
    Z_LIMIT,
    normal_of_word,
    word_of_normal,
)

N = 1 << 22
ENDS = np.arange(20_000, dtype=np.uint64)
BORDERS = (np.arange(FIRST_QUARTER, FIRST_QUARTER + 129) << QUARTER_BITS).view(np.float64)
"""Folded words at which rows of the quantile begin, and the middle."""
LARGEST_TRACE = 51_000_000


def words_of_row(row):
    """Up to 3,000 folded words of a row of the quantile, both ends among them."""
    first, last = np.ceil(BORDERS[row] - 0.5), np.ceil(BORDERS[row + 1] - 0.5) - 1
    return np.unique(np.linspace(first, last, 3_000).astype(np.uint64)) if first <= last else np.empty(0, np.uint64)


def masses(z):
    """Density of the normal distribution, in words."""
    return np.exp(z * z * -0.5) / np.sqrt(2 * np.pi) * 2.0**32


def test_quantile_in_every_row():
    reached = 0
    for row in range(QUANTILE.shape[1]):
        word = words_of_row(row)
        reached += len(word) > 0
        exact = ndtri((word + 0.5) * 2.0**-32)
        error = np.abs(normal_of_word(np, word) - exact)
        assert (error <= 4e-10).all()
        assert (error * masses(exact) <= 0.55).all()
    assert reached == 120  # the first three binades hold four words


def test_mass_in_every_row():
    for row in range(MASS.shape[1]):
        z = np.linspace(row, row + 1, 3_001)[:-1] / ROWS_PER_UNIT
        z = z[z <= Z_LIMIT]
        for sign in (1.0, -1.0):
            off = ndtr(z * sign) * 2.0**32 - word_of_normal(np, z * sign)  # rounded down
            assert (np.abs(off - 0.5) <= 0.52).all()


def test_no_test_of_a_distribution_sees_the_errors():
    """Both together, in the unit of a Kolmogorov-Smirnov statistic, at the number of rows of the largest trace here."""
    assert (0.55 + 0.02) * 2.0**-32 * LARGEST_TRACE**0.5 < 1e-6


def test_a_larger_word_has_a_larger_normal():
    around = [np.rint(border).astype(np.int64) + np.arange(-2_000, 2_000) for border in BORDERS]
    lower = np.unique(np.clip(np.concatenate(around), 0, HALF - 1)).astype(np.uint64)
    z = normal_of_word(np, np.concatenate((lower, LAST - lower[::-1])))
    assert (np.diff(z) > 0).all()
    assert (normal_of_word(np, ENDS) < 0).all()
    assert (normal_of_word(np, np.arange(0, 2**32, 3_001, dtype=np.uint64)) != 0).all()


def test_rows_meet():
    quantile = [np.polyval(QUANTILE[::-1, row], 0.25) for row in range(QUANTILE.shape[1])]
    np.testing.assert_allclose(quantile[:-1], QUANTILE[0, 1:], rtol=0, atol=1e-13)
    assert abs(quantile[-1]) < 1e-15
    mass = [np.polyval(MASS[::-1, row], 1.0) for row in range(MASS.shape[1])]
    np.testing.assert_allclose(mass[:-1], MASS[0, 1:], rtol=0, atol=1e-5)


def test_a_larger_normal_has_no_smaller_word():
    border = np.arange(0, 33) / ROWS_PER_UNIT
    near = border[:, None] + np.arange(-2_000, 2_000) * 2.0**-45
    z = np.unique(np.concatenate((near.ravel(), np.linspace(0, 8, 1 << 20))))
    for one in (z, -z[::-1]):
        assert (np.diff(word_of_normal(np, one).astype(np.int64)) >= 0).all()


def test_ends_and_middle():
    z = normal_of_word(np, np.array([0, HALF - 1, HALF, LAST], np.uint64))
    assert z[0] == -z[3] == pytest.approx(-6.337957754553790, abs=4e-10)  # 1 - 2**-33 of the mass
    assert z[1] == -z[2] == pytest.approx(-(2.0**-33) * np.sqrt(2 * np.pi), rel=1e-6)
    extremes = np.array([-np.inf, -1e300, -Z_LIMIT, -0.0, 0.0, Z_LIMIT, 1e300, np.inf])
    assert word_of_normal(np, extremes).tolist() == [0, 0, 0, HALF, HALF, LAST, LAST, LAST]


def test_both_halves_mirror_each_other():
    word = np.concatenate((ENDS, np.arange(0, 2**31, 10_007, dtype=np.uint64)))
    z = normal_of_word(np, word)
    assert (normal_of_word(np, LAST - word) == -z).all()
    assert (word_of_normal(np, -z) == LAST - word_of_normal(np, z)).all()


def test_words_survive_the_way_to_normals_and_back():
    rows = np.concatenate([words_of_row(row) for row in range(QUANTILE.shape[1])])
    word = np.concatenate((ENDS, rows, LAST - rows, HALF - 10_000 + ENDS)).astype(np.int64)
    back = word_of_normal(np, normal_of_word(np, word.astype(np.uint64))).astype(np.int64)
    assert np.abs(back - word).max() <= 1
    assert (back == word).mean() > 0.9


def test_tables_fit_the_first_cache():
    assert QUANTILE.shape == (7, 128)
    assert MASS.shape == (7, 32)
    assert QUANTILE.nbytes + MASS.nbytes < 9_000


def draws(client):
    return draw(np, derive_key(21), Purpose.GAP, ordinal=np.arange(N), client=client, window=0)


def p_uniform(share):
    return kstest(share, "uniform").pvalue


def tangents(table, rows):
    """The defect: in some rows a straight line, up to 0.4 % of the mass off."""
    wrong = table.copy()
    wrong[2:, rows] = 0.0
    return wrong


@pytest.mark.statistical
def test_normals_at_large_n(monkeypatch):
    word = draws(0)[0]
    check(p_uniform(ndtr(normal_of_word(np, word))), "normals of words")
    monkeypatch.setattr(normal, "QUANTILE", tangents(QUANTILE, slice(112, 128)))
    assert not passes(p_uniform(ndtr(normal_of_word(np, word))))


@pytest.mark.statistical
def test_words_at_large_n(monkeypatch):
    high, low = draws(1)[:2]
    z = ndtri(((high << np.uint64(20) | low >> np.uint64(12)) + 0.5) * 2.0**-52)
    check(p_uniform((word_of_normal(np, z) + 0.5) * 2.0**-32), "words of normals")
    monkeypatch.setattr(normal, "MASS", tangents(MASS, slice(0, 15)))
    assert not passes(p_uniform((word_of_normal(np, z) + 0.5) * 2.0**-32))
