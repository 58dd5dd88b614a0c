"""A simulation in whole numbers, so that every implementation has the same times to the last bit.

Durations of a step are computed in picoseconds and rounded to nanoseconds, half up; all clocks are in nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.options import check_choice, integer
from servegen_gpu.serving.server import Server
from servegen_gpu.trace import Trace

Routing = Literal["least-loaded", "round-robin", "session-affine"]
ROUTINGS: tuple[Routing, ...] = ("least-loaded", "round-robin", "session-affine")
"""In the order of their numbers in kernels/job.h."""
MOST_INSTANCES = 1 << 16
LATEST_NS = 2.0**62


@dataclass(frozen=True)
class Job:
    """Requests in order of arrival, and the instances that serve them.

    Attributes
    ----------
    arrival_ns : int64[n]
    input_tokens, output_tokens : int32[n]
        Input to prefill, and output to make; a request of none still gets one token.
    reserved_tokens : int64[n]
        Of the KV cache, from the begin of a request to its end.
    work_ns : int64[n]
        What the request adds to the work of its instance, as the router sees it.
    session : int32[n]
        Sessions from 0, below 0 for requests that stand alone; empty where the routing asks nothing of them.
    step_ps, prefill_step_ps, prefill_ps, decode_ps : int
        Of a step, of one with input, of an input token, of a sequence that decodes.
    step_tokens, max_sequences, kv_tokens, instances : int
    routing : {"least-loaded", "round-robin", "session-affine"}
    decode_only : bool
        Input was prefilled elsewhere: a request decodes, and takes its token of the budget, from its first step on.
    """

    arrival_ns: NDArray[np.int64]
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    reserved_tokens: NDArray[np.int64]
    work_ns: NDArray[np.int64]
    session: NDArray[np.int32]
    step_ps: int
    prefill_step_ps: int
    prefill_ps: int
    decode_ps: int
    step_tokens: int
    max_sequences: int
    kv_tokens: int
    instances: int
    routing: Routing
    decode_only: bool = False

    def __len__(self) -> int:
        return len(self.arrival_ns)

    def rows(self, index: NDArray[np.intp]) -> Job:
        """Some requests of the job, in another order."""
        columns: dict[str, Any] = {
            name: column[index] for name, column in vars(self).items() if isinstance(column, np.ndarray) and len(column)
        }
        return replace(self, **columns)

    def on(self, server: Server) -> Job:
        """The job on other instances."""
        return replace(self, **_parameters(server))


@dataclass(frozen=True)
class Times:
    """What became of every request of a job, int64[n] nanoseconds: until its input is begun, until its first token is
    there, and from then to the last one."""

    wait_ns: NDArray[np.int64]
    ttft_ns: NDArray[np.int64]
    decode_ns: NDArray[np.int64]

    def rows(self, index: NDArray[np.intp]) -> Times:
        """The times of some requests, in another order."""
        return Times(self.wait_ns[index], self.ttft_ns[index], self.decode_ns[index])


def job_of(trace: Trace, server: Server, instances: int, routing: Routing, prefix_cache: bool = False) -> Job:
    """The job of serving a trace; as for `simulate`.

    Raises
    ------
    OptionError
        If the trace lacks a column, there is no such number of instances or routing, or the work may take 146 years.
    """
    instances = integer("instances", instances, MOST_INSTANCES, 1)
    check_choice("routing", routing, ROUTINGS)
    if prefix_cache and routing != "session-affine":
        raise OptionError("prefix_cache with session-affine routing", f"{routing!r}", "change routing")
    needed = ["arrival_us", "input_tokens", "output_tokens"]
    needed += ["conversation"] if routing == "session-affine" else []
    needed += ["new_tokens"] if prefix_cache else []
    for name in needed:
        if name not in trace:
            fix = "add it, or choose another routing" if name == "conversation" else "add it"
            raise OptionError(f"a trace with {', '.join(needed)}", f"none of {name}", fix)
    arrival_us, inputs, outputs = trace["arrival_us"], trace["input_tokens"], trace["output_tokens"]
    session = _sessions(trace["conversation"]) if routing == "session-affine" else np.empty(0, np.int32)
    prefilled = np.where(_goes_on(session), trace["new_tokens"], inputs) if prefix_cache else inputs
    work_s = _work_s(server, prefilled, outputs)
    if len(trace):
        steps = prefilled.sum(dtype=np.float64) + np.maximum(outputs, 1, dtype=np.float64).sum()  # a token or more each
        longest_s = server.step_s + server.prefill_s_per_step
        check_latest(1e3 * float(arrival_us[-1]) + 1e9 * (steps * longest_s + work_s.sum()) + steps)
    return Job(
        arrival_us * 1000,
        np.asarray(prefilled, np.int32),
        np.asarray(outputs, np.int32),
        np.add(inputs, outputs, dtype=np.int64),
        np.rint(1e9 * work_s).astype(np.int64),
        session,
        **_parameters(server),
        instances=int(instances),
        routing=routing,
    )


def alone_ns(job: Job) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time to first token, and from there to the last one, of requests each alone with an instance: int64[n] ns."""
    chunks, rest = np.divmod(job.input_tokens.astype(np.int64), job.step_tokens)
    full_ns, rest_ns = (
        (job.step_ps + (tokens > 0) * job.prefill_step_ps + job.prefill_ps * tokens + 500) // 1000
        for tokens in (job.step_tokens, rest)
    )
    ttft_ns = chunks * full_ns + np.where((rest > 0) | (chunks == 0), rest_ns, 0)
    decode_ns = (np.maximum(job.output_tokens, 1) - 1).astype(np.int64) * ((job.step_ps + job.decode_ps + 500) // 1000)
    return ttft_ns, decode_ns


def check_latest(latest_ns: float) -> None:
    """Refuse what may not end in time: sums of two such times still are 64-bit numbers."""
    if latest_ns >= LATEST_NS:
        raise OptionError("work of less than 146 years", f"up to {latest_ns:.3g} ns", "serve a part of the trace")


def _parameters(server: Server) -> dict[str, Any]:
    return {
        "step_ps": round(server.step_s * 1e12),
        "prefill_step_ps": round(server.prefill_s_per_step * 1e12),
        "prefill_ps": round(server.prefill_s_per_token * 1e12),
        "decode_ps": round(server.decode_s_per_sequence * 1e12),
        "step_tokens": int(server.step_tokens),
        "max_sequences": int(server.max_sequences),
        "kv_tokens": int(server.kv_tokens),
    }


def _work_s(server: Server, inputs: NDArray[Any], outputs: NDArray[Any]) -> NDArray[np.float64]:
    """The whole time of requests but for that of the steps themselves."""
    tokens = np.maximum(outputs, 1, dtype=np.float64)
    return np.asarray(inputs * float(server.prefill_s_per_token) + tokens * float(server.decode_s_per_sequence))


def _sessions(conversation: NDArray[np.int64]) -> NDArray[np.int32]:
    """Conversations numbered from 0; those of requests that stand alone are below 0 and stay so."""
    known, numbers = np.unique(conversation, return_inverse=True)
    return (numbers - np.searchsorted(known, 0)).astype(np.int32)


def _goes_on(session: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether an earlier request is of the same session."""
    goes_on = session >= 0
    goes_on[np.unique(session, return_index=True)[1]] = False
    return goes_on
