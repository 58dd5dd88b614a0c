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

from servegen_gpu.clients.lengths import LengthTables
from servegen_gpu.clients.pool import FIELDS, GAMMA, MAX_CLIENT_ID, NO_FAMILY, WEIBULL, order_free_sum
from servegen_gpu.clients.pool import ClientPool as Pool
from servegen_gpu.compat.client import REAL
from servegen_gpu.compat.clientpool import ClientPool, ClientPoolView, ClientWindow, Selection
from servegen_gpu.compat.collector import no_collection
from servegen_gpu.compat.errors import InputError, as_value_errors, few
from servegen_gpu.compat.grid import RATIO, Datasets
from servegen_gpu.compat.joint import COUNTS, ITEMS, Joint, join_fields, requests_data
from servegen_gpu.pipeline import stream
from servegen_gpu.trace import Ragged

__all__ = ["ClientPool", "ClientPoolView", "ClientWindow", "Request", "generate_workload"]

UNIT_S = 4294
"""Every window is sampled as one of the longest windows that the package has, and its times are scaled to its own
length: ServeGen's law knows no unit of time, so windows may have any length, and times a resolution of 2**-32 of it."""

MAX_WINDOWS = 1 << 21
"""Windows up to this one begin at a microsecond that a float holds exactly."""

SEED_BYTES = 8


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
        Seconds from the start of the view. Past the end of the data the last window goes on.
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
    chosen = pool.span(0, duration).select()
    targets = _targets(chosen, rate_fn, duration)
    if not targets.any():
        return []
    with as_value_errors(), no_collection():
        cells = _cells(chosen, targets)
        return _requests(chosen, cells, seed)


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
            raise InputError("rates as finite numbers >= 0", f"{rate!r} at timestamp {timestamp}", "mend rate_fn")
        targets[w] = rate if active[w] else 0.0
    return targets


@dataclass(frozen=True, eq=False)
class _Cells:
    """The package's pool of a selection, and what its columns mean.

    Attributes
    ----------
    pool : Pool
    joint : Joint
    column : str
        Of the trace: joint bins.
    """

    pool: Pool
    joint: Joint
    column: str


def _cells(chosen: Selection, targets: NDArray[np.float64]) -> _Cells:
    """A pool that has every window of the selection as one of `UNIT_S` seconds."""
    if chosen.span.stop > MAX_WINDOWS:
        raise InputError(f"at most {MAX_WINDOWS:,} windows", f"{chosen.span.stop:,}", "use longer windows")
    rates = chosen.rates()
    total = order_free_sum(rates)
    scale = np.divide(targets * np.array(chosen.sizes), total, out=np.zeros(len(total)), where=total > 0)
    rates = np.where(scale > 0, rates, 0.0) * (scale / UNIT_S)
    client_ids = _ids(chosen)
    order = np.argsort(client_ids)
    order = order[(rates[order] > 0).any(axis=1)]
    rates, grid = rates[order], chosen.grid
    place = (order, chosen.span)
    active = rates > 0
    slot = np.where(active, grid.slot[place], -1)
    _check_datasets(chosen, order, rates, slot)
    active &= slot >= 0
    slots, rank = np.unique(slot[active], return_inverse=True)
    joint = join_fields(grid.datasets, slots)
    category, lanes, tables = _lanes(grid.datasets, slots, joint)
    table = np.full((*rates.shape, lanes.shape[1]), -1, np.int32)
    table[active] = lanes[rank]
    ones = np.where(active, 1.0, 0.0)
    pool = Pool(
        name="compat",
        category=category,
        window_s=UNIT_S,
        first_window=chosen.span.start,
        client_ids=client_ids[order],
        profile=np.arange(len(order), dtype=np.int32),
        rate_factor=np.ones(len(order)),
        rate_rps=np.where(active, rates, 0.0),
        cv=ones,
        family=np.where(active, np.where(grid.weibull[place], WEIBULL, GAMMA), NO_FAMILY).astype(np.uint8),
        shape=np.where(active, grid.shape[place], 0.0),
        occupancy=ones,
        table=table,
        tables=tables,
        measured=np.ones(len(order), np.bool_),
    )
    return _Cells(pool, joint, "input_tokens" if category == "language" else "text_tokens")


