"""From a selection of windows and target rates to a pool of the package, which samples them.

Axes: clients and windows (of the selection), slots (that its active windows use), lanes (fields of the package).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.grid import RATIO, Datasets
from servegen_gpu.compat.joint import COUNTS, ITEMS, Joint, join_fields
from servegen_gpu.compat.selection import Selection
from servegen_gpu.request.families import GAMMA, NO_FAMILY, WEIBULL
from servegen_gpu.request.schema import FIELDS, INPUT, of
from servegen_gpu.request.tables import Tables

UNIT_S = 4294
"""Every window is sampled as one of the longest windows that the package has, and its times are scaled to its own
length: ServeGen's law knows no unit of time, so windows may have any length, and times a resolution of 2**-32 of it."""

MAX_WINDOWS = 1 << 21
"""Windows up to this one begin at a microsecond that a float holds exactly."""


@dataclass(frozen=True, eq=False)
class WindowPool:
    """The package's pool of a selection, and what its columns mean.

    Attributes
    ----------
    pool : ClientPool
    joint : Joint
    column : str
        Of the trace: joint bins.
    """

    pool: ClientPool
    joint: Joint
    column: str


def window_pool(chosen: Selection, targets: NDArray[np.float64]) -> WindowPool:
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
    pool = ClientPool(
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
    return WindowPool(pool, joint, of(category).names[INPUT])


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
    largest = np.append(datasets.tables.largest, 0)
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
        raise InputError(expected, f"none at {named}", "fix the client's dataset", f"{what} {named}")


def _lanes(datasets: Datasets, slots: NDArray[np.int64], joint: Joint) -> tuple[str, NDArray[np.int32], Tables]:
    """Category, tables of every slot int32[slots, lanes], and tables: joint bins first, the counts and items too."""
    zero = len(slots)
    nothing = Tables(np.array([0, 1]), np.zeros(1, np.int32), np.full(1, 2**32 - 1, np.uint32))
    category = "multimodal" if any(kind.lists for kind in joint.kinds) else "language"
    lanes = np.full((len(slots), len(FIELDS[category])), zero, np.int32)
    lanes[:, 0] = np.arange(len(slots))
    if not of(category).items:
        return category, lanes, Tables.join([joint.tables, nothing])
    for lane, field in enumerate(FIELDS[category]):
        column = datasets.column(field)[slots]
        if field in COUNTS or field in ITEMS:
            listed = (column >= 0) & (datasets.column(COUNTS[0])[slots] >= 0)
            lanes[:, lane] = np.where(listed, zero + 1 + column, zero)
    return category, lanes, Tables.join([joint.tables, nothing, datasets.tables])
