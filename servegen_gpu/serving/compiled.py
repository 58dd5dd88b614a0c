"""The server model in compiled code: the times of `stepwise`, to the last bit."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.native.library import Library, serving
from servegen_gpu.serving.job import ROUTINGS, Job, Times


def serve(library: Library, job: Job) -> Times:
    """The times of all requests of a job."""
    stop = np.zeros(1, np.int32)
    wait_ns, ttft_ns, decode_ns = (np.empty(len(job), np.int64) for _ in range(3))
    filled = {"wait_ns": wait_ns, "ttft_ns": ttft_ns, "decode_ns": decode_ns, "stop": stop}
    counts = {"requests": len(job), "sessions": int(job.session.max(initial=-1)) + 1}
    of_library = serving({**vars(job), **filled, **counts, "routing": ROUTINGS.index(job.routing)})
    library.call("sg_serve", ctypes.byref(of_library), stop=stop)
    return Times(wait_ns, ttft_ns, decode_ns)


def queue(
    library: Library, ready_ns: NDArray[np.int64], service_ns: NDArray[np.int64], workers: int
) -> NDArray[np.int64]:
    """When requests leave workers that take them first come, first served."""
    end_ns = np.empty(len(ready_ns), np.int64)
    counts = ctypes.c_int64(len(ready_ns)), ctypes.c_int64(workers)
    library.call("sg_queue", np.ascontiguousarray(ready_ns), np.ascontiguousarray(service_ns), *counts, end_ns)
    return end_ns
