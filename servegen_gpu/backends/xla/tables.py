"""A packed workload as JAX sees it: arrays padded to powers of two, so that few shapes are ever compiled.

Axes: cells, runs, tables, bins, segments as elsewhere in this package; each padded at its end. Padding cells expect
nothing, padding runs have no requests, and padding bins are never found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.cell_state import Runs
from servegen_gpu.backends.xla.exact import x64
from servegen_gpu.law.address import Key
from servegen_gpu.law.dependence import ties
from servegen_gpu.law.variates import GapConstants
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells, clock_tables
from servegen_gpu.request.families import GAMMA
from servegen_gpu.request.tables import PackedTables

MIN_CELLS = 1 << 8
MIN_REQUESTS = 1 << 12


@dataclass(frozen=True)
class GapKind:
    """What is compiled into arrivals.

    Attributes
    ----------
    draws : frozenset of int
        Codes of the draws of gaps that occur.
    rules : frozenset of int
        Which count rules occur.
    """

    draws: frozenset[int]
    rules: frozenset[int]


@dataclass(frozen=True)
class FieldKind:
    """What is compiled into lengths.

    Attributes
    ----------
    category : str
    dependence : str
    ties : tuple
        Of the copula, as `law.dependence.ties` has them.
    """

    category: str
    dependence: str
    ties: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class DeviceTables:
    """What all slabs of a workload share.

    Attributes
    ----------
    key : uint64[2]
        Philox key.
    zero : int64
        For `exact`.
    segments : PackedTables
        Of the clock.
    clock_first, clock_start_us, clock_slope : uint64[segments]
    gaps : GapKind
    lengths : PackedTables or None
    fields : FieldKind or None
        None, like `lengths`, where only arrivals are drawn.
    mixing : float64[mixings, fields, fields] or None
        Of the copula.
    """

    key: Any
    zero: Any
    segments: PackedTables
    clock_first: Any
    clock_start_us: Any
    clock_slope: Any
    gaps: GapKind
    lengths: PackedTables | None
    fields: FieldKind | None
    mixing: Any

    def for_arrivals(self) -> DeviceTables:
        """Without what lengths need: workloads of all categories share what is compiled for arrivals."""
        return replace(self, lengths=None, fields=None, mixing=None)

    def with_key(self, key: Key) -> DeviceTables:
        """The same tables under another key of `derive_key`: only that is uploaded, and nothing compiled."""
        with x64():
            return replace(self, key=jax.device_put(np.array(key, np.uint64)))


@dataclass(frozen=True, eq=False)
class DeviceCells:
    """The cells of some windows.

    Attributes
    ----------
    client, window : uint64[cells]
        Id and absolute number: the cell's address.
    window_index : int32[cells]
        Index into the packed windows.
    offset_us : int64[cells]
        From the start of the first of the windows to the cell's.
    rule : uint8[cells]
    family : uint8[cells]
        Code of the draw.
    shape, occupancy, log_mean_gap : float64[cells]
    expected_q32 : int64[cells]
    clock_table : int64[cells]
    table : int64[cells, fields] or None
    mixing_of : int32[cells] or None
        Row of the tables' `mixing`, under the copula.
    context : int32[cells] or None
        Most tokens of input and output together, where any client has a limit.
    narrow : bool
        Whether microseconds from the start of the first window fit 32 bits: then one sort is enough.
    """

    client: Any
    window: Any
    window_index: Any
    offset_us: Any
    rule: Any
    family: Any
    shape: Any
    occupancy: Any
    log_mean_gap: Any
    expected_q32: Any
    clock_table: Any
    table: Any
    mixing_of: Any
    context: Any
    narrow: bool

    def for_arrivals(self) -> DeviceCells:
        """Without what lengths and order need."""
        return replace(self, table=None, mixing_of=None, context=None, narrow=True)


jax.tree_util.register_dataclass(PackedTables, ["thresholds", "values", "guide"], ["guide_bits", "steps"])
jax.tree_util.register_dataclass(GapConstants, ["d", "c", "log_d", "boost"], [])
jax.tree_util.register_dataclass(Runs, ["cell", "first", "count", "before"], [])
jax.tree_util.register_dataclass(
    DeviceTables,
    [name for name in DeviceTables.__dataclass_fields__ if name not in ("gaps", "fields")],
    ["gaps", "fields"],
)
jax.tree_util.register_dataclass(
    DeviceCells, [name for name in DeviceCells.__dataclass_fields__ if name != "narrow"], ["narrow"]
)


def bucket(count: int, least: int) -> int:
    """The least power of two that holds `count`, and no less than `least`."""
    return max(least, 1 << max(count - 1, 0).bit_length())


def padded(array: NDArray[Any], size: int, fill: Any = 0) -> NDArray[Any]:
    """`array` with its first axis filled up to `size`."""
    out = np.full((size, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out


def device_tables(packed: PackedWorkload, key: Key) -> DeviceTables:
    """The shared part of a workload, on JAX's default device.

    Parameters
    ----------
    packed : PackedWorkload
    key : tuple of int
        Of `derive_key`, or `Workload.key`; `DeviceTables.with_key` has the same tables for another replica.
    """
    clock = packed.clock
    segments = bucket(len(clock.first), 16)
    active = packed.rate_rps > 0
    on_host = DeviceTables(
        key=np.array(key, np.uint64),
        zero=np.int64(0),
        segments=_padded_tables(clock.segments),
        clock_first=padded(clock.first, segments),
        clock_start_us=padded(clock.start_us, segments),
        clock_slope=padded(clock.slope, segments),
        gaps=GapKind(
            draws=frozenset(map(int, np.unique(packed.family[active]))),
            rules=frozenset(map(int, packed.count_rule)),
        ),
        lengths=_padded_tables(packed.tables),
        fields=FieldKind(category=packed.category, dependence=packed.dependence, ties=ties(packed.mixing)),
        mixing=padded(packed.mixing, bucket(len(packed.mixing), 2)) if packed.dependence == "copula" else None,
    )
    with x64():
        found: DeviceTables = jax.device_put(on_host)
    return found


def _padded_tables(tables: PackedTables) -> PackedTables:
    bins = bucket(len(tables.thresholds), 1 << 8)
    return PackedTables(
        thresholds=padded(tables.thresholds, bins),
        values=padded(tables.values, bins),
        guide=padded(tables.guide, bucket(len(tables.guide), 1 << 8)),
        guide_bits=tables.guide_bits,
        steps=tables.steps,
    )


def device_cells(packed: PackedWorkload, cells: Cells, first_window: int) -> DeviceCells:
    """Cells on JAX's default device; call it inside `x64`.

    Parameters
    ----------
    packed : PackedWorkload
    cells : Cells
        Window by window, clients ascending.
    first_window : int
        Index of the packed window from whose start `offset_us` counts.
    """
    size = bucket(len(cells), MIN_CELLS)
    at = (cells.profile, cells.row)
    offset_us = (cells.window_index - first_window) * packed.window_us
    on_host = DeviceCells(
        client=padded(packed.client_id[cells.client], size),
        window=padded(cells.number, size),
        window_index=padded(cells.window_index.astype(np.int32), size),
        offset_us=padded(offset_us, size),
        rule=padded(packed.count_rule[cells.profile], size),
        family=padded(packed.family[at], size, GAMMA),
        shape=padded(packed.shape[at], size, 1.0),
        occupancy=padded(packed.occupancy[at], size, 1.0),
        log_mean_gap=padded(packed.log_mean_gap[at], size),
        expected_q32=padded(cells.expected_q32, size),
        clock_table=padded(clock_tables(packed, cells), size),
        table=padded(packed.table[at], size),
        mixing_of=padded(packed.mixing_of[cells.profile], size) if packed.dependence == "copula" else None,
        context=padded(packed.context_tokens[cells.profile], size) if packed.limited else None,
        narrow=bool(offset_us.max(initial=0) + packed.window_us < 2**32 - 1),
    )
    found: DeviceCells = jax.device_put(on_host)
    return found


def device_runs(runs: Runs, size: int) -> Runs:
    """Runs on JAX's default device."""
    arrays = (runs.cell.astype(np.int32), runs.first, runs.count, runs.before)
    found: Runs = jax.device_put(Runs(*(padded(array, size) for array in arrays)))
    return found
