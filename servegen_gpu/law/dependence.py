"""How the fields of one request depend on each other: three kinds, chosen by name.

independent
    A word of its own for every field.
comonotone
    One word for all fields, as alibaba/ServeGen has it: rank correlation 1 inside a cell.
copula
    A Gaussian copula: words become normals, a lower triangular matrix mixes them, normals become words. A Spearman
    correlation ρ of two continuous fields needs the latent Pearson correlation 2 sin(πρ/6). Clients may have matrices
    of their own.

Axes: fields (scalar ones, in lane order), mixings (matrices), requests.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.normal import normal_of_word, word_of_normal

KINDS = ("independent", "comonotone", "copula")


def is_rank_correlation(matrices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether matrices are symmetric, with ones on the diagonal and entries in [-1, 1]; bool[...].

    Parameters
    ----------
    matrices : float64[..., fields, fields]
    """
    symmetric = (matrices == matrices.swapaxes(-1, -2)).all(axis=(-1, -2))
    ones = (np.diagonal(matrices, axis1=-2, axis2=-1) == 1).all(axis=-1)
    return np.asarray(symmetric & ones & (np.abs(matrices) <= 1).all(axis=(-1, -2)))


def mixing_matrix(spearman: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower triangular matrix that gives normals the latent correlations of a Spearman matrix.

    A matrix that no random variables can have is repaired by shrinking its off-diagonal entries, all by the same
    factor, until it is positive definite.

    Parameters
    ----------
    spearman : float64[fields, fields]
        Symmetric, ones on the diagonal, entries in [-1, 1] (checked by the caller).

    Returns
    -------
    float64[fields, fields]
        Rounded to 2**-40, so that the last bit of a machine's sine never shows.
    """
    pearson = [[2.0 * math.sin(math.pi * float(rho) / 6.0) for rho in row] for row in spearman]
    shrink = 1.0
    while (lower := _cholesky(pearson, shrink)) is None:
        shrink -= 2.0**-10
    return np.rint(np.array(lower) * 2.0**40) * 2.0**-40


def _cholesky(matrix: list[list[float]], shrink: float) -> list[list[float]] | None:
    """Cholesky factor with the off-diagonal shrunk, or None; plain arithmetic, the same on every machine."""
    n = len(matrix)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i):
            inner = math.fsum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = (matrix[i][j] * shrink - inner) / lower[j][j]
        rest = 1.0 - math.fsum(entry * entry for entry in lower[i][:i])
        if rest < 2.0**-30:
            return None
        lower[i][i] = math.sqrt(rest)
    return lower


def ties(mixing: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    """Which earlier fields each field depends on, under any of the matrices.

    Parameters
    ----------
    mixing : float64[..., fields, fields]
    """
    used = (mixing != 0).reshape(-1, *mixing.shape[-2:]).any(axis=0)
    return tuple(tuple(np.flatnonzero(row[:i]).tolist()) for i, row in enumerate(used))


def mix_words(
    xp: Any, words: list[Any], mixing: Any, of: Any = None, tied: tuple[tuple[int, ...], ...] | None = None
) -> list[Any]:
    """Words of the fields after the Gaussian copula; a field that depends on no earlier one keeps its word.

    Parameters
    ----------
    words : fields of uint64[n]
        Independent words.
    mixing : float64[fields, fields] or float64[mixings, fields, fields]
        From `mixing_matrix`.
    of : int[n], optional
        Which matrix each request has, where there are several.
    tied : optional
        `ties` of the matrices, needed where their values are not known yet.

    Returns
    -------
    fields of uint64[n]
    """
    tied = ties(mixing) if tied is None else tied
    used = sorted({j for i, earlier in enumerate(tied) if earlier for j in (*earlier, i)})
    normals = {j: normal_of_word(xp, words[j]) for j in used}
    mixed = list(words)
    for i, earlier in enumerate(tied):
        if not earlier:
            continue
        terms = [normals[j] * (mixing[i, j] if of is None else mixing[of, i, j]) for j in (*earlier, i)]
        mixed[i] = word_of_normal(xp, reduce(add, terms))
        if of is not None:
            own = (mixing[..., i, :i] != 0).any(axis=-1)
            mixed[i] = xp.where(own[of], mixed[i], words[i])
    return mixed
