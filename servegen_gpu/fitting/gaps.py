"""How bursty clients are: shapes by local variation, families by likelihood, for any number of clients at once.

Notation: g_i consecutive gaps of a group (a client, or a client in a window). The local variation

    Lv = 3 · mean ((g_i - g_{i+1}) / (g_i + g_{i+1}))²

compares neighbours only, so a rate that drifts leaves it as it is; Gamma gaps of shape k have Lv = 3 / (2k + 1)
(Shinomoto et al., Neural Computation 2003). A family with a shape has a curve of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from servegen_gpu.law.philox import philox4x32
from servegen_gpu.request.families import EXPONENTIAL, FAMILIES, GAMMA, LOGNORMAL, WEIBULL, family_of

Array = NDArray[np.float64]

FEWEST = 10
"""Gaps below which a group is taken as exponential: shapes from fewer are worse than none."""
PRIOR_GAPS = 16
"""Logarithms of shapes are shrunk by n / (n + this)."""
FAMILY_GAPS = 200
"""Gaps from which on a group has a family of its own, and not that of all."""
CLEAR_TICKS, CLEAR_SHARE = 100.0, 0.1
"""Gaps must be so many ticks long, or such a share of the median gap, for stamps to tell how long they are."""
SHAPE_RANGE = (0.02, 100.0)
JITTER_KEY = (0x6A09E667, 0xBB67AE85)


@dataclass(frozen=True, eq=False)
class GapShapes:
    """Shapes of groups of gaps.

    Attributes
    ----------
    gaps : int64[groups]
    shape : float64[groups]
        Of Gamma gaps with the local variation of the group's; 1 is exponential.
    """

    gaps: NDArray[np.int64]
    shape: Array


@dataclass(frozen=True, eq=False)
class GapFamilies:
    """Families of groups of gaps.

    Attributes
    ----------
    family : uint8[groups]
        Codes of `request/families.py`.
    shape : float64[groups]
        In the family's own terms, within its range.
    ks : float64[groups]
        Largest distance between the distribution of the gaps, at a constant rate, and the family's; NaN without gaps.
    gain : float64[groups]
        Log-likelihood above that of exponential gaps, less the penalty for a shape.
    """

    family: NDArray[np.uint8]
    shape: Array
    ks: Array
    gain: Array


def cell_shapes(
    arrival_us: NDArray[np.int64],
    cell: NDArray[np.int64],
    *,
    cells: int | None = None,
    client: NDArray[np.int64] | None = None,
    tick_us: int = 1,
) -> GapShapes:
    """Shapes of cells by local variation, shrunk to those of their clients, and these to that of all.

    Parameters
    ----------
    arrival_us : int64[requests]
    cell : int64[requests]
        Number of the cell of each: of a client, or a client in a window. Gaps are between requests of a cell.
    cells : int, optional
        How many there are; by default as many as are named.
    client : int64[cells], optional
        Whose each cell is; by default all shrink to what they have in common.
    tick_us : int
        Lattice of the time stamps. Requests are spread over their ticks; gaps shorter than a tick say nothing, so
        where they are the rule, shapes are 1.

    Returns
    -------
    GapShapes
        Clients with fewer than `FEWEST` gaps are exponential.
    """
    cells = int(cell.max(initial=-1)) + 1 if cells is None else cells
    client = np.zeros(cells, np.int64) if client is None else client
    clients = int(client.max(initial=-1)) + 1
    size = np.bincount(cell, minlength=cells)
    gaps = np.maximum(size - 1, 0)
    shape = np.ones(cells)
    gaps_of_client = np.bincount(client, weights=gaps, minlength=clients)
    kept = np.flatnonzero((size > 1)[cell] & (gaps_of_client[client] >= FEWEST)[cell])
    gap, group = _gaps(arrival_us[kept], cell[kept], tick_us)
    if not len(gap) or float(np.median(gap)) < tick_us * (tick_us > 1):
        return GapShapes(gaps, shape)
    total, pairs = _local_variation(gap, group, cells, _clear(gap, tick_us))

    def pooled(over: NDArray[np.int64], count: int) -> tuple[Array, Array]:
        return _sums(over, total, count), _sums(over, pairs, count)

    of_all = np.log(_gamma_shape(np.array([total.sum()]), np.array([pairs.sum()])))
    of_client = _shrunk(*pooled(client, clients), of_all[np.zeros(clients, np.int64)])
    shape = np.exp(_shrunk(total, pairs, of_client[client]))
    shape[gaps_of_client[client] < FEWEST] = 1.0
    return GapShapes(gaps, shape)


def gap_families(
    arrival_us: NDArray[np.int64],
    client: NDArray[np.int64],
    shapes: GapShapes,
    *,
    tick_us: int = 1,
) -> GapFamilies:
    """The likeliest family of each client among exponential, Gamma, Weibull and log-normal.

    A family's shape is the one that has the client's local variation. A family with a shape must be likelier than
    exponential gaps by half the logarithm of the number of gaps (BIC). Clients with fewer than `FAMILY_GAPS` gaps have
    the family that is likeliest over all gaps.

    Parameters
    ----------
    arrival_us, client : int64[requests]
        At an even rate (`WindowRates.even_us`), so that one that changes does not look like burstiness.
    shapes : GapShapes
        Of the clients.
    tick_us : int
        As for `cell_shapes`.
    """
    clients = len(shapes.gaps)
    family = np.full(clients, EXPONENTIAL, np.uint8)
    shape, ks, gain = np.ones(clients), np.full(clients, np.nan), np.zeros(clients)
    kept = np.flatnonzero((shapes.gaps >= FEWEST)[client])
    gap, group = _gaps(arrival_us[kept], client[kept], tick_us)
    if not len(gap):
        return GapFamilies(family, shape, ks, gain)
    at, group = np.unique(group, return_inverse=True)
    least = _clear(gap, tick_us)
    own_shape = {code: _shape_of(code, shapes.shape[at]) for code in (GAMMA, WEIBULL, LOGNORMAL)}
    gains = np.stack(
        [np.zeros(len(at)), *(_log_likelihood(code, gap, group, s, least) for code, s in own_shape.items())]
    )
    count = np.bincount(group)
    gains[1:] -= _log_likelihood(EXPONENTIAL, gap, group, np.ones(len(at)), least) + 0.5 * np.log(count)
    best = np.argmax(gains, axis=0)
    common = int(np.argmax(gains[1:].sum(axis=1))) + 1
    best[count < FAMILY_GAPS] = common if gains[common].sum() > 0 else 0
    codes = np.array([EXPONENTIAL, *own_shape], np.uint8)
    family[at] = codes[best]
    chosen = np.choose(best, [np.ones(len(at)), *own_shape.values()])
    shape[at], gain[at] = chosen, gains[best, np.arange(len(at))]
    ks[at] = _ks(gap, group, codes[best], chosen)
    return GapFamilies(family, shape, ks, gain)


def _gaps(arrival_us: NDArray[np.int64], group: NDArray[np.int64], tick_us: int) -> tuple[Array, NDArray[np.int64]]:
    """Gaps within groups in order of time, above 0, and the group of each.

    Requests are spread over their tick, each by an addressed random part of it: stamps that are equal by rounding would
    make gaps of 0, which no family has.
    """
    ordinal = np.arange(-(-len(arrival_us) // 4), dtype=np.uint64)
    zero = np.zeros(1, np.uint64)
    words = np.stack(philox4x32(np, (ordinal, zero, zero, zero), JITTER_KEY), axis=1).ravel()[: len(arrival_us)]
    part = (words.astype(np.float64) + 0.5) * (2.0**-32 * tick_us)
    if tick_us == 1 and np.all(np.diff(arrival_us) >= 0):
        order = np.argsort(group, kind="stable")  # which a jitter below the unit puts right but for equal stamps
    else:
        order = np.lexsort((arrival_us + part, group))
    group, whole, part = group[order], arrival_us[order], part[order]
    same = group[1:] == group[:-1]
    # whole parts first: sums of both would lose the fractions of late stamps
    gap = np.abs((whole[1:] - whole[:-1]) + (part[1:] - part[:-1]))[same]
    return np.maximum(gap, 1e-12), group[1:][same]


def _local_variation(gap: Array, group: NDArray[np.int64], groups: int, least: float) -> tuple[Array, Array]:
    """Sums of 3 ((g - h) / (g + h))² over neighbours within groups, and how many there are, float64[groups].

    Neighbours that are shorter than `least` together say nothing but how stamps were rounded. Leaving them out makes no
    difference to Gamma gaps: their ratio does not depend on their sum.
    """
    same = (group[1:] == group[:-1]) & (gap[1:] + gap[:-1] >= least)
    term = ((gap[1:] - gap[:-1]) / (gap[1:] + gap[:-1]))[same]
    at = group[1:][same]
    return _sums(at, 3.0 * term * term, groups), _sums(at, np.ones(len(at)), groups)


def _clear(gap: Array, tick_us: int) -> float:
    """How long gaps must be, for stamps to tell more than that they are short."""
    return min(CLEAR_TICKS * tick_us, CLEAR_SHARE * float(np.median(gap)))


def _sums(group: NDArray[np.int64], values: Array, groups: int) -> Array:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _gamma_shape(total: Array, pairs: Array) -> Array:
    """Shape k = (3 / Lv - 1) / 2; 1 without pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = (3.0 * pairs / total - 1.0) / 2.0
    return np.where(pairs > 0, np.clip(shape, *SHAPE_RANGE), 1.0)


