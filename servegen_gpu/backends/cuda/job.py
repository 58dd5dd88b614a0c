"""What every CUDA kernel is told: the fields of SlabJob in kernels/slab.h, 8 bytes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Key
from servegen_gpu.law.philox import ROUNDS, W0, W1
from servegen_gpu.request.schema import SCALAR_FIELDS

NAMES: tuple[str, ...] = (
    # the workload
    *("key0", "key1", *(f"round_key{r}" for r in range(ROUNDS))),
    *("clients", "rows", "fields", "scalar_fields", "dependence", "ratio_field", "items", "window_us"),
    *("client_id", "profile", "rate_factor", "group", "count_rule", "rate_rps", "shape", "occupancy", "log_mean_gap"),
    *("family", "table", "mixing", "mixing_of", "context_tokens", "thresholds", "values", "guide", "guide_bits"),
    *("clock_thresholds", "clock_guide", "clock_guide_bits", "clock_first", "clock_start_us", "clock_slope"),
    # windows of the slab
    *("windows", "window_row", "window_number", "window_scale", "window_clock", "window_origin_us"),
    *("span_us", "offset_us"),
    # cells
    *("active", "grid_cell", "cell_client", "cell_number", "cell_window", "cell_law", "cell_rule", "cell_laws"),
    *("cell_d", "cell_c", "cell_log_d", "cell_boost", "log_unit", "ticks_per_unit"),
    *("rotation", "first_ticks", "room", "kept", "drawn", "last", "ticks_in_all"),
    # runs
    *("runs", "requests", "run_begin", "run_cell", "run_first", "run_before"),
    *("tile_run", "peak", "total", "units_known", "ticks", "sums", "run_sums"),
    # tasks and buckets
    *("cells", "tasks", "task_begin", "run_count", "task", "task_ticks", "task_before", "task_sum", "more", "time"),
    *("bucket_next", "bucket_begin", "bucket_shift", "bucket_slots", "slot_shift", "bucket_least", "bucket_most"),
    *("client_bits", "pairs", "items_out"),
    # positions, rows, items
    *("position_begin", "position_bits", "word", "record", "record_words"),
    *("order", "arrival_us", "client", *(f"field{lane}" for lane in range(SCALAR_FIELDS)), "row_cell", "row_ordinal"),
    *("purpose", "item_field", "item_begin", "item", "inputs"),
)

JOB = np.dtype([("words", np.uint64, (len(NAMES),))])
"""A job: a structure that is passed by value."""

_PLACES, _WORD = {name: place for place, name in enumerate(NAMES)}, 2**64 - 1

TILE = 256
"""Requests a tile: as in kernels/slab.h."""

TASK = 256
"""Requests that a warp draws at a time, at most: as in kernels/tasks.h."""

POOL = 2
"""Tasks that a warp draws together: as in kernels/tasks.h."""

TOGETHER = frozenset(("draw", "sums", "more", "time", "scatter", "arrange"))
"""Kernels whose threads work together, as warps or blocks; in all others a thread is on its own."""

THREADS = 256
BLOCK = {"scatter": 1024, "arrange": 512}
"""Threads of a block, where they are not `THREADS`: as in kernels/slab.cu."""

CELL_LAW_BYTES, TASK_BYTES = 64, 16
"""Of the structures of kernels/slab.h."""

NORMAL_ROWS_BYTES = 8 * 7 * (128 + 32)
POOL_BYTES = POOL * TASK * 17 // 16 * 8 + POOL * TASK * 2
SHARED_BYTES = {
    "draw": NORMAL_ROWS_BYTES + THREADS // 32 * POOL_BYTES,
    "more": NORMAL_ROWS_BYTES,
    "scatter": NORMAL_ROWS_BYTES,
}
"""Of a block's own memory, where the kernel does not ask for more: as in kernels/warps.h and tasks.h."""


def keys(key: Key) -> dict[str, int]:
    """The key, and those of all rounds of Philox."""
    rounds = {f"round_key{r}": (key[1] + r * W1) % 2**32 << 32 | (key[0] + r * W0) % 2**32 for r in range(ROUNDS)}
    return {"key0": key[0], "key1": key[1]} | rounds


def words(values: Mapping[str, Any], address: Callable[[Any], int]) -> NDArray[np.void]:
    """The job as a kernel's argument, one element; what is not given is 0, a null pointer.

    Parameters
    ----------
    values : mapping of str to int or array
    address : callable
        Where an array's memory begins.
    """
    unknown = values.keys() - _PLACES.keys()
    if unknown:
        raise KeyError(f"no field {', '.join(sorted(unknown))} in SlabJob")
    numbers = [0] * len(NAMES)
    for name, value in values.items():
        numbers[_PLACES[name]] = int(value) & _WORD if isinstance(value, int | np.integer) else address(value)
    return np.array(numbers, np.uint64).view(JOB)
