"""Distributions of clients' behaviour at every timestamp of a view, as ServeGen's ``get_cdfs`` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.grid import Grid

Cdf = tuple[NDArray[np.float64], NDArray[np.float64]]
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def cdfs_of(grid: Grid, windows: slice, mask: NDArray[np.bool_], timestamps: Sequence[float]) -> dict[str, Any]:
    """CDFs over clients at every timestamp.

    Parameters
    ----------
    grid : Grid
    windows : slice
        The windows of the view.
    mask : bool[clients, windows]
        Which of them are chosen.
    timestamps : sequence of float
        What the windows are called.

    Returns
    -------
    dict
        ``{"rate": {timestamp: (values, probabilities)}, "cv": …, field: {"avg": {timestamp: …}, "p50": …, "p95": …,
        "p99": …}}``. Rates weigh the same; everything else weighs by rate, silent windows nothing. Figures of
        ``reason_ratio`` are positions in its list of probabilities, as in ServeGen.
    """
    active = (grid.active[:, windows] & mask).T  # windows first, so that selecting goes timestamp by timestamp
    at, client = np.nonzero(active)
    rate = grid.rate_rps[:, windows].T
    cv = grid.cv[:, windows].T[at, client]
    result: dict[str, Any] = {
        "rate": _by_timestamp(at, rate[at, client], None, timestamps),
        "cv": _by_timestamp(at, cv, rate[at, client], timestamps),
    }
    datasets = grid.datasets
    figures = {"avg": datasets.mean} | {
        name: datasets.tables.quantile(q).astype(np.int64) for name, q in QUANTILES.items()
    }
    slot = np.where(mask, grid.slot[:, windows], -1).T
    weight = np.where(active, rate, 0.0)
    for field in datasets.fields:
        table = np.append(datasets.column(field), -1)[slot]
        at, client = np.nonzero(table >= 0)
        if not len(at):
            continue
        tables = table[at, client]
        result[field] = {
            name: _by_timestamp(at, figure[tables], weight[at, client], timestamps) for name, figure in figures.items()
        }
    return result


def _by_timestamp(
    at: NDArray[np.int64], values: NDArray[Any], weights: NDArray[np.float64] | None, timestamps: Sequence[float]
) -> dict[float, Cdf]:
    """A CDF for every timestamp that has values; `at` ascends."""
    order = np.lexsort((values, at) if weights is None else (weights, values, at))
    values = values[order]
    edges = np.searchsorted(at, np.arange(len(timestamps) + 1))
    found: dict[float, Cdf] = {}
    for w in np.flatnonzero(np.diff(edges)).tolist():
        part = slice(edges[w], edges[w + 1])
        if weights is None:
            n = part.stop - part.start
            found[timestamps[w]] = values[part], np.linspace(0, 1, n + 1)[1:]
            continue
        weight = weights[order[part]]
        total = weight.sum()
        # nobody active: no distribution
        found[timestamps[w]] = (values[part], np.cumsum(weight / total)) if total else (np.zeros(0), np.zeros(0))
    return found
