"""Filters of windows that work on whole arrays; each can be called with a single window too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.grid import Grid
from servegen_gpu.compat.workload_types import ClientWindow


@dataclass(frozen=True)
class CvFilter:
    """Windows with a coefficient of variation from `low` to `high`."""

    low: float
    high: float

    def __call__(self, window: ClientWindow) -> bool:
        """Whether one window passes."""
        return window.cv is not None and self.low <= window.cv <= self.high

    def mask(self, grid: Grid, windows: slice) -> NDArray[np.bool_]:
        """Which windows pass, bool[clients, windows]."""
        cv = grid.cv[:, windows]
        found: NDArray[np.bool_] = grid.active[:, windows] & (self.low <= cv) & (cv <= self.high)
        return found


@dataclass(frozen=True)
class MeanLengthFilter:
    """Windows, silent ones too, whose dataset has `field` with a mean from `low` to `high`."""

    field: str
    low: float
    high: float

    def __call__(self, window: ClientWindow) -> bool:
        """Whether one window passes."""
        if not window.dataset or self.field not in window.dataset:
            return False
        mean = sum(i * p for i, p in enumerate(window.dataset[self.field]))
        return self.low <= mean <= self.high

    def mask(self, grid: Grid, windows: slice) -> NDArray[np.bool_]:
        """Which windows pass, bool[clients, windows]."""
        mean = grid.datasets.mean
        return _of_tables(grid, windows, self.field, (self.low <= mean) & (mean <= self.high))


@dataclass(frozen=True)
class MaxLengthFilter:
    """Windows, silent ones too, whose dataset has `field` with no value above `high`."""

    field: str
    high: float

    def __call__(self, window: ClientWindow) -> bool:
        """Whether one window passes."""
        if not window.dataset or self.field not in window.dataset:
            return False
        return max(len(window.dataset[self.field]) - 1, 0) <= self.high

    def mask(self, grid: Grid, windows: slice) -> NDArray[np.bool_]:
        """Which windows pass, bool[clients, windows]."""
        return _of_tables(grid, windows, self.field, grid.datasets.size - 1 <= self.high)


ArrayFilter = CvFilter | MeanLengthFilter | MaxLengthFilter


def _of_tables(grid: Grid, windows: slice, field: str, passing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From a verdict on every table to one on every window."""
    column = grid.datasets.column(field)
    of_slot = np.append(passing, False)[column]  # -1: no such field
    found: NDArray[np.bool_] = np.append(of_slot, False)[grid.slot[:, windows]]  # -1: no dataset yet
    return found
