"""Waiting times under a stated server. Rows are needed in order, and all at once: 16 bytes a request are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.reducing.loads import Figures
from servegen_gpu.reducing.reduction import Reduction, Rows, State, column_of, numbers
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import simulate
from servegen_gpu.trace import Trace

COLUMNS = ("arrival_us", "input_tokens", "output_tokens")


def arrivals(figures: Figures = numbers, name: str = "served") -> Reduction:
    """What a server needs of requests, for `servegen_gpu.serving`: the columns ``arrival_us`` and tokens, int64[n]."""

    def none(xp: Any) -> State:
        return {name: xp.zeros(0, np.int64) for name in COLUMNS}

    def step(xp: Any, rows: Rows) -> State:
        return {name: column_of(rows, name) for name in COLUMNS}

    def merge(a: State, b: State) -> State:
        return {name: np.concatenate((a[name], b[name])) for name in COLUMNS}

    return Reduction(name, none, step, merge, figures)


def trace_of(state: State) -> Trace:
    """The requests as a trace."""
    return Trace.trusted({name: state[name] for name in COLUMNS})


def served_by(state: State, server: Server, instances: int, what: str, p: float) -> float:
    """A quantile of ``ttft``, ``wait`` or ``tbt`` of the requests, in seconds; NaN without a request."""
    if not len(state["arrival_us"]):
        return float("nan")
    return float(np.quantile(getattr(simulate(trace_of(state), server, instances), f"{what}_s"), p))
