"""Tensors of a pool in one file of arrays. A file is hostile: names, types, shapes and tables are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.stated.tabulate import grid_of
from servegen_gpu.errors import ProfileError
from servegen_gpu.request.families import FAMILY_NAMES
from servegen_gpu.request.tables import fault_of

FILE = "pool.npz"
FORMAT = 1
"""Of the file; raised whenever its arrays change."""

INT = dict.fromkeys(
    ("profile", "table", "correlation", "context_tokens", "system_tokens", "turn_model", "environment", "values"),
    np.int32,
)
FLOAT = dict.fromkeys(("rate_factor", "rate_rps", "cv", "shape", "occupancy", "correlations", "whole_rps"), np.float64)
TYPES: dict[str, Any] = {
    **INT,
    **FLOAT,
    "client_ids": np.int64,
    "offsets": np.int64,
    "thresholds": np.uint32,
    "family": np.uint8,
    "measured": np.bool_,
}
"""Types of the arrays."""
OPTIONAL = ("whole_rps",)
FIX = "save the pool again"


def write(folder: Path, pool: ClientPool) -> None:
    """Write the arrays of a pool."""
    save_arrays(folder / FILE, {"format": FORMAT}, pool.arrays())


def read(folder: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a pool; their shapes are checked when a pool is made of them."""
    path = folder / FILE
    header, arrays = load_arrays(path)
    if header.get("format") != FORMAT:
        raise ProfileError(f"arrays of a pool in format {FORMAT}", f"{header.get('format')!r:.40} in {path}", FIX)
    if (missing := [n for n in TYPES if n not in (*arrays, *OPTIONAL)]) or (other := sorted(arrays.keys() - TYPES)):
        got = f"no {missing[0]!r}" if missing else f"{other[0]!r:.40} as well"
        raise ProfileError(f"the arrays {', '.join(TYPES)}", f"{got} in {path}", FIX)
    return checked(arrays, path)


def checked(arrays: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a pool that are of the right types, and whose tables no draw goes astray in."""
    for name, array in arrays.items():
        if array.dtype != np.dtype(TYPES[name]):
            raise ProfileError(f"{name} of type {np.dtype(TYPES[name])}", f"{array.dtype} in {path}", FIX)
    if fault := fault_of(arrays["offsets"], arrays["values"], arrays["thresholds"]):
        raise ProfileError("tables with bins that ascend", f"{fault} in {path}", FIX)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def check_draws(pool: ClientPool, path: Path) -> None:
    """Refuse what would send a draw astray though shapes are right: codes of families, and values of other fields."""
    if (pool.family >= len(FAMILY_NAMES)).any() or (pool.table < -1).any() or (pool.table >= len(pool.tables)).any():
        raise ProfileError("known families, and rows of tables", f"others in {path}", FIX)
    for field in pool.schema.fields:
        most = grid_of(field.name).limit
        used = np.unique(pool.table[..., field.lane])
        largest = pool.tables.largest[used[used >= 0]].max(initial=0)
        if largest > most:
            raise ProfileError(f"{field.name} up to {most:,}", f"{largest:,} in {path}", FIX)
    if pool.whole_rps is not None and not (np.isfinite(pool.whole_rps) & (pool.whole_rps >= 0)).all():
        raise ProfileError("whole_rps that are finite and not negative", f"others in {path}", FIX)
