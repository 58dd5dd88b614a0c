"""Pools of clients of your own.

>>> chat = sg.client(rate=0.02, arrivals="gamma", cv=2.5, count=200,
...                  input_tokens=LogNormal(median=300, sigma=1.1), output_tokens=Exponential(400))
>>> pool = sg.pool([chat], name="my-service")

`client` says what one client does; `pool` numbers the clients and lays them out in windows. A window holds the mean
of a rate that varies; a rate that must vary faster than in windows of 600 s needs a smaller `window_s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.clients.pool import DAY_S, MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.stated.in_time import window_rates
from servegen_gpu.clients.stated.spec import ClientSpec
from servegen_gpu.clients.stated.tabulate import Lengths, grid_of, tables_of, tabulate
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.request.families import NO_FAMILY
from servegen_gpu.request.schema import scalar_field_count

MAX_CELLS = 1 << 24


def pool(
    clients: Sequence[ClientSpec],
    *,
    name: str = "custom",
    category: str | None = None,
    window_s: int = 600,
    period: float | str = "1d",
) -> ClientPool:
    """Lay out clients in windows. Ids are 0, 1, 2, … in the order given, equal clients side by side.

    Parameters
    ----------
    clients : sequence of ClientSpec
        All of one category.
    name : str
        Of the workload.
    category : str, optional
        Only to be sure: the clients decide.
    window_s : int
        Length of a window, 1 to 4,294 s. Rates are averaged over windows; distributions and burstiness change between
        them.
    period : float or str
        After this the pool repeats: whole days, or any number of windows below a day. Times are counted from 0.

    Returns
    -------
    ClientPool
        One profile for each `ClientSpec`, however many clients it stands for. Rates are intensities (`measured` is
        False): counts are random unless asked otherwise.
    """
    specs = list(clients)
    if wrong := [spec for spec in specs if not isinstance(spec, ClientSpec)]:
        raise OptionError("clients made by servegen_gpu.client", repr(wrong[0])[:60], "describe them with client(…)")
    if not specs:
        raise OptionError("at least one client", "none", "describe one with client(…)")
    kinds = sorted({spec.category for spec in specs} | ({category} if category else set()))
    if len(kinds) > 1:
        raise OptionError("clients of one category", " and ".join(kinds), "make a pool for each")
    total = sum(spec.count for spec in specs)
    if total > MAX_CLIENT_ID:
        raise OptionError(f"at most {MAX_CLIENT_ID:,} clients", f"{total:,}", "lower count")
    windows = _windows(window_s, period, len(specs))

    rate_rps = np.array([_named(window_rates, spec, spec.rate, windows, window_s) for spec in specs])
    active = rate_rps > 0
    family, shape, cv = _gaps(specs, windows, window_s, active)
    lengths = Lengths()
    table = np.stack([_table_rows(spec, windows, window_s, lengths) for spec in specs])
    correlations: list[NDArray[np.float64]] = [s.correlation for s in specs if s.correlation is not None]
    given = np.array([spec.correlation is not None for spec in specs])
    scalar = scalar_field_count(kinds[0])
    return ClientPool(
        name=name,
        category=kinds[0],
        window_s=window_s,
        first_window=0,
        client_ids=np.arange(total, dtype=np.int64),
        profile=np.repeat(np.arange(len(specs), dtype=np.int32), [spec.count for spec in specs]),
        rate_factor=np.ones(total),
        rate_rps=rate_rps,
        cv=cv,
        family=family,
        shape=shape,
        occupancy=active.astype(np.float64),
        table=np.where(active[..., None], table, -1).astype(np.int32),
        tables=tables_of([tabulate(*key) for key in lengths.rows]),
        measured=np.zeros(len(specs), np.bool_),
        correlations=np.array(correlations).reshape(-1, scalar, scalar),
        correlation=np.where(given, np.cumsum(given) - 1, -1).astype(np.int32),
        context_tokens=np.array([spec.context_tokens for spec in specs], np.int32),
    )


def _windows(window_s: int, period: float | str, profiles: int) -> int:
    """How many windows a period has."""
    if options.integer("window_s", window_s, 4294) < 1:
        raise OptionError("window_s of at least 1 s", f"{window_s}", "change window_s")
    period_s = options.seconds("period", period)
    if not period_s >= window_s or period_s % window_s or (period_s > DAY_S and period_s % DAY_S):
        raise OptionError(
            f"a period of whole days, or of whole windows of {window_s} s within a day",
            repr(period),
            "change period or window_s",
        )
    windows = int(period_s) // window_s
    if windows * profiles > MAX_CELLS:
        raise OptionError(
            f"at most {MAX_CELLS:,} windows of all kinds of clients together",
            f"{windows:,} windows, {profiles:,} kinds",
            "lengthen window_s or shorten period",
        )
    return windows


def _named(function: Any, spec: ClientSpec, *arguments: Any) -> Any:
    """What a function returns; its faults name the client."""
    try:
        return function(*arguments)
    except ServeGenError as error:
        who = f"client {spec.name!r}" if spec.name else "a client"
        raise type(error)(error.expected, f"{error.got} of {who}", error.fix) from error


def _gaps(
    specs: Sequence[ClientSpec], windows: int, window_s: int, active: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Family, shape and CV, [profiles, windows] each; zeros where silent."""
    family, shape, cv = (np.zeros(active.shape) for _ in range(3))
    for p, spec in enumerate(specs):
        held = _named(spec.arrivals.at, spec, windows, window_s)
        both = np.array([value.shape_and_cv() for value in spec.arrivals.values])[held]
        family[p] = np.array([value.row.code for value in spec.arrivals.values])[held]
        shape[p], cv[p] = both[:, 0], both[:, 1]
    return (
        np.where(active, family, NO_FAMILY).astype(np.uint8),
        np.where(active, shape, 0.0),
        np.where(active, cv, 0.0),
    )


def _table_rows(spec: ClientSpec, windows: int, window_s: int, known: Lengths) -> NDArray[np.int64]:
    """Rows of the tables by window and field, int64[windows, fields]; new distributions are entered into `known`."""
    lanes = []
    for field, steps in spec.lengths.items():
        row = [known.row(value, grid_of(field)) for value in steps.values]
        lanes.append(np.array(row)[_named(steps.at, spec, windows, window_s)])
    return np.stack(lanes, axis=1)
