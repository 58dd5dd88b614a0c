"""Reducing a workload, or a trace: no row is kept, and none is in order unless a reduction asks for it.

>>> sg.reduce(pool, [sg.metric("output_tokens_peak_10s", 3600)], rate=100, duration="1h").figures()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import numpy as np

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Options, Workload, stream
from servegen_gpu.reducing.reduction import Reduced, Reduction, Rows, checked, over
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

Source = ClientPool | PackedWorkload | Workload | Trace | Iterable[Trace]


def reduce(source: Source, reductions: Reduction | Iterable[Reduction], **keywords: Unpack[Options]) -> Reduced:
    """The states of reductions over a workload or a trace.

    Parameters
    ----------
    source : ClientPool, PackedWorkload, Workload, Trace, or iterable of Trace
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
        If there is no reduction, two have a name, a state has other numbers than whole ones, keywords come with
        what is a workload or a trace already, or as `stream`.
    """
    asked = checked(reductions)
    if isinstance(source, ClientPool | PackedWorkload):
        source = stream(source, **keywords)
    elif keywords:
        raise OptionError("keywords of stream with a pool or a packed workload", ", ".join(keywords), "leave them out")
    return reduced(source, asked)


def reduced(source: Workload | Trace | Iterable[Trace], asked: tuple[Reduction, ...]) -> Reduced:
    """The same, of what is checked."""
    return Reduced(asked, over(asked, _slabs(source)))


def _slabs(source: Workload | Trace | Iterable[Trace]) -> Iterator[tuple[Any, Rows]]:
    for slab in slabs_of(source):
        yield np, slab.columns
