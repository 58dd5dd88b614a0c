"""A trace in short windows: how many requests, how long on average, how bursty. Slab by slab, in bounded memory.

>>> seen = sg.in_windows(trace, 3.0)  # windows of three seconds, as Fig. 19 of the paper has them
>>> seen.rate_cv, seen.rank_correlation("input_tokens")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

BURST_WINDOW_S = 300.0
"""Burstiness is measured in windows of five minutes, as the paper does (Fig. 2)."""

MIN_GAPS = 30
MAX_WINDOWS = 1 << 24

Number = TypeVar("Number", np.int64, np.float64)

Slabs = Trace | Iterable[Trace]
"""A trace: whole, or its slabs in order of time."""


@dataclass(frozen=True, eq=False, repr=False)
class InWindows:
    """Requests and tokens of a trace by window. Only whole windows count: a part of one at the end is left out.

    Attributes
    ----------
    window_s : float
        Length of a window.
    requests : int64[windows]
        Number of requests.
    totals : mapping of str to float64[windows]
        Sum of every column of tokens; lists are summed over all items.
    """

    window_s: float
    requests: NDArray[np.int64]
    totals: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.requests)

    def __repr__(self) -> str:
        return f"<InWindows: {len(self):,} windows of {self.window_s:g} s, {self.requests.sum():,} requests>"

    @property
    def start_s(self) -> NDArray[np.float64]:
        """Where each window begins, seconds from the start of the trace."""
        return np.arange(len(self), dtype=np.float64) * self.window_s

    @property
    def rate_rps(self) -> NDArray[np.float64]:
        """Requests per second of each window."""
        return self.requests / self.window_s

    @property
    def rate_cv(self) -> float:
        """Coefficient of variation of the windows' rates: standard deviation over mean; NaN without a request."""
        mean = self.requests.mean()
        return float(self.requests.std() / mean) if mean else float("nan")

    def mean(self, column: str) -> NDArray[np.float64]:
        """Mean of a column of tokens by window, tokens per request; NaN in windows without requests."""
        if column not in self.totals:
            raise unknown("a column", column, self.totals)
        some = self.requests > 0
        means = np.full(len(self), np.nan)
        means[some] = self.totals[column][some] / self.requests[some]
        return means

    def rank_correlation(self, column: str) -> float:
        """Spearman correlation between the rate and the mean of a column, over windows with requests.

        NaN if either is the same in all of them. With long-tailed lengths it is a little above 0 even where nothing
        ties them to the rate: a mean over few requests more often is below the expected one than above it.
        """
        from scipy.stats import rankdata

        some = self.requests > 0
        if not some.any():
            return float("nan")
        ranks = [rankdata(x[some]) for x in (self.requests, self.mean(column))]
        a, b = (rank - rank.mean() for rank in ranks)
        spread = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / spread) if spread else float("nan")


