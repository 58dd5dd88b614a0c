"""Requests by client, and the share of the largest ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.loads import Figures
from servegen_gpu.reducing.reduction import Reduction, Rows, State


def by_client(figures: Figures, name: str = "clients") -> Reduction:
    """Requests by client: ``client`` int64[clients], ascending, those that sent any; ``requests`` int64[clients]."""
    return Reduction(name, _nobody, _counted, _together, figures)


def top_share(state: State, largest: int = 1) -> float:
    """Share of the largest clients, of the requests of all; NaN without a request."""
    requests = np.sort(state["requests"])[::-1]
    return float(requests[:largest].sum() / requests.sum()) if len(requests) else float("nan")


def _nobody(xp: Any) -> State:
    return {"client": xp.zeros(0, np.int64), "requests": xp.zeros(0, np.int64)}


def _counted(xp: Any, rows: Rows) -> State:
    if "client" not in rows:
        raise OptionError("a trace with clients", f"columns {', '.join(rows)}", "ask for figures without clients")
    client, requests = xp.unique(rows["client"], return_counts=True)
    return {"client": client.astype(np.int64), "requests": requests.astype(np.int64)}


def _together(a: State, b: State) -> State:
    # states are small: they are merged on the host
    host = [{name: x.get() if hasattr(x, "get") else x for name, x in state.items()} for state in (a, b)]
    client, at = np.unique(np.concatenate([one["client"] for one in host]), return_inverse=True)
    requests = np.zeros(len(client), np.int64)
    np.add.at(requests, at, np.concatenate([one["requests"] for one in host]))
    return {"client": client, "requests": requests}
