"""Many replicas of a workload in figures: `monte_carlo`.

>>> study = sg.monte_carlo(pool, rate=100, duration="1h", replicas=1000, metrics=["output_tokens_peak_10s"])
>>> print(study)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from servegen_gpu import options
from servegen_gpu.clients.named import AnyPool, as_pool
from servegen_gpu.distributing.on_ray import check_on
from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.metrics import Assumed
from servegen_gpu.reducing.replicas import Sampling, reduce_replicas
from servegen_gpu.studies.fan import Fan
from servegen_gpu.studies.measures import Measures, Metric, measures_of
from servegen_gpu.studies.parameters import PARAMETERS, Parameter, parse_vary
from servegen_gpu.studies.records import Records
from servegen_gpu.studies.replicas import Making, Range, Replica, fan_number
from servegen_gpu.studies.source import REPLICAS_OF_A_DRAW, Source
from servegen_gpu.studies.stopping import Watch, parse_until
from servegen_gpu.studies.study import Study

METRICS = ("requests", "requests_peak_10s", "input_tokens_peak_10s", "output_tokens_peak_10s")
"""Measured by default."""
REPLICAS, REPLICAS_BY_DRAW, DRAWS, UNTIL_AT_MOST = 200, 10, 100, 10_000
SAVE_EVERY_S = 10.0

Progress = Callable[[int, int, Watch], None]
"""Told after each replica how many there are, of how many at most, and what watches them."""


class Interrupted(KeyboardInterrupt):
    """A study that was interrupted.

    Attributes
    ----------
    study : Study
        Of the replicas that are finished.
    most : int
        How many were wanted, at most.
    """

    def __init__(self, study: Study, most: int) -> None:
        super().__init__(f"{len(study):,} of {most:,} replicas are finished")
        self.study, self.most = study, most


def monte_carlo(
    pool: AnyPool,
    rate: Any = None,
    duration: float | str = "1h",
    replicas: int | None = None,
    metrics: Metric | Sequence[Metric] = METRICS,
    vary: str | Parameter | Sequence[str | Parameter] | Mapping[str, Any] | None = None,
    seed: int = 0,
    until: str | float | Sequence[str | float] | None = None,
    draws: int | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    confidence: float = 0.95,
    assumed: Assumed | None = None,
    counts: str = "renewal",
    threads: int | None = None,
    on: str = "here",
    workers: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    **keywords: Any,
) -> Study:
    """Figures of many replicas of a workload, none of which is kept.

    Parameters
    ----------
    pool : ClientPool, or the name of a workload
    rate, duration, counts
        As `stream` has them; so are all further keywords but ``requests``, ``replica``, ``shard`` and ``device``.
        Counts are random by default: replicas that keep measured counts say nothing about their chance.
    replicas : int, optional
        200 by default; of each draw, under `vary`, 10; at most so many, under `until`, 10,000. Replica r is
        ``generate(pool, …, replica=r)``.
    metrics : str, Reduction, function of a Trace, or sequence of these
        Figures by name (`servegen_gpu.reducing.metrics`), or your own. Functions return a number, or numbers by name;
        a trace is made for each replica then, which takes longer.
    vary : str, Parameter, sequence of these, or mapping, optional
        Parameters that are uncertain (`servegen_gpu.studies.parameters`): ``"rate=0.8:1.2"``, or ``{"rate": (0.8,
        1.2)}``. Each draw has a value of each of them, independent and uniform over its range.
    seed : int
        Decides everything: studies of the same seed use the same numbers, and are compared pair by pair
        (`Study.against`).
    until : str, float, or sequence of these, optional
        When to stop: ``"1%"`` (how far the intervals of all means may reach), ``"requests_peak_10s:1%"`` (of one), or
        ``"requests_peak_10s<=900@95%"``: as soon as it is known whether at least 95 % of replicas have no more. These
        intervals hold at all times at once (`servegen_gpu.studies.stopping`).
    draws : int, optional
        Of the parameters; 100 by default, and at most 10,000 under `until`.
    path : str or path, optional
        Parquet file of the study. One that is there goes on where it stopped; more replicas or draws extend it.
    confidence : float
        Of all intervals.
    assumed : Assumed, optional
        Server, instances and objective of figures such as ``ttft_p99`` and ``instances``.
    threads : int, optional
        Replicas at a time, in this process.
    on : {"here", "ray"}
        In this process, or on a Ray cluster, where each task makes up to 32 replicas on one processor; see
        `servegen_gpu.distributed`.
    workers : int, optional
        Tasks at a time on Ray.
    progress : function, optional
    overwrite : bool
        Begin anew, and replace what is at `path`, whatever it is.

    Returns
    -------
    Study
        The same whatever the threads, the workers, the memory, and how often it was interrupted.

    Raises
    ------
    OptionError
        If an argument is out of range, a metric or parameter unknown, or `path` another study.
    Interrupted
        On Ctrl-C: a KeyboardInterrupt that has the finished part. It is in the file as well.
    """
    if wrong := sorted({"requests", "replica", "shard", "device"} & set(keywords)):
        raise OptionError("a study without requests, replica, shard and device", wrong[0], "leave it out")
    if isinstance(confidence, bool) or not isinstance(confidence, float | int) or not 0 < confidence < 1:
        raise OptionError("confidence above 0 and below 1", repr(confidence), "such as 0.95")
    check_on(on, workers)
    rules = parse_until(until)
    parameters = () if vary is None else tuple(sorted(parse_vary(vary), key=lambda one: [*PARAMETERS].index(one.name)))
    if draws is not None and not parameters:
        raise OptionError("draws of parameters that vary", f"{draws} draws and no vary", "say by vary what varies")
    enough = UNTIL_AT_MOST if rules else None
    if parameters:
        replicas = _at_least_one("replicas", replicas, REPLICAS_BY_DRAW, REPLICAS_OF_A_DRAW)
        draws = _at_least_one("draws", draws, enough or DRAWS, REPLICAS_OF_A_DRAW)
    else:
        replicas, draws = _at_least_one("replicas", replicas, enough or REPLICAS, 2**32 - 1), 1
    sampling = {name: keywords.pop(name) for name in tuple(keywords) if name in Sampling.__annotations__}
    pool = as_pool(pool)
    source = Source(pool, rate, {"duration": duration, "counts": counts, **keywords}, sampling, parameters, seed)
    measures = measures_of(metrics, source.span_s, assumed)
    settings = source.settings | {
        "asked": measures.names,
        "assumed": measures.assumed,
        "replicas": replicas,
        "draws": draws,
        "until": [str(rule) for rule in rules],
        "confidence": confidence,
    }
    target = None if path is None else Path(path)
    fresh = Records(tuple(source.settings["vary"]))
    records = fresh if target is None or overwrite else Records.read(target, settings)
    run = _Run(source, measures, settings, records, target, threads, on, workers, overwrite)
    return run.until(Watch(rules, measures.known or records.metrics, confidence), progress)


def _at_least_one(name: str, value: int | None, default: int, most: int) -> int:
    found = options.integer(name, default if value is None else value, most)
    if not found:
        raise OptionError(f"{name} of at least 1", "0", f"change {name}")
    return found


@dataclass
class _Run:
    """A study in the making.

    Attributes
    ----------
    records : Records
        All that is there, of earlier calls as well.
    counts : dict
        Of those, how many of each draw are of this study.
    """

    source: Source
    measures: Measures
    settings: dict[str, Any]
    records: Records
    path: Path | None
    threads: int | None
    on: str
    workers: int | None
    overwrite: bool
    counts: dict[int, int] = field(default_factory=dict)
    unsaved: int = 0
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.fan = Fan.of(self.measures.reductions)

    def until(self, watch: Watch, progress: Progress | None) -> Study:
        """Replicas until the watch has seen enough, or all of them are there."""
        try:
            self._make(watch, progress)
            self._fill_fan()
            return self._study()
        except KeyboardInterrupt:
            replicas, draws = self.settings["replicas"], self.settings["draws"]
            self.counts = {draw: min(self.records.count(draw), replicas) for draw in self.records.rows if draw < draws}
            if not any(self.counts.values()):
                raise
            raise Interrupted(self._study(), replicas * draws) from None
        finally:
            self._save()

    def _make(self, watch: Watch, progress: Progress | None) -> None:
        with closing(self._new()) as new:
            self._watched(new, watch, progress)

    def _watched(self, new: Iterator[Replica], watch: Watch, progress: Progress | None) -> None:
        most, done = self.settings["replicas"] * self.settings["draws"], 0
        for draw in range(self.settings["draws"]):
            unit = []
            for figures in self._draw(draw, new):
                unit.append(figures)
                self.counts[draw] = self.counts.get(draw, 0) + 1
                done += 1
                if not watch.metrics:
                    watch = Watch(watch.rules, tuple(figures), watch.confidence)
                enough = not self.source.parameters and watch.add([unit.pop()])
                if progress is not None:
                    progress(done, most, watch)
                if enough:
                    return
            if self.source.parameters and watch.add(unit):
                return

    def _new(self) -> Generator[Replica]:
        """All replicas that are not there, in order; nothing is made before it is asked for."""
        replicas, draws = self.settings["replicas"], range(self.settings["draws"])
        ranges = [Range(draw, self.records.count(draw), replicas) for draw in draws]
        ranges = [each for each in ranges if each.first < each.stop]
        making = Making(self.source, self.measures, self.threads)
        return making.on_ray(ranges, self.workers) if self.on == "ray" else making.here(ranges)

    def _draw(self, draw: int, new: Iterator[Replica]) -> Iterator[dict[str, float]]:
        """Metrics of the replicas of a draw: those that are there, and then new ones."""
        there, replicas = self.records.count(draw), self.settings["replicas"]
        yield from self.records.of(draw, replicas)
        values = self.source.values(draw)
        for i, one in enumerate(islice(new, max(replicas - there, 0)), there):
            if (number := fan_number(bool(self.source.parameters), draw, i)) is not None:
                self.fan.add(number, one.loads)
            self.records.add(draw, values, one.figures, one.controls)
            self.unsaved += 1
            if time.monotonic() - self.saved_at > SAVE_EVERY_S:
                self._save()
            yield one.figures

    def _fill_fan(self) -> None:
        """The load over time, for which the first replicas of an earlier call are made once more."""
        varied = bool(self.source.parameters)
        count = len(self.counts) if varied else self.counts[0]
        missing, one = self.fan.missing(count), self.fan.reduction
        for draw, numbers in [(number, [0]) for number in missing] if varied else [(0, missing)]:
            if one is not None and numbers:
                packed = self.source.packed(self.source.values(draw), draw)
                keys = [draw * REPLICAS_OF_A_DRAW + number for number in numbers]
                made = reduce_replicas(packed, one, self.source.seed, keys, self.threads, **self.source.sampling)
                for number, states in zip(numbers, made, strict=True):
                    self.fan.add(draw or number, states)
        self.settings = self.settings | self.fan.settings(count)

    def _study(self) -> Study:
        return self.records.study(self.settings, self.counts, self.source.workload.notes)

    def _save(self) -> None:
        """Write all that is there, if the file has less, or other settings for as much."""
        if self.path is not None:
            all_of_them = self.counts == {draw: self.records.count(draw) for draw in self.records.rows}
            study = self._study() if all_of_them else self.records.everything(self.settings)
            if self.unsaved or (all_of_them and self.counts and study.settings != self.records.written):
                study.write(self.path, overwrite=self.overwrite)
        self.unsaved, self.saved_at = 0, time.monotonic()
