"""How alike a log and other traces are: `compare`.

>>> found = sg.compare(log, sg.naive(log))
>>> print(found.table())
>>> found["idc_10s"].verdict
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from servegen_gpu import options
from servegen_gpu.clients.named import pool_or_trace
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.comparing.comparison import Comparison, Row, Side, verdict
from servegen_gpu.comparing.curves import curves_of
from servegen_gpu.comparing.distances import DISTANCES, Distances
from servegen_gpu.comparing.figures import ABOUT, About, Figures, figures_of
from servegen_gpu.comparing.floors import FEWEST_BLOCKS, Floor
from servegen_gpu.errors import OptionError, nearest
from servegen_gpu.pipeline import Workload
from servegen_gpu.trace import Trace

FEWEST_WINDOWS = 5
FEWEST_TICKS = 10
FEWEST_REQUESTS = 30
ALIKE_S = 1.25
"""Counts and peaks are compared if one trace is at most so many times as long as the other."""
GROUPS = {about.group: None for about in (ABOUT | DISTANCES).values()}
NAMES = sorted(ABOUT | DISTANCES, key=lambda name: list(GROUPS).index((ABOUT | DISTANCES)[name].group))
"""All figures, by group: first those of a trace, then distances."""


def compare(
    log: Any,
    other: Any,
    *,
    naive: bool | str = False,
    only: str | Sequence[str] | None = None,
    replicas: int = 20,
    seed: int = 0,
) -> Comparison:
    """Figures of a log and of other traces, side by side, each with what the log's own chance allows, and a verdict.

    Every trace is read once, slab by slab, in bounded memory. Verdicts: a figure is *inside* where it lies in the
    interval that 90 % of block resamples of the log have, made wider by √(1 + 1/n) for n traces of the log's length on
    the other side, which are random, too; a distance where it is no larger than the log's floor: that of its halves,
    or what 95 % of pairs of resamples have. *Near* is beyond by a factor of 1.25, by 0.02 of a share or correlation,
    0.01 of a KS, 0.005 of an energy distance. No verdict, and why, where the log or its time stamps do not say enough.
    See `servegen_gpu.comparing.figures.ABOUT` for all figures, `arrivals` for windows, `seen` for what is sampled.

    Parameters
    ----------
    log : Trace, its slabs, path, or Figures
        The reference. Slabs may come from an iterable of traces or a `Workload`; `Figures` are those of a trace that
        was read before.
    other : Trace, slabs, path, Figures, ClientPool, name of a workload, or iterable of these
        What is held against it: a trace, or replicas of a model, of which means count (medians of peaks). In an
        iterable of traces each that begins with row 0 is a trace, and those with later rows continue it. A pool is
        sampled for as long as the log lasts, with counts that are random (``renewal``).
    naive : bool or str
        Compare `servegen_gpu.naive` of the log as well; True, or a family such as ``"poisson"``.
    only : str or sequence of str, optional
        Figures by name or group; ``*`` stands for anything: ``"idc_*"``.
    replicas : int
        Of a pool, and of the naive baseline.
    seed : int
        Of pools.

    Raises
    ------
    OptionError
        If a trace is empty, the log has a single request, or a figure has no such name.

    Examples
    --------
    >>> sg.compare("log.csv", pool, replicas=200, naive=True).svg()
    >>> sg.compare(log, [sg.generate(pool, duration="1h", replica=r) for r in range(5)], only=["dispersion", "*_ks"])
    """
    wanted = chosen(only)
    replicas, seed = options.integer("replicas", replicas, 10_000), options.integer("seed", seed, 2**64 - 1)
    if not replicas:
        raise OptionError("replicas of at least 1", "0", "change replicas")
    if naive and isinstance(log, Iterator | Figures):
        fix = "give the trace, or its path"
        raise OptionError("a log that can be read twice with naive", f"{type(log).__name__}", fix)
    ours = log if isinstance(log, Figures) else figures_of(_opened(log))
    if ours.seen.rows < 2 or not ours.seen.end_us:
        raise OptionError(
            f"a log of at least two requests at different times, better {FEWEST_REQUESTS} and more",
            f"{ours.seen.rows:,} in {ours.seen.seconds:g} s",
            "record for longer",
        )
    held = _Against(ours, wanted)
    base = None
    if naive:
        from servegen_gpu.baselines.naive import naive as baseline

        pool = baseline(_opened(log), family="gamma" if naive is True else naive)
        base = held.measured(_sampled(pool, ours, replicas, seed))
    measured = held.measured(_traces(other, ours, replicas, seed))
    return held.comparison(measured, base)


def chosen(only: str | Sequence[str] | None) -> list[str]:
    """Names of figures by name, group or pattern, in the order of tables."""
    if only is None:
        return NAMES
    wanted: set[str] = set()
    about = ABOUT | DISTANCES
    for pattern in [only] if isinstance(only, str) else only:
        found = [name for name in NAMES if pattern == about[name].group or fnmatch.fnmatchcase(name, str(pattern))]
        if not found:
            raise OptionError(
                f"a group ({', '.join(GROUPS)}) or figures among {', '.join(NAMES)}",
                repr(pattern)[:60],
                f"did you mean {near!r}?" if (near := nearest(pattern, (*GROUPS, *NAMES))) else "choose some of them",
            )
        wanted.update(found)
    return [name for name in NAMES if name in wanted]


def _opened(source: Any) -> Any:
    """A trace, or its slabs."""
    if isinstance(source, str | os.PathLike):
        from servegen_gpu.formats import read_slabs

        return read_slabs(source)
    return source


def _traces(other: Any, log: Figures, replicas: int, seed: int) -> Iterator[Figures]:
    """Figures of the traces of the other side, one after the other."""
    other = pool_or_trace(other)
    if isinstance(other, ClientPool):
        yield from _sampled(other, log, replicas, seed)
    elif isinstance(other, Figures):
        yield Figures(other.seen, log.blocks)
    elif isinstance(other, Trace | Workload | str | os.PathLike):
        yield figures_of(_opened(other), like=log)
    elif not isinstance(other, Iterable):
        fix = "read it with read_trace, or give a pool"
        raise OptionError("a Trace, traces, a path or a pool", repr(other)[:60], fix)
    else:
        items = _Ahead(iter(other))
        while items.more:
            if isinstance(items.next, Trace):
                yield figures_of(items.slabs(), like=log)
            else:
                yield from _traces(items.take(), log, replicas, seed)


class _Ahead:
    """An iterator that shows its next item: where it begins a trace, the one before is complete."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items
        self.take()

    def take(self) -> Any:
        """The next item."""
        taken = getattr(self, "next", None)
        self.next = next(self.items, None)
        self.more = self.next is not None
        return taken

    def slabs(self) -> Iterator[Trace]:
        """The slabs of one trace."""
        yield self.take()
        while isinstance(self.next, Trace) and self.next.first_row > 0:
            yield self.take()


