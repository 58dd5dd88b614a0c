"""The parts of a trace as work for other processes: all that decides a part, and how one is made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from servegen_gpu import options
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import write_stream
from servegen_gpu.formats.parted import MOST_PARTS, Part, part_name, record_bytes, record_name, workload_of
from servegen_gpu.formats.store import Store, store_at
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Workload, stream
from servegen_gpu.prefixes import hash_slabs
from servegen_gpu.request.columns import empty_columns
from servegen_gpu.trace import Trace

SAMPLING = ("seed", "replica", "max_input", "max_output", "over", "backend", "memory")
"""Keywords of `stream` for a workload that is packed, but for those that parts cannot have."""
WHOLE = ("requests", "shard", "device")
"""Keywords of `stream` that parts cannot have."""


@dataclass(frozen=True, eq=False)
class Job:
    """A trace to be made in parts. It can be pickled.

    Attributes
    ----------
    store : Store
    workload : mapping
        What decides every byte, of `workload_of`.
    packed : PackedWorkload
    sampling : mapping
        Keywords of `stream` for it.
    provenance : mapping
        Of the whole trace, before blocks are added.
    blocks : tuple
        Tokens of a block and of system prompts, where ids of blocks are added; else empty.
    """

    store: Store
    workload: Mapping[str, Any]
    packed: PackedWorkload
    sampling: Mapping[str, Any]
    provenance: Mapping[str, Any]
    blocks: tuple[Any, ...] = ()

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return int(self.workload["parts"])

    def share(self, k: int) -> Workload:
        """Share k of the trace, from 0 on, as this process samples it."""
        source = stream(self.packed, shard=(k, self.parts), **self.sampling)
        return replace(source, provenance=dict(self.provenance) | {"shard": f"{k + 1}/{self.parts}"})

    def make(self, k: int) -> Part:
        """Write a part, then its record."""
        name = part_name(k, self.parts)
        with self.store.new(name) as path:
            slabs = with_blocks(self.share(k), self.blocks)
            written = write_stream(slabs, path, "parquet", encoding=self.workload["encoding"], overwrite=True)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        stored = self.store.entry(name)
        part = Part(written.rows, written.bytes, written.digest.hex, sha256, stored.mark if stored else "")
        self.store.write(record_name(k, self.parts), record_bytes(part, k, self.workload))
        return part


def with_blocks(slabs: Iterable[Trace], blocks: tuple[Any, ...]) -> Iterable[Trace]:
    """Slabs with ids of blocks, if there are to be any."""
    return hash_slabs(slabs, blocks[0], system_tokens=blocks[1]) if blocks else slabs


def job_of(
    pool: ClientPool | PackedWorkload,
    path: str,
    parts: int,
    encoding: str,
    blocks: tuple[Any, ...],
    keywords: Mapping[str, Any],
) -> tuple[Job, Workload]:
    """A job, and the whole workload that it was made of.

    Raises
    ------
    OptionError
        If there is no part, or a keyword is one that parts cannot have.
    """
    if not options.integer("parts", parts, MOST_PARTS):
        raise OptionError(f"parts from 1 to {MOST_PARTS:,}", "0", "change parts")
    if wrong := [name for name in WHOLE if keywords.get(name) is not None]:
        fix = "leave it out" if wrong[0] != "requests" else "state a duration, or cut the trace once it is joined"
        raise OptionError("a trace in parts without requests, shard and device", wrong[0], fix)
    source = stream(pool, **keywords)
    columns = empty_columns(source.packed.category, source.packed.conversations is not None)
    head = next(iter(with_blocks(source.cut(iter([Trace.trusted(columns, source.provenance)])), blocks)))
    workload = workload_of(head, parts, encoding)
    sampling = {name: keywords[name] for name in SAMPLING if name in keywords}
    job = Job(store_at(path), workload, source.packed, sampling, source.provenance, blocks)
    job.share(0)  # refuses what shares cannot have, before anything is written
    return job, source
