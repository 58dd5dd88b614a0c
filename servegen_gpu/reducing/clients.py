"""Requests by client, and the share of the largest ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.reducing.loads import Figures
from servegen_gpu.reducing.reduction import Reduction, Rows, State, column_of, numbers


def by_client(figures: Figures = numbers, name: str = "clients") -> Reduction:
    """Requests by client: ``client`` int64[clients], ascending, those that sent any; ``requests`` int64[clients]."""
    return Reduction(name, _nobody, _counted, _together, figures)


def top_share(state: State, largest: int = 1) -> float:
    """Share of the largest clients, of the requests of all; NaN without a request."""
    requests = np.sort(state["requests"])[::-1]
    return float(requests[:largest].sum() / requests.sum()) if len(requests) else float("nan")


def _nobody(xp: Any) -> State:
    return {"client": xp.zeros(0, np.int64), "requests": xp.zeros(0, np.int64)}


def _counted(xp: Any, rows: Rows) -> State:
    client = column_of(rows, "client")
    if not len(client):
        return _nobody(xp)
    client, requests = xp.unique(client, return_counts=True)
    return {"client": client.astype(np.int64), "requests": requests.astype(np.int64)}


def _together(a: State, b: State) -> State:
    client, at = np.unique(np.concatenate((a["client"], b["client"])), return_inverse=True)
    requests = np.bincount(at, np.concatenate((a["requests"], b["requests"])), len(client)).astype(np.int64)
    return {"client": client, "requests": requests}