def _sampled(pool: ClientPool, log: Figures, replicas: int, seed: int) -> Iterator[Figures]:
    """Replicas of a pool, as long as the log."""
    from servegen_gpu.pipeline import stream

    first = stream(pool, duration=log.seen.seconds, counts="renewal", empty="skip", seed=seed)
    yield figures_of(first, like=log)
    for replica in range(1, replicas):
        yield figures_of(stream(first.packed, seed=seed, replica=replica), like=log)


class _Measured:
    """The traces of one side: values of each, and the first of them."""

    def __init__(self, first: Figures) -> None:
        self.first = first
        self.values: dict[str, list[float]] = {}
        self.requests: list[int] = []
        self.seconds: list[float] = []
        self.tick_us = 1

    def center(self, name: str) -> float:
        """Mean over traces, or the median of peaks."""
        values = [value for value in self.values.get(name, []) if np.isfinite(value)]
        if not values:
            return float("nan")
        return float(np.median(values) if "peak" in name else np.mean(values))

    def spread(self, name: str) -> tuple[float, float] | None:
        """5 and 95 % points, if there are several traces."""
        values = [value for value in self.values.get(name, []) if np.isfinite(value)]
        if len(self.requests) < 2 or not values:
            return None
        low, high = np.quantile(values, (0.05, 0.95))
        return float(low), float(high)

    def side(self, name: str) -> Side:
        """What was compared."""
        return Side(name, len(self.requests), float(np.mean(self.requests)), float(np.mean(self.seconds)), self.tick_us)


