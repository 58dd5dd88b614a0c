"""ServeGen's module ``clientpool``: a pool of clients, and views of it over time and by filters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.build import grid_of
from servegen_gpu.compat.cdfs import cdfs_of
from servegen_gpu.compat.client import Client
from servegen_gpu.compat.collector import no_collection
from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.filters import ArrayFilter, CvFilter, MaxLengthFilter, MeanLengthFilter
from servegen_gpu.compat.grid import Grid
from servegen_gpu.compat.loading import load_clients
from servegen_gpu.compat.workload_types import ArrivalPat, Category, ClientWindow

__all__ = ["ArrivalPat", "Category", "Client", "ClientPool", "ClientPoolView", "ClientWindow"]

Condition = Callable[[ClientWindow], bool]
FOREVER = float("inf")


class _Selecting:
    """What a pool and a view of it can both do."""

    def _view(self) -> ClientPoolView:
        raise NotImplementedError

    def filter(self, condition: Condition) -> ClientPoolView:
        """A new view with the windows for which `condition` is true."""
        return self._view()._with(condition)

    def filter_by_cv(self, min_cv: float, max_cv: float) -> ClientPoolView:
        """A new view with active windows whose coefficient of variation lies between the two."""
        return self._view()._with(CvFilter(min_cv, max_cv))

    def filter_by_avg_input_len(self, min_len: float, max_len: float) -> ClientPoolView:
        """A new view with windows whose mean input length lies between the two, tokens."""
        return self._view()._with(MeanLengthFilter("input_tokens", min_len, max_len))

    def filter_by_avg_output_len(self, min_len: float, max_len: float) -> ClientPoolView:
        """A new view with windows whose mean output length lies between the two, tokens."""
        return self._view()._with(MeanLengthFilter("output_tokens", min_len, max_len))

    def filter_by_max_input_len(self, max_len: float) -> ClientPoolView:
        """A new view with windows whose longest input has at most `max_len` tokens."""
        return self._view()._with(MaxLengthFilter("input_tokens", max_len))

    def filter_by_max_output_len(self, max_len: float) -> ClientPoolView:
        """A new view with windows whose longest output has at most `max_len` tokens."""
        return self._view()._with(MaxLengthFilter("output_tokens", max_len))

    def get(self) -> list[ClientWindow]:
        """The windows, client by client; clients that are silent in all of them are left out."""
        return self._view().select().windows()

    def get_cdfs(self) -> dict[str, Any]:
        """CDFs of rate, cv and lengths over clients at every timestamp.

        Returns
        -------
        dict
            ``{"rate": {timestamp: (values, probabilities)}, "cv": …, field: {"avg": {timestamp: …}, "p50": …, "p95":
            …, "p99": …}}``; empty where there are no windows. Rates weigh the same, everything else weighs by rate.
        """
        chosen = self._view().select()
        return cdfs_of(chosen.grid, chosen.span, chosen.mask, chosen.timestamps) if chosen.mask.any() else {}


class ClientPool(_Selecting):
    """A pool of clients.

    Parameters
    ----------
    category : Category
    model : str
        Such as ``"m-large"``.
    clients : dict of int to Client, optional
        Instead of reading files.
    data_dir : path-like, optional
        With ``<category>/<model>`` inside; by default the environment variable ``SERVEGEN_DATA``, or ``./data``.

    Attributes
    ----------
    category, model
    clients : dict of int to Client
        Assigning it, adding to it and removing from it change the pool. After changing a client itself, call
        `validate`.

    Raises
    ------
    ValueError
        If the data cannot be found or used.
    """

    def __init__(
        self,
        category: Category,
        model: str,
        clients: dict[int, Client] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.category = Category(category)
        self.model = model
        self._grid: Grid | None = None
        self._read: list[Client] = []
        if clients is None:
            self.clients, self._grid = load_clients(self.category, model, data_dir)
            self._read = list(self.clients.values())
        else:
            self.clients = clients
            self.validate()

    @classmethod
    def from_clients(cls, category: Category, model: str, clients: list[Client]) -> ClientPool:
        """A pool of the given clients, whose ids must differ."""
        by_id: dict[int, Client] = {}
        for client in clients:
            if client.client_id in by_id:
                raise InputError(
                    "each client id once",
                    f"{client.client_id!r} twice",
                    "renumber the clients",
                    f"Duplicate client ID: {client.client_id}",
                )
            by_id[client.client_id] = client
        return cls(category, model, clients=by_id)

    def validate(self) -> None:
        """Check all clients, and read them again.

        Raises
        ------
        ValueError
            At the first fault.
        """
        self._grid = grid_of(self.clients)
        self._read = list(self.clients.values())

    def span(self, start_time: float, end_time: float) -> ClientPoolView:
        """A view of the windows that overlap the seconds from `start_time` to `end_time`, cut to them."""
        return ClientPoolView(self, start_time, end_time)

    @property
    def grid(self) -> Grid:
        """The clients as arrays."""
        now = self.clients.values()
        if (
            self._grid is None
            or len(now) != len(self._read)
            or any(a is not b for a, b in zip(now, self._read, strict=True))
        ):
            self.validate()
        assert self._grid is not None
        return self._grid

    def _view(self) -> ClientPoolView:
        return ClientPoolView(self, 0, FOREVER)


class ClientPoolView(_Selecting):
    """A pool between two times, perhaps with filters. Never changes: `filter` and `span` give new views.

    Attributes
    ----------
    pool : ClientPool
    start_time, end_time : float
        Seconds on the pool's axis. Timestamps of the view's windows count from its start.
    filters : tuple of callables
        A window must pass all of them.
    """

    def __init__(self, pool: ClientPool, start_time: float, end_time: float) -> None:
        for name, time in (("start_time", start_time), ("end_time", end_time)):
            if isinstance(time, bool) or not isinstance(time, int | float | np.number) or time != time:
                raise InputError(f"{name} as a number of seconds", repr(time), "give a number")
        self.pool = pool
        self.start_time = start_time
        self.end_time = end_time
        self.filters: tuple[Condition | ArrayFilter, ...] = ()

    def span(self, start_time: float, end_time: float) -> ClientPoolView:
        """A new view between two times that count from this view's start."""
        view = ClientPoolView(self.pool, self.start_time + start_time, self.start_time + end_time)
        view.filters = tuple(self.filters)
        return view

    def _view(self) -> ClientPoolView:
        return self

    def _with(self, condition: Condition | ArrayFilter) -> ClientPoolView:
        view = ClientPoolView(self.pool, self.start_time, self.end_time)
        view.filters = (*self.filters, condition)
        return view

    def select(self) -> Selection:
        """The windows of the view, as arrays."""
        grid = self.pool.grid
        first, timestamps, sizes = _overlapping(grid.starts, self.start_time, self.end_time)
        span = slice(first, first + len(timestamps))
        mask = np.ones((len(grid.active), len(timestamps)), np.bool_)
        arrays = [f for f in self.filters if isinstance(f, ArrayFilter)]
        conditions = [f for f in self.filters if not isinstance(f, ArrayFilter)]
        for array_filter in arrays:
            mask &= array_filter.mask(grid, span)
        chosen = Selection(grid, tuple(self.pool.clients.values()), span, timestamps, sizes, mask)
        return chosen.passing(conditions).of_active_clients()


def _overlapping(starts: tuple[float, ...], start_time: float, end_time: float) -> tuple[int, list[float], list[float]]:
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
        rate, cv = (np.where(active, array[place].astype(object), None).tolist() for array in (grid.rate_rps, grid.cv))
        names = np.where(grid.weibull[place], "Weibull", "Gamma").tolist()
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
