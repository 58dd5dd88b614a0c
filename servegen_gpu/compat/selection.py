"""Windows chosen by time and filters, as arrays, and as objects when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.client import Client
from servegen_gpu.compat.collector import no_collection
from servegen_gpu.compat.grid import Grid
from servegen_gpu.compat.workload_types import ClientWindow

Condition = Callable[[ClientWindow], bool]
FOREVER = float("inf")


def overlapping(starts: tuple[float, ...], start_time: float, end_time: float) -> tuple[int, list[float], list[float]]:
    """Index of the first window that overlaps a span, and begin (from the span's start) and size of all that do."""
    ends = (*starts[1:], FOREVER)
    at = [w for w, (a, b) in enumerate(zip(starts, ends, strict=True)) if b > start_time and a < end_time]
    begins = [max(starts[w], start_time) for w in at]
    sizes = [min(ends[w], end_time) - begin for w, begin in zip(at, begins, strict=True)]
    return at[0] if at else 0, [begin - start_time for begin in begins], sizes


@dataclass(frozen=True, eq=False)
class Selection:
    """Windows of a view.

    Attributes
    ----------
    grid : Grid
    clients : tuple of Client
        In the order of the grid.
    span : slice
        Windows of the grid that overlap the view.
    timestamps, sizes : list of float
        Begin, from the view's start, and length of those windows, seconds.
    mask : bool[clients, windows]
        Which are chosen.
    """

    grid: Grid
    clients: tuple[Client, ...]
    span: slice
    timestamps: list[float]
    sizes: list[float]
    mask: NDArray[np.bool_]

    def present(self) -> NDArray[np.bool_]:
        """At which timestamps there are chosen windows, bool[windows]."""
        there: NDArray[np.bool_] = self.mask.sum(axis=0) > 0
        return there

    def rates(self) -> NDArray[np.float64]:
        """Rate where a window is chosen and active, else 0, float64[clients, windows]."""
        return np.where(self.mask & self.grid.active[:, self.span], self.grid.rate_rps[:, self.span], 0.0)

    def passing(self, conditions: Iterable[Condition]) -> Selection:
        """Only the windows that pass conditions on single windows."""
        conditions = tuple(conditions)
        if not conditions:
            return self
        verdicts = [all(condition(window) for condition in conditions) for window in self.windows()]
        mask = self.mask.copy()
        mask[mask] = verdicts
        return Selection(self.grid, self.clients, self.span, self.timestamps, self.sizes, mask)

    def of_active_clients(self) -> Selection:
        """Without clients that are silent in all chosen windows."""
        kept = (self.mask & self.grid.active[:, self.span]).sum(axis=1) > 0
        mask = self.mask & kept[:, None]
        return Selection(self.grid, self.clients, self.span, self.timestamps, self.sizes, mask)

    def windows(self) -> list[ClientWindow]:
        """The chosen windows as objects, client by client."""
        with no_collection():
            return self._windows_of_grid() if self.grid.from_files else self._windows_of_clients()

    def _windows_of_clients(self) -> list[ClientWindow]:
        found: list[ClientWindow] = []
        for c in np.flatnonzero(self.mask.any(axis=1)).tolist():
            client = self.clients[c]
            entries, datasets = list(client.trace.values()), list(client.dataset.values())
            begins = np.searchsorted(list(client.dataset), self.grid.starts[self.span], side="right") - 1
            for w in np.flatnonzero(self.mask[c]).tolist():
                entry = entries[self.span.start + w] or {}
                dataset = datasets[begins[w]] if begins[w] >= 0 else None
                found.append(
                    ClientWindow(
                        client.client_id,
                        self.timestamps[w],
                        self.sizes[w],
                        entry.get("rate"),
                        entry.get("cv"),
                        entry.get("pat"),
                        dataset or None,
                    )
                )
        return found

    def _windows_of_grid(self) -> list[ClientWindow]:
        """Of clients read from files, whose dictionaries are not needed."""
        grid = self.grid
        client, window = np.nonzero(self.mask)
        ids = [c.client_id for c in self.clients]
        place = (client, window + self.span.start)
        active = grid.active[place]
        rate, cv = (_or_none(array[place], active) for array in (grid.rate_rps, grid.cv))
        names = np.array(("Gamma", "Weibull"))[grid.weibull[place].astype(np.int8)].tolist()
        numbers = zip(grid.shape[place].tolist(), grid.scale[place].tolist(), strict=True)
        patterns = [
            pattern if there else None
            for there, pattern in zip(active.tolist(), zip(names, numbers, strict=True), strict=True)
        ]
        datasets: list[Any] = [*grid.datasets.unbuilt, None]
        return list(
            map(
                ClientWindow,
                [ids[c] for c in client.tolist()],
                [self.timestamps[w] for w in window.tolist()],
                [self.sizes[w] for w in window.tolist()],
                rate,
                cv,
                patterns,
                [datasets[s] for s in grid.slot[place].tolist()],
            )
        )


def _or_none(values: NDArray[np.float64], there: NDArray[np.bool_]) -> list[float | None]:
    """Plain numbers, None where there is none."""
    found = values.astype(np.object_)
    found[~there] = None
    numbers: list[float | None] = found.tolist()
    return numbers