def _ids(chosen: Selection) -> NDArray[np.int64]:
    """Ids in the random stream: the clients' own, or their place where those are not different whole numbers."""
    ids = [client.client_id for client in chosen.clients]
    whole = all(isinstance(i, int | np.integer) and 0 <= i <= MAX_CLIENT_ID for i in ids)
    return np.array(ids if whole and len(set(ids)) == len(ids) else range(len(ids)), np.int64)


def _check_datasets(
    chosen: Selection, order: NDArray[np.int64], rates: NDArray[np.float64], slot: NDArray[np.int64]
) -> None:
    """Refuse windows that would make requests and have nothing to draw their fields from."""
    datasets = chosen.grid.datasets
    lacking = (slot < 0) & (rates * UNIT_S > 1)
    _refuse(chosen, order, lacking, "a dataset that starts at or before every active window", "No dataset found for")
    if RATIO in datasets.fields:
        column = datasets.column(RATIO)
        single = (column >= 0) & (datasets.size[column] < 2)
        at_fault = (slot >= 0) & np.append(single, False)[slot]
        _refuse(chosen, order, at_fault, f"at least two probabilities of {RATIO}", f"{RATIO} without a range in")
    if COUNTS[0] not in datasets.fields:
        return
    values = datasets.tables.values
    largest = np.append(values[datasets.tables.offsets[1:] - 1], 0)
    bad = np.zeros(len(datasets.table), np.bool_)
    for count, item in zip(COUNTS, ITEMS, strict=True):
        bad |= (largest[datasets.column(count)] > 0) & (datasets.column(item) < 0)
    bad &= datasets.column(COUNTS[0]) >= 0
    at_fault = (slot >= 0) & np.append(bad, False)[slot]
    _refuse(chosen, order, at_fault, "token fields for all counted items", "Items without tokens in the dataset of")


def _refuse(chosen: Selection, order: NDArray[np.int64], fault: NDArray[np.bool_], expected: str, what: str) -> None:
    if fault.any():
        client, window = np.argwhere(fault)[0]
        named = f"client {chosen.clients[order[client]].client_id} at timestamp {chosen.timestamps[window]}"
        raise InputError(expected, f"none at {named}", "mend the client's dataset", f"{what} {named}")


def _lanes(datasets: Datasets, slots: NDArray[np.int64], joint: Joint) -> tuple[str, NDArray[np.int32], LengthTables]:
    """Category, tables of every slot int32[slots, lanes], and tables: joint bins first, the counts and items too."""
    zero = len(slots)
    nothing = LengthTables(np.array([0, 1]), np.zeros(1, np.int32), np.full(1, 2**32 - 1, np.uint32))
    category = "multimodal" if any(kind.lists for kind in joint.kinds) else "language"
    lanes = np.full((len(slots), len(FIELDS[category])), zero, np.int32)
    lanes[:, 0] = np.arange(len(slots))
    if category == "language":
        return category, lanes, LengthTables.join([joint.tables, nothing])
    for lane, field in enumerate(FIELDS[category]):
        column = datasets.column(field)[slots]
        if field in COUNTS or field in ITEMS:
            listed = (column >= 0) & (datasets.column(COUNTS[0])[slots] >= 0)
            lanes[:, lane] = np.where(listed, zero + 1 + column, zero)
    return category, lanes, LengthTables.join([joint.tables, nothing, datasets.tables])


def _requests(chosen: Selection, cells: _Cells, seed: int) -> list[Request]:
    pool, windows = cells.pool, len(chosen.timestamps)
    slabs = stream(
        pool,
        start=pool.start_s,
        duration=windows * UNIT_S,
        seed=seed,
        counts="servegen",
        dependence="comonotone",
        occupancy="window",
        empty="skip",
    )
    begins, sizes = np.array(chosen.timestamps, np.float64), np.array(chosen.sizes, np.float64)
    requests: list[Request] = []
    for slab in slabs:
        times = _times(slab["arrival_us"], begins, sizes)
        lists = {name: _lists(slab[name]) for name in ITEMS if name in slab}
        data = requests_data(cells.joint, slab[cells.column], lists)
        first = len(requests)
        requests += map(Request, range(first, first + len(data)), times.tolist(), data)
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
