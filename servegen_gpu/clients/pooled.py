"""Lengths pooled over clients: what a request looks like when nobody asks who sent it.

A pooled table is the sum of the clients' tables, each weighted by how many values its clients draw from it. Sums are
of integers: the same on every machine, whatever the order of the clients.

Axes: cells (profiles and windows with requests), spans (of windows, over which is pooled), used tables, values (those
that a field can have).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.describe.figures import expected_items
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.request.schema import scalar_field_count
from servegen_gpu.request.tables import WORDS, Tables

WEIGHT_BITS = 30
"""Weights are parts of 2**30: times the 2**32 words of a table, sums stay below 2**63."""

BLOCK_BINS = 1 << 22
MAX_BINS = 1 << 26
RANK_BITS = 20
"""Rank correlations are rounded to 2**-20, so that the last bit of a sum never shows."""

TINY = 1e-300


@dataclass(frozen=True, eq=False)
class ActiveCells:
    """Where a pool has requests.

    Attributes
    ----------
    profile, window : int[cells]
    span : int[cells]
        Of the window.
    requests : float64[cells]
        Per second, all clients of the profile together.
    """

    profile: NDArray[np.intp]
    window: NDArray[np.intp]
    span: NDArray[np.int64]
    requests: NDArray[np.float64]


def active_cells(pool: ClientPool, span: NDArray[np.int64]) -> ActiveCells:
    """Cells of a pool; `span` is the number of each window's span, int64[windows]."""
    order = np.lexsort((pool.rate_factor, pool.profile))  # the same sums for any order of clients
    factor = np.bincount(pool.profile[order], pool.rate_factor[order], minlength=len(pool.rate_rps))
    profile, window = np.nonzero((pool.rate_rps > 0) & (factor > 0)[:, None])
    return ActiveCells(profile, window, span[window], factor[profile] * pool.rate_rps[profile, window])


def pooled_tables(pool: ClientPool, cells: ActiveCells, spans: int) -> tuple[Tables, NDArray[np.int32]]:
    """Tables of all fields, pooled over the clients and windows of each span.

    Items are pooled by how many of them a client sends; where nobody sends any, by requests.

    Returns
    -------
    tables : Tables
    row : int32[spans, fields]
        Row of `tables`; -1 in spans without requests.

    Raises
    ------
    OptionError
        If they would have more than 2**26 bins.
    """
    parts: list[Tables] = []
    row = np.full((spans, len(pool.fields)), -1, np.int32)
    tables = bins = 0
    for lane, field in enumerate(pool.fields):
        used, column = _used(pool, cells, lane)
        weights = _weights(cells, column, _draws(pool, cells, field, spans), (spans, len(used)))
        words, values = _words(pool.tables, used)
        active = np.unique(cells.span)
        row[active, lane] = tables + np.arange(len(active))
        tables += len(active)
        bound = np.add.reduceat(np.diff(words.indptr)[weights.indices], weights.indptr[active])
        bound = np.cumsum(np.minimum(bound, len(values)))
        begin = 0
        while begin < len(active):  # as many spans at a time as fit a block
            upto = BLOCK_BINS + (bound[begin - 1] if begin else 0)
            end = max(int(np.searchsorted(bound, upto, side="right")), begin + 1)
            pooled = weights[active[begin:end]] @ words
            pooled.sort_indices()
            parts.append(Tables.from_weights(pooled.indptr, values[pooled.indices], pooled.data))
            bins += len(parts[-1].values)
            check_bins(bins)
            begin = end
    return Tables.join(parts), row


def check_bins(bins: int) -> None:
    """Refuse tables that would take too much memory."""
    if bins > MAX_BINS:
        raise OptionError(
            f"pooled tables of at most {MAX_BINS:,} bins",
            f"{bins:,}",
            "pool lengths over longer spans, such as lengths_over='6h' or 'whole'",
        )


