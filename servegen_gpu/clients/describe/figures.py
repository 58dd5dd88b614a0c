"""Figures of windows and of clients, by name.

==================================  ==================================================================================
``rate_rps``, ``cv``                of a window
``shape``, ``occupancy``            of a window: the gap family's shape, the part of the window that a run covers
``mean_output_tokens``              mean of a field's length distribution; also ``min_`` and ``max_``
``p95_output_tokens``               its quantile: the first value whose cumulative probability reaches 95 %;
                                    any ``p`` above 0 and up to 100, such as ``p50_`` or ``p99.9_``
``mean_input_tokens``               in multimodal pools: text and all items of a request together (the mean only)
==================================  ==================================================================================

Fields are those of the pool's category (`FIELDS`); ``image_tokens`` and its like are lengths of single items, and
``reason_ratio`` is a ratio from 0 to 500/501.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.request.schema import INPUT

OF_WINDOWS = ("rate_rps", "cv", "shape", "occupancy")
OF_CLIENTS = ("activity", "requests", "rate_rps", "peak_rps", "cv")
"""Plain figures: those that are not of a field."""

STATISTICS = ("mean", "p50", "p95", "p99")
"""What is usually said of a length distribution."""

_NAME = re.compile(r"(mean|min|max|p(\d{1,3}(?:\.\d{1,6})?))_(\w+)")


def field_figure(pool: ClientPool, name: str, plain: Sequence[str]) -> tuple[str, str]:
    """Statistic and field of a name such as ``p95_output_tokens``.

    Raises
    ------
    OptionError
        For a name that means nothing here, with the nearest one that does; `plain` are the other known names.
    """
    match = _NAME.fullmatch(name)
    statistic, percent, field = match.groups() if match else ("", "0", "")
    known_statistic = percent is None or 0 < float(percent) <= 100
    if known_statistic and field in pool.fields:
        return statistic, field
    schema = pool.schema
    if known_statistic and field == schema.total and schema.items:
        if statistic == "mean":
            return statistic, field
        text, item = schema.names[INPUT], schema.items[0].item.name
        raise OptionError(
            f"the mean of {field}, or a statistic of {text} or of items, for a {schema.category} pool",
            f"{name!r}: how text and items go together in one request is not in the profiles",
            f"take mean_{field}, {statistic}_{text} or {statistic}_{item}",
        )
    statistics = dict.fromkeys((*((statistic,) if known_statistic else ()), "min", "max", *STATISTICS))
    known = [*plain, *(f"{s}_{f}" for f in pool.fields for s in statistics)]
    if schema.items:
        known.append(f"mean_{schema.total}")
    import difflib  # only for this message

    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    raise OptionError(
        f"one of {', '.join(plain)}, or a statistic (mean, min, max, p50, p95 …) of a field "
        f"({', '.join(pool.fields)}) like mean_output_tokens",
        repr(name),
        f"the nearest name is {nearest}",
    )


def window_figure(pool: ClientPool, name: str) -> NDArray[np.float64]:
    """A figure of every window, float64[profiles, windows]; rates at a factor of 1, lengths NaN where silent."""
    if name in OF_WINDOWS:
        array: NDArray[np.float64] = getattr(pool, name)
        return array
    statistic, field = field_figure(pool, name, OF_WINDOWS)
    if field in pool.fields:
        return _of_field(pool, statistic, field)
    total = _of_field(pool, "mean", pool.fields[INPUT])
    for items in pool.schema.items:
        total = total + _of_field(pool, "mean", items.count.name) * _of_field(pool, "mean", items.item.name)
    return total


def _of_field(pool: ClientPool, statistic: str, field: str) -> NDArray[np.float64]:
    """Statistic of the table that each window draws a field from, float64[profiles, windows]."""
    tables = pool.tables
    if statistic == "mean":
        of_table: NDArray[np.floating | np.integer] = tables.means
    elif statistic in ("min", "max"):
        of_table = tables.smallest if statistic == "min" else tables.largest
    else:
        of_table = tables.quantile(float(statistic[1:]) / 100)
    row = pool.schema[field]
    with_none = np.append(of_table / row.unit, np.nan)  # where row -1 points
    return np.asarray(with_none[pool.table[:, :, row.lane]])


def expected_items(pool: ClientPool, field: str) -> NDArray[np.float64] | float:
    """How many values of a field a request has, float64[profiles, windows]; 1 for all but items."""
    count = next((items.count.name for items in pool.schema.items if items.item.name == field), None)
    return _of_field(pool, "mean", count) if count else 1.0


def client_figure(pool: ClientPool, name: str) -> NDArray[np.float64]:
    """A figure of every client over the whole pool, float64[clients]; NaN where a silent client has none.

    ``activity`` is the share of windows with requests, ``requests`` their number, ``rate_rps`` the mean and
    ``peak_rps`` the largest rate of a window. ``cv`` and means of fields are weighted by requests, means of items by
    the expected number of items; ``min_`` and ``max_`` of a field are over all windows with requests. Quantiles
    would be those of a mixture, and are not offered.
    """
    rate = pool.rate_rps
    if name == "activity":
        return np.asarray((rate > 0).mean(axis=1)[pool.profile])
    if name == "peak_rps":
        return np.asarray(rate.max(axis=1)[pool.profile] * pool.rate_factor)
    if name in ("requests", "rate_rps"):
        per_window = pool.window_s if name == "requests" else 1 / pool.windows
        return np.asarray(rate.sum(axis=1)[pool.profile] * pool.rate_factor * per_window)
    if name == "cv":
        statistic, field = "mean", name
    else:
        statistic, field = field_figure(pool, name, OF_CLIENTS)
    figure, active = window_figure(pool, name), rate > 0
    if statistic in ("min", "max"):
        ignored = -np.inf if statistic == "max" else np.inf
        extreme = getattr(np, statistic)(np.where(active, figure, ignored), axis=1)
        return np.asarray(np.where(np.isinf(extreme), np.nan, extreme)[pool.profile])
    if statistic != "mean":
        raise OptionError(
            "the mean, min or max of a field over all windows of a client",
            f"{name!r}: a quantile of a mixture",
            f"take mean_{field}, or select windows with filter({name}=…)",
        )
    weight = np.where(active, rate * expected_items(pool, field), 0.0)
    total = weight.sum(axis=1)
    sums = (weight * np.where(active, figure, 0.0)).sum(axis=1)
    mean = np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(mean[pool.profile])


def kinds(pool: ClientPool) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Clients that are alike, with the same profile and rate factor.

    Returns
    -------
    first : int[kinds]
        Position of a kind's first client; ordered by profile, then by factor.
    kind : int[clients]
        Kind of each client.
    size : int[kinds]
        How many clients a kind has.
    """
    factors, rank = np.unique(pool.rate_factor, return_inverse=True)
    key = pool.profile.astype(np.int64) * len(factors) + rank
    _, first, kind, size = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return first, kind, size
