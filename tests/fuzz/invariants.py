"""What must hold of results, whatever they were made from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fuzz.kind import must
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.request.families import ROWS
from servegen_gpu.trace import Trace

MOST_US = 2**62
SLACK = 8.0
"""Standard deviations that a Poisson count may be off; bursty ones are not compared."""


def check_trace(trace: Trace) -> None:
    """Of columns that are there: times ascend from 0 on, no negative tokens, reasoning in the output, sums of items."""
    columns: dict[str, Any] = {name: trace[name] for name in trace}
    rows = len(trace)
    times = np.asarray(columns.get("arrival_us", np.zeros(rows, np.int64)))
    must(times.dtype == np.int64 and times.ndim == 1, f"times of {times.dtype}")
    must(not rows or times[0] >= 0, "a time before 0")
    must((np.diff(times) >= 0).all(), "times out of order")
    must(not rows or times[-1] < MOST_US, "a time without end")
    for name, column in columns.items():
        values = np.asarray(getattr(column, "values", column))
        offsets = getattr(column, "offsets", None)
        if offsets is None:
            must(len(values) == rows, f"{len(values)} of {name} in {rows} rows")
        else:
            must(len(offsets) == rows + 1 and offsets[0] == 0 and offsets[-1] == len(values), f"offsets of {name}")
            must((np.diff(offsets) >= 0).all(), f"offsets of {name} that fall")
        if values.dtype.kind == "f":
            must(np.isfinite(values).all(), f"{name} that is not finite")
        if name.endswith("tokens") or name in ("client", "turn", "input_tokens"):
            must(not len(values) or values.min() >= 0, f"negative {name}")
    if {"reason_tokens", "output_tokens"} <= columns.keys():
        must((np.asarray(columns["reason_tokens"]) <= np.asarray(columns["output_tokens"])).all(), "reason > output")


def check_pool(pool: ClientPool) -> None:
    """Rates that are finite and not negative, shapes that the law can draw, tables that ascend."""
    must(np.isfinite(pool.rate_rps).all() and (pool.rate_rps >= 0).all(), "a rate that is none")
    must(np.isfinite(pool.rate_factor).all() and (pool.rate_factor > 0).all(), "a factor that is none")
    must(np.isfinite(pool.total_rps).all(), "a total rate that is none")
    must(pool.own_rps.max() <= 1e12 * len(pool), f"{pool.own_rps.max():g} req/s")
    must((np.diff(pool.client_ids) > 0).all() and pool.client_ids[0] >= 0, "ids out of order")
    active = pool.rate_rps > 0
    for row in ROWS:
        own = pool.shape[active & (pool.family == row.code)]
        low, high = row.shape_range
        if row.has_shape and len(own):
            must(low <= own.min() and own.max() <= high, f"a {row.name} shape of {own.min():g} to {own.max():g}")
    occupancy = pool.occupancy[active]
    must(not len(occupancy) or (occupancy.min() > 0 and occupancy.max() <= 1), "an occupancy that is none")
    tables = pool.tables
    must((tables.values >= 0).all() and (np.diff(tables.offsets) > 0).all(), "tables that are none")
    must(np.isfinite(pool.correlations).all(), "a correlation that is none")


def check_count(rows: int, expected: float) -> None:
    """As many requests as a Poisson process of that mean may have."""
    must(np.isfinite(expected) and expected >= 0, f"{expected} requests expected")
    off = abs(rows - expected)
    must(off <= SLACK * np.sqrt(expected) + SLACK, f"{rows} requests where {expected:.6g} are expected")
