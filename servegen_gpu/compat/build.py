"""From clients as dictionaries to a grid of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.client import Checked, Client, check_clients
from servegen_gpu.compat.grid import Datasets, Grid
from servegen_gpu.request.tables import Tables


def grid_of(clients: Mapping[Any, Client], anew: bool = False) -> Grid:
    """Check clients and read their dictionaries; unchanged clients of one loaded pool are taken as they are.

    Parameters
    ----------
    clients : mapping to Client
    anew : bool
        Read all dictionaries that somebody has looked at, changed or not.

    Raises
    ------
    InputError
        A ValueError, at the first fault.
    """
    sources = [None if anew and client.looked_at else client.source for client in clients.values()]
    if sources and all(source is not None and source[0] is sources[0][0] for source in sources):  # type: ignore[index]
        return sources[0][0].take([source[1] for source in sources])  # type: ignore[index]
    checked = check_clients(clients)
    everyone = list(clients.values())
    starts = [_plain(time) for time in everyone[0].trace]
    shape = (len(everyone), len(starts))
    entries = list(chain.from_iterable(client.trace.values() for client in everyone))
    active = np.array([entry is not None for entry in entries], np.bool_)
    there = [entry for entry in entries if entry is not None]

    def over(values: Sequence[float]) -> NDArray[np.float64]:
        filled = np.zeros(len(entries))
        filled[active] = values
        return filled.reshape(shape)

    pairs = [entry["pat"][1] if entry["rate"] > 0 else (1.0, 1.0) for entry in there]
    weibull = over([entry["pat"][0] == "Weibull" for entry in there])
    slot, datasets = _datasets(everyone, starts, checked)
    return Grid(
        starts=tuple(starts),
        active=active.reshape(shape),
        rate_rps=over([entry["rate"] for entry in there]),
        cv=over([entry["cv"] for entry in there]),
        shape=over([pair[0] for pair in pairs]),
        scale=over([pair[1] for pair in pairs]),
        weibull=weibull > 0,
        slot=slot,
        datasets=datasets,
    )


def _plain(number: Any) -> float:
    """A number without NumPy's types."""
    plain: float = number.item() if isinstance(number, np.generic) else number
    return plain


def _datasets(
    clients: Sequence[Client], starts: Sequence[float], checked: Checked
) -> tuple[NDArray[np.int32], Datasets]:
    """Row of the datasets by client and window, int32[clients, windows], and the datasets; shared ones once."""
    fields: dict[str, int] = {}
    rows: dict[int, int] = {}
    slots: list[dict[str, list[float]]] = []
    slot = np.full((len(clients), len(starts)), -1, np.int32)
    for c, client in enumerate(clients):
        for time, dataset in client.dataset.items():
            if id(dataset) not in rows:
                rows[id(dataset)] = len(slots)
                slots.append(dataset)
                for field in dataset:
                    fields.setdefault(field, len(fields))
            # an empty dataset is none
            slot[c, np.searchsorted(starts, time) :] = rows[id(dataset)] if dataset else -1
    number = {key: n for n, key in enumerate(checked)}
    table = np.full((len(slots), len(fields)), -1, np.int32)
    for s, dataset in enumerate(slots):
        for field, pdf in dataset.items():
            table[s, fields[field]] = number[id(pdf)]
    arrays = [array for _, array in checked.values()]
    return slot, Datasets(
        fields=tuple(fields),
        table=table,
        tables=_tables(arrays),
        size=np.array([len(array) for array in arrays], np.int64),
        mean=np.array([float(np.arange(len(array)) @ array) for array in arrays], np.float64),
    )


def _tables(arrays: Sequence[NDArray[np.float64]]) -> Tables:
    """Lists of probabilities as tables over their positions."""
    if not arrays:
        return Tables(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint32))
    positions = [np.flatnonzero(array) for array in arrays]
    weights = [array[at] for array, at in zip(arrays, positions, strict=True)]
    offsets = np.cumsum([0] + [len(at) for at in positions])
    return Tables.from_weights(offsets, np.concatenate(positions), np.concatenate(weights))
