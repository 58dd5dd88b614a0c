"""The cupy backend: the law in `kernels/` on a CUDA device; slabs copied to the host while the next one is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.contract import Columns
from servegen_gpu.backends.cuda_device import CudaDevice, NoDriver, driver_version, has_cupy, open_device
from servegen_gpu.backends.cuda_slab import SlabSampler
from servegen_gpu.backends.numpy_arrivals import CellState, Runs
from servegen_gpu.backends.reference import NumpyBackend
from servegen_gpu.clients.pool import scalar_field_count
from servegen_gpu.errors import OptionError
from servegen_gpu.options import MIN_SLAB_REQUESTS
from servegen_gpu.packing import PackedWorkload
from servegen_gpu.plan import Slab
from servegen_gpu.trace import Trace


class CupyBackend(NumpyBackend):
    """Samples slabs on a CUDA device.

    Parameters
    ----------
    device : CudaDevice, optional
    stay : bool
        Leave columns on the device, as CuPy arrays.
    """

    name = "cupy"
    slab_requests = 1 << 25
    """A slab takes windows until here: a device wants more at once than a cache does."""

    def __init__(self, device: CudaDevice | None = None, stay: bool = False) -> None:
        self.device = device or open_device()
        self.stay = stay
        self.sampler = SlabSampler(self.device)
        self._device_gaps = DeviceGaps(self.sampler)
        self._most = float("inf")
        super().__init__(self._device_gaps)

    def on_device(self) -> CupyBackend:
        """The same backend, whose columns stay on the device."""
        return CupyBackend(self.device, stay=True)

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes on the device that a slab needs per expected request; columns of the last slab are among them."""
        fields = scalar_field_count(category)
        columns = 12 + 4 * fields
        return 16 + (16 if fields < 4 else 32) + 2 * columns + (160 if category == "multimodal" else 0)

    def sample_slab(self, packed: PackedWorkload, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        parts = [Trace(columns) for columns in self.sample_slabs(packed, [slab])]
        return parts[0].columns if len(parts) == 1 else Trace.concat(parts).columns

    def sample_slabs(self, packed: PackedWorkload, slabs: Iterable[Slab]) -> Iterator[Columns]:
        """Slabs one after another; more of them than were asked for if the device has too little memory.

        A slab is copied to the host while the one before it is used and the next one is made.
        """
        copy = None
        try:
            for slab in slabs:
                for columns in self._pieces(packed, slab):
                    if self.stay:
                        yield columns
                        continue
                    next_copy = self.device.start_copy(columns)
                    del columns
                    if copy is not None:
                        yield copy.finished()
                    copy = next_copy
            if copy is not None:
                yield copy.finished()
        finally:
            if copy is not None:
                copy.finished()
            self.sampler.forget()
            self._surveyed = None
            self.device.release()

    def _pieces(self, packed: PackedWorkload, slab: Slab) -> Iterator[dict[str, Any]]:
        """Columns of a slab on the device, in halves of halves where it does not fit."""
        if slab.expected <= self._most:
            try:
                with self.device.memory():
                    columns = self._sampled(packed, slab)
            except self.device.out_of_memory:
                columns = {}
            if columns:
                yield columns
                return
            self.device.release()
            self._most = slab.expected / 2
        if slab.expected < MIN_SLAB_REQUESTS:
            raise OptionError(
                f"device memory for {MIN_SLAB_REQUESTS:,} requests and the tables of the workload",
                "an allocation that failed",
                "free memory on the device (nvidia-smi shows who has it), or choose another backend",
            )
        for half in halves(packed, slab):
            yield from self._pieces(packed, half)

    def _sampled(self, packed: PackedWorkload, slab: Slab) -> dict[str, Any]:
        if not slab.surveyed:
            return self.sampler.whole(packed, slab)
        self._device_gaps.packed = packed
        return self.sampler.part(packed, slab, *self.reaching_runs(packed, slab))


class DeviceGaps:
    """Gaps of a survey's runs, drawn on the device; what is kept of them comes to the host."""

    def __init__(self, sampler: SlabSampler) -> None:
        self._sampler = sampler
        self.packed: PackedWorkload | None = None

    def peaks(self, state: CellState, runs: Runs) -> NDArray[np.float64]:
        """Logarithm of the largest gap of every run, float64[runs]."""
        key = self._host(self._sampler.peaks(self._workload(), state, runs))
        top = np.uint64(1 << 63)
        return np.where(key >= top, key ^ top, ~key).view(np.float64)

    def totals(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of every run, int64[runs]."""
        return self._host(self._sampler.totals(self._workload(), state, runs))

    def sums(self, state: CellState, runs: Runs) -> NDArray[np.int64]:
        """Ticks of the cell up to the end of every request's gap, int64[requests]; beyond 2**63 they wrap around."""
        return self._host(self._sampler.sums(self._workload(), state, runs))

    def _workload(self) -> PackedWorkload:
        assert self.packed is not None
        return self.packed

    def _host(self, array: Any) -> NDArray[Any]:
        found: NDArray[Any] = array.get() if hasattr(array, "get") else array
        return found


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


def is_likely() -> bool:
    """Whether a device and CuPy are there, found quickly and without importing CuPy."""
    try:
        return has_cupy() and driver_version() > 0
    except NoDriver:
        return False


def describe() -> dict[str, str]:
    """What is here, as a row of `describe_backends`."""
    try:
        return {"name": "cupy", "state": "ready", "detail": open_device().describe()}
    except OptionError as error:
        return {"name": "cupy", "state": "missing", "detail": f"got {error.got}; {error.fix}"}
