"""Waiting times under a stated server. Rows are needed in order, and all at once: 16 bytes a request are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from servegen_gpu.reducing.loads import Figures
from servegen_gpu.reducing.reduction import Reduction, Rows, State, column_of, numbers
from servegen_gpu.serving.objective import Objective
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import Served, instances_needed_each, simulate
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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What becomes of the requests of a state of `arrivals` under a server; simulated once, when somebody asks.

    Attributes
    ----------
    state : mapping of str to int64[n]
    server : Server
    instances : int
    """

    state: State
    server: Server
    instances: int

    @property
    def trace(self) -> Trace:
        """The requests."""
        return Trace.trusted({name: self.state[name] for name in COLUMNS})

    @cached_property
    def times(self) -> Served:
        """Their times."""
        return simulate(self.trace, self.server, self.instances)

    def quantile(self, what: str, p: float) -> float:
        """Of ``ttft``, ``wait`` or ``tbt``, in seconds; NaN without a request."""
        return float(np.quantile(getattr(self.times, f"{what}_s"), p)) if len(self.trace) else float("nan")

    def instances_for(self, objective: Objective) -> float:
        """The fewest instances that meet an objective; infinite where none do, NaN without a request."""
        if not len(self.trace):
            return float("nan")
        ttft_s = math.inf if objective.ttft_s is None else objective.ttft_s
        return float(instances_needed_each([self.trace], self.server, ttft_s, objective.level, objective.tbt_s)[0])
