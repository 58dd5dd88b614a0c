"""One client as ServeGen has it: dictionaries by timestamp, checked with ServeGen's messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.errors import InputError, few
from servegen_gpu.compat.grid import Grid
from servegen_gpu.compat.workload_types import ArrivalPat

REAL = (int, float, np.integer, np.floating)
PATTERNS = tuple(pattern.value for pattern in ArrivalPat)
PARTS = ("trace", "dataset")
REQUIRED = frozenset(("rate", "cv", "pat"))


@dataclass
class Client:
    """One client: what it does in every window.

    Attributes
    ----------
    client_id : int
    trace : dict
        Timestamp (seconds, ascending) to ``{"rate": …, "cv": …, "pat": (name, (shape, scale))}``, or to None where the
        client is silent. Clients read from files build it when somebody looks.
    dataset : dict
        Timestamp to ``{field: [probability of 0, of 1, …]}``; a window uses the latest that starts at or before it.
    """

    client_id: int
    trace: dict[int, dict[str, Any] | None]
    dataset: dict[int, dict[str, list[float]]]

    @classmethod
    def of_grid(cls, client_id: int, grid: Grid, row: int, slots: tuple[tuple[int, int], ...]) -> Client:
        """A client whose dictionaries are built when somebody looks.

        Parameters
        ----------
        client_id : int
        grid : Grid
        row : int
            Of the grid's clients.
        slots : tuple of (int, int)
            Timestamp and row of `grid.datasets` of each of its datasets.
        """
        client = cls.__new__(cls)
        client.client_id = client_id
        client.__dict__["_source"] = (grid, row, slots)
        return client

    @property
    def source(self) -> tuple[Grid, int] | None:
        """Grid and row of a client read from files that nobody has changed, else None."""
        found = self.__dict__.get("_source")
        built = self.__dict__.get("_built", {})
        if found is None or any(built.get(part) != _part_state(self, part) for part in PARTS if part in self.__dict__):
            return None
        grid, row, _ = found
        return grid, row

    @property
    def looked_at(self) -> bool:
        """Whether there are dictionaries that somebody may have changed."""
        return any(part in self.__dict__ for part in PARTS)

    def state(self) -> Any:
        """What tells whether somebody has changed the client: entries of the trace, and which lists are in datasets."""
        return None if self.source else [_part_state(self, part) for part in PARTS]

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("_source")
        if source is None or name not in ("trace", "dataset"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__[name] = _trace(*source) if name == "trace" else _dataset(*source)
        self.__dict__.setdefault("_built", {})[name] = _part_state(self, name)
        return self.__dict__[name]

    def validate(self) -> None:
        """Check the client.

        Raises
        ------
        ValueError
            At the first fault.
        """
        if self.looked_at:  # what the loader made is checked
            check_client(self, {})


def _part_state(client: Client, part: str) -> Any:
    """The part of `Client.state` that is the trace, or the dataset; None where they are not what they should be."""
    try:
        if part == "dataset":
            return [
                (time, [(field, id(pdf), len(pdf)) for field, pdf in fields.items()])
                for time, fields in client.dataset.items()
            ]
        entries = [entry and (entry["rate"], entry["cv"], entry["pat"]) for entry in client.trace.values()]
        return list(client.trace), entries
    except (AttributeError, KeyError, TypeError):
        return None


def _trace(grid: Grid, row: int, _: Any) -> dict[Any, dict[str, Any] | None]:
    trace: dict[Any, dict[str, Any] | None] = dict.fromkeys(grid.starts)
    for window in np.flatnonzero(grid.active[row]).tolist():
        trace[grid.starts[window]] = {
            "rate": float(grid.rate_rps[row, window]),
            "cv": float(grid.cv[row, window]),
            "pat": grid.pattern(row, window),
        }
    return trace


def _dataset(grid: Grid, _: int, slots: tuple[tuple[int, int], ...]) -> dict[int, dict[str, list[float]]]:
    return {start: grid.datasets.unbuilt[slot].build() for start, slot in slots}


Checked = dict[int, tuple[list[float], NDArray[np.float64]]]
"""Lists of probabilities that were checked, by identity, with the list itself so that it stays alive."""


def check_client(client: Client, checked: Checked) -> None:
    """Check a client; lists of probabilities that clients share are checked once.

    Parameters
    ----------
    client : Client
    checked : dict
        Lists that were checked before; grows.
    """
    for name, times in (("Trace", list(client.trace)), ("Dataset", list(client.dataset))):
        for time in times:
            if isinstance(time, bool) or not isinstance(time, REAL) or not math.isfinite(time):
                raise InputError(
                    "timestamps as finite numbers of seconds",
                    f"{time!r} at client {client.client_id!r}",
                    f"fix the client's {name.lower()}",
                    f"{name} timestamps must be numbers",
                )
        if any(a >= b for a, b in pairwise(times)):
            raise InputError(
                "each timestamp after the one before",
                f"{times[:10]} at client {client.client_id!r}",
                "sort the dictionary",
                f"{name} timestamps must be in ascending order",
            )
    for time, entry in client.trace.items():
        if entry is not None:
            _check_entry(client.client_id, time, entry)
    for time, fields in client.dataset.items():
        if not isinstance(fields, dict):
            what = f"Dataset at {time} must be a dictionary"
            raise _fault(client.client_id, "fields with their probabilities", fields, what)
        for field, pdf in fields.items():
            if id(pdf) not in checked:
                checked[id(pdf)] = (pdf, _check_pdf(client.client_id, time, field, pdf))


def _check_entry(client_id: Any, time: Any, entry: Any) -> None:
    if not isinstance(entry, dict):
        what = f"Trace data at {time} must be a dictionary"
        raise _fault(client_id, "rate, cv and pat, or None where the client is silent", entry, what)
    if not entry.keys() >= REQUIRED:
        missing = sorted(REQUIRED - entry.keys())
        what = f"Trace data at {time} missing required fields: {missing}"
        raise _fault(client_id, "rate, cv and pat", sorted(map(str, entry)), what)
    for key, name in (("rate", "Rate"), ("cv", "CV")):
        value = entry[key]
        if not (isinstance(value, REAL) and 0 <= value < math.inf):
            what = f"{name} at {time} must be a non-negative number"
            raise _fault(client_id, "a finite number >= 0", value, what)
    pattern = entry["pat"]
    if not isinstance(pattern, tuple | list) or len(pattern) != 2:
        what = f"Pattern at {time} must be a tuple/list of (name, params) {pattern!r}"
        raise _fault(client_id, "(name, (shape, scale))", pattern, what)
    name, numbers = pattern
    if name not in PATTERNS:
        what = f"Invalid arrival pattern at {time}: {name}"
        raise _fault(client_id, " or ".join(map(repr, PATTERNS)), name, what)
    if entry["rate"] > 0 and not _positive_pair(numbers):
        what = f"Pattern at {time} must have a positive shape and scale"
        raise _fault(client_id, "(shape, scale), both finite and above 0", numbers, what)


def _positive_pair(numbers: Any) -> bool:
    if not isinstance(numbers, tuple | list | np.ndarray) or len(numbers) != 2:
        return False
    return all(isinstance(number, REAL) and 0 < number < math.inf for number in numbers)


def _check_pdf(client_id: Any, time: Any, field: Any, pdf: Any) -> NDArray[np.float64]:
    """A list of probabilities as float64[n]."""
    if not isinstance(pdf, list):
        what = f"PDF for {field} at {time} must be a list"
        raise _fault(client_id, "probabilities of 0, 1, 2, …", type(pdf).__name__, what)
    try:
        array = np.asarray(pdf) if pdf else np.zeros(0)
    except ValueError:  # lists of different lengths inside
        array = np.asarray("")
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        what = f"PDF values for {field} at {time} must be numbers"
        raise _fault(client_id, "probabilities of 0, 1, 2, …", pdf[:5], what)
    array = array.astype(np.float64)
    if not (array >= 0).all():  # NaN compares false
        what = f"PDF values for {field} at {time} must be non-negative"
        raise _fault(client_id, "probabilities >= 0", float(array[~(array >= 0)][0]), what)
    total = float(array.sum())
    if not np.isclose(total, 1.0, atol=1e-6):
        what = f"PDF for {field} at {time} must sum to 1.0"
        raise _fault(client_id, "probabilities that sum to 1", total, what)
    return array


def _fault(client_id: Any, expected: str, got: Any, what: str) -> InputError:
    return InputError(expected, f"{got!r:.80} at client {client_id!r}", "fix the client", what)


def check_clients(clients: Mapping[Any, Client]) -> Checked:
    """Check all clients of a pool, each by itself and all together.

    Returns
    -------
    dict
        Every list of probabilities as an array, by the identity of the list.
    """
    if not clients:
        raise InputError("at least one client", "none", "add clients")
    checked: Checked = {}
    for client in clients.values():
        check_client(client, checked)
    times = list(next(iter(clients.values())).trace)
    known = set(times)
    for key, client in clients.items():
        if client.trace.keys() != known:
            raise InputError(
                "the same timestamps for every client",
                f"{_few(set(client.trace) ^ known)} in one of the two only",
                "give silent windows as None",
                f"Client {key} has different trace timestamps than the first client. "
                f"Expected {_few(known)}, got {_few(set(client.trace))}",
            )
    for key, client in clients.items():
        if extra := client.dataset.keys() - known:
            raise InputError(
                f"timestamps of the trace: {_few(known)}",
                _few(extra),
                "start each dataset where a window starts",
                f"Client {key} has dataset timestamps that are not in trace timestamps: {_few(extra)}",
            )
    return checked


def _few(times: Any) -> str:
    return few(sorted(times))
