"""How the fields of a request depend on each other, and what carries it: clusters, a copula, or nothing.

Candidates are compared with the log by the energy distance (Székely and Rizzo, 2013) of the logarithms of all fields
at once, which sees dependence of any shape; the simplest candidate within noise of the best is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pooled import rank_correlation
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.chance import sample_rows, uniforms
from servegen_gpu.fitting.tallies import Tally, tally
from servegen_gpu.law.dependence import mixing_matrix

SAMPLE = 3_000
"""Requests on either side of an energy distance."""
POOL = 200_000
"""Requests that candidates draw from."""
BLOCK_ROWS = 512
SPLITS = 64
NOISE_LEVEL = 0.95
MARGIN = 1.5
"""How many times the noise a simpler candidate may be worse than the best: this is the best of several."""
TERMS = 48
"""Of a series in Hermite polynomials."""
ROW_LANE, MODEL_LANE, SPLIT_LANE = 32, 40, 64
POOLED = "pooled"


@dataclass(frozen=True)
class Candidate:
    """What may carry dependence.

    Attributes
    ----------
    labels : str
        Name of the labels inside which fields are drawn: `POOLED`, or a key of what was given.
    copula : bool
        Whether a Gaussian copula ties the fields inside a label.
    energy : float
        Distance to the log; may be below 0 by chance.
    """

    labels: str
    copula: bool
    energy: float


@dataclass(frozen=True, eq=False)
class Dependence:
    """What carries the dependence of a log, and how candidates compared.

    Attributes
    ----------
    chosen : Candidate
    candidates : tuple of Candidate
        In order of simplicity.
    floor : float
        Distance of one part of the log to another.
    noise : float
        95th percentile of the distance between random parts of the log, as large as those compared.
    spearman : float64[labels, fields, fields]
        What to state for each label of the choice, so that the log's rank correlations come out; zeros off the
        diagonal if fields are independent.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    floor: float
    noise: float
    spearman: NDArray[np.float64]


