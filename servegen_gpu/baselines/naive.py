"""The naive baseline: a whole workload as one client.

What the paper compares with (§6.2, Fig. 19): arrivals of one renewal process, with the burstiness of the whole and a
rate that follows the whole; lengths drawn from what all requests have together. Totals are right, but nobody is there
whose bursts bring lengths of their own: rates of short windows vary too little, and lengths do not vary with them.

>>> baseline = sg.naive(pool)  # gamma gaps, CV fitted to a sample of the pool
>>> trace = sg.generate(baseline, rate=100, duration="1h", seed=7)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.clients.named import AnyPool, as_pool
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.pooled import active_cells, pooled_rank_correlation, pooled_tables
from servegen_gpu.clients.stated.arrivals import Arrivals
from servegen_gpu.errors import OptionError
from servegen_gpu.options import check_choice
from servegen_gpu.request.families import FAMILIES, NO_FAMILY
from servegen_gpu.request.schema import scalar_field_count
from servegen_gpu.request.tables import Tables
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import BURST_WINDOW_S, Slabs, gap_cvs, median_cv

POISSON = "exponential"
DEPENDENCES = ("independent", "pooled")
SAMPLE_REQUESTS = 1 << 22
SAMPLE_STRETCHES = 24


def naive(
    source: AnyPool | Slabs,
    *,
    family: str = "gamma",
    cv: float | str = "fit",
    lengths_over: float | str = "whole",
    dependence: str = "independent",
    window_s: int | None = None,
) -> ClientPool:
    """The whole of a workload as one client.

    In every window the client has the rate of all clients together; its number of requests is random (`measured` is
    False: counts rule ``renewal``). Like any pool it takes ``rate=``, ``scale=`` and schedules, on every backend.
    Every request stands alone. Inputs that conversations make longer than a pool's tables (under any growth but
    ``"sorted"``) are in its traces only: take the baseline of one of those (but of multimodal traces, too, only text
    and items count).

    Parameters
    ----------
    source : ClientPool, name of a workload, Trace, or iterable of Trace
        Clients; or a trace, whole or as slabs in order of time. A trace gives its rate in windows of `window_s` from
        its start, the lengths of its columns, and its burstiness.
    family : {"gamma", "weibull", "exponential", …}
        Of the inter-arrival times, a name of `FAMILIES`; ``"poisson"`` is exponential, with a CV of 1.
    cv : float or "fit"
        Coefficient of variation of the inter-arrival times, 0.01 to 1,000. By default that of the source: the median
        of windows of five minutes (`fitted_cv`), to four digits. For a pool it comes from a sample at own rates, of
        up to 24 stretches spread evenly over the data and about 4 million requests at most.
    lengths_over : {"whole", "window"}, or a time
        Over what lengths are pooled: the whole data, as in the paper (which looks at three hours: ``pool.span`` cuts
        them out); each window for itself, which keeps how mean lengths move with the rate of windows; or spans such
        as ``"6h"``, counted from 0 on the time axis.
    dependence : {"independent", "pooled"}
        Fields of a request are independent of each other; or tied by the rank correlations that they have among all
        requests of a span, by a Gaussian copula. For the latter, a trace must be in memory.
    window_s : int, optional
        Of a trace: 1 to 4,294 s, 600 by default. A pool has its own windows.

    Returns
    -------
    ClientPool
        One client with id 0, named ``…-naive``. Its context limit is the largest of all clients, none if one has none.

    Raises
    ------
    OptionError
        If an argument is out of range, the source is silent, or too short for the CV to be fitted.

    Examples
    --------
    >>> sg.naive(pool.span(9 * 3600, 12 * 3600), family="weibull", cv=1.3)
    >>> sg.naive(sg.read_trace("trace.parquet"), lengths_over="window")
    """
    check_choice("a family", family, ("poisson", *FAMILIES))
    family = POISSON if family == "poisson" else family
    check_choice("dependence", dependence, DEPENDENCES)
    if isinstance(cv, str) and cv != "fit":
        raise OptionError("cv as a number, or 'fit'", repr(cv)[:60], "change cv")
    found = as_pool(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(found, ClientPool):
        if window_s is not None:
            raise OptionError("window_s with a trace only", "one for a pool", "leave it out")
        return _of_pool(found, family, cv, lengths_over, dependence)
    if not isinstance(found, Trace | Iterable):
        raise OptionError("a pool, a Trace, or its slabs", repr(source)[:60], "load or read it first")
    from servegen_gpu.baselines.of_trace import of_trace

    return of_trace(found, family, cv, lengths_over, dependence, 600 if window_s is None else window_s)


def _of_pool(pool: ClientPool, family: str, cv: float | str, lengths_over: float | str, dependence: str) -> ClientPool:
    span = (pool.first_window + np.arange(pool.windows)) // windows_per_span(lengths_over, pool.window_s)
    span -= span[0]
    spans = int(span[-1]) + 1
    cells = active_cells(pool, span)
    if not len(cells.profile):
        raise OptionError("a pool with requests", f"{pool.name}, silent throughout", "give another pool")
    arrivals = arrivals_of(family, cv, lambda: sampled_cv(pool))
    tables, row = pooled_tables(pool, cells, spans)
    limits = pool.context_tokens[np.unique(cells.profile)]
    one = one_client(
        name=f"{pool.name}-naive",
        category=pool.category,
        window_s=pool.window_s,
        first_window=pool.first_window,
        rate_rps=pool.own_rps,
        arrivals=arrivals,
        row=row[span],
        tables=tables,
        spearman=pooled_rank_correlation(pool, cells, spans) if dependence == "pooled" else None,
        context_tokens=int(limits.max()) if limits.all() else 0,
    )
    return replace(one, whole_rps=pool.whole_rps)


def sampled_cv(pool: ClientPool) -> float:
    """How bursty all clients together are: `fitted_cv` of a sample of a pool at its own rates.

    The sample has up to 24 stretches, spread evenly over the windows with requests and as long as a window, but at
    least five minutes; fewer where they would have more than 2**22 requests together, and a shorter one where one
    alone would. Conversations are left out: their later turns, spread over hours, hardly change it.
    """
    from servegen_gpu.pipeline import stream

    pool = pool.with_conversations(None)
    own_rps = pool.own_rps[: pool.period_windows]
    active = np.flatnonzero(own_rps > 0)
    if not len(active):
        raise OptionError("a pool with requests in the whole days that repeat", "silence there", "state cv=")
    stretch_s = max(float(pool.window_s), BURST_WINDOW_S)
    each = float(own_rps[active].mean()) * stretch_s
    stretches = int(np.clip(SAMPLE_REQUESTS / max(each, 1.0), 1, min(SAMPLE_STRETCHES, len(active))))
    at = active[(2 * np.arange(stretches) + 1) * len(active) // (2 * stretches)]
    cvs = []
    for window in at.tolist():
        longest_s = max(SAMPLE_REQUESTS / float(own_rps[window]) / stretches, 1e-3)
        length_s = min(stretch_s, longest_s) if stretches == 1 else stretch_s
        start_s = (pool.first_window + window) * pool.window_s
        cvs.append(gap_cvs(stream(pool, start=start_s, duration=length_s), min(BURST_WINDOW_S, length_s)))
    return median_cv(np.concatenate(cvs))


def windows_per_span(lengths_over: float | str, window_s: int) -> int:
    """Over how many windows lengths are pooled; more than there can be for the whole data."""
    if lengths_over in ("whole", "window"):
        return 1 if lengths_over == "window" else 1 << 40
    over_s = options.seconds("lengths_over", lengths_over)
    if not over_s >= window_s or over_s % window_s:
        raise OptionError(
            f"lengths_over as 'whole', 'window', or a time of whole windows of {window_s} s",
            repr(lengths_over)[:60],
            "change lengths_over",
        )
    return int(over_s / window_s)


def arrivals_of(family: str, cv: float | str, fit: Callable[[], float]) -> Arrivals:
    """Gaps of a family with the stated CV, or with the one that `fit` finds, to four digits."""
    if isinstance(cv, str):
        if not FAMILIES[family].has_shape:
            return Arrivals(family)
        cv = float(f"{fit():.4g}")
        low, high = FAMILIES[family].cv_range
        if not low <= cv <= high:
            raise OptionError(f"a CV of all arrivals from {low:g} to {high:g}", f"{cv:g}, fitted", "state cv=")
    return Arrivals(family, cv=cv)


def one_client(
    *,
    name: str,
    category: str,
    window_s: int,
    first_window: int,
    rate_rps: NDArray[np.float64],
    arrivals: Arrivals,
    row: NDArray[np.int32],
    tables: Tables,
    spearman: NDArray[np.float64] | None,
    context_tokens: int = 0,
) -> ClientPool:
    """A pool of one client with the rates float64[windows] and the rows int32[windows, fields] of `tables`."""
    shape, cv = arrivals.shape_and_cv()
    active = rate_rps[None] > 0
    scalar = scalar_field_count(category)
    return ClientPool(
        name=name,
        category=category,
        window_s=window_s,
        first_window=first_window,
        client_ids=np.zeros(1, np.int64),
        profile=np.zeros(1, np.int32),
        rate_factor=np.ones(1),
        rate_rps=np.array(rate_rps[None], np.float64),
        cv=np.where(active, cv, 0.0),
        family=np.where(active, arrivals.row.code, NO_FAMILY).astype(np.uint8),
        shape=np.where(active, shape, 0.0),
        occupancy=active.astype(np.float64),
        table=np.where(active[..., None], row[None], -1).astype(np.int32),
        tables=tables,
        measured=np.zeros(1, np.bool_),
        correlations=np.empty((0, scalar, scalar)) if spearman is None else spearman[None],
        correlation=np.full(1, -1 if spearman is None else 0, np.int32),
        context_tokens=np.full(1, context_tokens, np.int32),
    )
