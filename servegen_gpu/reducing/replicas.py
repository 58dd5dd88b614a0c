"""Many replicas of a workload, reduced on all threads: one after another comes out, and no row of any is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypedDict, Unpack

from servegen_gpu import options
from servegen_gpu.blocks import in_turn, workers
from servegen_gpu.cutting import Over
from servegen_gpu.law.address import derive_key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import stream
from servegen_gpu.reducing.reduce import check_spans, reduced
from servegen_gpu.reducing.reduction import Reduced, Reduction, checked


class Sampling(TypedDict, total=False):
    """Keywords of `stream` for a packed workload, but for seed and replica."""

    requests: int | None
    max_input: int | None
    max_output: int | None
    over: Over
    backend: str
    memory: float | str


def reduce_replicas(
    packed: PackedWorkload,
    reductions: Reduction | Iterable[Reduction],
    seed: int = 0,
    replicas: Iterable[int] = range(100),
    threads: int | None = None,
    **keywords: Unpack[Sampling],
) -> Iterator[Reduced]:
    """The states of reductions over each of many replicas, in their order, and their figures.

    Memory does not grow with the number of replicas: a few are made ahead of what was taken.

    Parameters
    ----------
    packed : PackedWorkload
        Such as ``stream(pool, rate=100).packed``.
    reductions : Reduction, or iterable of Reduction
    seed : int
    replicas : iterable of int
        Replica r is that of ``generate(packed, seed=seed, replica=r)``.
    threads : int, optional
        Replicas at a time; by default one a processor on the host, and one on a device.
    **keywords
        Of `stream`: requests, max_input, max_output, over, backend, memory (of all replicas that are made at a time).

    Raises
    ------
    OptionError
        As `reduce`, at once; or if a replica is out of range.
    """
    asked = checked(reductions)
    workload = stream(packed, seed=seed, **keywords)
    check_spans(workload, asked)
    count = workers(threads, workload.backend.shared)
    most = max(workload.max_requests // count, options.MIN_SLAB_REQUESTS)
    workload = replace(workload, max_requests=most, carry_bytes=workload.carry_bytes // count)

    def one(replica: int) -> Reduced:
        key = derive_key(seed, options.integer("replica", replica, 2**32 - 1))
        found = reduced(replace(workload, key=key), asked)
        _ = found.by_reduction  # a server may have been simulated for them
        return found

    return in_turn(one, replicas, count)
