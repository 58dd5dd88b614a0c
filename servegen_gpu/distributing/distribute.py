"""`distributed`: a trace in parts, made here or on Ray, resumed where it stopped.

>>> made = sg.distributed(pool, "s3://bucket/trace", parts=64, on="ray", rate=1000, duration="7d")
>>> made.rows, made.digest
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from servegen_gpu import options
from servegen_gpu.blocks import in_turn, thread_count
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.distributing import on_ray
from servegen_gpu.distributing.job import Job, job_of
from servegen_gpu.errors import OptionError, OutputError
from servegen_gpu.formats.parquet import LITTER
from servegen_gpu.formats.parted import (
    MANIFEST,
    WORKLOAD,
    Part,
    Parted,
    check_unchanged,
    open_parted,
    records_in,
    stated_workload,
    workload_bytes,
)
from servegen_gpu.packed import PackedWorkload

Progress = Callable[[int, int, int], None]
"""Told after each part how many are finished, of how many, and the rows in them."""


@dataclass(frozen=True)
class Distributed:
    """What there is of a trace in parts.

    Attributes
    ----------
    path : str
    parts : int
        Of the whole trace.
    finished : int
        Parts that are there; of a shard, only its own while others are missing.
    made : int
        Of these, parts that were made by this call.
    rows, bytes : int
        Of all parts that are there.
    digest : str or None
        Of the rows of the whole trace; None while parts are missing.
    provenance : mapping
        Of the whole trace.
    notes : tuple of str
        What a user should know of the trace.
    """

    path: str
    parts: int
    finished: int
    made: int
    rows: int
    bytes: int
    digest: str | None
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all parts are there."""
        return self.finished == self.parts


class Interrupted(KeyboardInterrupt):
    """A run that was interrupted; finished parts are kept.

    Attributes
    ----------
    finished, parts : int
    """

    def __init__(self, path: str, finished: int, parts: int) -> None:
        super().__init__(f"{finished:,} of {parts:,} parts are finished in {path}")
        self.finished, self.parts = finished, parts


def distributed(
    pool: ClientPool | PackedWorkload,
    path: str | os.PathLike[str],
    parts: int,
    *,
    on: str = "here",
    workers: int | None = None,
    shard: str | tuple[int, int] = (0, 1),
    hash_ids: int | None = None,
    system_tokens: Any = 0,
    encoding: str = "delta",
    progress: Progress | None = None,
    **keywords: Any,
) -> Distributed:
    """Make a trace in parts, each of which is written where it is made; what is finished already is not made again.

    Part k holds the rows of ``generate(pool, shard=(k, parts), …)``. Finished parts are recorded one by one, and once
    all are there, a manifest is written. `servegen_gpu.formats.parted` says what is where.

    Parameters
    ----------
    pool : ClientPool or PackedWorkload
    path : path
        A directory, or the address of a folder that fsspec knows, such as ``"s3://bucket/folder"``: new, empty, or with
        parts of the same trace. On many machines, one that all of them share.
    parts : int
        Parts have about as many requests each. More of them than workers lose less where a worker is lost.
    on : {"here", "ray"}
        In this process, or on a Ray cluster: the one that is initialised, the one of ``RAY_ADDRESS``, or a new one on
        this machine. There each part is a task of one processor, and parts of lost workers are made again.
    workers : int, optional
        Parts that are made at a time. Here each has a process of its own, and by default one after another is made in
        this process. On Ray, as many as the cluster has processors.
    shard : str or tuple of int
        ``"3/8"``: only the parts 2, 10, 18, … from 0 on, of every eight the third. Others make the rest.
    hash_ids : int, optional
        Add ids of the inputs' blocks of so many tokens (`servegen_gpu.hash_slabs`).
    system_tokens : int, mapping or distribution
        For these.
    encoding : {"delta", "plain"}
        Of Parquet: small and fast, or for readers without delta encodings.
    progress : function, optional
    **keywords
        Of `stream`, but for requests, shard and device; `memory` is that of a worker.

    Returns
    -------
    Distributed

    Raises
    ------
    OptionError
        If an argument is out of range, there are parts of another workload, or a part was changed after it was
        written. Finished parts are kept. A part that was removed is made again.
    OutputError
        If the parts cannot be written.
    Interrupted
        On Ctrl-C: a KeyboardInterrupt that says how many parts are finished.
    """
    on_ray.check_on(on, workers)
    first, step = options.shard(shard)
    blocks = () if hash_ids is None else (hash_ids, system_tokens)
    job, source = job_of(pool, os.fspath(path), parts, encoding, blocks, keywords)
    if first >= parts:
        raise OptionError(f"a shard of {parts:,} parts", f"{first + 1}/{step}", "ask for as many shares as parts")
    mine = range(first, parts, step)
    found = _begun(job, None if step == 1 else mine)
    made = 0

    def reached() -> Distributed:
        counts = (len(found.finished), made, found.rows, found.size)
        return Distributed(str(job.store), parts, *counts, found.digest, job.workload["provenance"], source.notes)

    try:
        _check(found)
        left = [k for k in mine if k not in found.finished]
        for k, part in _made(job, left, on, workers):
            found.finished[k] = part
            made += 1
            if progress is not None:
                progress(len(found.finished), parts, found.rows)
    except KeyboardInterrupt:
        # some may have been finished meanwhile
        raise Interrupted(str(job.store), records_in(job.store), parts) from None
    if step > 1 and records_in(job.store) == parts:
        found = open_parted(job.store, records=True)
    if not found.missing and job.store.read([MANIFEST]).get(MANIFEST) != found.manifest():
        job.store.write(MANIFEST, found.manifest())
    return reached()


