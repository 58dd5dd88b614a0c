"""The cupy backend: the law in `kernels/` on CUDA devices; slabs copied to the host while the next ones are made.

Several devices share a trace slab by slab, in turns: all that CUDA shows, or ``$SERVEGEN_GPU_DEVICES``, such as
``0,2``. The rows do not depend on how many there are. A memory budget is for each of them; the host holds a slab for
each, and the one in use. What a trace had of a device's memory is kept for the next one, up to a quarter of the
device's or ``$SERVEGEN_GPU_KEEP``, such as ``2GB`` or ``0``, until `CupyBackend.release`.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from servegen_gpu.backends.contract import Backend
from servegen_gpu.backends.cuda import driver
from servegen_gpu.backends.cuda.device import OPEN, Copy, CudaDevice, open_device
from servegen_gpu.backends.cuda.lane import DeviceLane, wait_for
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Slab
from servegen_gpu.request.columns import Columns, concat
from servegen_gpu.request.schema import of


class CupyBackend(Backend):
    """Samples slabs on CUDA devices.

    Parameters
    ----------
    devices : sequence of int or CudaDevice, optional
        They take slabs in turns. The first is opened at once, another when its first slab comes. By default
        `driver.usable_devices`.
    stay : bool
        Leave columns on the first device, as CuPy arrays; the others have nothing to do.
    """

    name = "cupy"
    slab_requests = 1 << 25
    """A slab takes windows until here: a device wants more at once than a cache does."""

    def __init__(self, devices: Sequence[int | CudaDevice] | None = None, stay: bool = False) -> None:
        found = driver.usable_devices() if devices is None else devices
        self._devices = tuple(found[:1] if stay else found)
        self.stays = stay
        self._lanes: dict[int, DeviceLane] = {}
        self.device = self._lane(0).device

    def on_device(self) -> CupyBackend:
        """The same backend, whose columns stay on its first device."""
        return CupyBackend([self.device], stay=True)

    def release(self) -> None:
        """Give back what all devices of this process keep, but for the memory of columns that somebody has."""
        for device in tuple(OPEN):
            device.tables.forget()
            device.release()

    def bytes_per_request(self, category: str) -> int:
        """Peak bytes on a device that a slab needs per expected request; columns of the last slab are among them."""
        schema = of(category)
        fields = len(schema.scalars)
        columns = 12 + 4 * fields
        return 16 + (16 if fields < 4 else 32) + 2 * columns + (160 if schema.items else 0)

    def sample_slab(self, packed: PackedWorkload, key: Key, slab: Slab) -> Columns:
        """The slab's rows in merge order."""
        parts = list(self.sample_slabs(packed, key, [slab]))
        return parts[0] if len(parts) == 1 else concat(parts)

    def sample_slabs(self, packed: PackedWorkload, key: Key, slabs: Iterable[Slab]) -> Iterator[Columns]:
        """Slabs one after another; more of them than were asked for if a device has too little memory."""
        try:
            if self.stays:
                for slab in slabs:
                    yield from self._lane(0).pieces(packed, key, slab)
            else:
                yield from self._to_host(packed, key, slabs)
        finally:
            for lane in self._lanes.values():
                lane.rest()

    def _to_host(self, packed: PackedWorkload, key: Key, slabs: Iterable[Slab]) -> Iterator[Columns]:
        """Slabs on the host, in order. While one is used, every device samples one."""
        count = len(self._devices)
        turns = zip(itertools.cycle(range(count)), slabs, strict=False)
        with ExitStack() as threads:
            workers = [threads.enter_context(ThreadPoolExecutor(1, f"cuda{n}")) for n in range(count)]
            coming: deque[Future[list[Copy]]] = deque()
            copies: list[Copy] = []
            try:
                for turn, slab in itertools.islice(turns, count):
                    coming.append(workers[turn].submit(self._copies, turn, packed, key, slab))
                while coming:
                    copies = coming.popleft().result()
                    for turn, slab in itertools.islice(turns, 1):  # sampled while the last one is copied
                        coming.append(workers[turn].submit(self._copies, turn, packed, key, slab))
                    while copies:
                        yield copies.pop(0).finished()
            finally:
                for future in coming:
                    if not future.cancel() and not future.exception():
                        copies += future.result()
                wait_for(copies)

    def _copies(self, turn: int, packed: PackedWorkload, key: Key, slab: Slab) -> list[Copy]:
        return self._lane(turn).copies(packed, key, slab)

    def _lane(self, turn: int) -> DeviceLane:
        if turn not in self._lanes:
            device = self._devices[turn]
            opened = open_device(device) if isinstance(device, int) else device
            self._lanes[turn] = DeviceLane(opened, self.bytes_per_request)
        return self._lanes[turn]


def is_likely() -> bool:
    """Whether a device and CuPy are there, found quickly and without importing CuPy."""
    try:
        return driver.has_cupy() and driver.driver_version() > 0
    except driver.NoDriver:
        return False


def describe() -> dict[str, str]:
    """What is here, as a row of `describe_backends`."""
    try:
        numbers = driver.usable_devices()
        device = open_device(numbers[0])
        names = Counter(device.name_of(number) for number in numbers)
        found = ", ".join(name if n == 1 else f"{n} x {name}" for name, n in names.items())
        return {"name": "cupy", "state": "ready", "detail": f"{found}, {device.describe()}"}
    except OptionError as error:
        return {"name": "cupy", "state": "missing", "detail": f"got {error.got}; {error.fix}"}
