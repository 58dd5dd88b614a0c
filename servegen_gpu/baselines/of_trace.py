"""The naive baseline of a trace: its rates, its burstiness, its lengths; who sent what is not asked.

One pass over the slabs; memory grows with the number of different lengths, not with that of requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.baselines.naive import arrivals_of, one_client, windows_per_span
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.pooled import check_bins, rank_correlation
from servegen_gpu.errors import OptionError
from servegen_gpu.options import integer
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import FIELDS, OUTPUT, RATIO_STEPS, Kind, of, scalar_field_count
from servegen_gpu.request.schema import category_of as category_by
from servegen_gpu.request.tables import Tables
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import (
    BURST_WINDOW_S,
    Gaps,
    Slabs,
    checked_count,
    grown,
    median_cv,
    microseconds,
    slabs_of,
    windows_of,
)

LARGEST = 2**31 - 1
VALUE_BITS = 32
FEW = 10
"""Requests that a part of a window should have at the mean rate, for its rate to say something."""


def of_trace(
    source: Slabs, family: str, cv: float | str, lengths_over: float | str, dependence: str, window_s: int
) -> ClientPool:
    """See `servegen_gpu.naive`; arguments are checked but for `lengths_over` and `window_s`."""
    if integer("window_s", window_s, 4294) < 1:
        raise OptionError("window_s of at least 1 s", f"{window_s}", "change window_s")
    if dependence == "pooled" and not isinstance(source, Trace):
        raise OptionError(
            "a Trace in memory for dependence='pooled'", "its slabs", "join them with Trace.concat, or leave it out"
        )
    per_span, window_us = windows_per_span(lengths_over, window_s), microseconds(window_s)
    gaps = Gaps(microseconds(BURST_WINDOW_S))
    counts: NDArray[np.int64] = np.zeros(0, np.int64)
    tallies: dict[str, _SpanHistogram] = {}
    category, stated_us, name, first_us = "", 0, "trace", 0
    for slab in slabs_of(source):
        category = category or category_of(slab)
        stated_us = round((duration_of(slab.provenance) or 0.0) * 1e6)
        name = slab.provenance.get("workload", name)
        if not len(slab):
            continue
        arrival_us = slab["arrival_us"]
        first_us = first_us if len(counts) else int(arrival_us[0])
        gaps.add(arrival_us)
        window = windows_of(arrival_us, window_us)
        first, size = int(window[0]), int(window[-1]) + 1
        counts = grown(counts, size)
        counts[first:size] += np.bincount(window - first)
        for field, (row, value) in lengths(slab, category).items():
            tallies.setdefault(field, _SpanHistogram()).add(window[row] // per_span, value, int(window[-1]) // per_span)
    if gaps.last_us is None:
        raise OptionError("a trace with requests", "an empty one", "give another trace")
    # silence at the end belongs to a trace whose length is known
    windows = max(gaps.last_us // window_us + 1, checked_count(-(-stated_us // window_us)))
    counts = grown(counts, windows)[:windows]
    arrivals = arrivals_of(family, cv, lambda: median_cv(gaps.cvs()))

    covered_s = np.full(windows, float(window_s))
    end_us = _end_us(stated_us, first_us, gaps.last_us, int(counts.sum()))
    covered_s[-1] = min((end_us - (windows - 1) * window_us) / 1e6, window_s)
    span = np.arange(len(counts)) // per_span
    active = np.unique(span[counts > 0])
    tables = Tables.join([tallies[field].tables(active) for field in FIELDS[category]])
    table = np.full((int(span[-1]) + 1, len(FIELDS[category])), -1, np.int32)
    table[active] = np.arange(len(active))[:, None] + len(active) * np.arange(len(FIELDS[category]))
    return one_client(
        name=f"{name}-naive",
        category=category,
        window_s=window_s,
        first_window=0,
        rate_rps=_rates(counts, covered_s, window_s),
        arrivals=arrivals,
        row=table[span],
        tables=tables,
        spearman=_spearman(source, category, window_us, per_span)
        if isinstance(source, Trace) and dependence == "pooled"
        else None,
    )


def _rates(counts: NDArray[np.int64], covered_s: NDArray[np.float64], window_s: int) -> NDArray[np.float64]:
    """Rate of each window, float64[windows].

    A last window of which too little is covered to tell its rate, such as a microsecond with the last request in it,
    has the rate of the one before.
    """
    rate_rps = counts / covered_s
    expected = covered_s[-1] * counts.sum() / covered_s.sum()
    if len(counts) > 1 and counts[-1] and expected < FEW and covered_s[-1] < window_s / 2:
        rate_rps[-1] = max(rate_rps[-2], counts[-1] / window_s)
    return np.asarray(rate_rps)


def _end_us(stated_us: int, first_us: int, last_us: int, requests: int) -> float:
    """Where a trace ends: as its provenance says, or a mean inter-arrival time after its last request."""
    if stated_us > last_us:
        return stated_us
    if last_us == first_us:
        return float("inf")  # nothing to go by: the window counts as whole
    return last_us + (last_us - first_us) / (requests - 1)


def category_of(trace: Trace) -> str:
    """Category of a trace by its columns, which must be complete."""
    category = category_by(trace, of_columns=True)
    needed = ["arrival_us", *(f.column for f in of(category).scalars if f.kind is Kind.ONCE and f.default is None)]
    if missing := [name for name in needed if name not in trace]:
        raise OptionError(f"the columns {', '.join(needed)}", f"none named {', '.join(missing)}", "add it to the trace")
    return category


def lengths(slab: Trace, category: str) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What the requests of a slab have in every field: rows int64[n] and values int64[n], a row for each item."""
    every = np.arange(len(slab))
    found: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    schema = of(category)
    for field in schema.scalars:
        if field.kind is Kind.RATIO:
            both = (field.column, schema.fields[OUTPUT].column)
            reason, output = (_checked(name, slab[name]) for name in both)
            if (more := np.flatnonzero(reason > output)).size:
                got = f"{reason[more[0]]} of {output[more[0]]} in row {slab.first_row + more[0]:,}"
                raise OptionError(f"{both[0]} as a part of {both[1]}", got, "fix the trace")
            row = np.flatnonzero(output)  # without an output nothing is said of its share
            steps = (2 * RATIO_STEPS * reason[row] + output[row]) // (2 * output[row])
            found[field.name] = (row, np.minimum(steps, RATIO_STEPS - 1))
        elif field.kind is Kind.ONCE:
            values = slab[field.column] if field.column in slab else np.full(len(slab), field.default)
            found[field.name] = (every, _checked(field.name, values))
    for count, item in ((m.count.name, m.item.name) for m in schema.items):
        lists = slab[item] if item in slab else Ragged(np.zeros(len(slab) + 1, np.int64), np.zeros(0, np.int32))
        if not isinstance(lists, Ragged):
            raise OptionError(f"{item} as lists", "single numbers", "make them a Ragged column")
        found[count] = (every, lists.lengths)
        found[item] = (np.repeat(every, lists.lengths), _checked(item, lists.values))
    return found


