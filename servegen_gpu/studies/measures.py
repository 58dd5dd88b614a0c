"""What a study measures of a replica: figures by name, reductions, functions of a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import generate
from servegen_gpu.reducing.metrics import Assumed, assumes
from servegen_gpu.reducing.metrics import metrics as by_names
from servegen_gpu.reducing.reduce import reduce
from servegen_gpu.reducing.reduction import Reduced, Reduction
from servegen_gpu.reducing.replicas import reduce_replicas
from servegen_gpu.studies.controls import totals_of
from servegen_gpu.trace import Trace

Metric = str | Reduction | Callable[[Trace], Any]

CONTROL = "requests"
"""Total that is added up in any case: a control variate."""


@dataclass(frozen=True)
class Measured:
    """A replica in figures.

    Attributes
    ----------
    figures : dict
        By name, in the order of the metrics.
    totals : dict
        Requests and tokens of the replica, as far as they were added up.
    states : mapping
        Of its reductions, by name.
    """

    figures: dict[str, float]
    totals: dict[str, float]
    states: Mapping[str, Any]


@dataclass(frozen=True)
class Measures:
    """Metrics of a study, ready for replicas.

    Attributes
    ----------
    asked : tuple
        Metrics as they were asked for.
    reductions : tuple of Reduction
    assumed : dict or None
        What figures of service assume, in terms that JSON has; None where there is none.
    """

    asked: tuple[Metric, ...]
    reductions: tuple[Reduction, ...]
    assumed: dict[str, Any] | None

    @property
    def names(self) -> list[str]:
        """Metrics in words: a function by its module and name."""
        return [_name(metric) for metric in self.asked]

    @property
    def known(self) -> tuple[str, ...]:
        """Names of all figures, if they are known before the first replica; else none."""
        names = tuple(metric for metric in self.asked if isinstance(metric, str))
        return names if len(names) == len(self.asked) else ()

    @property
    def functions(self) -> list[Callable[[Trace], Any]]:
        """Functions of a whole trace, which is then made."""
        return [metric for metric in self.asked if not isinstance(metric, str | Reduction)]

    def over(
        self,
        packed: PackedWorkload,
        seed: int,
        replicas: Iterable[int],
        threads: int | None,
        keywords: Mapping[str, Any],
    ) -> Iterator[Measured]:
        """Replicas one after the other."""
        if not self.functions:
            for reduced in reduce_replicas(packed, self.reductions, seed, replicas, threads, **keywords):
                yield self._measured(reduced, {})
            return
        for replica in replicas:
            trace = generate(packed, seed=seed, replica=replica, **keywords)
            found = {_name(function): _values(function, trace) for function in self.functions}
            yield self._measured(reduce(trace, self.reductions), found)

    def _measured(self, reduced: Reduced, found: Mapping[str, dict[str, float]]) -> Measured:
        by_reduction = reduced.by_reduction
        flat = {name: value for figures in by_reduction.values() for name, value in figures.items()}
        figures: dict[str, float] = {}
        for metric in self.asked:
            if isinstance(metric, str):
                more = {metric: flat[metric]}
            else:
                more = by_reduction[metric.name] if isinstance(metric, Reduction) else found[_name(metric)]
            if twice := [name for name in more if name in figures]:
                raise OptionError("metrics with names of their own", f"{twice[0]!r} twice", "name them apart")
            figures |= more
        return Measured(figures, totals_of(reduced), reduced)


def measures_of(metrics: Metric | Sequence[Metric], span_s: float, assumed: Assumed | None = None) -> Measures:
    """Metrics of a trace of so many seconds; `assumed` is about those of service.

    Raises
    ------
    OptionError
        For none at all, one that is unknown or twice, and bins longer than the trace.
    """
    asked = (metrics,) if isinstance(metrics, str | Reduction) or callable(metrics) else tuple(metrics)
    if not asked:
        raise OptionError("one metric or more", "none", "name them, such as requests_peak_10s")
    for metric in asked:
        if not (isinstance(metric, str | Reduction) or callable(metric)):
            raise OptionError("names of metrics, reductions, or functions of a trace", repr(metric)[:60], "change it")
    names = [_name(metric) for metric in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError("every metric once", f"{twice[0]!r} twice", "leave out one of them")
    own = [metric for metric in asked if isinstance(metric, Reduction)]
    by_name = [metric for metric in asked if isinstance(metric, str)]
    known = by_names(by_name, span_s, assumed)
    if not any(one.binned is not None and CONTROL in one.binned.columns for one in (*known, *own)):
        known = by_names([*by_name, CONTROL], span_s, assumed)
    of_service = any(map(assumes, by_name))
    if assumed is not None and not of_service:
        raise OptionError("a metric of service, such as ttft_p99, where a server is assumed", names[0], "add one")
    return Measures(asked, (*known, *own), (assumed or Assumed()).described() if of_service else None)


def _name(metric: Metric) -> str:
    if isinstance(metric, str):
        return metric
    if isinstance(metric, Reduction):
        return f"reduction {metric.name}"
    return f"{getattr(metric, '__module__', '')}.{getattr(metric, '__qualname__', type(metric).__qualname__)}"


def _values(function: Callable[[Trace], Any], trace: Trace) -> dict[str, float]:
    """What a function says of a trace: one number, or numbers by name."""
    said = function(trace)
    by_name = said if isinstance(said, Mapping) else {getattr(function, "__name__", type(function).__name__): said}
    for value in by_name.values():
        if not isinstance(value, Real) or isinstance(value, bool):
            got = f"{type(value).__name__} from {_name(function)}"
            raise OptionError("a number, or numbers by name, of a trace", got, "change what the function returns")
    return {str(name): float(value) if math.isfinite(value) else math.nan for name, value in by_name.items()}
