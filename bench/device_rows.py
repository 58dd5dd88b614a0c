"""Whether a device computes the law's bits: parts of bench/device_check.py, before anything is timed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from device_workloads import workload
from numpy.typing import NDArray

import servegen_gpu as sg
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.job import TASK
from servegen_gpu.backends.cuda.lane import DeviceGaps
from servegen_gpu.backends.cuda.slab import SlabSampler
from servegen_gpu.backends.host.arrivals import NumpyGaps
from servegen_gpu.backends.host.cell_state import CellState, Runs, begin
from servegen_gpu.plan import Slab, cells_of, plan
from servegen_gpu.request.columns import Ragged
from servegen_gpu.rules import CountRule
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from device_check import Look

Rows = Iterator[dict[str, Any]]


def ticks(look: Look) -> Rows:
    """Sums of ticks, 62 bits each: a multiply-add that a compiler made shows in them, and in rows it does not."""
    for name in ("language", "deepseek-r1"):
        for counts in ("exact", "renewal", "servegen"):
            clients = min(look.sizes.clients, 300)
            made = workload(name, 6 * max(look.sizes.ticks, 200 * clients), counts, clients)
            for way, found, expected in (("one by one", *one_by_one(look, made)), ("by tasks", *by_tasks(look, made))):
                digest = hashlib.sha256(found.tobytes()).hexdigest()[:16]
                row = {"what": f"sums of ticks {way}, {name}, {counts}", "requests": len(found), "digest": digest}
                yield row | {"different": int((found != expected).sum()), "equal": np.array_equal(found, expected)}


def first_window(made: sg.Workload) -> tuple[Slab, CellState]:
    """The first window of a workload as a slab, and its cells on the host."""
    packed = made.packed
    slab = next(iter(plan(packed, 1 << 40)))
    state = begin(packed, made.key, cells_of(packed, slab.windows[:1]))
    expected = float(slab.expected / len(slab.windows))
    return Slab(slab.windows[:1], slab.from_us, slab.to_us, expected, surveyed=False), state


def sums_on_host(state: CellState, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of ticks of the first `count` requests of every cell, as NumPy has them."""
    renewal = state.rule == CountRule.RENEWAL
    cells = np.arange(len(count))
    runs = Runs(cells, renewal.astype(np.int64), count - renewal, np.where(renewal, state.first_ticks, 0))
    some = runs.take(runs.count > 0)
    counted = ~renewal[some.cell]
    state.log_unit[some.cell[counted]] = NumpyGaps().peaks(state, some.take(counted))
    found = np.split(NumpyGaps().sums(state, some), np.cumsum(some.count)[:-1])
    begun = [state.first_ticks[cell : cell + 1] for cell in cells[renewal & (count > 0)]]
    # first arrivals of renewals are no gaps
    order = np.argsort(np.concatenate((2 * cells[renewal & (count > 0)], 2 * some.cell + 1)), kind="stable")
    parts = [*begun, *found]
    return np.concatenate([parts[i] for i in order]) if parts else np.zeros(0, np.int64)


def one_by_one(look: Look, made: sg.Workload) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums over gaps that a thread draws each, and NumPy's."""
    _, state = first_window(made)
    cells = np.arange(len(state.cells))
    count = np.full(len(cells), max(look.sizes.ticks // len(cells), 2))
    runs = Runs(cells, np.ones_like(cells), count, np.zeros_like(cells))
    sampler = SlabSampler(look.device)
    counted = state.rule != CountRule.RENEWAL
    state.log_unit[counted] = DeviceGaps(sampler, made.packed).peaks(state, runs)[counted]
    found = look.device.to_host(sampler.sums(made.packed, state, runs))
    found = found - np.repeat(np.concatenate(([0], found))[runs.starts()], count)
    return found, NumpyGaps().sums(state, runs)


def by_tasks(look: Look, made: sg.Workload) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums over gaps that warps draw, and NumPy's."""
    slab, state = first_window(made)
    sampler, host = SlabSampler(look.device), look.device.to_host
    job = sampler.job(made.packed, made.key, slab)
    arrivals = sampler.tasks.arrivals(made.packed, job, 1, slab.expected)
    if arrivals is None:
        raise ValueError("a window that fits no tasks")
    job, layouts = arrivals
    kept = host(job["kept"])
    columns = []
    for layout in layouts:
        tasks = host(layout["task"]).view(np.int32).reshape(-1, 4)
        ordinal = tasks[:, 1, None] + np.arange(TASK)
        inside = (np.arange(TASK) < tasks[:, 2, None]) & (ordinal < kept[tasks[:, 0], None])
        sums = host(layout["ticks"]).reshape(-1, TASK) + host(layout["task_before"])[:, None]
        cell = np.broadcast_to(tasks[:, 0, None], ordinal.shape)
        columns.append(np.stack((cell[inside], ordinal[inside], sums[inside])))
    cell, ordinal, sums = np.concatenate(columns, axis=1)
    found = sums[np.lexsort((ordinal, cell))]
    return found, sums_on_host(state, kept[state.cells.client])


def same(ours: Trace, theirs: Trace) -> bool:
    """Whether all columns are equal."""

    def flat(column: Any) -> list[Any]:
        return [column.offsets, column.values] if isinstance(column, Ragged) else [column]

    pairs = ((flat(ours.columns[name]), flat(theirs.columns[name])) for name in theirs.columns)
    return all(np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def rows(look: Look) -> Rows:
    """Rows of NumPy: all count rules, with and without a copula, by tasks and one by one."""
    for name, requests in (("language", 1.0), ("deepseek-r1", 1.0), ("m-large", 1.0), ("mm-image", 0.1)):
        for counts in ("exact", "renewal", "servegen"):
            made = workload(name, requests * look.sizes.rows, counts, min(look.sizes.clients, 1000))
            theirs = Trace.concat(list(made))
            ours = Trace.concat(list(replace(made, backend=CupyBackend([look.device]))))
            yield {"what": f"rows of NumPy, {name}, {counts}", "requests": len(theirs), "equal": same(ours, theirs)}


def large(look: Look) -> Rows:
    """Rows of the compiled backend for the processor, at sizes that fill a device."""
    from servegen_gpu.backends.native.backend import NativeBackend

    for name in ("language", "deepseek-r1"):
        made = look.workload(name, look.sizes.large_rows)
        ours = Trace.concat(list(made))
        theirs = Trace.concat(list(replace(made, backend=NativeBackend())))
        yield {"what": f"rows of native, {name}", "requests": len(ours), "equal": same(ours, theirs)}


def jax(look: Look) -> Rows:
    """Rows of NumPy by JAX, on its default device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from servegen_gpu.backends.xla.backend import JaxBackend

    for counts in ("exact", "renewal"):
        made = workload("deepseek-r1", look.sizes.rows / 20, counts, 20)
        theirs, ours = Trace.concat(list(made)), Trace.concat(list(replace(made, backend=JaxBackend())))
        yield {"what": f"rows of NumPy by JAX, {counts}", "requests": len(theirs), "equal": same(ours, theirs)}