def _shrunk(total: Array, pairs: Array, towards: Array) -> Array:
    """Logarithms of shapes, shrunk to those of whom they belong to."""
    weight = np.where(pairs > 0, (pairs + 1) / (pairs + 1 + PRIOR_GAPS), 0.0)
    return towards + weight * (np.log(_gamma_shape(total, pairs)) - towards)


@cache
def _curve(code: int) -> tuple[Array, Array]:
    """Logarithms of shapes, and the local variation of gaps with them; the latter ascending.

    Two gaps of a family have a ratio whose logarithm x is logistic (Weibull) or normal (log-normal), and
    ((g - h) / (g + h))² = tanh²(x / 2).
    """
    u = (np.arange(20_000) + 0.5) / 20_000
    low, high = family_of(code).shape_range
    shape = np.geomspace(low, high, 400)
    if code == WEIBULL:
        shape = shape[::-1]  # the larger, the more regular
        x = special.logit(u)
        lv = [3.0 * np.mean(np.tanh(x / (2.0 * s)) ** 2) for s in shape]
    else:
        x = special.ndtri(u) * np.sqrt(2.0)
        lv = [3.0 * np.mean(np.tanh(x * s / 2.0) ** 2) for s in shape]
    return np.log(shape), np.array(lv)


def _shape_of(code: int, gamma_shape: Array) -> Array:
    """The shape of a family that has the local variation of Gamma gaps of a shape."""
    if code == GAMMA:
        return gamma_shape
    log_shape, lv = _curve(code)
    return np.asarray(np.exp(np.interp(3.0 / (2.0 * gamma_shape + 1.0), lv, log_shape)))


