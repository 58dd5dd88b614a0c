"""What a backend offers, and how equal backends are.

A backend turns a slab of a packed workload into the slab's rows in merge order. numpy, native and cupy give the same
columns bit for bit on every machine; jax gives the same integers and lengths, and arrivals that are at most one
microsecond off in one row of a million.

Columns (n rows): ``arrival_us`` int64[n] from the start of the trace; ``client`` int32[n]; ``input_tokens``,
``output_tokens`` int32[n]; reasoning adds ``reason_tokens`` int32[n]; multimodal has ``text_tokens`` int32[n] and lists
``image_tokens``, ``audio_tokens``, ``video_tokens`` of int32. Where later stages continue from the requests' addresses
(`PackedWorkload.addressed`), there is ``ordinal`` uint32[n]: number of the request inside its client and window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab
from servegen_gpu.request.columns import Columns

ORDINAL = "ordinal"


class Backend(Protocol):
    """What every backend offers."""

    name: str

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, so that a memory budget can become a slab size."""
        ...

    def sample_slab(self, packed: PackedWorkload, slab: Slab) -> Columns:
        """The slab's rows in merge order: (arrival, client, window of origin, ordinal, turn)."""
        ...


def sampled(backend: Backend, packed: PackedWorkload, slabs: Iterable[Slab]) -> Iterator[Columns]:
    """Columns of slabs, one after another; a backend that works ahead has a ``sample_slabs`` of its own."""
    ahead = getattr(backend, "sample_slabs", None)
    return ahead(packed, slabs) if ahead else (backend.sample_slab(packed, slab) for slab in slabs)


def sampled_starts(backend: Backend, packed: PackedWorkload, slab: Slab) -> Columns:
    """Arrival, client and ordinal of a slab's requests, in any order; a backend may have a ``sample_starts``."""
    found: Columns = getattr(backend, "sample_starts", backend.sample_slab)(packed, slab)
    return found


def on_device(backend: Backend) -> Backend:
    """The backend with columns that stay on its device."""
    if not hasattr(backend, "on_device"):
        raise OptionError(
            "a backend with a device of its own for device=True",
            repr(backend.name),
            "pass backend='cupy', or device=False",
        )
    stays: Backend = backend.on_device()
    return stays
