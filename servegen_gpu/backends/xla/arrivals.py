"""Arrivals under `jax.jit`: the law over whole padded arrays, with masks where NumPy would select.

Notation as in ``law/position.py``: S_j, G, V, f. Axes: cells, runs (consecutive requests of one cell), requests (of
all runs, run after run; lanes beyond the last request are masked).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from servegen_gpu.backends.host.cell_state import WINDOW_TICKS, Runs
from servegen_gpu.backends.xla.exact import exact
from servegen_gpu.backends.xla.gaps import log_gaps, words_of
from servegen_gpu.backends.xla.tables import DeviceCells, DeviceTables
from servegen_gpu.law.address import Purpose
from servegen_gpu.law.elementary import log
from servegen_gpu.law.position import RENEWAL_BITS, clock_us, from_start, on_circle, tick_bits
from servegen_gpu.law.tables import find_bin
from servegen_gpu.law.variates import GapConstants, equilibrium_constants, gap_constants, gap_ticks
from servegen_gpu.request.families import FIRST_DRAWS
from servegen_gpu.rules import CountRule


@dataclass(frozen=True, eq=False)
class DeviceState:
    """What is known of every cell; as `CellState` of the NumPy backend.

    Attributes
    ----------
    cells : DeviceCells
    constants : GapConstants
        float64[cells] each.
    count, rotation, ticks_in_all, first_ticks : int64[cells]
    log_unit, ticks_per_unit : float64[cells]
    """

    cells: DeviceCells
    constants: GapConstants
    count: Any
    rotation: Any
    log_unit: Any
    ticks_per_unit: Any
    ticks_in_all: Any
    first_ticks: Any


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests cell by cell, ordinals ascending: the order that breaks ties.

    Attributes
    ----------
    cell : int32[requests]
    ordinal : uint32[requests]
    us : uint32[requests]
        Arrival in microseconds from the start of the window.
    inside : bool[requests]
        Whether the lane holds a request, and that inside its window.
    """

    cell: Any
    ordinal: Any
    us: Any
    inside: Any


@dataclass(frozen=True, eq=False)
class DrawnRuns:
    """What came of some runs.

    Attributes
    ----------
    requests : Requests
    run : int32[requests]
    taken : int32[runs]
        Requests inside the window; they are the first of the run.
    last : int64[runs]
        Sum of ticks at the end of the run.
    """

    requests: Requests
    run: Any
    taken: Any
    last: Any


jax.tree_util.register_dataclass(DeviceState, list(DeviceState.__dataclass_fields__), [])
jax.tree_util.register_dataclass(Requests, list(Requests.__dataclass_fields__), [])
jax.tree_util.register_dataclass(DrawnRuns, list(DrawnRuns.__dataclass_fields__), [])


@jax.jit
def begin(tables: DeviceTables, cells: DeviceCells) -> DeviceState:
    """Draw what is drawn once per cell: counts, rotations, first arrivals."""
    every = jnp.arange(len(cells.client), dtype=jnp.int32)
    words = words_of(tables, cells, Purpose.COUNT, every, 0)
    # unbiased rounding, floor(r T + U); the servegen rule rounds up
    rounding = jnp.where(cells.rule == CountRule.SERVEGEN, 2**32 - 1, words[0].astype(jnp.int64))
    renewal = cells.rule == CountRule.RENEWAL
    count = jnp.where(renewal, 0, (cells.expected_q32 + rounding) >> 32)

    def unit(log_mean_gap: Any, expected_q32: Any) -> Any:
        return log_mean_gap + log(jnp, expected_q32.astype(jnp.float64) * 2.0**-32)

    log_unit = exact(unit, tables.zero)(cells.log_mean_gap, cells.expected_q32)
    bits = jnp.where(renewal, RENEWAL_BITS, tick_bits(jnp, jnp.maximum(count, 1)))
    first_ticks = jnp.full(len(every), WINDOW_TICKS)
    if CountRule.RENEWAL in tables.gaps.rules:
        equilibrium = exact(partial(equilibrium_constants, jnp), tables.zero)
        constants, power = equilibrium(cells.family, cells.shape)
        draws = {int(FIRST_DRAWS[draw]) for draw in tables.gaps.draws}
        first_draw = jnp.asarray(FIRST_DRAWS)[cells.family]
        first = log_gaps(tables, cells, draws, first_draw, constants, every, jnp.zeros_like(every), renewal)
        ticks = exact(lambda gap, power, unit: gap_ticks(jnp, gap * power, unit, float(WINDOW_TICKS)), tables.zero)
        first_ticks = jnp.where(renewal, ticks(first, power, log_unit), WINDOW_TICKS)
    return DeviceState(
        cells=cells,
        constants=exact(partial(gap_constants, jnp), tables.zero)(cells.family, cells.shape),
        count=count,
        rotation=words[1].astype(jnp.int64),
        log_unit=log_unit,
        ticks_per_unit=((bits + 1023) << 52).view(jnp.float64),  # 2.0**bits
        ticks_in_all=jnp.full(len(every), WINDOW_TICKS),
        first_ticks=first_ticks,
    )


