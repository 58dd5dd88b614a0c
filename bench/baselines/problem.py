"""What the hand-written scripts are given: clients, and how each sends requests in every window.

The same clients, gap families, length tables and columns as `servegen_gpu` has. In every window a client sends its
expected number of requests, rounded; its gaps are scaled to fill the window: the simplest thing a user would write.
Clients are in the order of their family, so that a script can treat all Weibull gaps as one slice.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from device_workloads import pool_of

from servegen_gpu.request.families import GAMMA, WEIBULL

WINDOW_S = 600


@dataclass(frozen=True, eq=False)
class Problem:
    """Clients and windows.

    Attributes
    ----------
    count : int64[windows, clients]
        Requests.
    gammas : int
        Clients before this one have Gamma gaps, the others Weibull gaps.
    shape : float64[clients]
    table : int64[clients, fields]
        Length table of each field.
    cdf : float64[bins]
        Table number + share of requests up to the bin: ascending over all tables.
    values : int32[bins]
    client : int32[clients]
        Ids.
    """

    count: np.ndarray
    gammas: int
    shape: np.ndarray
    table: np.ndarray
    cdf: np.ndarray
    values: np.ndarray
    client: np.ndarray


def problem(name: str, clients: int, requests: float, duration_s: int = 3600) -> Problem:
    """A population of `clients` that sends `requests` in all."""
    pool = pool_of(name, clients)
    rate = pool.rate_rps[pool.profile, : duration_s // WINDOW_S].T * pool.rate_factor
    count = np.rint(rate * (requests / rate.sum())).astype(np.int64)
    family = pool.family[pool.profile, 0]
    order = np.argsort(family != GAMMA, kind="stable")
    shape = np.where(family == GAMMA, pool.shape[pool.profile, 0], 1.0)
    shape = np.where(family == WEIBULL, pool.shape[pool.profile, 0], shape)
    tables, sizes = pool.tables, np.diff(pool.tables.offsets)
    cdf = np.repeat(np.arange(len(sizes)), sizes) + (tables.thresholds.astype(np.float64) + 1) * 2.0**-32
    return Problem(
        count=count[:, order],
        gammas=int((family == GAMMA).sum()),
        shape=shape[order],
        table=pool.table[pool.profile, 0][order].astype(np.int64),
        cdf=cdf,
        values=tables.values,
        client=pool.client_ids[order].astype(np.int32),
    )


def named(us: Any, client: Any, fields: list[Any], reason: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """Sorted columns by name; a third field is the share of the output that is reasoning."""
    columns = {"arrival_us": us, "client": client, "input_tokens": fields[0], "output_tokens": fields[1]}
    return columns | ({"reason_tokens": reason(fields[1], fields[2])} if len(fields) > 2 else {})


def main(window: Callable[[Problem, int], dict[str, Any]], wait: Callable[[], Any], peak: Callable[[], int]) -> None:
    """Run a script: all windows, once to warm up and then timed; the last line is JSON.

    Parameters
    ----------
    window : callable
        Columns of a window, sorted by arrival.
    wait : callable
        Returns when the device has done all that it was told.
    peak : callable
        Peak bytes that the columns and what they need took on the device.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=float, default=1e6)
    parser.add_argument("--workload", default="deepseek-r1")
    parser.add_argument("--clients", type=int, default=25_913)
    options = parser.parse_args()
    of = problem(options.workload, options.clients, options.requests)
    window(of, 0)
    wait()
    begun, rows = time.perf_counter(), 0
    for w in range(len(of.count)):
        columns = window(of, w)
        arrival = columns["arrival_us"]
        rows += len(arrival)
        del columns, arrival
    wait()
    seconds = time.perf_counter() - begun
    print(json.dumps({"requests": rows, "seconds": seconds, "requests_per_s": rows / seconds, "peak_bytes": peak()}))
