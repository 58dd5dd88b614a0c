"""Histograms of lengths and of gaps. Bins are 0.1 % wide, and exact below 2,048 tokens or microseconds.

Gaps need rows in order: a state has what stands at both of its ends, and the merge adds the gaps between two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import GAP_BITS, gap_bin, gap_of_bin
from servegen_gpu.reducing.loads import Figures
from servegen_gpu.reducing.reduction import Reduction, Rows, State, column_of, counted, numbers
from servegen_gpu.request.columns import Ragged

BINS = 45 << GAP_BITS
"""Up to 2**45 microseconds, or a year, beyond which all are in the last bin."""

_LOW_BITS = 16


def lengths(column: str, figures: Figures = numbers, name: str = "") -> Reduction:
    """Histogram of a column of tokens: ``counts`` int64[bins]; of lists, of their items."""

    def step(xp: Any, rows: Rows) -> State:
        values = column_of(rows, column)
        return {"counts": _counts(xp, values.values if isinstance(values, Ragged) else values)}

    return Reduction(name or f"lengths_{column}", _no_counts, step, figures=figures)


def gaps(figures: Figures = numbers, name: str = "gaps") -> Reduction:
    """Inter-arrival times of the whole trace.

    The state has ``counts`` int64[bins], ``squares`` int64[3] (of gaps as two digits: sums of high², high · low and
    low²), ``edges_us`` int64[0 or 2]: first and last arrival; and ``gaps``, their number.
    """

    def none(xp: Any) -> State:
        return dict(_no_counts(xp)) | {
            "squares": xp.zeros(3, np.int64), "edges_us": xp.zeros(0, np.int64), "gaps": xp.zeros(1, np.int64),
        }  # fmt: skip

    def step(xp: Any, rows: Rows) -> State:
        at_us = rows["arrival_us"]
        return none(xp) if not len(at_us) else _of_gaps(xp, xp.diff(at_us), xp.stack((at_us[0], at_us[-1])))

    def merge(a: State, b: State) -> State:
        if not len(a["edges_us"]) or not len(b["edges_us"]):
            return a if len(a["edges_us"]) else b
        edges_us = np.array([a["edges_us"][0], b["edges_us"][1]])
        between = _of_gaps(np, b["edges_us"][:1] - a["edges_us"][1:], edges_us)
        sums = {key: a[key] + b[key] + between[key] for key in ("counts", "squares", "gaps")}
        return sums | {"edges_us": edges_us}

    return Reduction(name, none, step, merge, figures)


def client_gaps(figures: Figures = numbers, name: str = "client_gaps") -> Reduction:
    """Inter-arrival times of every client by itself, all in one histogram.

    The state has ``counts`` int64[bins]; and ``client``, ``first_us`` and ``last_us``, int64[clients].
    """

    def none(xp: Any) -> State:
        return dict(_no_counts(xp)) | {key: xp.zeros(0, np.int64) for key in ("client", "first_us", "last_us")}

    def step(xp: Any, rows: Rows) -> State:
        client = column_of(rows, "client")
        if not len(client):
            return none(xp)
        order = xp.argsort(client, kind="stable")
        client, at_us = client[order].astype(np.int64), rows["arrival_us"][order]
        begins = xp.flatnonzero(xp.concatenate((xp.ones(1, bool), client[1:] != client[:-1])))
        ends = xp.concatenate((begins[1:], xp.asarray([len(client)]))) - 1
        gap_us = xp.diff(at_us)[client[1:] == client[:-1]]
        return {
            "counts": _counts(xp, gap_us),
            "client": client[begins],
            "first_us": at_us[begins],
            "last_us": at_us[ends],
        }

    def merge(a: State, b: State) -> State:
        _, in_a, in_b = np.intersect1d(a["client"], b["client"], assume_unique=True, return_indices=True)
        counts = a["counts"] + b["counts"] + _counts(np, b["first_us"][in_b] - a["last_us"][in_a])
        client = np.union1d(a["client"], b["client"])
        first_us, last_us = np.empty(len(client), np.int64), np.empty(len(client), np.int64)
        for part in (b, a):
            first_us[np.searchsorted(client, part["client"])] = part["first_us"]
        for part in (a, b):
            last_us[np.searchsorted(client, part["client"])] = part["last_us"]
        return {"counts": counts, "client": client, "first_us": first_us, "last_us": last_us}

    return Reduction(name, none, step, merge, figures)


def quantile_of(counts: NDArray[np.int64], p: float) -> float:
    """The middle of the bin that the quantile is in: of the least value with a share of p at or below; NaN of none."""
    running = np.cumsum(counts)
    if not running[-1]:
        return float("nan")
    rank = np.ceil(p * running[-1] * (1 - 1e-12))  # 0.28 times 25 is a little more than 7
    at = np.searchsorted(running, max(rank, 1))
    return float(gap_of_bin(np.array([at]))[0])


def gap_cv(state: State) -> float:
    """Coefficient of variation of the gaps of a trace; NaN of none."""
    n = int(state["gaps"][0])
    if not n:
        return float("nan")
    high, both, low = (int(part) for part in state["squares"])
    squares = (high << 2 * _LOW_BITS) + (both << _LOW_BITS + 1) + low
    total = int(state["edges_us"][1] - state["edges_us"][0])
    return float(np.sqrt(max(n * squares - total**2, 0)) / total) if total else float("nan")


def _no_counts(xp: Any) -> State:
    return {"counts": xp.zeros(BINS, np.int64)}


def _counts(xp: Any, values: Any) -> Any:
    return counted(xp, BINS, xp.minimum(gap_bin(values), BINS - 1))


def _of_gaps(xp: Any, gap_us: Any, edges_us: Any) -> State:
    high, low = gap_us >> _LOW_BITS, gap_us & (1 << _LOW_BITS) - 1
    squares = xp.stack([(a * b).sum() for a, b in ((high, high), (high, low), (low, low))])
    return {"counts": _counts(xp, gap_us), "squares": squares, "edges_us": edges_us, "gaps": xp.asarray([len(gap_us)])}
