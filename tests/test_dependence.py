"""The Gaussian copula: the latent correlation it is given, marginals as they were, and repair of the impossible."""

import math

import numpy as np
import pytest
from gates import GATE_ALPHA, check, passes
from scipy.stats import kstest, norm, spearmanr

from servegen_gpu.law import dependence
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.dependence import mix_words, mixing_matrix, ties
from servegen_gpu.law.normal import normal_of_word

N = 100_000
FIELDS = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])
IMPOSSIBLE = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])


def words(client, count=3, n=N):
    return list(draw(np, derive_key(5), Purpose.DATA, ordinal=np.arange(n), client=client, window=0))[:count]


def two_fields(rho):
    return mixing_matrix(np.array([[1.0, rho], [rho, 1.0]]))


def latent(mixing):
    return mixing @ mixing.T


def pearson_of(spearman):
    return 2 * np.sin(np.pi * spearman / 6)


def p_uniform(word):
    return kstest((word + 0.5) / 2**32, "uniform").pvalue


def p_spearman(one, other, rho):
    """Two-sided p-value of a Spearman correlation; 1.1 / sqrt(n) is above its standard error at any rho."""
    return 2 * norm.sf(abs(spearmanr(one, other).statistic - rho) / (1.1 / math.sqrt(len(one))))


@pytest.mark.parametrize("rho", [-0.99, -0.5, -0.1, 0.0, 0.1, 1 / 3, 0.8, 0.99])
def test_spearman_becomes_pearson(rho):
    mixing = two_fields(rho)
    assert mixing[1, 0] == pytest.approx(2 * math.sin(math.pi * rho / 6), abs=2.0**-40)
    assert mixing[0].tolist() == [1.0, 0.0]


def test_mixing_gives_the_latent_correlation():
    mixing = mixing_matrix(FIELDS)
    np.testing.assert_allclose(latent(mixing), pearson_of(FIELDS), atol=1e-11)
    assert (np.triu(mixing, 1) == 0).all()
    assert (np.diag(mixing) > 0).all()


def test_five_fields():
    rng = np.random.default_rng(2)
    loadings = rng.normal(size=(5, 5))
    normal = loadings @ loadings.T
    spread = np.sqrt(np.diag(normal))
    spearman = 6 / np.pi * np.arcsin(normal / np.outer(spread, spread) / 2)
    np.fill_diagonal(spearman, 1)
    np.testing.assert_allclose(latent(mixing_matrix(spearman)), pearson_of(spearman), atol=1e-11)


@pytest.mark.parametrize("matrix", [FIELDS, IMPOSSIBLE])
def test_entries_are_whole_multiples(matrix):
    scaled = mixing_matrix(matrix) * 2.0**40
    np.testing.assert_array_equal(scaled, np.rint(scaled))
    assert np.abs(scaled - np.rint(scaled / 2) * 2).any()  # of 2**-40, not of 2**-39


@pytest.mark.parametrize("matrix", [IMPOSSIBLE, np.ones((3, 3)), np.array([[1.0, -1.0], [-1.0, 1.0]])])
def test_impossible_matrices_shrink_as_little_as_need_be(matrix):
    mixing = mixing_matrix(matrix)
    off = ~np.eye(len(matrix), dtype=bool)
    factors = latent(mixing)[off] / pearson_of(matrix)[off]
    shrink = factors[0]
    np.testing.assert_allclose(factors, shrink, atol=1e-9)  # all by the same factor
    assert 0 < shrink < 1
    np.testing.assert_allclose(np.diag(latent(mixing)), 1, atol=1e-11)
    # the next larger factor would not do
    larger = np.where(off, pearson_of(matrix) * (shrink + 2.0**-10), 1.0)
    assert np.linalg.eigvalsh(larger)[0] < 1e-8


def test_possible_matrices_are_not_shrunk():
    almost = np.array([[1.0, 0.999], [0.999, 1.0]])
    np.testing.assert_allclose(latent(mixing_matrix(almost)), pearson_of(almost), atol=1e-11)


def test_identity_leaves_words_alone():
    drawn = words(1)
    for mixed, word in zip(mix_words(np, drawn, mixing_matrix(np.eye(3))), drawn, strict=True):
        assert mixed is word


def test_unmixed_fields_keep_their_words():
    spearman = np.eye(3)
    spearman[0, 2] = spearman[2, 0] = 0.5
    drawn = words(2)
    mixed = mix_words(np, drawn, mixing_matrix(spearman))
    assert mixed[0] is drawn[0]
    assert mixed[1] is drawn[1]
    assert (mixed[2] != drawn[2]).mean() > 0.999


def test_ties_are_the_earlier_fields_of_any_matrix():
    spearman = np.eye(4)
    spearman[1, 3] = spearman[3, 1] = 0.5
    first = mixing_matrix(spearman)
    spearman[0, 1] = spearman[1, 0] = -0.2
    assert ties(np.eye(4)) == ((), (), (), ())
    assert ties(first) == ((), (), (), (1,))
    assert ties(np.stack([np.eye(4), first, mixing_matrix(spearman)])) == ((), (0,), (), (1,))


