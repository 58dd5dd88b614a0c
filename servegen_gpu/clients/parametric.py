"""Clients of your own: how often, how bursty, how long, in the field's own terms.

>>> chat = sg.client(rate=0.02, arrivals="gamma", cv=2.5, count=200,
...                  input_tokens=LogNormal(median=300, sigma=1.1), output_tokens=Exponential(400))
>>> pool = sg.pool([chat], name="my-service")

A `ClientSpec` says what one client does; `pool` numbers the clients and lays them out in windows. A window holds the
mean of a rate that varies; a rate that must vary faster than windows of 600 s needs a smaller `window_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.clients.arrivals import Arrivals
from servegen_gpu.clients.correlation import spearman_matrix
from servegen_gpu.clients.distributions import Distribution, as_distribution
from servegen_gpu.clients.in_time import Steps, number_steps, rate_of, steps_of, window_rates
from servegen_gpu.clients.pool import (
    DAY_S,
    FIELDS,
    MAX_CLIENT_ID,
    MODALITIES,
    NO_FAMILY,
    ClientPool,
    scalar_field_count,
)
from servegen_gpu.clients.tabulate import Grid, grid_of, tables_of, tabulate
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.rates import Rate

MAX_CELLS = 1 << 24
MAX_CONTEXT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ClientSpec:
    """What one client does, or `count` clients alike; made by `client`.

    Attributes
    ----------
    name : str
        For messages; traces know clients by number.
    category : str
        ``"language"``, ``"reason"`` or ``"multimodal"``.
    count : int
    rate : Rate
        Of each of them.
    arrivals : Steps of Arrivals
    lengths : dict of str to Steps of Distribution
        By field, in lane order.
    correlation : float64[scalar fields, scalar fields], optional
        Spearman correlations between the fields of one request.
    context_tokens : int
        Most tokens of input and output together; 0 is no limit.
    """

    name: str
    category: str
    count: int
    rate: Rate
    arrivals: Steps
    lengths: dict[str, Steps]
    correlation: NDArray[np.float64] | None
    context_tokens: int


def client(
    *,
    rate: Any,
    arrivals: str | Arrivals | Mapping[Any, Arrivals] = "exponential",
    shape: Any = None,
    cv: Any = None,
    input_tokens: Any = None,
    output_tokens: Any = None,
    reason_ratio: Any = None,
    text_tokens: Any = None,
    image_count: Any = None,
    image_tokens: Any = None,
    audio_count: Any = None,
    audio_tokens: Any = None,
    video_count: Any = None,
    video_tokens: Any = None,
    rank_correlation: Any = None,
    context_tokens: int | None = None,
    count: int = 1,
    name: str = "",
) -> ClientSpec:
    """Describe a client; the fields that are given decide its category.

    Parameters
    ----------
    rate : float, mapping, sequence, Schedule, str or callable
        Requests per second of each client: a number, steps ``{"0h": 1, "8h": 5}``, a `Schedule` or the path of one,
        a `Diurnal` curve, or any function of the time in seconds.
    arrivals : {"exponential", "gamma", "weibull"}
        Family of the gaps; also an `Arrivals`, or ``{time: Arrivals}``.
    shape, cv : float or mapping, optional
        Shape of the family, or its coefficient of variation; one of them, which may change in time: ``{time: cv}``.
    input_tokens, output_tokens : distribution
        A number, ``{tokens: weight}``, samples, a frozen distribution of ``scipy.stats``, or one of
        ``servegen_gpu.distributions``; or ``{time: distribution}`` for one that changes in time.
    reason_ratio : distribution, optional
        Share of the output that is reasoning, 0 to 1: makes the category ``reason``.
    text_tokens, image_count, image_tokens, … : distribution, optional
        Instead of `input_tokens`: text, items of each modality, and tokens of one item; makes the category
        ``multimodal``. Modalities that are left out have no items.
    rank_correlation : mapping or float64[fields, fields], optional
        Spearman correlations between fields of a request: ``{"input_tokens:output_tokens": 0.3}``.
    context_tokens : int, optional
        Most tokens of input and output together; longer requests are cut.
    count : int
        How many clients are like this, each with the whole `rate`.
    name : str
        For messages.

    Raises
    ------
    OptionError, RateError
        If something is missing, contradicts itself or is out of range.
    """
    given = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "reason_ratio": reason_ratio,
        "text_tokens": text_tokens,
        "image_count": image_count,
        "audio_count": audio_count,
        "video_count": video_count,
        "image_tokens": image_tokens,
        "audio_tokens": audio_tokens,
        "video_tokens": video_tokens,
    }
    given = {field: value for field, value in given.items() if value is not None}
    who = f"client {name!r}" if name else "a client"
    category = _category(given, who)
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= count <= MAX_CLIENT_ID:
        raise OptionError(f"count from 1 to {MAX_CLIENT_ID:,}", f"{count!r} of {who}", "change count")
    return ClientSpec(
        name=name,
        category=category,
        count=int(count),
        rate=rate_of(rate),
        arrivals=_arrivals(arrivals, shape, cv),
        lengths={field: _lengths(field, given.get(field, 0), who) for field in FIELDS[category]},
        correlation=None if rank_correlation is None else spearman_matrix(rank_correlation, category),
        context_tokens=_context(context_tokens),
    )


def _category(given: Mapping[str, Any], who: str) -> str:
    """Category by the fields, which must be complete."""
    category = "language"
    if "reason_ratio" in given:
        category = "reason"
    elif any(field.startswith(("text", *MODALITIES)) for field in given):
        category = "multimodal"
    if foreign := [field for field in given if field not in FIELDS[category]]:
        raise OptionError(
            f"fields of one category ({category}: {', '.join(FIELDS[category])})",
            f"{', '.join(foreign)} as well for {who}",
            "leave it out",
        )
    needed = [field for field in FIELDS[category] if not field.startswith(MODALITIES)]
    for modality in MODALITIES:
        pair = (f"{modality}_count", f"{modality}_tokens")
        needed += pair if any(field in given for field in pair) else ()
    if missing := [field for field in needed if field not in given]:
        raise OptionError(f"{', '.join(missing)} of {who}", "none", "add it")
    return category


def _arrivals(arrivals: Any, shape: Any, cv: Any) -> Steps:
    """Gaps in time from a family, and a shape or a CV that may change."""
    if not isinstance(arrivals, str):
        if shape is not None or cv is not None:
            raise OptionError("shape and cv inside Arrivals", "beside it as well", "leave out one of them")
        steps = steps_of(arrivals)
        if wrong := [value for value in steps.values if not isinstance(value, Arrivals)]:
            raise OptionError("Arrivals, or the name of a family", repr(wrong[0])[:60], "see servegen_gpu.Arrivals")
        return steps
    if shape is not None and cv is not None:
        raise OptionError("shape or cv", "both", "leave out one of them")
    if shape is not None:
        return number_steps(shape).map(lambda value: Arrivals(arrivals, shape=value))
    return number_steps(cv).map(lambda value: Arrivals(arrivals, cv=value))


def _lengths(field: str, value: Any, who: str) -> Steps:
    """Distributions in time of a field, tried on its grid so that faults are found here."""
    try:
        steps = steps_of(value).map(as_distribution)
        for distribution in steps.values:
            tabulate(distribution, grid_of(field))
        return steps
    except ServeGenError as error:
        raise OptionError(error.expected, f"{error.got} for {field} of {who}", error.fix) from error


def _context(context_tokens: int | None) -> int:
    if context_tokens is None:
        return 0
    whole = hasattr(context_tokens, "__index__") and not isinstance(context_tokens, bool)
    if not whole or not 2 <= context_tokens <= MAX_CONTEXT:
        raise OptionError(
            "context_tokens of at least 2, a token of input and one of output", repr(context_tokens), "change it"
        )
    return int(context_tokens)


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
    rows: dict[tuple[Distribution, Grid], int] = {}
    table = np.stack([_table_rows(spec, windows, window_s, rows) for spec in specs])
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
        tables=tables_of([tabulate(*key) for key in rows]),
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
        family[p] = np.array([value.code for value in spec.arrivals.values])[held]
        shape[p], cv[p] = both[:, 0], both[:, 1]
    return (
        np.where(active, family, NO_FAMILY).astype(np.uint8),
        np.where(active, shape, 0.0),
        np.where(active, cv, 0.0),
    )


def _table_rows(
    spec: ClientSpec, windows: int, window_s: int, rows: dict[tuple[Distribution, Grid], int]
) -> NDArray[np.int64]:
    """Rows of the tables by window and field, int64[windows, fields]; new distributions are entered into `rows`."""
    lanes = []
    for field, steps in spec.lengths.items():
        row = [rows.setdefault((value, grid_of(field)), len(rows)) for value in steps.values]
        lanes.append(np.array(row)[_named(steps.at, spec, windows, window_s)])
    return np.stack(lanes, axis=1)