@partial(jax.jit, static_argnames=("capacity", "surveyed"))
def draw_runs(tables: DeviceTables, state: DeviceState, runs: Runs, capacity: int, surveyed: bool = False) -> DrawnRuns:
    """Draw the requests of runs and place them on the clock.

    Parameters
    ----------
    tables : DeviceTables
    state : DeviceState
    runs : Runs
        Together at most `capacity` requests. Runs of `exact` and `servegen` cells are whole cells, unless surveyed.
    capacity : int
        Lanes.
    surveyed : bool
        Whether the state already knows unit and sum of every cell.
    """
    cells = state.cells
    ends = jnp.cumsum(runs.count)
    starts = ends - runs.count
    run = jnp.repeat(jnp.arange(len(ends), dtype=jnp.int32), runs.count, total_repeat_length=capacity)
    lane = jnp.arange(capacity)
    valid = lane < ends[-1]
    cell = runs.cell[run]
    ordinal = (lane + (runs.first - starts)[run]).astype(jnp.uint32)
    rule = cells.rule[cell]
    renewal = rule == CountRule.RENEWAL

    gaps = log_gaps(tables, cells, tables.gaps.draws, cells.family, state.constants, cell, ordinal, valid)
    log_unit, ticks_in_all = state.log_unit[cell], state.ticks_in_all[cell]
    counted = bool(tables.gaps.rules - {CountRule.RENEWAL})
    if counted and not surveyed:
        largest = jax.ops.segment_max(jnp.where(valid, gaps, -jnp.inf), run, len(ends), indices_are_sorted=True)
        log_unit = jnp.where(renewal, log_unit, largest[run])
    ticks = exact(partial(gap_ticks, jnp), tables.zero)(gaps, log_unit, state.ticks_per_unit[cell])
    if CountRule.RENEWAL in tables.gaps.rules:
        ticks = jnp.where(renewal & (ordinal == 0), state.first_ticks[cell], ticks)
    sums = jnp.cumsum(jnp.where(valid, ticks, 0))  # int64 wraps around between runs, and differences undo it
    before_run = jnp.where(starts > 0, sums[jnp.maximum(starts - 1, 0)], 0)
    sums = sums + (runs.before - before_run)[run]
    last = sums[jnp.maximum(ends - 1, 0)]
    if counted and not surveyed:
        ticks_in_all = jnp.where(renewal, ticks_in_all, last[run])

    x, inside = jnp.zeros(capacity, jnp.int64), valid
    if CountRule.EXACT in tables.gaps.rules:
        circle = exact(partial(on_circle, jnp), tables.zero)
        x = circle(sums, ticks_in_all, cells.occupancy[cell], state.rotation[cell])
    if CountRule.SERVEGEN in tables.gaps.rules:
        start, within = exact(partial(from_start, jnp), tables.zero)(sums, ticks_in_all)
        x = jnp.where(rule == CountRule.SERVEGEN, start, x)
        inside = inside & (within | (rule != CountRule.SERVEGEN))
    if CountRule.RENEWAL in tables.gaps.rules:
        # sums past the end wrap around sooner or later, so only those before the first of them count
        passed = renewal & (sums.view(jnp.uint64) >= WINDOW_TICKS)
        stop = jax.ops.segment_min(jnp.where(passed, lane, capacity), run, len(ends), indices_are_sorted=True)
        x = jnp.where(renewal, sums >> (RENEWAL_BITS - 32), x)
        inside = inside & (lane < stop[run])
    us = _clock(tables, x.astype(jnp.uint32), cells.clock_table[cell])
    return DrawnRuns(
        requests=Requests(cell, ordinal, us, inside),
        run=run,
        taken=jax.ops.segment_sum(inside.astype(jnp.int32), run, len(ends), indices_are_sorted=True),
        last=last,
    )


def _clock(tables: DeviceTables, x: Any, table: Any) -> Any:
    """Microseconds inside the window at operational times, uint32."""
    s = find_bin(jnp, x, table, tables.segments)
    us = clock_us(jnp, x.astype(jnp.uint64), tables.clock_first[s], tables.clock_start_us[s], tables.clock_slope[s])
    return us.astype(jnp.uint32)


@jax.jit
def join(joined: Requests, part: DrawnRuns, runs: Runs, begins: Any) -> Requests:
    """Copy the requests of a part to their places among all.

    Parameters
    ----------
    joined : Requests
        Of all parts.
    part : DrawnRuns
    runs : Runs
        Of the part.
    begins : int64[runs]
        Where the first request of each run goes.
    """
    to = (begins - runs.first)[part.run] + part.requests.ordinal.astype(jnp.int64)
    to = jnp.where(part.requests.inside, to, len(joined.cell))  # out of bounds: dropped

    def place(lanes: Any, new: Any) -> Any:
        return lanes.at[to].set(new, mode="drop")

    found: Requests = jax.tree.map(place, joined, part.requests)
    return found


def nothing(capacity: int) -> Requests:
    """No requests yet, on JAX's default device."""
    types = (np.int32, np.uint32, np.uint32, np.bool_)
    found: Requests = jax.device_put(Requests(*(np.zeros(capacity, of) for of in types)))
    return found
