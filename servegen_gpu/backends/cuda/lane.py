"""One device's part in a trace: slabs sampled one after another, halved where memory is short, copied to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.cuda.device import Copy, CudaDevice
from servegen_gpu.backends.cuda.slab import SlabSampler
from servegen_gpu.backends.host.cell_state import CellState, Runs
from servegen_gpu.backends.host.run_gaps import Renewals, cut
from servegen_gpu.backends.host.survey import Surveyor
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key
from servegen_gpu.options import MIN_SLAB_REQUESTS
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab

Made = TypeVar("Made")


class DeviceLane:
    """A device that samples slabs.

    Parameters
    ----------
    device : CudaDevice
    bytes_per_request : callable
        Peak bytes of a slab for each expected request of a category.
    """

    def __init__(self, device: CudaDevice, bytes_per_request: Callable[[str], int]) -> None:
        self.device, self._bytes_per_request = device, bytes_per_request
        self._sampler, self._surveyor = SlabSampler(device), Surveyor()
        self._most = float("inf")

    def copies(self, packed: PackedWorkload, key: Key, slab: Slab) -> list[Copy]:
        """The slab's columns on their way to the host; several pieces if the device has too little memory.

        A piece is sampled while the one before it is copied, and that one's memory is given back before the next.
        """
        copies: list[Copy] = []
        try:
            for copy in self._pieces(packed, key, slab, self._copied):
                wait_for(copies[-1:])
                copies.append(copy)
        except BaseException:
            wait_for(copies)
            raise
        return copies

    def rest(self) -> None:
        """A trace is done: much of its memory is kept for the next; what was too much today may fit tomorrow."""
        self._surveyor.forget()
        self._most = float("inf")
        self.device.rest()

    def pieces(self, packed: PackedWorkload, key: Key, slab: Slab) -> Iterator[dict[str, Any]]:
        """Columns of a slab on the device, in halves of halves where it does not fit."""
        return self._pieces(packed, key, slab, self._sampled)

    def _pieces(
        self, packed: PackedWorkload, key: Key, slab: Slab, make: Callable[[PackedWorkload, Key, Slab], Made]
    ) -> Iterator[Made]:
        if slab.expected <= self._most:
            found: list[Made] = []
            try:
                with self.device.current(), self.device.memory():
                    self.device.reserve(int(slab.expected * self._bytes_per_request(packed.category)))
                    found.append(make(packed, key, slab))
            except MemoryError:
                found.clear()
            if found:
                yield found.pop()
                return
            self.device.tables.forget()
            self.device.release()
            self._most = slab.expected / 2
        if slab.expected < MIN_SLAB_REQUESTS:
            raise OptionError(
                f"device memory for {MIN_SLAB_REQUESTS:,} requests and the tables of the workload",
                "an allocation that failed",
                "free memory on the device (nvidia-smi shows who has it), or choose another backend",
            )
        for half in halves(packed, slab):
            yield from self._pieces(packed, key, half, make)

    def _copied(self, packed: PackedWorkload, key: Key, slab: Slab) -> Copy:
        return self.device.start_copy(self._sampled(packed, key, slab))

    def _sampled(self, packed: PackedWorkload, key: Key, slab: Slab) -> dict[str, Any]:
        if not slab.surveyed:
            return self._sampler.whole(packed, key, slab)
        gaps = DeviceGaps(self._sampler, packed)
        return self._sampler.part(packed, key, slab, *self._surveyor.reaching_runs(packed, key, slab, gaps))


def wait_for(copies: list[Copy]) -> None:
    """Until nothing is copied any more, whatever came of it: memory that is copied from or to is not free yet."""
    for copy in copies:
        with suppress(OptionError, MemoryError):
            copy.wait()


@dataclass(frozen=True, eq=False)
class DeviceGaps:
    """Gaps of a survey's runs, drawn on the device; what is kept of them comes to the host."""

    sampler: SlabSampler
    packed: PackedWorkload

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        ordered = self._host(self.sampler.peaks(self.packed, state, runs))
        top = np.uint64(1 << 63)
        return np.where(ordered >= top, ordered ^ top, ~ordered).view(np.float64)

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        return self._host(self.sampler.totals(self.packed, state, runs))

    def renewals(self, state: CellState, runs: Runs, chunk: int) -> Renewals:
        """How far runs of renewal cells come, each of which begins inside its window."""
        passed, sums = self.sampler.renewals(self.packed, state, runs)
        upload = self.sampler.device.xp.asarray

        def sums_at(index: NDArray[np.int64]) -> NDArray[np.int64]:
            return self._host(sums[upload(index)])

        inside = np.minimum(self._host(passed)[runs.cell] - runs.first, runs.count)
        return Renewals(inside, sums_at(runs.starts() + runs.count - 1), *cut(runs, inside, chunk, sums_at))

    def _host(self, array: Any) -> NDArray[Any]:
        return self.sampler.device.to_host(array)


def halves(packed: PackedWorkload, slab: Slab) -> tuple[Slab, Slab]:
    """A slab as two, the earlier first: by windows, or a window by time."""
    windows, expected = slab.windows, slab.expected / 2
    if len(windows) > 1:
        middle = len(windows) // 2
        first = Slab(windows[:middle], slab.from_us, slab.to_us, expected, slab.surveyed)
        return first, Slab(windows[middle:], slab.from_us, slab.to_us, expected, slab.surveyed)
    begin = (packed.first_window + int(windows[0])) * packed.window_us
    middle = (max(slab.from_us, begin) + min(slab.to_us, begin + packed.window_us)) // 2
    return (
        Slab(windows, slab.from_us, middle, expected, surveyed=True),
        Slab(windows, middle, slab.to_us, expected, surveyed=True),
    )
