"""Whether a device draws the law's gaps to the last bit.

Rows cannot tell: with contracted multiply-adds, a third of all ticks are others, and of four million rows hardly one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from servegen_gpu.backends.cuda.lane import DeviceGaps
from servegen_gpu.backends.cuda.slab import SlabSampler
from servegen_gpu.backends.cuda.tables import Device
from servegen_gpu.backends.host.arrivals import NumpyGaps
from servegen_gpu.backends.host.cell_state import CellState, Runs, begin
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.plan import cells_of

if TYPE_CHECKING:
    from servegen_gpu.backends.cuda.device import CudaDevice
    from servegen_gpu.packed import PackedWorkload

SEED, EACH = 20, 1024


def ticks_that_differ(device: Device, each: int = EACH, seed: int = SEED) -> int:
    """How many ticks of gaps a device draws otherwise than NumPy, of `each` of every family.

    Parameters
    ----------
    device : Device
        It must be current.
    each : int
    seed : int
    """
    packed = _workload()
    state = _state(packed, seed)
    cells = len(state.cells)
    cell, ordinal = (
        np.repeat(np.arange(cells), each),
        np.tile(np.arange(1, each + 1), cells),
    )  # the first is drawn apart
    runs = Runs(cell, ordinal, np.ones_like(cell), np.zeros_like(cell))  # of one request: a total is a tick
    ours = DeviceGaps(SlabSampler(device), packed).totals(state, runs)
    return int(np.count_nonzero(ours != NumpyGaps().totals(state, runs)))


def refuse_other_ticks(device: CudaDevice) -> None:
    """Refuse a device that draws other gaps than the law's.

    Raises
    ------
    OptionError
    """
    if differ := ticks_that_differ(device):
        raise OptionError(
            "a device that draws the law's gaps to the last bit",
            f"{differ:,} other ticks among {5 * EACH:,} ({device.describe()})",
            "report this with the versions above, and choose backend 'native' or 'numpy'",
        )


def _state(packed: PackedWorkload, seed: int) -> CellState:
    return begin(packed, derive_key(seed), cells_of(packed, np.arange(1)))


@functools.cache
def _workload() -> PackedWorkload:
    """A client of every kind of gap."""
    from servegen_gpu.clients.stated.parametric import pool
    from servegen_gpu.clients.stated.spec import client
    from servegen_gpu.packing import pack
    from servegen_gpu.rates import Rate

    kinds = (("gamma", 2.0), ("gamma", 0.6), ("weibull", 1.5), ("weibull", 0.7), ("lognormal", 1.3))
    clients = [client(rate=1.0, arrivals=family, cv=cv, input_tokens=1, output_tokens=1) for family, cv in kinds]
    packed, _ = pack(pool(clients), Rate("constant", 100.0), start_s=0, end_s=600, counts="renewal", warmup_s=0)
    return packed