def _log_likelihood(code: int, gap: Array, group: NDArray[np.int64], shape: Array, least: float) -> Array:
    """Of each group's gaps at their likeliest scale, float64[groups]; of shorter ones than `least`, that they are."""
    n = np.bincount(group)
    clear = gap >= least
    own, log_gap = group[clear], np.log(gap[clear])
    m, log_sum = np.bincount(own, minlength=len(n)), np.bincount(own, log_gap, len(n))
    if code == LOGNORMAL:
        mean = np.bincount(group, np.log(gap)) / n
        squares = np.bincount(own, (log_gap - mean[own]) ** 2, len(n))
        found = -log_sum - m * np.log(shape * np.sqrt(2 * np.pi)) - squares / (2 * shape**2)
        short = special.ndtr((np.log(least) - mean) / shape)
    elif code == WEIBULL:
        power = np.bincount(group, gap ** shape[group]) / n
        powers = np.bincount(own, gap[clear] ** shape[own], len(n))
        found = m * (np.log(shape) - np.log(power)) - powers / power + (shape - 1.0) * log_sum
        short = -np.expm1(-(least**shape) / power)
    else:
        mean = np.bincount(group, gap) / n
        scaled = m * (shape * np.log(shape / mean) - special.gammaln(shape))
        found = (shape - 1.0) * log_sum - shape * np.bincount(own, gap[clear], len(n)) / mean + scaled
        short = special.gammainc(shape, shape * least / mean)
    return np.asarray(found + (n - m) * np.log(np.maximum(short, 1e-300)))


def _ks(gap: Array, group: NDArray[np.int64], code: NDArray[np.uint8], shape: Array) -> Array:
    """Kolmogorov's distance of each group's gaps, at their likeliest scale, from its family, float64[groups]."""
    n = np.bincount(group)
    share = np.empty(len(gap))
    for family in FAMILIES.values():
        mine = (code == family.code)[group]
        if not mine.any():
            continue
        g, at = gap[mine], group[mine]
        k = shape[at]
        if family.code == LOGNORMAL:
            mean = np.bincount(at, weights=np.log(g), minlength=len(n)) / n
            share[mine] = special.ndtr((np.log(g) - mean[at]) / k)
        elif family.code == WEIBULL:
            power = np.bincount(at, weights=g**k, minlength=len(n)) / n
            share[mine] = -np.expm1(-(g**k) / power[at])
        else:
            mean = np.bincount(at, weights=g, minlength=len(n)) / n
            share[mine] = special.gammainc(k, k * g / mean[at])
    share = share[np.lexsort((share, group))]  # groups are ascending already
    start = np.cumsum(n) - n
    rank = np.arange(len(share)) - start[group]
    apart = np.maximum(share - rank / n[group], (rank + 1) / n[group] - share)
    return np.asarray(np.maximum.reduceat(apart, start))