def _checked(name: str, column: Any) -> NDArray[np.int64]:
    if isinstance(column, Ragged) or column.dtype.kind not in "iu":
        raise OptionError(f"{name} as whole numbers", "another type", "convert the column")
    if len(column) and not (column.min() >= 0 and column.max() <= LARGEST):
        raise OptionError(f"{name} from 0 to {LARGEST:,}", f"{column.min()} to {column.max()}", "fix the trace")
    return np.asarray(column, np.int64)


class _SpanHistogram:
    """How often each value of a field occurred in each span; spans come in order of time."""

    def __init__(self) -> None:
        self.done: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self.bins = 0
        self.key: NDArray[np.int64] = np.zeros(0, np.int64)
        self.count: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, span: NDArray[np.int64], value: NDArray[np.int64], last_span: int) -> None:
        """Count values; no later ones come for spans before `last_span`."""
        key, count = np.unique(span << VALUE_BITS | value, return_counts=True)
        key, at = np.unique(np.concatenate((self.key, key)), return_inverse=True)
        count = np.bincount(at, np.concatenate((self.count, count)), len(key)).astype(np.int64)
        over = int(np.searchsorted(key, last_span << VALUE_BITS))
        if over:
            self.done.append((key[:over], count[:over]))
            self.bins += over
        self.key, self.count = key[over:], count[over:]
        check_bins(self.bins + len(self.key))

    def tables(self, spans: NDArray[np.int64]) -> Tables:
        """A table for each of `spans`, int64[n], ascending; always 0 where nothing was counted."""
        key, count = (np.concatenate(parts) for parts in zip(*self.done, (self.key, self.count), strict=True))
        silent = np.setdiff1d(spans, key >> VALUE_BITS)
        key = np.concatenate((key, silent << VALUE_BITS))
        order = np.argsort(key, kind="stable")
        key, count = key[order], np.concatenate((count, np.ones(len(silent), np.int64)))[order]
        offsets = np.append(np.searchsorted(key, spans << VALUE_BITS), len(key))
        return Tables.from_weights(offsets, key & LARGEST, count)


def _spearman(trace: Trace, category: str, window_us: int, per_span: int) -> NDArray[np.float64]:
    """Rank correlations between the fields of a request, within spans."""
    from scipy.stats import rankdata

    found = lengths(trace, category)
    rank = np.full((scalar_field_count(category), len(trace)), 0.5)
    for lane, field in enumerate(FIELDS[category][: len(rank)]):
        row, value = found[field]
        rank[lane, row] = (rankdata(value) - 0.5) / max(len(value), 1)
    span = windows_of(trace["arrival_us"], window_us) // per_span
    return rank_correlation(rank, span, np.ones(len(trace)), int(span[-1]) + 1)
