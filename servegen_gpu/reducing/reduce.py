"""Reducing a workload or a trace: slab by slab, where it was made; loads of bins alone without any row.

>>> sg.reduce(pool, [sg.metric("output_tokens_peak_10s", 3600)], rate=100, duration="1h").figures()
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from servegen_gpu.backends.cuda.driver import import_cupy
from servegen_gpu.clients.named import AnyPool
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.cutting import UNCUT
from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Options, Workload, stream
from servegen_gpu.plan import SLAB_REQUESTS
from servegen_gpu.provenance import changes_of, duration_of
from servegen_gpu.reducing.reduction import Binned, Reduced, Reduction, Rows, checked, over
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import MAX_WINDOWS, slabs_of

Source = AnyPool | PackedWorkload | Workload | Trace | Iterable[Trace]


def reduce(source: Source, reductions: Reduction | Iterable[Reduction], **keywords: Unpack[Options]) -> Reduced:
    """The states of reductions over a workload or a trace.

    Parameters
    ----------
    source : ClientPool, name of a workload, PackedWorkload, Workload, Trace, or iterable of Trace
    reductions : Reduction, or iterable of Reduction
        Names of their own each.
    **keywords
        Of `stream`, for a pool or a packed workload.

    Returns
    -------
    Reduced
        A mapping of names to states (int64 arrays by name), with `figures`.

    Raises
    ------
    OptionError
        If there is no reduction, two have a name, a state has other numbers than whole ones, the trace is shorter than
        a reduction's span, keywords come with what is a workload or a trace already, or as `stream`.
    """
    asked = checked(reductions)
    if isinstance(source, ClientPool | PackedWorkload | str | os.PathLike):
        source = stream(source, **keywords)
    elif keywords:
        raise OptionError("keywords of stream with a pool or a packed workload", ", ".join(keywords), "leave them out")
    return reduced(source, asked)


def reduced(source: Workload | Trace | Iterable[Trace], asked: tuple[Reduction, ...]) -> Reduced:
    """The same, of what is checked."""
    if isinstance(source, Workload):
        check_spans(source, asked)
        source = _where_it_is_made(source)
    if isinstance(source, Workload) and (grid := _grid(asked)) and source.bins(grid.columns):
        loads = grid.nothing(np)
        source.add_loads(grid.width_us, loads)
        return Reduced(asked, (one.binned.among(loads, grid.width_us) for one in asked if one.binned))
    return Reduced(asked, over(asked, _slabs(source, asked)))


def _grid(asked: tuple[Reduction, ...]) -> Binned | None:
    """Bins that are parts of the bins of all reductions; None if one has none, or they would be too many."""
    binned = [one.binned for one in asked if one.binned]
    if len(binned) < len(asked):
        return None
    width_us = math.gcd(*(one.width_us for one in binned if one.bins)) or 1
    bins = max(one.width_us * one.bins for one in binned) // width_us
    columns = dict.fromkeys(name for one in binned for name in one.columns)
    return Binned(tuple(columns), width_us, bins) if bins <= MAX_WINDOWS else None


def check_spans(workload: Workload, asked: tuple[Reduction, ...]) -> None:
    """Refuse reductions of longer traces; one of so many requests may end anywhere."""
    known_s = None if workload.cut.requests else (workload.packed.end_us - workload.packed.start_us) / 1e6
    for one in asked:
        one.check_span(known_s)


def _slabs(source: Workload | Trace | Iterable[Trace], asked: tuple[Reduction, ...]) -> Iterator[tuple[Any, Rows]]:
    for slab in slabs_of(source):
        if not isinstance(source, Workload) and not any(c.get("keep_times") for c in changes_of(slab.provenance)):
            for one in asked:
                one.check_span(duration_of(slab.provenance))
        if (xp := _library_of(slab.columns)) is not np:
            yield xp, slab.columns
            continue
        for at in range(0, max(len(slab), 1), SLAB_REQUESTS):  # steps need scratch: a trace in memory may be large
            yield np, slab.rows(at, at + SLAB_REQUESTS).columns


def _where_it_is_made(workload: Workload) -> Workload:
    """The workload with columns that stay on its device, if it has one and nothing is done to them on the host."""
    on_host = workload.packed.conversations is not None or workload.cut != UNCUT or workload.backend.stays
    if on_host or workload.backend.name != "cupy":
        return workload
    return replace(workload, backend=workload.backend.on_device())


def _library_of(rows: Rows) -> Any:
    """NumPy, or what its arrays say they are of: CuPy."""
    column = next(iter(rows.values()))
    return np if isinstance(column, np.ndarray | Ragged) else import_cupy()
