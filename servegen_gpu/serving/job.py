"""A simulation in whole numbers, so that every implementation has the same times to the last bit.

Durations of a step are computed in picoseconds and rounded to nanoseconds, half up; all clocks are in nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.serving.server import Server
from servegen_gpu.trace import Trace

Routing = Literal["least-loaded", "round-robin"]
ROUTINGS: tuple[Routing, ...] = ("least-loaded", "round-robin")
MOST_INSTANCES = 1 << 16
LATEST_NS = 2.0**62


@dataclass(frozen=True)
class Job:
    """Requests in order of arrival, and the instances that serve them.

    Attributes
    ----------
    arrival_ns : int64[n]
    input_tokens, output_tokens : int32[n]
        The output as it is reserved; a request of none still gets one token.
    work_ns : int64[n]
        What the request adds to the work of its instance, as the router sees it.
    step_ps, prefill_ps, decode_ps : int
        Of a step, of an input token, of a sequence that decodes.
    step_tokens, max_sequences, kv_tokens, instances : int
    routing : {"least-loaded", "round-robin"}
    """

    arrival_ns: NDArray[np.int64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    work_ns: NDArray[np.int64]
    step_ps: int
    prefill_ps: int
    decode_ps: int
    step_tokens: int
    max_sequences: int
    kv_tokens: int
    instances: int
    routing: Routing

    def __len__(self) -> int:
        return len(self.arrival_ns)


@dataclass(frozen=True)
class Times:
    """What became of every request of a job, int64[n] nanoseconds: until its input is begun, until its first token is
    there, and from then to the last one."""

    wait_ns: NDArray[np.int64]
    ttft_ns: NDArray[np.int64]
    decode_ns: NDArray[np.int64]


def job_of(trace: Trace, server: Server, instances: int, routing: Routing) -> Job:
    """The job of serving a trace.

    Raises
    ------
    OptionError
        If the trace lacks a column, there is no such number of instances or routing, or the work may take 146 years.
    """
    if isinstance(instances, bool) or not hasattr(instances, "__index__") or not 1 <= instances <= MOST_INSTANCES:
        raise OptionError(f"instances from 1 to {MOST_INSTANCES}", repr(instances), "change instances")
    if routing not in ROUTINGS:
        raise OptionError(f"routing among {', '.join(ROUTINGS)}", repr(routing), "choose one of them")
    for name in ("arrival_us", "input_tokens", "output_tokens"):
        if name not in trace:
            raise OptionError("a trace with arrival_us, input_tokens and output_tokens", f"none of {name}", "add it")
    arrival_us, inputs, outputs = trace["arrival_us"], trace["input_tokens"], trace["output_tokens"]
    tokens = np.maximum(outputs, 1, dtype=np.float64)
    work_s = inputs * float(server.prefill_s_per_token) + tokens * float(server.decode_s_per_sequence)
    if len(trace):
        steps = inputs.sum(dtype=np.float64) + tokens.sum()  # each has a token or more
        latest_ns = 1e3 * float(arrival_us[-1]) + 1e9 * (steps * server.step_s + work_s.sum()) + steps
        if latest_ns >= LATEST_NS:
            raise OptionError("work of less than 146 years", f"up to {latest_ns:.3g} ns", "serve a part of the trace")
    return Job(
        arrival_us * 1000,
        np.asarray(inputs, np.int32),
        np.asarray(outputs, np.int32),
        np.rint(1e9 * work_s).astype(np.int64),
        round(server.step_s * 1e12),
        round(server.prefill_s_per_token * 1e12),
        round(server.decode_s_per_sequence * 1e12),
        int(server.step_tokens),
        int(server.max_sequences),
        int(server.kv_tokens),
        int(instances),
        routing,
    )
