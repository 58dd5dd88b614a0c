"""How many equal instances hold an objective for a job, in all of its time and in windows of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.serving.job import MOST_INSTANCES, Job, Routing, job_of
from servegen_gpu.serving.objective import Objective
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import Served, serves
from servegen_gpu.trace import Trace

LEAD_S = 60.0
"""A window is served together with the minute before it, so that it does not begin idle."""
MANY = 64
"""Instances, or times as many as were expected, beyond which it pays to ask whether any number would do."""


@dataclass(frozen=True)
class Fleet:
    """Instances of one kind, and what they are to hold.

    Attributes
    ----------
    server : Server
    objective : Objective
    routing : {"least-loaded", "round-robin", "session-affine"}
    """

    server: Server
    objective: Objective
    routing: Routing

    @cached_property
    def _serves(self) -> Callable[[Job], Served]:
        return serves()

    def job(self, trace: Trace) -> Job:
        """The job of serving a trace by one instance."""
        return job_of(trace, self.server, 1, self.routing)

    def serve(self, job: Job, instances: int, counted_from: int = 0) -> Served:
        """Requests from a row on, of all that are served."""
        found = self._serves(replace(job, instances=instances))
        return Served(**{name: times[counted_from:] for name, times in vars(found).items()})

    def fewest(self, job: Job, first: int = 1, counted_from: int = 0) -> float:
        """The fewest instances that hold the objective; infinite if no number does, 0 without requests that count.

        The search begins at `first` and takes for granted that an instance more never makes it worse. That holds in
        the large, not by necessity; so `first` may decide between neighbours, and has to be the same in every run.
        """
        if counted_from >= len(job):
            return 0
        most = min(len(job), MOST_INSTANCES)
        return _least(
            lambda n: self.objective.met_by(self.serve(job, n, counted_from)),
            min(max(first, 1), most),
            most,
            lambda: self.objective.met_by(self.alone(job, counted_from)),
        )

    def alone(self, job: Job, counted_from: int = 0) -> Served:
        """What each request would see on an instance of its own: one instance, and nobody there when it comes."""
        tokens = np.maximum(job.output_tokens, 1, dtype=np.int64)
        steps = job.input_tokens + tokens
        longest_ps = job.prefill_ps * job.input_tokens.astype(np.int64) + job.decode_ps * tokens + job.step_ps * steps
        longest_ns = longest_ps // 1000 + steps + 1
        return self.serve(replace(job, arrival_ns=np.cumsum(longest_ns) - longest_ns), 1, counted_from)

    def by_window(self, job: Job, begins_ns: NDArray[np.int64], first: int) -> Iterator[float]:
        """`fewest` for each window, of which the next begins where one ends; the last ends with the job."""
        rows = [*np.searchsorted(job.arrival_ns, begins_ns).tolist(), len(job)]
        leads = np.searchsorted(job.arrival_ns, begins_ns - round(LEAD_S * 1e9)).tolist()
        for lead, low, high in zip(leads, rows[:-1], rows[1:], strict=True):
            found = self.fewest(rows_of(job, lead, high), first, low - lead) if high > low else 0
            first = int(found) if 0 < found < math.inf else first
            yield found


def rows_of(job: Job, low: int, high: int) -> Job:
    """Some requests of a job, as they are."""
    columns: dict[str, Any] = {
        name: value[low:high] for name, value in vars(job).items() if isinstance(value, np.ndarray)
    }
    return replace(job, **columns)


def _least(holds: Callable[[int], bool], first: int, most: int, attainable: Callable[[], bool]) -> float:
    """The least number from 1 to `most` that holds; infinite if none does, or nothing is attainable.

    Strides from `first` double until one number fails and one holds; then the distance between them halves.
    """
    fails, meets, number, stride = 0, most + 1, first, 1
    doubtful: float = min(MANY * first, most)
    while meets - fails > 1:
        if holds(number):
            meets = number
        else:
            fails = number
            if number >= doubtful:
                if not attainable():
                    return math.inf
                doubtful = math.inf
        if meets > most:
            number = min(fails + stride, most)
        elif not fails:
            number = max(meets - stride, 1)
        else:
            number = (fails + meets) // 2
        stride *= 2
    return meets if meets <= most else math.inf