def choose_dependence(
    fields: NDArray[np.int64], labels: Mapping[str, NDArray[np.integer]], *, seed: int = 0
) -> Dependence:
    """Compare ways to draw the fields of a request, and choose.

    Parameters
    ----------
    fields : int64[fields, n]
        Of each request: tokens, items, or k of k/501.
    labels : mapping of str to int[n]
        Clusters or clients, the simplest first; all requests together are always a candidate.
    seed : int

    Raises
    ------
    OptionError
        If there are no requests.
    """
    n = fields.shape[1]
    if not n:
        raise OptionError("a log with requests", "none", "give another log")
    every = {POOLED: np.zeros(n, np.int64)} | {name: np.asarray(label, np.int64) for name, label in labels.items()}
    if n < 4:
        alone = Candidate(POOLED, False, 0.0)
        return Dependence(alone, (alone,), 0.0, 0.0, np.eye(len(fields))[None])
    points = _standardised(fields)
    seen = sample_rows(n, min(SAMPLE, n // 2), seed, ROW_LANE)
    rest = np.ones(n, np.bool_)
    rest[seen] = False
    drawn_from = np.flatnonzero(rest)
    drawn_from = drawn_from[sample_rows(len(drawn_from), POOL, seed, ROW_LANE + 1)]
    like = drawn_from[sample_rows(len(drawn_from), len(seen), seed, ROW_LANE + 2)]
    log = points[seen]
    own = _mean_distance(log, log)
    floor = energy_distance(log, points[like], own)
    noise = noise_of_halves(points[np.concatenate((seen, like))], seed)
    candidates = []
    for copula in (False, True):
        for lane, (name, label) in enumerate(every.items()):
            base = fields[:, drawn_from], label[drawn_from]
            spearman = label_spearman(*base, int(label.max()) + 1) if copula else None
            model = draw_fields(*base, label[like], spearman, seed, MODEL_LANE + lane)
            candidates.append(Candidate(name, copula, energy_distance(log, _at(points[drawn_from], model), own)))
    candidates = _by_simplicity(candidates)
    best = min(c.energy for c in candidates)
    chosen = next(c for c in candidates if c.energy <= best + MARGIN * noise)
    label = every[chosen.labels]
    count = int(label.max()) + 1
    rows = sample_rows(n, POOL, seed, ROW_LANE + 3)
    spearman = (
        label_spearman(fields[:, rows], label[rows], count)
        if chosen.copula
        else np.repeat(np.eye(len(fields))[None], count, axis=0)
    )
    return Dependence(chosen, tuple(candidates), floor, noise, spearman)


def _by_simplicity(candidates: list[Candidate]) -> list[Candidate]:
    """Nothing, a copula, labels from the simplest on, and labels with a copula inside."""
    return sorted(candidates, key=lambda c: (c.labels != POOLED, c.copula))


def _standardised(fields: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithms with mean 0 and variance 1, float64[n, fields]."""
    log = np.log1p(fields)
    return np.asarray(((log - log.mean(axis=1)[:, None]) / np.maximum(log.std(axis=1), 1e-9)[:, None]).T)


def _at(points: NDArray[np.float64], model: NDArray[np.int64]) -> NDArray[np.float64]:
    """Drawn rows of each field as points."""
    return np.stack([points[row, lane] for lane, row in enumerate(model)], axis=1)


def _mean_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Mean distance of pairs; of a set with itself, of different points."""
    from scipy.spatial.distance import cdist

    total = sum(float(cdist(x[b : b + BLOCK_ROWS], y).sum()) for b in range(0, len(x), BLOCK_ROWS))
    return total / max(len(x) * (len(y) - (x is y)), 1)


def energy_distance(x: NDArray[np.float64], y: NDArray[np.float64], own: float | None = None) -> float:
    """Energy distance of two samples, without bias: 0 in the mean if both have the same distribution.

    Parameters
    ----------
    x, y : float64[n, d], float64[m, d]
    own : float, optional
        Mean distance inside `x`, if it is known.
    """
    return 2 * _mean_distance(x, y) - (_mean_distance(x, x) if own is None else own) - _mean_distance(y, y)


def noise_of_halves(points: NDArray[np.float64], seed: int) -> float:
    """95th percentile of the energy distance between random halves, scaled to twice as many points on either side."""
    from scipy.spatial.distance import cdist

    some = points[sample_rows(len(points), SAMPLE, seed, SPLIT_LANE)]
    half, n = len(some) // 2, len(some)
    order = np.argsort(uniforms(seed, SPLIT_LANE + 1, n * SPLITS).reshape(n, SPLITS), axis=0)
    first = np.zeros((n, SPLITS))
    np.put_along_axis(first, order[:half], 1.0, axis=0)
    second = 1 - first
    apart = np.zeros((3, SPLITS))
    for begin in range(0, n, BLOCK_ROWS):
        rows = slice(begin, begin + BLOCK_ROWS)
        near = cdist(some[rows], some)
        to_first, to_second = near @ first, near @ second
        apart[0] += (first[rows] * to_second).sum(axis=0)
        apart[1] += (first[rows] * to_first).sum(axis=0)
        apart[2] += (second[rows] * to_second).sum(axis=0)
    other = n - half
    pairs = np.array([half * other, max(half * (half - 1), 1), max(other * (other - 1), 1)])
    between, inside_first, inside_second = apart / pairs[:, None]
    found = 2 * between - inside_first - inside_second
    return max(float(np.quantile(found, NOISE_LEVEL)), 0.0) * (half / max(len(points) // 2, 1))


def draw_fields(
    fields: NDArray[np.int64],
    label: NDArray[np.int64],
    wanted: NDArray[np.int64],
    spearman: NDArray[np.float64] | None,
    seed: int,
    lane: int,
) -> NDArray[np.int64]:
    """Rows to take each field from, int64[fields, m], for requests of the labels `wanted`.

    Fields are drawn independently inside a label, or tied by a copula with the Spearman matrix of each label.
    """
    from scipy.special import ndtr, ndtri

    count = max(int(label.max()), int(wanted.max())) + 1
    size = np.bincount(label, minlength=count)
    begin = np.cumsum(size) - size
    chance = uniforms(seed, lane, len(fields) * len(wanted)).reshape(len(fields), -1)
    if spearman is not None:
        used, of = np.unique(wanted, return_inverse=True)
        mixing = np.stack([mixing_matrix(matrix) for matrix in spearman[used]])[of]
        chance = ndtr(np.einsum("nij,jn->in", mixing, ndtri(chance)))
    place = np.minimum((chance * size[wanted]).astype(np.int64), size[wanted] - 1) + begin[wanted]
    return np.stack([np.lexsort((field, label))[at] for field, at in zip(fields, place, strict=True)])


def label_spearman(fields: NDArray[np.int64], label: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Spearman matrices to state for each label so that the log's come out, float64[labels, fields, fields]."""
    counted = [tally(field, label, count) for field in fields]
    return stated_spearman(measured_spearman(fields, label, counted), counted)


def stated_spearman(wanted: NDArray[np.float64], counted: list[Tally]) -> NDArray[np.float64]:
    """Spearman matrices to state so that whole numbers have the rank correlations `wanted`.

    Ties weaken a copula: what is stated is what a copula of continuous fields needs for the same correlation.

    Parameters
    ----------
    wanted : float64[labels, fields, fields]
    counted : list of Tally
        Of each field, by label.
    """
    rank = [_rank_series(one) for one in counted]
    stated = np.repeat(np.eye(len(counted))[None], len(wanted), axis=0)
    for i, j in zip(*np.tril_indices(len(counted), -1), strict=True):
        stated[:, i, j] = stated[:, j, i] = _stated(rank[i], rank[j], wanted[:, i, j])
    return stated


def pooled_spearman(fields: NDArray[np.int64], label: NDArray[np.int64], counted: list[Tally]) -> NDArray[np.float64]:
    """Spearman matrix of all labels together, by ranks inside each label, float64[fields, fields]."""
    ranks = np.stack([_midranks(field, label, one) for field, one in zip(fields, counted, strict=True)])
    return rank_correlation(ranks, label, np.ones(len(label)), len(counted[0]))


def measured_spearman(fields: NDArray[np.int64], label: NDArray[np.int64], counted: list[Tally]) -> NDArray[np.float64]:
    """Spearman matrix of each label, float64[labels, fields, fields]; 0 for a field that does not vary."""
    count = len(counted[0])
    size = np.maximum(np.bincount(label, minlength=count), 1)
    # mean ranks are 1/2 in every label
    off = [_midranks(field, label, one) - 0.5 for field, one in zip(fields, counted, strict=True)]
    spread = [np.sqrt(np.bincount(label, x * x, count) / size) for x in off]
    found = np.repeat(np.eye(len(fields))[None], count, axis=0)
    for i in range(len(fields)):
        for j in range(i):
            scale = spread[i] * spread[j]
            both = np.bincount(label, off[i] * off[j], count) / size
            found[:, i, j] = found[:, j, i] = np.clip(
                np.divide(both, scale, out=np.zeros(count), where=scale > 1e-12), -1, 1
            )
    return found


def _midranks(field: NDArray[np.int64], label: NDArray[np.int64], counted: Tally) -> NDArray[np.float64]:
    """Rank of each request among those of its label, from 0 to 1; ties have the middle of theirs."""
    key = counted.label << 32 | counted.values
    at = np.searchsorted(key, label << 32 | field)
    middle = (counted.before + counted.counts / 2) / np.maximum(counted.totals, 1)[counted.label]
    return np.asarray(middle[at])


def _rank_series(counted: Tally) -> NDArray[np.float64]:
    """Ranks as functions of a normal, in Hermite polynomials: float64[terms, labels], of ranks with variance 1.

    A rank is a staircase of the normal; its coefficients are sums over the steps.
    """
    from scipy.special import ndtri

    total = np.maximum(counted.totals, 1)[counted.label]
    share = counted.counts / total
    middle = counted.before / total + share / 2 - 0.5
    begin, end = ndtri(counted.before / total), ndtri(np.minimum((counted.before + counted.counts) / total, 1.0))
    starts = counted.offsets[:-1]
    spread = np.sqrt(np.add.reduceat(middle * middle * share, starts))
    series = np.zeros((TERMS, len(counted)))
    edges = [_weighted_hermite(z) for z in (begin, end)]
    for k in range(TERMS):
        (low, high) = (next(edge) for edge in edges)
        series[k] = np.add.reduceat(middle * (low - high), starts) / np.sqrt(k + 1)
    return np.divide(series, spread, out=np.zeros_like(series), where=spread > 1e-9)


def _weighted_hermite(z: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """h_k(z) φ(z) for k = 0, 1, …: normalised Hermite polynomials times the normal density; 0 at infinity."""
    finite = np.isfinite(z)
    z = np.where(finite, z, 0.0)
    before, now = np.zeros_like(z), np.where(finite, np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi), 0.0)
    k = 0
    while True:
        yield now
        before, now = now, (z * now - np.sqrt(k) * before) / np.sqrt(k + 1)
        k += 1


def _stated(a: NDArray[np.float64], b: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman of continuous fields whose copula gives staircases the rank correlation `wanted`, float64[labels]."""
    terms = a * b
    low, high = np.full(len(wanted), -1.0), np.ones(len(wanted))
    for _ in range(30):
        middle = (low + high) / 2
        reached = np.zeros(len(wanted))
        for term in terms[::-1]:
            reached = (reached + term) * middle
        more = reached < wanted
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    latent = np.where(np.abs(wanted) < 1e-12, 0.0, (low + high) / 2)
    return np.clip(np.rint(6 / np.pi * np.arcsin(latent / 2) * 2.0**20) * 2.0**-20, -1, 1)
