"""ServeGen's module ``construct``: from a pool and target rates to a list of requests."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.cells import UNIT_S, WindowPool, window_pool
from servegen_gpu.compat.client import REAL
from servegen_gpu.compat.clientpool import ClientPool, ClientPoolView, ClientWindow
from servegen_gpu.compat.collector import no_collection
from servegen_gpu.compat.errors import InputError, as_value_errors, few
from servegen_gpu.compat.joint import ITEMS, requests_data
from servegen_gpu.compat.selection import Selection
from servegen_gpu.formats.flow import overlap
from servegen_gpu.pipeline import stream
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

__all__ = ["ClientPool", "ClientPoolView", "ClientWindow", "Request", "generate_workload"]

SEED_BYTES = 8
BLOCK = 1 << 14
"""Requests that become objects at a time: their parts are still in the processor's cache when they are put together."""


@dataclass
class Request:
    """One request.

    Attributes
    ----------
    request_id : int
        0, 1, 2, … in order of time.
    timestamp : float
        Seconds from the start of the view.
    data : dict
        ``input_tokens``, ``output_tokens`` and whatever fields the dataset has: int; ``reason_ratio``: float;
        ``image_tokens``, ``audio_tokens``, ``video_tokens``: list of int. Plain numbers, ready for JSON.
    """

    request_id: int
    timestamp: float
    data: dict[str, Any]


def generate_workload(
    pool: ClientPool | ClientPoolView, rate_fn: Mapping[int, float], duration: float, seed: int | None = None
) -> list[Request]:
    """Generate a workload.

    Parameters
    ----------
    pool : ClientPool or ClientPoolView
    rate_fn : dict
        Target total rate, req/s, of the window at every timestamp of the view that begins before `duration`. Windows in
        which nobody is active may be left out; a target there makes no requests.
    duration : float
        Seconds from the start of the view. Past the end of the data the last window goes on; past the view's own end
        there is nothing.
    seed : int, optional
        0 to 2**64 - 1. The same seed gives the same requests on any machine; None takes one from the system.

    Returns
    -------
    list of Request
        In order of time.

    Raises
    ------
    ValueError
        If the rates do not fit the windows, or a client cannot be sampled.
    """
    if not (isinstance(duration, REAL) and 0 < duration < math.inf):
        raise InputError(
            "a finite number of seconds above 0", repr(duration), "change duration", "Duration must be positive"
        )
    seed = int.from_bytes(os.urandom(SEED_BYTES), "little") if seed is None else seed
    view = pool._view()
    chosen = view.span(0, min(duration, view.end_time - view.start_time)).select()
    targets = _targets(chosen, rate_fn, duration)
    if not targets.any():
        return []
    with as_value_errors(), no_collection():
        return _requests(chosen, window_pool(chosen, targets), seed)


def _targets(chosen: Selection, rate_fn: Mapping[int, float], duration: float) -> NDArray[np.float64]:
    """Target rate of every window of the selection, checked, float64[windows]; 0 where nobody is active."""
    if not isinstance(rate_fn, Mapping):
        raise InputError("rates as {timestamp: req/s}", f"{rate_fn!r:.60}", "see get_constant_rate_fn")
    present, active = chosen.present(), chosen.rates().sum(axis=0) > 0
    due = {t for t, there in zip(chosen.timestamps, present, strict=True) if there}
    needed = {t for t, there in zip(chosen.timestamps, active, strict=True) if there}
    given = {t for t in rate_fn if 0 <= t < duration}
    if due and not needed <= given <= due:
        wrong = sorted((needed - given) | (given - due))
        raise InputError(
            "a rate for every window, by its start in seconds from the view's",
            f"others at {few(wrong)}",
            "get_constant_rate_fn(view, rate) gives the right timestamps",
            "Rate function timestamps don't match pool timestamps. "
            f"Expected {few(sorted(due))}, got {few(sorted(given))}",
        )
    targets = np.zeros(len(active))
    for w, timestamp in enumerate(chosen.timestamps):
        rate = rate_fn.get(timestamp, 0.0) if present[w] else 0.0  # type: ignore[call-overload]
        if isinstance(rate, bool) or not (isinstance(rate, REAL) and 0 <= rate < math.inf):
            raise InputError("rates as finite numbers >= 0", f"{rate!r} at timestamp {timestamp}", "fix rate_fn")
        targets[w] = rate if active[w] else 0.0
    return targets


def _requests(chosen: Selection, windows: WindowPool, seed: int) -> list[Request]:
    slabs = stream(
        windows.pool,
        start=windows.pool.start_s,
        duration=windows.pool.windows * UNIT_S,
        seed=seed,
        counts="servegen",
        dependence="comonotone",
        occupancy="window",
        empty="skip",
    )
    begins, sizes = np.array(chosen.timestamps, np.float64), np.array(chosen.sizes, np.float64)
    requests: list[Request] = []

    def build(slab: Trace) -> None:
        for a in range(0, len(slab), BLOCK):
            block = slab.rows(a, a + BLOCK)
            times = _times(block["arrival_us"], begins, sizes)
            lists = {name: _lists(block[name]) for name in ITEMS if name in block}
            data = requests_data(windows.joint, block[windows.column], lists)
            first = len(requests)
            requests.extend(map(Request, range(first, first + len(data)), times.tolist(), data))

    overlap(slabs, build)  # the next slab is sampled meanwhile
    return requests


def _times(
    arrival_us: NDArray[np.int64], begins: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds from the view's start, from microseconds in windows of `UNIT_S` seconds."""
    window_us = UNIT_S * 1_000_000
    window = arrival_us // window_us
    inside = (arrival_us - window * window_us).astype(np.float64)
    times = begins[window] + inside * (sizes / window_us)[window]
    # rounding must not carry a request into the next window
    return np.minimum(times, np.nextafter(begins + sizes, -np.inf)[window])


def _lists(column: Ragged) -> list[list[int]]:
    """A list of items for every request, each its own."""
    if not len(column.values):
        return [[] for _ in range(len(column))]
    items = column.values.tolist()
    return [items[a:b] for a, b in pairwise(column.offsets.tolist())]
