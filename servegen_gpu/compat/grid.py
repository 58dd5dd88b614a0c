"""What the clients of a pool do in every window, as arrays: what views select from and generation packs.

Axes: clients (in the pool's order), windows (of the clients' common grid, which may have any ascending starts), slots
(datasets of all clients), fields (in order of first appearance), tables and bins (as in `Tables`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.workload_types import Unbuilt
from servegen_gpu.request.schema import RATIO_STEPS
from servegen_gpu.request.tables import Tables

RATIO = "reason_ratio"
MAX_DENSE = 1 << 24
"""Longest list of probabilities that is built for somebody to look at."""


@dataclass(frozen=True, eq=False)
class Datasets:
    """Distributions of all slots.

    Attributes
    ----------
    fields : tuple of str
    table : int32[slots, fields]
        Row of `tables`; -1 where a slot lacks the field.
    tables : Tables
        Values are positions in ServeGen's lists of probabilities.
    size : int64[tables]
        Length of those lists.
    mean : float64[tables]
        Mean position.
    """

    fields: tuple[str, ...]
    table: NDArray[np.int32]
    tables: Tables
    size: NDArray[np.int64]
    mean: NDArray[np.float64]

    def column(self, field: str) -> NDArray[np.int32]:
        """Table of `field` by slot, int32[slots]; -1 where a slot lacks it."""
        if field not in self.fields:
            return np.full(len(self.table), -1, np.int32)
        return self.table[:, self.fields.index(field)]

    @cached_property
    def unbuilt(self) -> list[Unbuilt]:
        """Every slot, for windows to look at."""
        return [Slot(self, s) for s in range(len(self.table))]


class Slot(Unbuilt):
    """One slot of `Datasets`; its lists are built once."""

    __slots__ = ("_built", "_datasets", "_row")

    def __init__(self, datasets: Datasets, row: int) -> None:
        self._datasets, self._row = datasets, row
        self._built: dict[str, list[float]] | None = None

    def build(self) -> dict[str, list[float]]:
        """The lists by field."""
        if self._built is None:
            found = self._datasets
            named = zip(found.fields, found.table[self._row].tolist(), strict=True)
            self._built = {field: _dense(found, table, field) for field, table in named if table >= 0}
        return self._built


def _dense(datasets: Datasets, table: int, field: str) -> list[float]:
    size = int(datasets.size[table])
    if size > MAX_DENSE:
        raise InputError(
            f"a value of {field} below {MAX_DENSE:,} to build a list of probabilities up to it",
            f"{size - 1:,}",
            "generate without looking at window.dataset, or fix the file",
        )
    values, probabilities = datasets.tables.table(table)
    dense = [0.0] * size  # one zero for all, as floats of their own would take four times the memory
    for value, probability in zip(values.tolist(), probabilities.tolist(), strict=True):
        dense[value] = probability
    return dense


def ratio_of(position: NDArray[Any], size: NDArray[Any]) -> NDArray[np.float64]:
    """Reason ratios: k/501 where a list has the 501 bins of the released data, else i/(n − 1) as in ServeGen."""
    return position / np.where(size == RATIO_STEPS, RATIO_STEPS, size - 1)


@dataclass(frozen=True, eq=False)
class Grid:
    """Clients over windows.

    Attributes
    ----------
    starts : tuple of int or float
        Where each window begins, seconds, ascending; the last one is open-ended.
    active : bool[clients, windows]
        Whether there is an entry; its rate may be 0 all the same.
    rate_rps, cv, shape, scale : float64[clients, windows]
    weibull : bool[clients, windows]
        Weibull, or else Gamma.
    slot : int32[clients, windows]
        Row of `datasets`, -1 where there is none yet.
    datasets : Datasets
    from_files : bool
        Whether windows are made from these arrays, or else from the dictionaries that somebody gave.
    """

    starts: tuple[float, ...]
    active: NDArray[np.bool_]
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    shape: NDArray[np.float64]
    scale: NDArray[np.float64]
    weibull: NDArray[np.bool_]
    slot: NDArray[np.int32]
    datasets: Datasets
    from_files: bool = False

    def take(self, clients: Sequence[int]) -> Grid:
        """Only the given rows of clients, in the given order."""
        rows = np.array(clients, np.int64)
        names = ("active", "rate_rps", "cv", "shape", "scale", "weibull", "slot")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def pattern(self, client: int, window: int) -> tuple[str, tuple[float, float]]:
        """``(name, (shape, scale))``."""
        name = "Weibull" if self.weibull[client, window] else "Gamma"
        return name, (float(self.shape[client, window]), float(self.scale[client, window]))