class _Against:
    """A log, and what it says of others."""

    def __init__(self, log: Figures, wanted: list[str]) -> None:
        self.log, self.wanted = log, wanted
        self.floor, self.distances = Floor(log), Distances(log)
        self.apart = any(name in DISTANCES for name in wanted)
        self.floors = self.floor.distances() if self.apart else {}

    def measured(self, traces: Iterator[Figures]) -> _Measured:
        """Figures and distances of traces; what was kept of all but the first is dropped."""
        found: _Measured | None = None
        for figures in traces:
            found = found or _Measured(figures)
            found.requests.append(figures.seen.rows)
            found.seconds.append(figures.seen.seconds)
            found.tick_us = max(found.tick_us, figures.tick_us)
            values = dict(figures.values) | (self.distances.of(figures) if self.apart else {})
            for name, value in values.items():
                found.values.setdefault(name, []).append(value)
        if found is None:
            raise OptionError("at least one trace to compare with the log", "none", "give one")
        return found

    def comparison(self, other: _Measured, naive: _Measured | None) -> Comparison:
        """All rows."""
        about = ABOUT | DISTANCES
        there = [name for name in self.wanted if name in other.values and (name in DISTANCES or name in self.log)]
        if not there:
            raise OptionError(
                "figures that both sides have",
                f"none of {', '.join(self.wanted[:5])}{', …' * (len(self.wanted) > 5)}",
                "choose other figures, or give traces with the same columns",
            )
        rows = [self._row(name, about[name], other, naive) for name in there]
        base = naive.side(f"naive of {self.log.seen.name}") if naive is not None else None
        sides = {"log": self.log, "other": other.first} | ({"naive": naive.first} if naive is not None else {})
        return Comparison(
            rows=tuple(rows),
            log=Side(self.log.seen.name, 1, self.log.seen.rows, self.log.seen.seconds, self.log.tick_us),
            other=other.side(other.first.seen.name),
            naive=base,
            dispersion_error=_errors(rows),
            block_s=self.floor.block_s,
            notes=tuple(self._notes(other)),
            curves=curves_of(sides),
        )

    def _row(self, name: str, about: About, other: _Measured, naive: _Measured | None) -> Row:
        ours, low, high, halves = float("nan"), float("nan"), float("nan"), None
        if name in DISTANCES:
            low, high = 0.0, self.floors.get(name, float("nan"))
        else:
            ours = self.log[name]
            low, high, halves = self.floor.interval(name)

        def judged(side: _Measured | None) -> tuple[tuple[float, float], str, str]:
            if side is None:
                return (low, high), "", ""
            ends = self._widened(about.kind, ours, (low, high), side)
            why = self._why_not(name, side, high)
            return ends, "-" if why else verdict(about.kind, side.center(name), *ends), why

        ends, said, why = judged(other)
        _, naive_said, _ = judged(naive)
        if said == "-" and not why:
            why = "the figure has no value"
        return Row(
            name=name,
            label=about.label,
            unit=about.unit,
            group=about.group,
            kind=about.kind,
            log=_known(ours),
            other=_known(other.center(name)),
            spread=other.spread(name),
            floor=ends if np.isfinite(ends[1]) else None,
            halves=halves if halves is not None and np.isfinite(halves).all() else None,
            verdict=said,
            why=why,
            naive=_known(naive.center(name)) if naive is not None else None,
            naive_verdict=naive_said,
        )

    def _widened(self, kind: str, ours: float, ends: tuple[float, float], side: _Measured) -> tuple[float, float]:
        """The interval with what is random on the other side; a floor is that of two traces of the log's length."""
        longer = self.log.seen.seconds / max(float(np.mean(side.seconds)), 1e-6)
        low, high = ends
        if kind in ("ks", "energy"):
            scale = (1 + longer) / 2
            return low, high * (max(scale, 1.0) if kind == "energy" else max(scale, 1.0) ** 0.5)
        by = min(float(np.sqrt(1 + longer / len(side.requests))), 10.0)
        if kind == "scale" and 0 < low <= ours <= high:
            return ours * (low / ours) ** by, ours * (high / ours) ** by
        return ours - (ours - low) * by, ours + (high - ours) * by

    def _why_not(self, name: str, side: _Measured, high: float) -> str:
        """Why nothing can be said of a figure; empty if something can."""
        log, tick_s = self.log.seen, max(self.log.tick_us, side.tick_us) / 1e6
        window_s = _window_s(name)
        if log.rows < FEWEST_REQUESTS or min(side.requests) < FEWEST_REQUESTS:
            return f"fewer than {FEWEST_REQUESTS} requests"
        if window_s and window_s < FEWEST_TICKS * tick_s:
            return f"time stamps on ticks of {tick_s:g} s, for windows of fewer than {FEWEST_TICKS}"
        if name.startswith("gap") and tick_s > log.seconds / log.rows:
            return f"time stamps on ticks of {tick_s:g} s, longer than the mean inter-arrival time"
        if window_s and log.seconds < FEWEST_WINDOWS * window_s:
            return f"the log lasts {log.seconds:,.4g} s, for fewer than {FEWEST_WINDOWS} windows"
        longer = float(np.mean(side.seconds)) / log.seconds
        if ("peak" in name or name == "requests") and not 1 / ALIKE_S <= longer <= ALIKE_S:
            return "traces of other lengths than the log"
        if not np.isfinite(high):
            if self.floor.blocks < FEWEST_BLOCKS:
                return f"the log has fewer than {FEWEST_BLOCKS} blocks of {self.floor.block_s} s"
            return "the log's own figure has no interval"
        return ""

    def _notes(self, other: _Measured) -> Iterator[str]:
        log = self.log
        yield (
            f"windows slide; resamples of the log are blocks of {self.floor.block_s:,} s, their intervals 5 to 95 %, "
            "wider by what is random on the other side"
        )
        if log.tick_us > 1:
            yield f"the log's time stamps sit on ticks of {log.tick_us / 1e6:g} s; gaps are compared in whole ticks"
        if log.seen.sampled or other.first.seen.sampled:
            yield (
                "correlations and floors of distances are those of some rows: stretches of 1,024 consecutive ones, "
                "2^18 at most"
            )
        if "pair_energy" in self.wanted and log.seen.pairs is not None:
            yield "the energy distance of pairs is that of all rows, in bins of a sixteenth of an octave"
        if log.seen.cell_s > 1:
            yield f"a log of {log.seen.seconds:,.0f} s is counted in cells of {log.seen.cell_s} s"


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _window_s(name: str) -> int:
    """Length of the windows of a figure, seconds; 0 if it has none."""
    if name.startswith("acf"):
        return 10
    last = name.rsplit("_", 1)[-1].removesuffix("s")
    return int(last) if last.isdigit() and name.endswith("s") else 0


def _errors(rows: Sequence[Row]) -> dict[str, float]:
    """Mean |ln ratio| of dispersions of requests; nothing where no window has a verdict."""
    some = [row for row in rows if row.name.startswith("idc_") and row.verdict != "-" and row.log and row.other]
    if not some:
        return {}

    def mean(pairs: list[tuple[float | None, float | None]]) -> float | None:
        known = [abs(np.log(a / b)) for a, b in pairs if a and b and a > 0 and b > 0]
        return float(np.mean(known)) if len(known) == len(pairs) else None

    found = {
        "other": mean([(row.other, row.log) for row in some]),
        "halves": mean([row.halves or (None, None) for row in some]),
        "naive": mean([(row.naive, row.log) for row in some]),
    }
    return {name: error for name, error in found.items() if error is not None}
