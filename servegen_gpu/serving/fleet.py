"""How many equal instances hold an objective for a job, in all of its time and in windows of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.serving.job import MOST_INSTANCES, Job, Routing, job_of
from servegen_gpu.serving.objective import Objective
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import Served, alone, serves
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

    def job(self, trace: Trace) -> Job:
        """The job of serving a trace by one instance."""
        return job_of(trace, self.server, 1, self.routing)

    def serve(self, job: Job, instances: int) -> Served:
        """What becomes of all requests."""
        return self._serves(job, instances)

    @cached_property
    def _serves(self) -> Callable[[Job, int], Served]:
        return serves(self.server)

    def holds(self, job: Job, instances: int, counted_from: int = 0) -> bool:
        """Whether so many instances hold the objective, for requests from a row on of all that are served."""
        served = self.serve(job, instances)
        return self.objective.met(served.ttft_s[counted_from:], served.tbt_s[counted_from:])

    def fewest(self, job: Job, first: int = 1, counted_from: int = 0) -> float:
        """The fewest instances that hold the objective; infinite if no number does, 0 without requests that count.

        The search begins at `first` and takes for granted that an instance more never makes it worse. That holds in
        the large, not by necessity; so `first` may decide between neighbours, and has to be the same in every run.
        """
        if counted_from >= len(job):
            return 0
        most = min(len(job), MOST_INSTANCES)
        return _least(
            lambda instances: self.holds(job, instances, counted_from),
            min(max(first, 1), most),
            most,
            lambda: self.objective.met(*(times[counted_from:] for times in alone(job))),
        )

    def by_window(self, job: Job, begins_ns: NDArray[np.int64], first: int) -> Iterator[float]:
        """`fewest` for each window, of which the next begins where one ends; the last ends with the job."""
        rows = [*np.searchsorted(job.arrival_ns, begins_ns).tolist(), len(job)]
        leads = np.searchsorted(job.arrival_ns, begins_ns - round(LEAD_S * 1e9)).tolist()
        for lead, low, high in zip(leads, rows[:-1], rows[1:], strict=True):
            found = self.fewest(job.rows(np.arange(lead, high)), first, low - lead) if high > low else 0
            first = int(found) if 0 < found < math.inf else first
            yield found


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
