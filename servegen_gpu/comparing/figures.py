"""All figures of one trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.arrivals import LAGS, PEAK_S, RATE_S, STEP_S, arrival_measures
from servegen_gpu.comparing.caches import CACHE_SHARES, cache_measures, cache_name
from servegen_gpu.comparing.lengths import ITEMS, item_measures, request_measures
from servegen_gpu.comparing.measures import Measure
from servegen_gpu.comparing.seen import Seen, seen_of
from servegen_gpu.comparing.talks import talk_measures
from servegen_gpu.comparing.ticks import tick_us_of
from servegen_gpu.windowed import Slabs

TOP_SHARES = (1, 5, 10)


@dataclass(frozen=True)
class About:
    """What a figure is: a word for the table, a unit, the group that it belongs to, and what is near its interval.

    Figures of kind ``scale`` are compared by ratios; shares and correlations, of kind ``share``, by differences.
    """

    label: str
    unit: str
    group: str
    kind: str = "share"


def _about() -> Iterator[tuple[str, About]]:
    yield "requests", About("requests", "", "volume", "scale")
    yield "rate_rps", About("mean rate", "req/s", "volume", "scale")
    for side in ("input", "output"):
        yield f"mean_{side}", About(f"mean {side}", "tokens", "volume", "scale")
    columns = (("requests", ""), ("input tokens", "input_"), ("output tokens", "output_"))
    for what, prefix in columns:
        for window_s in STEP_S:
            yield f"{prefix}idc_{window_s}s", About(f"dispersion of {what}, {window_s} s", "", "dispersion", "scale")
    yield "gap_cv", About("CV of inter-arrival times", "", "arrivals", "scale")
    yield "empty_1s", About("share of empty seconds", "", "arrivals")
    for lag in LAGS:
        yield f"acf_{lag}", About(f"autocorrelation of 10-s counts, lag {lag}", "", "arrivals")
    for what, prefix in columns:
        for window_s in PEAK_S:
            yield f"{prefix}peak_{window_s}s", About(f"most {what} in {window_s} s", "", "peaks", "scale")
    yield "io_spearman", About("rank correlation of input and output", "", "dependence")
    for side in ("input", "output"):
        for window_s in RATE_S:
            label = f"rank correlation of rate and mean {side}, {window_s} s"
            yield f"rate_{side}_{window_s}s", About(label, "", "dependence")
    for side in ("input", "output"):
        yield f"serial_{side}", About(f"serial rank correlation of {side}s", "", "dependence")
    yield "match_share", About("inputs within 5 tokens of one of the last 20", "", "dependence")
    yield "match_excess", About("the same, less what chance gives", "", "dependence")
    yield "reason_share", About("mean share of reasoning in outputs", "", "reasoning")
    for n in TOP_SHARES:
        clients = "client" if n == 1 else f"{n} clients"
        yield f"top_{n}_share", About(f"share of the largest {clients}", "", "clients")
    for share in CACHE_SHARES:
        label = f"blocks in an LRU cache of {share:.0%} of the log's"
        yield cache_name(share), About(label, "", "cache")
    yield "talk_share", About("share of requests in conversations", "", "conversations")
    yield "talk_turns", About("mean number of turns", "", "conversations", "scale")
    yield "turn_gap_p50_s", About("median time between turns", "s", "conversations", "scale")
    yield "turn_gap_p90_s", About("90 % point of times between turns", "s", "conversations", "scale")
    yield "turn_growth", About("mean growth of the input by turn", "tokens", "conversations", "scale")
    for item in ITEMS:
        yield f"{item}_share", About(f"share of requests with {item}s", "", "items")
        yield f"{item}_count", About(f"mean number of {item}s of those", "", "items", "scale")


ABOUT = dict(_about())
"""Every figure of a trace by its name, in the order of tables."""


@dataclass(frozen=True, eq=False, repr=False)
class Figures:
    """The figures of one trace, by the names of `ABOUT`; those that it does not have are left out.

    Attributes
    ----------
    seen : Seen
        What was kept of the trace.
    blocks : int64[sizes]
        Sizes of caches, in blocks.
    """

    seen: Seen
    blocks: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"<Figures of {self.seen.name}: {self.seen.rows:,} requests in {self.seen.seconds:,g} s>"

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def __contains__(self, name: object) -> bool:
        return name in self.values

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Figures that are sums over time."""
        found = [*arrival_measures(self.seen), *request_measures(self.seen), *item_measures(self.seen)]
        return dict([*found, *talk_measures(self.seen), *cache_measures(self.seen, self.blocks)])

    @cached_property
    def values(self) -> Mapping[str, float]:
        """All figures by name, in the order of `ABOUT`; NaN where they have no value, as correlations of constants."""
        found: dict[str, float] = {"requests": float(self.seen.rows)}
        found |= {name: measure.value() for name, measure in self.measures.items()}
        if self.seen.clients is not None:
            found |= top_shares(self.seen.clients.points()[1])
        return {name: found[name] for name in ABOUT if name in found}

    @cached_property
    def tick_us(self) -> int:
        """On what ticks the time stamps sit, microseconds."""
        return tick_us_of(self.seen.stamps)


def figures_of(trace: Slabs, *, like: Figures | None = None) -> Figures:
    """Figures of a trace, whole or as slabs in order of time, in one pass and bounded memory.

    Parameters
    ----------
    trace : Trace, or iterable of Trace
    like : Figures, optional
        Of the log that it is compared with: its sizes of caches.

    Raises
    ------
    OptionError
        If the trace has no request, is out of order, or has no times.

    Examples
    --------
    >>> found = figures_of(trace)
    >>> found["idc_10s"], found["peak_60s"], dict(found.values)
    """
    seen = seen_of(trace)
    return figures_of_seen(seen) if like is None else Figures(seen, like.blocks)


def figures_of_seen(seen: Seen) -> Figures:
    """Figures of what was kept of a trace with requests."""
    ordered = np.sort(seen.blocks[0].values)  # NumPy's unique hashes, which takes ten times as long here
    distinct = int(np.count_nonzero(np.diff(ordered))) + len(ordered[:1])
    return Figures(seen, np.maximum(np.rint(np.array(CACHE_SHARES) * distinct), 1).astype(np.int64))


def top_shares(clients: NDArray[np.integer]) -> dict[str, float]:
    """Shares of the largest clients, of the numbers of requests of all of them; none if there is only one."""
    if len(clients) < 2:
        return {}
    busiest = np.cumsum(np.sort(clients)[::-1]) / clients.sum()
    return {f"top_{n}_share": float(busiest[min(n, len(busiest)) - 1]) for n in TOP_SHARES}