@pytest.mark.parametrize("several", [False, True])
def test_only_tied_fields_become_normals(several, monkeypatch):
    spearman = np.eye(4)
    spearman[1, 3] = spearman[3, 1] = 0.5
    mixing = mixing_matrix(spearman)
    matrices = (np.stack([np.eye(4), mixing]), np.arange(N) % 2) if several else (mixing,)
    made = []

    def counted(xp, word):
        made.append(word)
        return normal_of_word(xp, word)

    monkeypatch.setattr(dependence, "normal_of_word", counted)
    drawn = words(2, 4)
    mixed = mix_words(np, drawn, *matrices)
    assert [next(f for f, word in enumerate(drawn) if word is one) for one in made] == [1, 3]
    assert all(mixed[f] is drawn[f] for f in range(3))


def test_requests_with_matrices_of_their_own():
    spearman = np.stack([np.eye(3), FIELDS, np.eye(3), np.eye(3)])
    spearman[3, 0, 2] = spearman[3, 2, 0] = 0.5
    mixings, of = np.stack([mixing_matrix(matrix) for matrix in spearman]), np.arange(N) % 4
    drawn = words(3, 3)
    mixed = mix_words(np, drawn, mixings, of)
    for m, mixing in enumerate(mixings):
        alone = mix_words(np, [word[of == m] for word in drawn], mixing)
        for f in range(3):
            assert np.array_equal(mixed[f][of == m], alone[f])
            tied = m in (1, 3) if f == 2 else m == 1 and f == 1
            assert ((mixed[f] != drawn[f])[of == m].mean() > 0.999) == tied


def test_mixed_words_are_words():
    corners = np.array(np.meshgrid(*[[0, 1, 2**31, 2**32 - 2, 2**32 - 1]] * 3), np.uint64).reshape(3, -1)
    for matrix in (FIELDS, IMPOSSIBLE, np.ones((3, 3))):
        for word in mix_words(np, list(corners), mixing_matrix(matrix)):
            assert word.dtype == np.uint64
            assert (word < 2**32).all()


def test_larger_words_give_larger_words():
    drawn = words(3, 2)
    more = [np.minimum(word + np.uint64(10_000), np.uint64(2**32 - 1)) for word in drawn]
    mixing = two_fields(0.7)
    assert (mix_words(np, more, mixing)[1] >= mix_words(np, drawn, mixing)[1]).all()


@pytest.mark.statistical
def test_marginals_stay_uniform():
    mixing = mixing_matrix(FIELDS)
    for field, word in enumerate(mix_words(np, words(4), mixing)):
        check(p_uniform(word), f"marginal of field {field}")
    # the defect: rows whose squares do not sum to 1
    assert not passes(p_uniform(mix_words(np, words(4), mixing * 1.05)[1]))


@pytest.mark.statistical
@pytest.mark.parametrize("rho", [-0.9, -0.4, 0.1, 0.6, 0.95])
def test_rank_correlation_of_two_fields(rho):
    n = 2 * N
    drawn = words(5, 2, n)
    one, other = mix_words(np, drawn, two_fields(rho))
    assert abs(spearmanr(one, other).statistic - rho) < 5 / math.sqrt(n)
    check(p_spearman(one, other, rho), f"Spearman {rho}")
    # the defects: correlations off by 0.025; no mixing at all
    for wrong in (rho - 0.025, rho + 0.025):
        assert not passes(p_spearman(*mix_words(np, drawn, two_fields(wrong)), rho))
    assert not passes(p_spearman(*drawn, rho))


@pytest.mark.statistical
def test_spearman_given_as_pearson_is_rejected():
    n = 4 * N
    drawn = words(6, 2, n)
    check(p_spearman(*mix_words(np, drawn, two_fields(0.5)), 0.5), "Spearman 0.5")
    plain = np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    assert not passes(p_spearman(*mix_words(np, drawn, plain), 0.5))


@pytest.mark.statistical
def test_rank_correlations_of_three_fields():
    mixed = mix_words(np, words(7), mixing_matrix(FIELDS))
    turned = np.roll(FIELDS, (-1, -1), axis=(0, 1))  # the defect: fields in another order
    wrong = mix_words(np, words(7), mixing_matrix(turned))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(spearmanr(mixed[i], mixed[j]).statistic - FIELDS[i, j]) < 5 / math.sqrt(N)
        check(p_spearman(mixed[i], mixed[j], FIELDS[i, j]), f"Spearman of fields {i} and {j}")
        assert not passes(p_spearman(wrong[i], wrong[j], FIELDS[i, j]))


@pytest.mark.statistical
def test_fields_of_a_draw_are_independent():
    drawn = words(8, 4)
    for i in range(4):
        for j in range(i):
            check(p_spearman(drawn[i], drawn[j], 0.0), f"fields {i} and {j}")
    # the defect: one uniform shared by two fields, even in 1 request of 20
    shared = np.where(np.arange(N) % 20 == 0, drawn[0], drawn[1])
    assert not passes(p_spearman(drawn[0], shared, 0.0))


def test_budget_is_what_a_gate_gets():
    assert passes(GATE_ALPHA)
    assert not passes(GATE_ALPHA * 0.999)
    assert not passes(math.nan)
    with pytest.raises(AssertionError, match="planted: p = 0"):
        check(0.0, "planted")
