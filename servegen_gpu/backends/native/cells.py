"""Which clients send in the windows of a slab, found in C: most cells of a large population stay empty."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.cell_state import CellState, state_of
from servegen_gpu.backends.native.library import Library, grid
from servegen_gpu.blocks import thread_count
from servegen_gpu.law.address import Key
from servegen_gpu.law.variates import equilibrium_constants
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells, number_of
from servegen_gpu.request.families import FIRST_DRAWS


@dataclass(frozen=True, eq=False)
class Laws:
    """What an SgGrid has of a workload, whatever the windows.

    Attributes
    ----------
    fixed : dict
        Fields of SgGrid.
    of_row : int64[rows]
        Which law the profiles have in a row: rows that follow one another with the same gaps share it.
    """

    fixed: dict[str, Any]
    of_row: NDArray[np.int64]


def laws_of(packed: PackedWorkload) -> Laws:
    """The laws of first gaps of a workload."""
    shape, family = packed.shape, packed.family
    other = ((shape[:, 1:] != shape[:, :-1]) | (family[:, 1:] != family[:, :-1])).any(axis=0)
    begins = np.flatnonzero(np.concatenate(([True], other)))
    shape, family = shape[:, begins], family[:, begins]
    first, power = equilibrium_constants(np, family, shape)
    arrays = {
        "client": packed.client_id,
        "profile": packed.profile,
        "rate_factor": packed.rate_factor,
        "rule": packed.count_rule,
        "rate_rps": packed.rate_rps.T,  # packed in this order
        "first_draw": FIRST_DRAWS[family],
        "log_mean_gap": packed.log_mean_gap[:, begins],
        **vars(first),
        "power": power,
    }
    if len(packed.window_scale) > 1:
        arrays["group"] = packed.group
    numbers = {"clients": len(packed.client_id), "profiles": len(packed.rate_rps), "laws": len(begins)}
    fixed = numbers | {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return Laws(fixed, np.concatenate(([0], np.cumsum(other))))


def begin(library: Library, laws: Laws, packed: PackedWorkload, key: Key, windows: NDArray[np.int64]) -> CellState:
    """What `host.cell_state.begin` knows of the cells of some windows."""
    stop = np.zeros(1, np.int32)
    task = grid(
        laws.fixed
        | {
            "key0": key[0],
            "key1": key[1],
            "windows": len(windows),
            "row": packed.row[windows],
            "law": laws.of_row[packed.row[windows]],
            "number": number_of(packed.first_window + windows, packed.stream),
            "scale": packed.window_scale[:, windows] * packed.window_length_s[windows],
            "threads": thread_count(),
            "stop": stop,
        }
    )
    handle = ctypes.c_void_p()
    count = library.call("sg_cells", ctypes.byref(task), ctypes.byref(handle), stop=stop)
    client, at, expected_q32, drawn, rotation, first_ticks = np.empty((6, count), np.int64)
    library.call("sg_cell_rows", handle, client, at, expected_q32, drawn, rotation, first_ticks)
    cells = Cells(
        client=client,
        profile=packed.profile[client],
        row=packed.row[windows][at],
        window=packed.first_window + windows[at],
        window_index=windows[at],
        expected_q32=expected_q32,
        stream=packed.stream,
    )
    return state_of(packed, key, cells, drawn, rotation, first_ticks)
