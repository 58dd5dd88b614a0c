"""What a trace holds, in figures, slab by slab: memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.digest import NO_ROWS, Digest
from servegen_gpu.errors import plain, printable
from servegen_gpu.provenance import duration_of, share_stated
from servegen_gpu.request.columns import Ragged
from servegen_gpu.text import few
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import BURST_WINDOW_S, Gaps, Timeline, microseconds

QUANTILES = (0.5, 0.9, 0.99)
SHARES = (1, 5, 10, 20)
IDENTITIES = ("conversation", "hash_ids")
"""Columns of names: how large they are says nothing."""


class _Tally:
    """How often each value occurred."""

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.empty(0, np.int64)
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        found, counts = np.unique(values, return_counts=True)
        joined = np.concatenate((self.values, found.astype(np.int64)))
        self.values, inverse = np.unique(joined, return_inverse=True)
        self.counts = np.bincount(
            inverse, weights=np.concatenate((self.counts, counts)), minlength=len(self.values)
        ).astype(np.int64)

    def summary(self) -> dict[str, float] | None:
        total = int(self.counts.sum())
        if not total:
            return None
        running = np.cumsum(self.counts)
        at = np.searchsorted(running, np.ceil(np.array(QUANTILES) * total))
        quantiles = {f"p{q * 100:.0f}": float(v) for q, v in zip(QUANTILES, self.values[at], strict=True)}
        mean = float(np.dot(self.values.astype(np.float64), self.counts) / total)
        return {"mean": mean} | quantiles | {"max": float(self.values[-1])}


class Seen:
    """What is counted of a trace, slab by slab.

    Attributes
    ----------
    timeline : Timeline
        Requests over time.
    digest : Digest
        Of all rows.
    """

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._clients = _Tally()
        self._gaps = Gaps(microseconds(BURST_WINDOW_S))
        self._provenance: dict[str, Any] = {}
        self._first_us = self._last_us = 0
        self.digest = NO_ROWS
        self.timeline = Timeline()
        self.rows = 0

    def add(self, slab: Trace) -> None:
        """Count the next slab."""
        self._provenance = dict(slab.provenance)
        self.digest += Digest.of(slab.columns)
        for name in slab:
            column = slab[name]
            if name == "arrival_us":
                continue
            if isinstance(column, Ragged):
                self._tallies.setdefault(f"{name} per request", _Tally()).add(column.lengths)
                column = column.values
            if name == "client":
                self._clients.add(column)
            elif name not in IDENTITIES:
                self._tallies.setdefault(name, _Tally()).add(column)
        if len(slab):
            self._first_us = self._first_us if self.rows else int(slab["arrival_us"][0])
            self.rows += len(slab)
            self._last_us = int(slab["arrival_us"][-1])
            self._gaps.add(slab["arrival_us"])
            self.timeline.add(slab["arrival_us"])

    @property
    def duration_s(self) -> float:
        """What the trace states, or the time of its last request; of a share, from its first request to its last."""
        if share_stated(self._provenance):
            return (self._last_us - self._first_us) / 1e6
        return duration_of(self._provenance) or self._last_us / 1e6

    def busiest(self, number: int) -> list[tuple[int, float]]:
        """The clients with most requests: ids and shares of all requests, busiest first."""
        order = np.argsort(-self._clients.counts, kind="stable")[:number]
        return [(int(self._clients.values[i]), float(self._clients.counts[i] / self.rows)) for i in order]

    def token_lengths(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Values of each column of tokens, ascending, and how often each occurred."""
        some = {name: tally for name, tally in self._tallies.items() if name.endswith("_tokens")}
        return {name: (tally.values, tally.counts) for name, tally in some.items()}

    def figures(self) -> dict[str, Any]:
        """See `describe_trace`."""
        busiest = np.cumsum(np.sort(self._clients.counts)[::-1])
        cvs = self._gaps.cvs()
        cvs = cvs[~np.isnan(cvs)]
        duration_s = self.duration_s
        return {
            "requests": self.rows,
            "duration_s": duration_s,
            "rate_rps": self.rows / duration_s if duration_s else 0.0,
            "clients": len(busiest),
            "share_of_top": {str(n): float(busiest[min(n, len(busiest)) - 1] / self.rows) for n in SHARES}
            if len(busiest)
            else {},
            "median_5_minute_cv": float(np.median(cvs)) if len(cvs) else None,
            "lengths": {name: tally.summary() for name, tally in self._tallies.items()},
            "digest": self.digest.hex,
            "provenance": self._provenance,
        }


def see(slabs: Iterable[Trace]) -> Seen:
    """Count all slabs of a trace, in order of time."""
    seen = Seen()
    for slab in slabs:
        seen.add(slab)
    return seen


def describe_trace(slabs: Iterable[Trace]) -> dict[str, Any]:
    """Figures of a trace.

    Parameters
    ----------
    slabs : iterable of Trace
        In order of time.

    Returns
    -------
    dict
        Plain numbers, texts and dicts, ready for JSON: requests, duration, rate, clients and their shares, the median
        CV of inter-arrival times in windows of five minutes, length quantiles (of lists: items per request, and
        lengths of items), digest and provenance.
    """
    return see(slabs).figures()


def format_trace_description(description: dict[str, Any]) -> str:
    """The figures of `describe_trace` as a table for the terminal."""
    d = description
    made = d["provenance"]
    cv = d["median_5_minute_cv"]
    lines = [
        printable(f"{made.get('workload', 'trace')} ({made.get('category', 'unknown category')})"),
        "",
        f"  requests    {d['requests']:,} in {d['duration_s']:,g} s: {d['rate_rps']:,.2f} req/s",
        f"  clients     {d['clients']:,}",
        "  top         " + " · ".join(f"{n}: {share:.1%}" for n, share in d["share_of_top"].items()),
        f"  gap CV      {'–' if cv is None else format(cv, '.2f')} (median of 5-minute windows, all clients together)",
        "",
        f"  {'':26}" + "".join(f"{name:>11}" for name in ("mean", "p50", "p90", "p99", "max")),
    ]
    for name, summary in d["lengths"].items():
        cells = [format(v, ",.1f" if n == "mean" else ",.0f") for n, v in summary.items()] if summary else ["–"] * 5
        lines.append(f"  {name:26}" + "".join(f"{cell:>11}" for cell in cells))
    lines += ["", f"  {'digest':15} {d['digest']}"]
    for name in ("seed", "rate", "rules", "shard", "changes", "pool_digest", "version", "stream_version"):
        if name in made:
            lines.append(f"  {name:15} {plain(str(made[name]))}")
    return "\n".join(lines)


def first_rows(trace: Trace, most: int = 5) -> str:
    """The first rows of a trace as lines of a table."""
    cells = [[name, *(cell(trace[name][row]) for row in range(min(most, len(trace))))] for name in trace]
    numbers = ["", *(str(trace.first_row + row) for row in range(min(most, len(trace))))]
    widths = [max(map(len, column)) for column in (numbers, *cells)]
    lines = zip(numbers, *cells, strict=True)
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    left = len(trace) - most
    return "\n".join([*text, *([f"… {left:,} more"] if left > 0 else [])])


def cell(value: Any) -> str:
    """A value of a column as text."""
    return few(value, 3) if isinstance(value, np.ndarray) and value.ndim else str(value)
