"""How many servers a workload needs, with which confidence, and what a naive generator would have bought: `provision`.

>>> found = sg.provision(pool, "ttft=2.25s,tbt=0.5s", "qwen2.5-14b-2xa100", rate=50, duration="10m", naive="poisson")
>>> print(found)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from servegen_gpu import options
from servegen_gpu.blocks import in_turn, workers
from servegen_gpu.clients.named import pool_or_trace
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.serving.fleet import Fleet
from servegen_gpu.serving.job import ROUTINGS, Routing
from servegen_gpu.serving.objective import Objective, parse_objective
from servegen_gpu.serving.profiles import described, load_server
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import Served, alone, slow_note
from servegen_gpu.studies.provisioned import COLUMNS, WHOLE, Provision
from servegen_gpu.studies.requested import STEP, GivenTrace, Requested, SampledPool, naive_baseline
from servegen_gpu.trace import Trace, read_trace

FEW = 2
"""Instances that the first replica needs, up to which one may do for all together."""
LOOKED_AT = 5
"""Replicas that are asked what an idle instance reaches, where the first one needs more instances than there are."""
MOST_WINDOWS = 1 << 16

Progress = Callable[[int, int], None]
"""Told after each replica how many there are, of how many."""


def provision(
    source: ClientPool | Trace | str | os.PathLike[str],
    slo: str | Mapping[str, Any] | Objective,
    server: str | os.PathLike[str] | Server,
    *,
    at: str | float = "p99",
    replicas: int = 200,
    rate: Any = None,
    duration: float | str | None = None,
    naive: bool | str = False,
    routing: Routing = "least-loaded",
    window_s: float | str = 600.0,
    seed: int = 0,
    confidence: float = 0.95,
    threads: int | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Provision:
    """How many instances a workload needs to hold an objective, as a whole, over time, and with which confidence.

    Every replica is served by more and more instances together until they hold the objective: that is what it needs.
    Every window of it is served likewise, after the minute before it. And one instance alone is given less and less of
    the workload until it holds the objective, whose rate then divides the whole (the way of ServeGen's section 6.3):
    this ignores that instances together even out bursts of clients, which one alone has to bear. That rate is one for
    all replicas: it is looked for over the requests of up to 40 of them, for a short trace has few at a low rate.

    Parameters
    ----------
    source : ClientPool, the name of a workload, Trace, or path of a trace
        Clients, of whom there are replicas; or one trace, which has a number of its own and no confidence. One
        instance gets a pool at a lower rate (all clients slower), and of a trace a share of the conversations
        (`servegen_gpu.thin`).
    slo : str, mapping or Objective
        ``"ttft=2.25s,tbt=500ms"``: bounds of the time to first token and of the mean time between tokens.
    server : str, path or Server
        A profile by name, a TOML file, or numbers of your own (`servegen_gpu.serving.profiles.load_server`).
    at : str or float
        The quantile over requests that keeps to the bounds: ``"p99"``, or 0.99.
    replicas : int
        Of a pool, and of the naive baseline. The 99 % plan has an upper end from 368 on.
    rate, duration
        As `stream` has them (an hour by default), with a pool only; so are all further keywords but ``requests``,
        ``replica``, ``shard`` and ``device``. Counts are random by default (``counts="renewal"``).
    naive : bool or str
        Also provision for the naive baseline of the source (`servegen_gpu.naive`) at the same rate: a family such as
        ``"gamma"`` (or True), or ``"poisson"``. It knows the lengths and rates of the time of the study, and the
        burstiness of replicas.
    routing : {"least-loaded", "round-robin", "session-affine"}
    window_s : float or str
        Of the instances over time.
    seed : int
    confidence : float
        Of all intervals.
    threads : int, optional
    progress : function, optional

    Returns
    -------
    Provision
        The same whatever the threads.

    Raises
    ------
    OptionError
        If an argument is out of range, a trace has no requests, or no number of instances holds the objective: then
        it says what an idle instance reaches.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, float | int) or not 0 < confidence < 1:
        raise OptionError("confidence above 0 and below 1", repr(confidence), "such as 0.95")
    if routing not in ROUTINGS:
        raise unknown("routing", routing, ROUTINGS)
    if options.integer("replicas", replicas, 1 << 24) < 1:
        raise OptionError("replicas of at least 1", "0", "change replicas")
    workers(threads, True)  # refuses other numbers now, not after the first replica
    fleet = Fleet(load_server(server), parse_objective(slo, at), routing)
    requested: Requested
    source = pool_or_trace(source)
    if isinstance(source, ClientPool):
        how = {"duration": "1h" if duration is None else duration, "counts": "renewal"} | keywords
        requested = SampledPool.of("clients", source, rate, how, seed, replicas)
    else:
        if given := [*keywords, *(["rate"] if rate is not None else []), *(["duration"] if duration else [])]:
            raise OptionError("rate, duration and rules with a pool only", f"{given[0]} and a trace", "leave it out")
        requested = GivenTrace(source if isinstance(source, Trace) else read_trace(source), seed)
    asked = [requested]
    if naive is not False:
        asked.append(naive_baseline(requested, "gamma" if naive is True else naive, replicas))
    study = _Study(fleet, _windows(window_s, requested.span_s), threads, progress, sum(one.replicas for one in asked))
    rows = [*study.rows(requested)]
    notes = (*requested.notes, *slow_note())
    if requested.settings.get("category") == "multimodal":
        notes += ("items are served as their tokens: nothing is downloaded or encoded (servegen_gpu.Stages)",)
    if naive is not False:
        if routing == "session-affine":
            study.fleet = replace(fleet, routing="least-loaded")
            notes += ("requests of the naive baseline stand alone, and go to the least loaded instance",)
        rows += study.rows(asked[1])
    settings = requested.settings | {
        "objective": {"ttft_s": fleet.objective.ttft_s, "tbt_s": fleet.objective.tbt_s, "level": fleet.objective.level},
        "server": described(fleet.server),
        "routing": routing,
        "rate_rps": requested.rate_rps,
        "span_s": requested.span_s,
        "window_s": study.window_s,
        "replicas": max(one.replicas for one in asked),
        "confidence": confidence,
        "naive": asked[1].settings["baseline"] if len(asked) > 1 else None,
    }
    return Provision(_table(rows), settings, notes)


