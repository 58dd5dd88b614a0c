"""Columns of requests by name, and what is done with all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.blocks import gather
from servegen_gpu.trace import Column, Ragged


def take(columns: Mapping[str, Column], index: NDArray[np.integer]) -> dict[str, Any]:
    """The rows at `index`, in that order."""
    return {name: c.take(index) if isinstance(c, Ragged) else gather(c, index) for name, c in columns.items()}


def rows_between(columns: Mapping[str, Column], lo: int, hi: int) -> dict[str, Any]:
    """Rows `lo` to `hi` (exclusive), as views."""
    return {name: c.rows(lo, hi) if isinstance(c, Ragged) else c[lo:hi] for name, c in columns.items()}


def concat(parts: Sequence[Mapping[str, Column]]) -> dict[str, Any]:
    """All rows of all parts, which have the same columns; those of the first decide their order."""
    joined: dict[str, Any] = {}
    for name, column in parts[0].items():
        own: list[Any] = [part[name] for part in parts]
        joined[name] = Ragged.concat(own) if isinstance(column, Ragged) else np.concatenate(own)
    return joined


def size_bytes(columns: Mapping[str, Column]) -> int:
    """Bytes of all columns."""
    return sum(c.offsets.nbytes + c.values.nbytes if isinstance(c, Ragged) else c.nbytes for c in columns.values())
