"""The server model in compiled code: the times of `stepwise`, to the last bit."""

from __future__ import annotations

import ctypes

import numpy as np

from servegen_gpu.backends.native.library import Library, serving
from servegen_gpu.serving.job import Job, Times


def serve(library: Library, job: Job) -> Times:
    """The times of all requests of a job."""
    stop = np.zeros(1, np.int32)
    wait_ns, ttft_ns, decode_ns = (np.empty(len(job), np.int64) for _ in range(3))
    values = {name: getattr(job, name) for name in vars(job) if name != "routing"}
    filled = {"wait_ns": wait_ns, "ttft_ns": ttft_ns, "decode_ns": decode_ns, "stop": stop}
    of_library = serving({**values, **filled, "requests": len(job), "round_robin": job.routing == "round-robin"})
    library.call("sg_serve", ctypes.byref(of_library), stop=stop)
    return Times(wait_ns, ttft_ns, decode_ns)
