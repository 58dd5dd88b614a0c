"""Small traces and servers for tests of the server model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from native import library

import servegen_gpu as sg
from servegen_gpu.serving import compiled
from servegen_gpu.serving.job import Job, Times
from servegen_gpu.serving.server import Server

Serve = Callable[[Job], Times]


def in_c(job: Job) -> Times:
    return compiled.serve(library(), job)


def trace_of(arrival_us: Any, inputs: Any, outputs: Any, conversation: Any = None) -> sg.Trace:
    columns = {"arrival_us": (arrival_us, np.int64), "input_tokens": (inputs, np.int32)}
    columns["output_tokens"] = (outputs, np.int32)
    if conversation is not None:
        columns["conversation"] = (conversation, np.int64)
    return sg.Trace({name: np.array(values, kind) for name, (values, kind) in columns.items()})


def same(a: Times, b: Times) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


SERVERS = st.builds(
    Server,
    step_s=st.sampled_from([1e-9, 0.0004567891234, 0.012, 1.5]),
    prefill_s_per_token=st.sampled_from([0.0, 1e-10, 1 / 12_000, 0.3]),
    prefill_s_per_step=st.sampled_from([0.0, 0.0033]),
    decode_s_per_sequence=st.sampled_from([0.0, 0.00015, 0.2]),
    step_tokens=st.integers(1, 40),
    max_sequences=st.integers(1, 12),
    kv_tokens=st.integers(1, 300),
)
REQUESTS = st.lists(
    st.tuples(
        *(st.sampled_from([0, 1, 700, 12_000, 90_000, 5_000_000]), st.integers(0, 90), st.integers(0, 30)),
        st.integers(-2, 4),
    ),
    max_size=60,
)

TINY = Server(0.010, 0.001, 0.002, step_tokens=4, max_sequences=8, kv_tokens=1000)
