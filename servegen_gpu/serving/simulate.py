"""Serving a trace, and how many instances that takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.native.library import Library, find_library, load_library
from servegen_gpu.blocks import thread_count
from servegen_gpu.errors import OptionError
from servegen_gpu.serving import compiled, stepwise
from servegen_gpu.serving.job import MOST_INSTANCES, Job, Routing, Times, job_of
from servegen_gpu.serving.server import Server
from servegen_gpu.trace import Trace


@dataclass(frozen=True)
class Served:
    """What became of every request.

    Attributes
    ----------
    ttft_s : float64[n]
        From arrival to the first output token.
    wait_s : float64[n]
        From arrival to the begin of the step with its first input tokens.
    tbt_s : float64[n]
        Mean time between its output tokens; 0 where there is one.
    """

    ttft_s: NDArray[np.float64]
    wait_s: NDArray[np.float64]
    tbt_s: NDArray[np.float64]


def simulate(
    trace: Trace,
    server: Server,
    instances: int = 1,
    routing: Routing = "least-loaded",
    *,
    prefix_cache: bool = False,
) -> Served:
    """Serve a trace by a number of equal instances.

    Each request goes to one instance when it arrives: to that with the least work outstanding (of requests that have
    not ended, their whole time for input and output), the first of several; or in turn; or, if it goes on with a
    conversation, to the instance of the earlier turns, and else to the least loaded. There it waits behind those
    that came before. A step lasts as `Server` says; sequences that decode come first, then input that was begun, then
    requests that wait, as far as the token budget, the number of sequences and the KV cache allow. Input may take
    several steps; with the last of its input a request has its first token at the end of the step.

    Compiled code and plain Python give the same bits; the latter serves where there is no compiled library.

    Parameters
    ----------
    trace : Trace
        With ``arrival_us``, ``input_tokens`` and ``output_tokens``; for session-affine routing ``conversation``.
    server : Server
    instances : int
        1 to 65,536.
    routing : {"least-loaded", "round-robin", "session-affine"}
    prefix_cache : bool
        With session-affine routing: the instance still holds the history, so that a turn whose conversation was seen
        prefills its ``new_tokens`` alone. Nothing is ever evicted: this bounds what such a cache can do.

    Returns
    -------
    Served

    Raises
    ------
    OptionError
        If the trace lacks a column, an option is out of its range, or the work may take 146 years.
    """
    return _served(job_of(trace, server, instances, routing, prefix_cache), _library())


def instances_needed(
    trace: Trace,
    server: Server,
    slo_ttft_s: float = 2.0,
    level: float = 0.99,
    slo_tbt_s: float | None = None,
    most: int = 64,
    routing: Routing = "least-loaded",
) -> int:
    """The fewest instances that meet an objective.

    By bisection, which takes for granted that an instance more never makes it worse. That holds in the large, not by
    necessity: one request may find itself behind a longer one.

    Parameters
    ----------
    trace, server, routing
        As for `simulate`.
    slo_ttft_s : float
        Bound of the quantile of the time to first token.
    level : float
        Of the quantile (linear between order statistics), 0 to 1.
    slo_tbt_s : float, optional
        Bound of the same quantile of the mean time between tokens of a request.
    most : int
        Where the search ends.

    Returns
    -------
    int

    Raises
    ------
    OptionError
        If `most` do not meet it, the trace is empty, or as `simulate`.
    """
    needed = _needed(trace, server, _Objective(slo_ttft_s, level, slo_tbt_s), most, routing, _library())
    if needed == math.inf:
        expected = f"an objective that {most} instances meet"
        raise OptionError(expected, f"TTFT of {slo_ttft_s} s and TBT of {slo_tbt_s} s at {level}", "relax it")
    return int(needed)


def instances_needed_each(
    replicas: Iterable[Trace],
    server: Server,
    slo_ttft_s: float = 2.0,
    level: float = 0.99,
    slo_tbt_s: float | None = None,
    most: int = 64,
    routing: Routing = "least-loaded",
) -> NDArray[np.float64]:
    """`instances_needed` of many traces on all threads, with no more of them in memory than there are threads.

    Returns
    -------
    float64[replicas]
        Whole numbers, in order; infinity where `most` do not meet the objective, so that quantiles stay right.
    """
    library, objective = _library(), _Objective(slo_ttft_s, level, slo_tbt_s)

    def needed(trace: Trace) -> float:
        return _needed(trace, server, objective, most, routing, library)

    def all_of_them() -> Iterator[float]:
        left, threads = iter(replicas), thread_count()
        with ThreadPoolExecutor(threads, thread_name_prefix="servegen_gpu_serving") as pool:
            while some := list(islice(left, threads)):
                yield from pool.map(needed, some)

    return np.fromiter(all_of_them(), np.float64)


@dataclass(frozen=True)
class _Objective:
    slo_ttft_s: float
    level: float
    slo_tbt_s: float | None

    def __post_init__(self) -> None:
        for name, most in (("slo_ttft_s", math.inf), ("level", 1.0), ("slo_tbt_s", math.inf)):
            value = getattr(self, name)
            if name == "slo_tbt_s" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                bounds = f"{name} above 0" + (" and up to 1" if most == 1 else "")
                raise OptionError(bounds, repr(value), f"change {name}")

    def met_by(self, served: Served) -> bool:
        if np.quantile(served.ttft_s, self.level) > self.slo_ttft_s:
            return False
        return self.slo_tbt_s is None or bool(np.quantile(served.tbt_s, self.level) <= self.slo_tbt_s)


def _needed(
    trace: Trace, server: Server, objective: _Objective, most: int, routing: Routing, library: Library | None
) -> float:
    if isinstance(most, bool) or not hasattr(most, "__index__") or not 1 <= most <= MOST_INSTANCES:
        raise OptionError(f"most from 1 to {MOST_INSTANCES}", repr(most), "change most")
    if not len(trace):
        raise OptionError("a trace with requests", "an empty one", "generate a longer one")
    job = job_of(trace, server, 1, routing)
    fails, meets = 0, most + 1
    while meets - fails > 1:
        middle = (fails + meets) // 2
        if objective.met_by(_served(replace(job, instances=middle), library)):
            meets = middle
        else:
            fails = middle
    return meets if meets <= most else math.inf


def _library() -> Library | None:
    """The compiled library, if it is there."""
    return None if find_library() is None else load_library()


def _served(job: Job, library: Library | None) -> Served:
    times: Times = stepwise.serve(job) if library is None else compiled.serve(library, job)
    between = np.maximum(job.output_tokens.astype(np.int64) - 1, 1)
    return Served(times.ttft_ns / 1e9, times.wait_ns / 1e9, times.decode_ns / between / 1e9)
