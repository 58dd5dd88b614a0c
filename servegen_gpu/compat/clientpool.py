"""ServeGen's module ``clientpool``: a pool of clients, and views of it over time and by filters."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from servegen_gpu.compat.build import grid_of
from servegen_gpu.compat.cdfs import cdfs_of
from servegen_gpu.compat.client import Client
from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.filters import ArrayFilter, CvFilter, MaxLengthFilter, MeanLengthFilter
from servegen_gpu.compat.grid import Grid
from servegen_gpu.compat.loading import load_clients
from servegen_gpu.compat.selection import FOREVER, Condition, Selection, overlapping
from servegen_gpu.compat.workload_types import ArrivalPat, Category, ClientWindow

__all__ = ["ArrivalPat", "Category", "Client", "ClientPool", "ClientPoolView", "ClientWindow"]


class _Selecting(ABC):
    """What a pool and a view of it can both do."""

    @abstractmethod
    def _view(self) -> ClientPoolView:
        """All that is in it."""

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
        What changes in it changes the pool: clients, entries of traces, lists of probabilities. Only after changing
        numbers inside such a list call `validate`.

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
        self._states: list[Any] = []
        if clients is None:
            self.clients, self._grid = load_clients(self.category, model, data_dir)
            self._remember()
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
        self._grid = grid_of(self.clients, anew=True)
        self._remember()

    def _remember(self) -> None:
        self._read = list(self.clients.values())
        self._states = [client.state() for client in self._read]

    def span(self, start_time: float, end_time: float) -> ClientPoolView:
        """A view of the windows that overlap the seconds from `start_time` to `end_time`, cut to them."""
        return ClientPoolView(self, start_time, end_time)

    @property
    def grid(self) -> Grid:
        """The clients as arrays, read again if they have changed."""
        now = list(self.clients.values())
        same = len(now) == len(self._read) and all(a is b for a, b in zip(now, self._read, strict=True))
        if self._grid is None or not same or [client.state() for client in now] != self._states:
            self._grid = grid_of(self.clients)
            self._remember()
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
        first, timestamps, sizes = overlapping(grid.starts, self.start_time, self.end_time)
        span = slice(first, first + len(timestamps))
        mask = np.ones((len(grid.active), len(timestamps)), np.bool_)
        arrays = [f for f in self.filters if isinstance(f, ArrayFilter)]
        conditions = [f for f in self.filters if not isinstance(f, ArrayFilter)]
        for array_filter in arrays:
            mask &= array_filter.mask(grid, span)
        chosen = Selection(grid, tuple(self.pool.clients.values()), span, timestamps, sizes, mask)
        return chosen.passing(conditions).of_active_clients()
