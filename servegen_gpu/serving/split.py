"""Prefill and decode on instances of their own: xPyD.

The prefill instances serve every request as far as its first token, the KV cache is moved, and the decode instances
make the other tokens. Nothing comes back, so one pass over the requests follows the other. A prefill instance gives a
request's cache free when its input ends, whether it has been moved or not: a slow transfer does not hold up prefill.
Work outstanding, as routers see it, is the time of a request alone: of its input here, of its other tokens there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.serving.job import MOST_INSTANCES, Job, Times, check_latest
from servegen_gpu.serving.server import LONGEST_MOVE_S, LONGEST_STEP_S, Server, check_number, check_time


@dataclass(frozen=True)
class Split:
    """Instances that prefill, and instances that decode.

    Attributes
    ----------
    prefill, decode : int
        How many of each, 1 to 65,536.
    transfer_s : float
        What every transfer of a KV cache takes, up to 1,000 s; 0 if not given, which is the best case.
    transfer_s_per_token : float
        What a token of input adds: bytes of KV cache a token, divided by the bandwidth; up to 1 ms.
    decode_server : Server, optional
        The decode instances, where they differ from those that prefill.

    Raises
    ------
    OptionError
        If a number is out of its range.
    """

    prefill: int
    decode: int
    transfer_s: float = 0.0
    transfer_s_per_token: float = 0.0
    decode_server: Server | None = None

    def __post_init__(self) -> None:
        check_number(self, "prefill", MOST_INSTANCES)
        check_number(self, "decode", MOST_INSTANCES)
        check_time(self, "transfer_s", 0.0, LONGEST_STEP_S)
        check_time(self, "transfer_s_per_token", 0.0, LONGEST_MOVE_S)

    def __str__(self) -> str:
        return f"{self.prefill}P{self.decode}D"


def serve(job: Job, server: Server, split: Split, serve_one: Callable[[Job], Times]) -> Times:
    """The times of a job's requests if its instances are split.

    Parameters
    ----------
    job : Job
        Of `server`, whatever its number of instances.
    server : Server
    split : Split
    serve_one : callable
        The times of a job on instances that are alike.

    Raises
    ------
    OptionError
        If the work may take 146 years.
    """
    inputs = job.reserved_tokens - job.output_tokens
    prefill_s = server.step_s + server.prefill_s_per_step + job.input_tokens * float(server.prefill_s_per_token)
    times = serve_one(
        replace(
            job,
            output_tokens=np.minimum(job.output_tokens, 1),
            reserved_tokens=inputs,
            work_ns=np.rint(1e9 * prefill_s).astype(np.int64),
            instances=int(split.prefill),
        )
    )
    first_ns = job.arrival_ns + times.ttft_ns
    transfer_ps = round(split.transfer_s * 1e12) + round(split.transfer_s_per_token * 1e12) * inputs
    moved_ns = first_ns + (transfer_ps + 500) // 1000
    rows = np.flatnonzero(job.output_tokens > 1)
    rows = rows[np.argsort(moved_ns[rows], kind="stable")]
    decode = _decoding(job, split.decode_server or server, rows, moved_ns)
    later = serve_one(replace(decode, instances=int(split.decode)))
    decode_ns = np.zeros(len(job), np.int64)
    decode_ns[rows] = moved_ns[rows] + later.ttft_ns + later.decode_ns - first_ns[rows]
    return Times(times.wait_ns, times.ttft_ns, decode_ns)


def _decoding(job: Job, server: Server, rows: NDArray[np.intp], moved_ns: NDArray[np.int64]) -> Job:
    """All tokens but the first of some requests, in the order in which their caches come."""
    of_rows = job.rows(rows)
    tokens = of_rows.output_tokens - 1
    work_s = tokens * (server.step_s + server.decode_s_per_sequence)
    check_latest(float(moved_ns[rows].max(initial=0)) + 1e9 * float(work_s.sum()) + float(tokens.sum(dtype=np.float64)))
    return replace(
        of_rows.on(server),
        arrival_ns=moved_ns[rows],
        input_tokens=np.zeros(len(rows), np.int32),
        output_tokens=tokens,
        work_ns=np.rint(1e9 * work_s).astype(np.int64),
        decode_only=True,
    )