def pooled_rank_correlation(pool: ClientPool, cells: ActiveCells, spans: int) -> NDArray[np.float64]:
    """Spearman correlations between the fields of a request of any client, within spans.

    Ranks are those among all requests of the pool. Fields go together as far as some clients have more of both, and
    as far as a client's own correlations say.

    Returns
    -------
    float64[scalar fields, scalar fields]
    """
    scalar = scalar_field_count(pool.category)
    mean, spread = np.empty((scalar, len(cells.span))), np.empty((scalar, len(cells.span)))
    for lane in range(scalar):
        used, column = _used(pool, cells, lane)
        whole = ActiveCells(cells.profile, cells.window, np.zeros_like(cells.span), cells.requests)
        words, _ = _words(pool.tables, used)
        share = (_weights(whole, column, cells.requests, (1, len(used))) @ words).toarray()[0].astype(np.float64)
        share /= share.sum()
        rank = np.cumsum(share) - share / 2
        of_table = words @ rank / WORDS
        mean[lane] = of_table[column]
        spread[lane] = np.sqrt(np.maximum(words @ rank**2 / WORDS - of_table**2, 0))[column]
    inside = np.zeros((scalar, scalar))
    own, of = np.append(pool.correlations, np.eye(scalar)[None], axis=0), pool.correlation[cells.profile]
    for i, j in np.ndindex(inside.shape):
        inside[i, j] = (cells.requests * spread[i] * spread[j]) @ own[of, i, j]
    return rank_correlation(mean, cells.span, cells.requests, spans, inside)


def rank_correlation(
    rank: NDArray[np.float64],
    span: NDArray[np.int64],
    weight: NDArray[np.float64],
    spans: int,
    inside: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Correlations of ranks within spans, of requests or of cells of requests.

    Parameters
    ----------
    rank : float64[fields, n]
        From 0 to 1: rank of each request, or mean rank of each cell.
    span : int[n]
    weight : float64[n]
    spans : int
    inside : float64[fields, fields]
        Covariance of ranks inside cells, summed with the same weights.

    Returns
    -------
    float64[fields, fields]
        Symmetric with ones on the diagonal; 0 for a field that does not vary.
    """
    total = np.maximum(np.bincount(span, weight, spans), TINY)
    off = np.stack([r - (np.bincount(span, weight * r, spans) / total)[span] for r in rank])
    covariance = (off * weight) @ off.T + inside
    deviation = np.sqrt(np.diagonal(covariance))
    scale = np.outer(deviation, deviation)
    known = scale > 1e-12 * total.sum()
    found = np.divide(covariance, scale, out=np.zeros_like(scale), where=known)
    rounded = np.clip(np.rint(found * 2.0**RANK_BITS) * 2.0**-RANK_BITS, -1, 1)
    lower = np.tril(rounded, -1)
    return np.asarray(lower + lower.T + np.eye(len(rounded)))


def _used(pool: ClientPool, cells: ActiveCells, lane: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Tables that a field is drawn from, int[used tables], and which of them each cell has, int[cells]."""
    table = pool.table[cells.profile, cells.window, lane]
    used = np.flatnonzero(np.bincount(table, minlength=len(pool.tables)))
    place = np.zeros(len(pool.tables), np.intp)
    place[used] = np.arange(len(used))
    return used, place[table]


def _draws(pool: ClientPool, cells: ActiveCells, field: str, spans: int) -> NDArray[np.float64]:
    """How many values of a field each cell draws, float64[cells]."""
    items = expected_items(pool, field)
    if not isinstance(items, np.ndarray):
        return cells.requests
    draws = cells.requests * items[cells.profile, cells.window]
    none = np.bincount(cells.span, draws, spans) == 0
    return np.where(none[cells.span], cells.requests, draws)


def _weights(cells: ActiveCells, column: NDArray[np.intp], draws: NDArray[np.float64], shape: tuple[int, int]) -> Any:
    """Parts of 2**30 that each used table has in each span: a sparse matrix of int64, spans by used tables."""
    from scipy import sparse

    summed = sparse.coo_array((draws, (cells.span, column)), shape=shape).tocsr()
    row = np.repeat(np.arange(shape[0]), np.diff(summed.indptr))
    share = summed.data / np.bincount(row, summed.data, shape[0])[row]
    summed.data = np.rint(share * 2.0**WEIGHT_BITS)
    return summed.astype(np.int64)


def _words(tables: Tables, used: NDArray[np.intp]) -> tuple[Any, NDArray[np.int32]]:
    """How many words select each value, a sparse matrix of int64, used tables by values; and the values."""
    from scipy import sparse

    some = tables.select(used)
    values, at = np.unique(some.values, return_inverse=True)
    return sparse.csr_array((some.widths(), at, some.offsets), shape=(len(used), len(values))), values
