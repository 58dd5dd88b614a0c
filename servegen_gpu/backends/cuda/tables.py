"""Workloads on a device: uploaded once, kept from slab to slab, trace to trace and key to key."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.cuda.job import keys
from servegen_gpu.backends.per_workload import PerWorkload
from servegen_gpu.law.address import Key
from servegen_gpu.law.dependence import KINDS
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.request.tables import PackedTables

KEPT_BYTES = 1 << 28
"""Of profiles by rows: more of a workload is not kept on a device, beside what the slab at hand needs."""

Job = dict[str, Any]

CELLS = {
    "cell_client": np.uint32,
    "cell_number": np.uint32,
    "cell_window": np.int32,
    "cell_law": np.int64,
    "cell_rule": np.uint8,
    **dict.fromkeys(("cell_d", "cell_c", "cell_log_d", "cell_boost", "log_unit", "ticks_per_unit"), np.float64),
    **dict.fromkeys(("rotation", "first_ticks", "room", "kept", "drawn", "last", "ticks_in_all"), np.int64),
}
"""Arrays of cells and their types."""


@dataclass(frozen=True, eq=False)
class WorkloadTables:
    """A workload on a device.

    Attributes
    ----------
    shared : dict
        What does not depend on windows.
    of_rows : dict of tuple to dict
        Profiles in the rows that the windows of a slab use, by these rows.
    """

    shared: Job
    of_rows: dict[tuple[int, ...], Job]


class Device(Protocol):
    """Where a slab is sampled."""

    xp: Any
    """Array namespace: cupy, or numpy for a device that the host plays."""

    tables: PerWorkload[WorkloadTables]
    """What is kept here of workloads; backends share it."""

    most_threads: int
    """More than these at once have nothing to do but wait."""

    def launch(self, kernel: str, job: Job, n: int, shared_bytes: int = 0) -> None:
        """Start a kernel for n threads, each block with memory of its own; it ends before the next begins."""
        ...

    def sort(self, word: Any, begin_bit: int, end_bit: int) -> Any:
        """Words in the order of some of their bits, equals as they came; those that came are used up."""
        ...

    def table_memory(self) -> AbstractContextManager[None]:
        """Arrays made in here are tables, which outlast a trace."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """An array of the device as one of the host."""
        ...


def of_workload(device: Device, packed: PackedWorkload, key: Key, rows: tuple[int, ...]) -> Job:
    """What kernels are told of a workload, and the key; uploaded where it is not there yet.

    Parameters
    ----------
    device : Device
    packed : PackedWorkload
    key : tuple of int
    rows : tuple of int
        Of the profiles: those that the windows of a slab use.
    """
    tables = device.tables.find(packed)
    if tables is None:
        tables = WorkloadTables(_shared(device, packed), {})
        device.tables.keep(packed, tables)
    if (of_rows := tables.of_rows.get(rows)) is None:
        row_bytes = len(packed.shape) * (4 * 8 + 1 + 4 * len(packed.fields))
        if (sum(map(len, tables.of_rows)) + len(rows)) * row_bytes > KEPT_BYTES:
            tables.of_rows.clear()
        of_rows = tables.of_rows[rows] = _of_rows(device, packed, rows)
    return tables.shared | of_rows | keys(key)


def _shared(device: Device, packed: PackedWorkload) -> Job:
    tables, clock = packed.tables, packed.clock
    arrays: dict[str, NDArray[Any]] = {
        "client_id": packed.client_id.astype(np.uint32),
        "profile": packed.profile.astype(np.int32),
        "rate_factor": packed.rate_factor,
        "count_rule": packed.count_rule,
        "mixing": packed.mixing,
        "mixing_of": packed.mixing_of,
        "thresholds": tables.thresholds,
        "pairs": pairs_of(tables),
        "values": tables.values,
        "guide": tables.guide,
        "clock_thresholds": clock.segments.thresholds,
        "clock_guide": clock.segments.guide,
        "clock_first": clock.first,
        "clock_start_us": clock.start_us,
        "clock_slope": clock.slope,
    }
    if packed.limited:
        arrays["context_tokens"] = packed.context_tokens
    if len(packed.window_scale) > 1:
        arrays["group"] = packed.group.astype(np.int32)
    numbers = {
        "clients": len(packed.client_id),
        "fields": len(packed.fields),
        "scalar_fields": packed.scalar_fields,
        "dependence": KINDS.index(packed.dependence),
        "ratio_field": packed.schema.ratio.lane if packed.schema.ratio else 0,
        "items": int(bool(packed.schema.items)),
        "window_us": packed.window_us,
        "client_bits": int(packed.client_id.max(initial=0)).bit_length(),
        "guide_bits": tables.guide_bits,
        "clock_guide_bits": clock.segments.guide_bits,
    }
    return _uploaded(device, arrays) | numbers


def pairs_of(tables: PackedTables) -> NDArray[np.uint32]:
    """What most words need of their table, in one read: uint32[tables x entries of a guide, 4].

    The threshold of the first bin that the words of an entry may be in, its value and the next bin's, and its index;
    above that, bit 31 says that there are more than two bins.
    """
    if not len(tables.guide):
        return np.zeros((0, 4), np.uint32)
    guide = tables.guide.reshape(-1, (1 << tables.guide_bits) + 1)
    low, high = guide[:, :-1].ravel(), guide[:, 1:].ravel()
    found = np.empty((len(low), 4), np.uint32)
    found[:, 0] = np.where(high > low, tables.thresholds[low], np.uint32(2**32 - 1))
    found[:, 1] = tables.values[low]
    found[:, 2] = tables.values[np.minimum(low + 1, high)]
    found[:, 3] = low.astype(np.uint32) | (high - low > 1).astype(np.uint32) << np.uint32(31)
    return found


def _of_rows(device: Device, packed: PackedWorkload, rows: tuple[int, ...]) -> Job:
    names = ("rate_rps", "shape", "occupancy", "log_mean_gap", "family")
    arrays = {name: getattr(packed, name)[:, rows] for name in names}
    arrays["table"] = packed.table[:, rows].astype(np.int32)
    return _uploaded(device, arrays) | {"rows": len(rows)}


def _uploaded(device: Device, arrays: dict[str, NDArray[Any]]) -> Job:
    with device.table_memory():
        return {name: device.xp.asarray(np.ascontiguousarray(array)) for name, array in arrays.items()}
