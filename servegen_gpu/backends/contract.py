"""What a backend offers, and how equal backends are.

A backend turns a slab of a packed workload into the slab's rows in merge order. numpy, native and cupy give the same
columns bit for bit on every machine; jax gives the same integers and lengths, and arrivals that are at most one
microsecond off in one row of a million.

Columns (n rows): ``arrival_us`` int64[n] from the start of the packed span; ``client`` int32[n]; ``input_tokens``,
``output_tokens`` int32[n]; reasoning adds ``reason_tokens`` int32[n]; multimodal has ``text_tokens`` int32[n] and lists
``image_tokens``, ``audio_tokens``, ``video_tokens`` of int32. Where later stages continue from the requests' addresses
(`PackedWorkload.addressed`), there is ``ordinal`` uint32[n]: number of the request inside its client and window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab
from servegen_gpu.request.columns import Columns
from servegen_gpu.request.turn_rows import TurnRows, in_order

ORDINAL = "ordinal"

FIRST_TURNS = 1 << 17
ROWS_PER_FIRST_TURN = 16
"""Conversations are drawn with their turns, and a slab of them counts for so many requests."""


class Backend(ABC):
    """All that a backend can do. Name, memory and `sample_slab` are its own; the rest has defaults.

    A backend holds no random state: the same workload, key and slab give the same rows in any order of calls. What it
    keeps of a workload (tables on a device, surveys) does not depend on the key, or is made anew for another one.

    Attributes
    ----------
    name : str
        One of `BACKENDS`, by which it is chosen, and pickled.
    slab_requests : int or None
        Where slabs stop taking windows, even if memory would allow more; None for `plan.SLAB_REQUESTS`.
    joined_slab_requests : int or None
        The same where all slabs are joined in memory; None for `plan.SLAB_REQUESTS`.
    interleaves : frozenset of str
        Categories of which `sample_beside` may be called.
    stays : bool
        Whether columns are left on a device, as `on_device` says.
    shared : bool
        Whether several threads may sample with it at once.
    """

    name: ClassVar[str]
    slab_requests: ClassVar[int | None] = None
    joined_slab_requests: ClassVar[int | None] = None
    interleaves: ClassVar[frozenset[str]] = frozenset()
    stays: bool = False
    shared: ClassVar[bool] = False

    @abstractmethod
    def bytes_per_request(self, category: str) -> int:
        """Peak bytes that a slab needs per expected request, so that a memory budget can become a slab size."""

    @abstractmethod
    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        """The slab's rows in merge order: (arrival, client, window of origin, ordinal).

        Parameters
        ----------
        packed : PackedWorkload
        key : tuple of int
            Of `derive_key`: seed and replica.
        slab : Slab

        Returns
        -------
        dict
            Columns of n rows, as above.
        """

    def sample_slabs(self, packed: PackedWorkload, key: Key, slabs: Iterable[Slab]) -> Iterator[Columns]:
        """The rows of slabs, in their order; by default one slab after another.

        A backend that works ahead may yield a slab in several parts.
        """
        for slab in slabs:
            yield self.sample_slab(packed, key, slab)

    def bins(self, packed: PackedWorkload, columns: Collection[str]) -> bool:
        """Whether `add_loads` may be called for these columns of a workload; by default it may not."""
        return False

    def add_loads(
        self, packed: PackedWorkload, key: Key, slab: Slab, width_us: int, loads: Mapping[str, NDArray[np.int64]]
    ) -> None:
        """Add the slab's requests and tokens to bins of time, without rows; where `bins` says that it can.

        Parameters
        ----------
        packed : PackedWorkload
        key : tuple of int
        slab : Slab
        width_us : int
            Length of the bins, which adjoin from the begin of the packed span.
        loads : mapping of str to int64[bins + 1]
            By column, and ``requests``; what comes behind the last bin is added to one more number.
        """
        raise AssertionError(f"backend {self.name!r} does not bin {', '.join(loads)} of {packed.category} requests")

    def first_turns_at_once(self, max_requests: int) -> int:
        """How many conversations a slab of `sample_turns` may begin, where so many requests may be alive at once."""
        return min(FIRST_TURNS, max(max_requests // ROWS_PER_FIRST_TURN, 1))

    def sample_turns(
        self, packed: PackedWorkload, key: Key, slab: Slab, span_us: tuple[int, int]
    ) -> Iterator[TurnRows]:
        """Turns of the conversations that begin in a slab; by default from first turns, in NumPy.

        Parameters
        ----------
        packed : PackedWorkload
            The stream of conversations.
        key : tuple of int
        slab : Slab
        span_us : tuple of int
            Turns are wanted that arrive in it; from the begin of the packed span, as arrivals are.

        Yields
        ------
        dict or turn_row[n]
            The columns of a trace, or such records, in any order.
        """
        from servegen_gpu.backends.host.turns import sample_turns

        yield from sample_turns(self, packed, key, slab, span_us)

    def ordered(self, parts: list[TurnRows]) -> TurnRows:
        """Turns that it has sampled by arrival, conversation and turn."""
        return in_order(parts)

    def sample_beside(self, packed: PackedWorkload, key: Key, slab: Slab, due: TurnRows | None) -> Columns:
        """The slab's requests, which stand alone, with turns in their places; of the categories in `interleaves`.

        Parameters
        ----------
        packed : PackedWorkload
        key : tuple of int
        slab : Slab
        due : turn_row[n], optional
            From `ordered`, all of them inside the slab.

        Returns
        -------
        dict
            All columns of a trace with conversations.
        """
        raise AssertionError(f"backend {self.name!r} does not interleave turns of {packed.category} requests")

    def release(self) -> None:  # noqa: B027
        """Give back memory that is kept for further traces; by default there is none."""

    def on_device(self) -> Backend:
        """The same backend, with columns that stay on its device as arrays of its own library.

        Raises
        ------
        OptionError
            By default: it has no device.
        """
        raise OptionError(
            "a backend with a device of its own for device=True",
            repr(self.name),
            "pass backend='cupy', or device=False",
        )

    def __reduce__(self) -> tuple[Callable[[str, bool], Backend], tuple[str, bool]]:
        """Pickled by name: another process has libraries and devices of its own."""
        return _named, (self.name, self.stays)


def _named(name: str, stays: bool) -> Backend:
    """What comes out of a pickle: the backend of that name, as this process has it."""
    from servegen_gpu.backends import choose_backend

    backend = choose_backend(name)
    return backend.on_device() if stays else backend