def _windows(window_s: float | str, span_s: float) -> float:
    """Length of a window, checked."""
    found = options.seconds("window_s", window_s)
    if not found > 0 or span_s / found > MOST_WINDOWS:
        got = f"{window_s!r} of {span_s:g} s"
        raise OptionError(f"window_s above 0, and up to {MOST_WINDOWS:,} windows", got, "change window_s")
    return found


Row = tuple[str, int, float, float, int, float, float, float]


def _table(rows: list[Row]) -> Any:
    import pandas as pd

    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    kinds = {"i": np.int64, "f": np.float64, "O": object}
    return pd.DataFrame({name: np.array(columns[name], kinds[kind]) for name, kind in COLUMNS.items()})


@dataclass
class _Study:
    """What is done with every replica."""

    fleet: Fleet
    window_s: float
    threads: int | None
    progress: Progress | None
    most: int
    done: int = 0

    def rows(self, requested: Requested) -> Iterator[Row]:
        """Rows of the table, for one replica after another."""
        needed = self.fleet.fewest(self.fleet.job(requested.trace(0)))
        if needed == math.inf:
            self._check_attainable(requested)
        first = int(needed) if 0 < needed < math.inf else 1
        highest_rps = self._highest_rps(requested, first)

        def work(replica: int) -> list[Row]:
            return self._replica(requested, replica, first, highest_rps)

        for rows in in_turn(work, range(requested.replicas), workers(self.threads, requested.shared)):
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.most)
            yield from rows

    def _replica(self, requested: Requested, replica: int, first: int, highest_rps: float) -> list[Row]:
        """A row for the whole, then one for each window."""
        job = self.fleet.job(requested.trace(replica))
        needed = self.fleet.fewest(job, first)
        span_s, nothing = requested.span_s, math.nan
        begins_s = np.arange(math.ceil(span_s / self.window_s - 1e-9)) * self.window_s
        begins_ns = np.rint(begins_s * 1e9).astype(np.int64)
        in_windows = [needed] if len(begins_s) == 1 else list(self.fleet.by_window(job, begins_ns, first))
        counts = np.diff([*np.searchsorted(job.arrival_ns, begins_ns), len(job)]).tolist()
        lengths_s = np.minimum(self.window_s, span_s - begins_s).tolist()
        by_rate = float(math.ceil(requested.rate_rps / highest_rps - 1e-9)) if highest_rps > 0 else nothing
        who = (requested.name, replica)
        return [
            (*who, WHOLE, span_s, len(job), float(needed), highest_rps, by_rate),
            *(
                (*who, begin_s, length_s, count, float(found), nothing, nothing)
                for begin_s, length_s, count, found in zip(
                    begins_s.tolist(), lengths_s, counts, in_windows, strict=True
                )
            ),
        ]

    def _highest_rps(self, requested: Requested, first: int) -> float:
        """The highest rate at which one instance holds the objective, for the requests of `alone` replicas together,
        each with an instance of its own; NaN if there is none that says anything."""

        def served(replica: int, step: int) -> Served:
            return self.fleet.serve(self.fleet.job(requested.trace(replica, step)), 1)

        def holds(step: int) -> bool:
            some = range(requested.alone)
            of = list(in_turn(lambda replica: served(replica, step), some, workers(self.threads, requested.shared)))
            ttft_s, tbt_s = (np.concatenate([getattr(one, name) for one in of]) for name in ("ttft_s", "tbt_s"))
            return not len(ttft_s) or self.fleet.objective.met(ttft_s, tbt_s)

        enough = first <= FEW and holds(0)
        holding, failing = (0, requested.highest + 1) if enough else (requested.lowest, 0)
        if not enough and (holding >= 0 or not holds(holding)):
            return math.nan
        while failing - holding > 1:
            middle = (holding + failing) // 2
            holding, failing = (middle, failing) if holds(middle) else (holding, middle)
        return float(requested.rate_rps * STEP**holding)

    def _check_attainable(self, requested: Requested) -> None:
        """Refuse an objective that requests alone with an instance miss in most replicas."""
        objective = self.fleet.objective
        jobs = (self.fleet.job(requested.trace(replica)) for replica in range(min(LOOKED_AT, requested.replicas)))
        ttft_s, tbt_s = np.median([objective.reached(*alone(job)) for job in jobs if len(job)], axis=0).tolist()
        if ttft_s > objective.bounds[0] or tbt_s > objective.bounds[1]:
            objective.refuse((ttft_s, tbt_s))