def _begun(job: Job, only: Sequence[int] | None) -> Parted:
    """What is there already of a job, at least of some parts; its workload is written first of all."""
    if (there := stated_workload(job.store)) is None:
        if others := [name for name in job.store.files() if not LITTER.fullmatch(name)]:
            named = ", ".join(sorted(others)[:3]) + ", …" * (len(others) > 3)
            raise OutputError(
                "a new or empty directory, or one with parts of the same trace",
                f"{job.store} with other files in it: {named}",
                "give another path",
            )
        job.store.write(WORKLOAD, workload_bytes(job.workload))
        there = stated_workload(job.store) or {}  # somebody else may have written one at the same time
    if differences := _differences(there, job.workload):
        raise OptionError(
            f"the workload of the parts in {job.store}",
            f"another: {'; '.join(differences[:3])}",
            f"give the same arguments, or another directory; {records_in(job.store):,} finished parts are kept",
        )
    return open_parted(job.store, only, records=True)


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Settings that differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys([*here, *there])
        return [words for key in keys for words in _differences(there.get(key), here.get(key), str(key))]
    return [] if there == here else [f"{name} {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _check(found: Parted) -> None:
    """Read what is finished, on a few threads: nothing goes on from parts that were changed."""
    for _ in in_turn(lambda k: check_unchanged(found, k), sorted(found.finished), thread_count()):
        pass


def _made(job: Job, parts: Iterable[int], on: str, workers: int | None) -> Iterator[tuple[int, Part]]:
    """Parts as they are finished."""
    if on == "ray":
        return on_ray.tasks(_make, job, parts, workers)
    return ((k, job.make(k)) for k in parts) if workers in (None, 1) else _in_processes(job, parts, workers)


def _make(job: Job, k: int) -> Part:
    """Make a part, unless it is there: of a task that was lost, it may be."""
    found = open_parted(job.store, [k], records=True)
    return found.finished[k] if k in found.finished else job.make(k)


def _in_processes(job: Job, parts: Iterable[int], workers: int | None) -> Iterator[tuple[int, Part]]:
    """Parts that so many processes make."""
    spawned = multiprocessing.get_context("spawn")  # this process may have threads
    with ProcessPoolExecutor(workers, spawned, _keep, (job,)) as pool:
        try:
            yield from pool.map(_kept, parts)
        except BrokenProcessPool as error:
            fix = "allow less --memory or fewer workers, and run it again: finished parts are kept"
            raise OutputError("processes that live", "one that was killed", fix) from error
        finally:
            pool.shutdown(cancel_futures=True)


_job: list[Job] = []
"""Of a process that makes parts."""


def _keep(job: Job) -> None:
    _job[:] = [job]


def _kept(k: int) -> tuple[int, Part]:
    return k, _job[0].make(k)
