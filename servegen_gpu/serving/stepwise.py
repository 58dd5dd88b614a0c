"""The server model step by step in plain Python: oracle of the compiled one, and its stand-in where that is absent."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.serving.job import Job, Times


@dataclass
class _Request:
    row: int
    arrival_ns: int
    reserved_tokens: int
    work_ns: int
    input_left: int
    output_left: int
    begun_ns: int = -1
    first_ns: int = -1
    last_ns: int = -1


@dataclass
class _Instance:
    job: Job
    clock_ns: int = 0
    work_ns: int = 0
    ending_ns: int = 0
    kv_tokens: int = 0
    waiting: deque[_Request] = field(default_factory=deque)
    running: list[_Request] = field(default_factory=list)

    def take(self, request: _Request) -> None:
        """A request joins the queue; an idle instance begins its next step with it."""
        if not self.waiting and not self.running:
            self.clock_ns = max(self.clock_ns, request.arrival_ns)
        self.waiting.append(request)
        self.work_ns += request.work_ns

    def run_until(self, end_ns: float) -> None:
        """Make all steps that begin before a time."""
        while (self.waiting or self.running) and self.clock_ns < end_ns:
            self._step()

    def outstanding_ns(self, now_ns: int) -> int:
        """The work of requests that have not ended; the last step may have been made, and not be over."""
        return self.work_ns + (self.ending_ns if self.clock_ns > now_ns else 0)

    def _step(self) -> None:
        job = self.job
        decoding = [request for request in self.running if not request.input_left]
        budget, prefilled = job.step_tokens - len(decoding), 0
        for request in self._with_input(budget):
            tokens = min(request.input_left, budget)
            request.input_left -= tokens
            budget -= tokens
            prefilled += tokens
            if job.decode_only:
                decoding.append(request)
                budget -= 1
            if budget <= 0:
                break
        duration_ps = job.step_ps + job.prefill_ps * prefilled + job.decode_ps * len(decoding)
        duration_ps += job.prefill_step_ps if prefilled else 0
        self.clock_ns += (duration_ps + 500) // 1000
        self.ending_ns = 0
        for request in [request for request in self.running if not request.input_left]:
            self._emit(request)

    def _with_input(self, budget: int) -> Iterator[_Request]:
        """Requests whose input is next, as long as there is a budget: what is begun, then those that wait."""
        if budget <= 0:
            return
        yield from [request for request in self.running if request.input_left]
        while self.waiting and len(self.running) < self.job.max_sequences:
            request = self.waiting[0]
            if self.running and self.kv_tokens + request.reserved_tokens > self.job.kv_tokens:
                return
            self.running.append(self.waiting.popleft())
            self.kv_tokens += request.reserved_tokens
            request.begun_ns = self.clock_ns
            yield request

    def _emit(self, request: _Request) -> None:
        """A token at the end of a step."""
        if request.first_ns < 0:
            request.first_ns = self.clock_ns
        request.output_left -= 1
        if not request.output_left:
            request.last_ns = self.clock_ns
            self.running.remove(request)
            self.kv_tokens -= request.reserved_tokens
            self.work_ns -= request.work_ns
            self.ending_ns += request.work_ns


def serve(job: Job) -> Times:
    """The times of all requests of a job."""
    instances = [_Instance(job) for _ in range(job.instances)]
    columns = (job.arrival_ns, job.reserved_tokens, job.work_ns, job.input_tokens, job.output_tokens)
    requests = [
        _Request(row, arrival_ns, reserved, work_ns, inputs, max(outputs, 1))
        for row, (arrival_ns, reserved, work_ns, inputs, outputs) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]
    homes: dict[int, int] = {}
    for request in requests:
        for instance in instances:
            instance.run_until(request.arrival_ns)
        instances[_chosen(job, request, instances, homes)].take(request)
    for instance in instances:
        instance.run_until(float("inf"))
    begun, first, last = (
        np.array([getattr(request, name) for request in requests], np.int64)
        for name in ("begun_ns", "first_ns", "last_ns")
    )
    return Times(begun - job.arrival_ns, first - job.arrival_ns, last - first)


def _chosen(job: Job, request: _Request, instances: list[_Instance], homes: dict[int, int]) -> int:
    """Number of the instance that a request goes to; homes are those of sessions that were seen."""
    if job.routing == "round-robin":
        return request.row % job.instances
    outstanding_ns = [instance.outstanding_ns(request.arrival_ns) for instance in instances]
    least_loaded = outstanding_ns.index(min(outstanding_ns))
    if job.routing == "least-loaded" or job.session[request.row] < 0:
        return least_loaded
    return homes.setdefault(int(job.session[request.row]), least_loaded)


def queue(ready_ns: NDArray[np.int64], service_ns: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """When requests leave workers that take them first come, first served."""
    free_ns = [0] * workers
    end_ns = []
    for ready, service in zip(ready_ns.tolist(), service_ns.tolist(), strict=True):
        end_ns.append(max(ready, free_ns[0]) + service)
        heapq.heapreplace(free_ns, end_ns[-1])
    return np.array(end_ns, np.int64)