def in_windows(trace: Slabs, window_s: float = 3.0) -> InWindows:
    """Requests and tokens of a trace in windows of equal length, counted from its start.

    Parameters
    ----------
    trace : Trace, or iterable of Trace
        Whole, or its slabs in order of time (a `Workload`, for one).
    window_s : float
        At least a microsecond, rounded to whole ones.

    Raises
    ------
    OptionError
        If the trace is shorter than a window, or has more than 2**24 of them.
    """
    window_us = microseconds(window_s)
    requests: NDArray[np.int64] = np.zeros(0, np.int64)
    totals: dict[str, NDArray[np.float64]] = {}
    end_us = 0
    for slab in slabs_of(trace):
        stated_s = duration_of(slab.provenance)
        end_us = end_us if stated_s is None else round(stated_s * 1e6)
        totals |= {name: np.zeros(len(requests)) for name in slab if name.endswith("_tokens") and name not in totals}
        if not len(slab):
            continue
        window = windows_of(slab["arrival_us"], window_us)
        end_us = max(end_us, int(slab["arrival_us"][-1]))
        first, size = int(window[0]), int(window[-1]) + 1
        requests = grown(requests, size)
        requests[first:size] += np.bincount(window - first)
        for name, total in totals.items():
            column = slab[name]
            weights = column.values if isinstance(column, Ragged) else column
            at = np.repeat(window, column.lengths) if isinstance(column, Ragged) else window
            totals[name] = grown(total, size)
            totals[name][first:size] += np.bincount(at - first, weights, minlength=size - first)
    whole = checked_count(end_us // window_us)
    if not whole:
        raise OptionError(
            f"a trace of at least one window of {window_s:g} s", f"{end_us / 1e6:g} s", "shorten window_s"
        )
    # memory grew by doubling, with room for more windows than there are, and for fewer where the end is silent
    return InWindows(
        window_us / 1e6, grown(requests, whole)[:whole], {name: grown(x, whole)[:whole] for name, x in totals.items()}
    )


def gap_cvs(trace: Slabs, window_s: float = BURST_WINDOW_S) -> NDArray[np.float64]:
    """CV of the inter-arrival times in every window, float64[windows]; NaN where there are fewer than 30 of them.

    An inter-arrival time belongs to the window in which it ends; the standard deviation is that of the population.
    """
    gaps = Gaps(microseconds(window_s))
    for slab in slabs_of(trace):
        if len(slab):
            gaps.add(slab["arrival_us"])
    return gaps.cvs()


def fitted_cv(trace: Slabs, window_s: float = BURST_WINDOW_S) -> float:
    """How bursty a trace is as a whole: the median over windows of the CV of inter-arrival times.

    Parameters
    ----------
    trace : Trace, or iterable of Trace
        Whole, or its slabs in order of time.
    window_s : float
        Five minutes by default, as in the paper (Fig. 2): long enough for many gaps, short enough for the rate to
        stay as it is.

    Raises
    ------
    OptionError
        If no window has 30 inter-arrival times.
    """
    return median_cv(gap_cvs(trace, window_s), window_s)


def median_cv(cvs: NDArray[np.float64], window_s: float = BURST_WINDOW_S) -> float:
    """Median of what `gap_cvs` gives, without windows of few gaps."""
    known = cvs[~np.isnan(cvs)]
    if not len(known):
        raise OptionError(
            f"at least {MIN_GAPS} inter-arrival times in some window of {window_s:g} s",
            f"fewer in each of {len(cvs):,} windows",
            "lengthen the windows, or state the CV",
        )
    return float(np.median(known))


class Gaps:
    """Count, sum and sum of squares of inter-arrival times by window."""

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self.sums = np.zeros((0, 3))
        self.last_us: int | None = None
        self.windows = 0

    def add(self, arrival_us: NDArray[np.int64]) -> None:
        """Count the arrivals of the next slab, int64[n], ascending, at least one."""
        before = arrival_us[:1] if self.last_us is None else np.array([self.last_us])
        gap_s = np.diff(arrival_us, prepend=before) / 1e6
        window = windows_of(arrival_us, self.window_us)
        self.windows = int(window[-1]) + 1
        if self.last_us is None:
            gap_s, window = gap_s[1:], window[1:]
        self.last_us = int(arrival_us[-1])
        if not len(window):
            return
        first, size = int(window[0]), self.windows
        self.sums = grown(self.sums, size)
        for power in range(3):
            self.sums[first:size, power] += np.bincount(window - first, weights=gap_s**power)

    def cvs(self) -> NDArray[np.float64]:
        """CV of every window so far, float64[windows]; NaN where there are few gaps."""
        n, total, squares = grown(self.sums, self.windows)[: self.windows].T
        enough = (n >= MIN_GAPS) & (total > 0)
        cv = np.full(len(n), np.nan)
        mean = total[enough] / n[enough]
        cv[enough] = np.sqrt(np.maximum(squares[enough] / n[enough] - mean**2, 0)) / mean
        return cv


class Timeline:
    """Requests over time in bins of equal width, which double whenever a trace outgrows them.

    Attributes
    ----------
    bin_us : int
        Width of a bin, microseconds.
    requests : int64[4096]
        Number of requests of each bin, counted from time 0.
    """

    def __init__(self) -> None:
        self.bin_us = 1
        self.requests = np.zeros(4096, np.int64)

    def add(self, arrival_us: NDArray[np.int64]) -> None:
        """Count the arrivals of a slab, int64[n], ascending, at least one."""
        size = len(self.requests)
        while arrival_us[-1] // self.bin_us >= size:
            self.bin_us *= 2
            self.requests[: size // 2] = self.requests.reshape(-1, 2).sum(axis=1)
            self.requests[size // 2 :] = 0
        self.requests += np.bincount(arrival_us // self.bin_us, minlength=size)

    def until(self, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges of the bins up to a time, seconds, float64[n + 1], and their requests; the last bin ends there.

        Requests after `end_s` are in the last bin.
        """
        bins = min(max(1, -(-round(end_s * 1e6) // self.bin_us)), len(self.requests))
        requests = self.requests[:bins].copy()
        requests[-1] += self.requests[bins:].sum()
        edges_s = np.arange(bins + 1, dtype=np.float64) * (self.bin_us / 1e6)
        edges_s[-1] = end_s
        return edges_s, requests


def slabs_of(trace: Slabs) -> Iterator[Trace]:
    """The slabs of a trace, its only one if it is whole."""
    if isinstance(trace, Trace):
        yield trace
        return
    if not isinstance(trace, Iterable) or isinstance(trace, str):
        raise OptionError("a Trace, or an iterable of its slabs", repr(trace)[:60], "read it with read_trace")
    for slab in trace:
        if not isinstance(slab, Trace):
            raise OptionError("slabs of a trace", repr(slab)[:60], "read them with read_trace")
        yield slab


def microseconds(window_s: float) -> int:
    """Length of a window in microseconds."""
    real = isinstance(window_s, int | float | np.integer | np.floating) and not isinstance(window_s, bool)
    if not real or not 1e-6 <= window_s <= 1e9:
        raise OptionError("window_s from 0.000001 to 1e9 seconds", repr(window_s)[:60], "change window_s")
    return round(float(window_s) * 1e6)


def windows_of(arrival_us: NDArray[np.int64], window_us: int) -> NDArray[np.int64]:
    """Number of the window of each arrival, int64[n]; refuses arrivals out of order, and too many windows."""
    falls = np.flatnonzero(np.diff(arrival_us) < 0)
    if arrival_us[0] < 0 or len(falls):
        row = int(falls[0]) + 1 if len(falls) else 0
        got = f"{arrival_us[row]:,} us in row {row:,} of a slab"
        raise OptionError("arrivals from 0 on, in ascending order", got, "sort the trace by arrival_us")
    checked_count(int(arrival_us[-1]) // window_us + 1)
    return np.asarray(arrival_us // window_us)


def checked_count(windows: int) -> int:
    """A number of windows; refused if there are too many."""
    if windows > MAX_WINDOWS:
        raise OptionError(f"at most {MAX_WINDOWS:,} windows", f"{windows:,}", "lengthen window_s")
    return windows


def grown(array: NDArray[Number], size: int) -> NDArray[Number]:
    """The array with room for at least `size` rows, zeros behind what there is; doubled, so that growing is rare."""
    if size <= len(array):
        return array
    more = np.zeros((max(size, 2 * len(array)) - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate((array, more))
