"""Serving a trace, and how many instances that takes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.native.library import Library, find_library, load_library
from servegen_gpu.blocks import in_turn, thread_count
from servegen_gpu.errors import OptionError
from servegen_gpu.options import integer
from servegen_gpu.serving import compiled, split, stepwise
from servegen_gpu.serving.job import MOST_INSTANCES, Job, Routing, alone_ns, job_of
from servegen_gpu.serving.objective import Objective
from servegen_gpu.serving.profiles import load_server
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.split import Split
from servegen_gpu.serving.stages import Stages, pass_through
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
    stages : mapping of str to float64[n]
        If there are stages before prefill: how long each held the request, its queue included.
    """

    ttft_s: NDArray[np.float64]
    wait_s: NDArray[np.float64]
    tbt_s: NDArray[np.float64]
    stages: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, NDArray[np.float64]]:
        """Parts of `ttft_s`: of stages ``download_s``, ``normalise_s``, ``encode_s``; ``queue_s``, ``prefill_s``."""
        held_s = {f"{name}_s": held for name, held in self.stages.items()}
        before_s = sum(held_s.values(), np.zeros(len(self.wait_s)))
        return held_s | {"queue_s": self.wait_s - before_s, "prefill_s": self.ttft_s - self.wait_s}


def simulate(
    trace: Trace,
    server: Server | str | os.PathLike[str],
    instances: int | Split = 1,
    routing: Routing = "least-loaded",
    *,
    prefix_cache: bool = False,
    stages: Stages | None = None,
) -> Served:
    """Serve a trace by a number of equal instances.

    Each request goes to one instance when it arrives: to that with the least work outstanding (of requests that have
    not ended, their whole time for input and output), the first of several; or in turn; or, if it goes on with a
    conversation, to the instance of the earlier turns, and else to the least loaded. There it waits behind those
    that came before. A step lasts as `Server` says; sequences that decode come first, then input that was begun, then
    requests that wait, as far as the token budget, the number of sequences and the KV cache allow. Input may take
    several steps; with the last of its input a request has its first token at the end of the step.

    Compiled code and plain Python give the same bits; the latter serves where there is no compiled library.

    Not modelled: attention over long inputs takes no longer a token; a sequence costs the same at any context; nothing
    is preempted or swapped, because a request reserves its whole KV cache before it begins; launches and tokenisers.

    Parameters
    ----------
    trace : Trace
        With ``arrival_us``, ``input_tokens`` and ``output_tokens``; for session-affine routing ``conversation``.
    server : Server, str or path-like
        Or its name, or a TOML file of your own (`load_server`).
    instances : int or Split
        1 to 65,536; or how many prefill and how many decode.
    routing : {"least-loaded", "round-robin", "session-affine"}
        Of a split, among those that prefill and among those that decode.
    prefix_cache : bool
        With session-affine routing: the instance still holds the history, so that a turn whose conversation was seen
        prefills its ``new_tokens`` alone. Nothing is ever evicted: this bounds what such a cache can do.
    stages : Stages, optional
        What items of multimodal input go through before they are routed.

    Returns
    -------
    Served

    Raises
    ------
    OptionError
        If the trace lacks a column, an option is out of its range, or the work may take 146 years.
    """
    server = load_server(server)
    arriving = job_of(trace, server, 1 if isinstance(instances, Split) else instances, routing, prefix_cache)
    return _served(*_staged(trace, arriving, stages, _library()), server, instances, _library())


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
        If no number of instances meets it, `most` do not, the trace is empty, or as `simulate`.
    """
    objective = Objective(slo_ttft_s, slo_tbt_s, level)
    needed = _needed(trace, server, objective, most, routing, _library())
    if needed == math.inf:
        alone_s = alone(job_of(trace, server, 1, routing))
        if not objective.met(*alone_s):
            objective.refuse(objective.reached(*alone_s))
        expected = f"an objective that {most} instances meet"
        raise OptionError(expected, str(objective), "relax it, or allow more with most")
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
    library, objective = _library(), Objective(slo_ttft_s, slo_tbt_s, level)

    def needed(trace: Trace) -> float:
        return _needed(trace, server, objective, most, routing, library)

    return np.fromiter(in_turn(needed, replicas, thread_count(), ahead=1), np.float64)


def serves(server: Server) -> Callable[[Job, int | Split], Served]:
    """What serves jobs of a server, by so many instances. It takes milliseconds to find: keep it for many jobs."""
    library = _library()
    return lambda job, instances: _served(job, {}, server, instances, library)


def alone(job: Job) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times to first token and mean times between tokens of requests each alone with an instance, float64[n] s."""
    ttft_ns, decode_ns = alone_ns(job)
    return ttft_ns / 1e9, decode_ns / _gaps(job) / 1e9


def _needed(
    trace: Trace, server: Server, objective: Objective, most: int, routing: Routing, library: Library | None
) -> float:
    most = integer("most", most, MOST_INSTANCES, 1)
    if not len(trace):
        raise OptionError("a trace with requests", "an empty one", "generate a longer one")
    job = job_of(trace, server, 1, routing)
    fails, meets = 0, most + 1
    while meets - fails > 1:
        middle = (fails + meets) // 2
        served = _served(job, {}, server, middle, library)
        if objective.met(served.ttft_s, served.tbt_s):
            meets = middle
        else:
            fails = middle
    return meets if meets <= most else math.inf


def slow_note() -> tuple[str, ...]:
    """What to say where there are no compiled kernels; else nothing."""
    if find_library() is not None:
        return ()
    fix = "python -m servegen_gpu.backends.native.build makes them"
    return (f"no compiled kernels: servers are simulated in plain Python, a hundred times as slowly; {fix}",)


def _library() -> Library | None:
    """The compiled library, if it is there."""
    return None if find_library() is None else load_library()


def _gaps(job: Job) -> NDArray[np.int64]:
    """How many times between tokens a request has; 1 where it has none, for it is divided by."""
    return np.maximum(job.output_tokens.astype(np.int64) - 1, 1)


def _staged(
    trace: Trace, job: Job, stages: Stages | None, library: Library | None
) -> tuple[Job, dict[str, NDArray[np.int64]]]:
    """The job of requests as they leave the stages before prefill, and how long each stage held them."""
    if stages is None:
        return job, {}
    queue = stepwise.queue if library is None else partial(compiled.queue, library)
    held_ns = pass_through(trace, stages, queue)
    return replace(job, arrival_ns=job.arrival_ns + sum(held_ns.values())), held_ns


def _served(
    job: Job,
    held_ns: Mapping[str, NDArray[np.int64]],
    server: Server,
    instances: int | Split,
    library: Library | None,
) -> Served:
    """What becomes of the requests of a job, which may come in any order."""
    serve_one = stepwise.serve if library is None else partial(compiled.serve, library)
    order = np.argsort(job.arrival_ns, kind="stable") if held_ns else None
    ordered = job if order is None else job.rows(order)
    if isinstance(instances, Split):
        times = split.serve(ordered, server, instances, serve_one)
    else:
        times = serve_one(replace(ordered, instances=int(instances)))
    if order is not None:
        times = times.rows(np.argsort(order))
    before_ns = sum(held_ns.values(), np.zeros(1, np.int64))
    return Served(
        (times.ttft_ns + before_ns) / 1e9,
        (times.wait_ns + before_ns) / 1e9,
        times.decode_ns / _gaps(job) / 1e9,
        {name: held / 1e9 for name, held in held_ns.items()},
    )
