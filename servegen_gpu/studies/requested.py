"""What is to be served: replicas of a pool, or one trace, at its own rate and at others on a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from servegen_gpu.baselines.naive import POISSON
from servegen_gpu.baselines.naive import naive as naive_of
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.pipeline import Workload, stream
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.families import FAMILIES
from servegen_gpu.scaling import thin
from servegen_gpu.studies.parameters import scaled_rate
from servegen_gpu.studies.source import STATED
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import BURST_WINDOW_S, gap_cvs, median_cv

STEP = 1.03
"""Rates of one instance are on a grid of 3 %."""
HIGHEST = math.ceil(math.log(64, STEP))
"""How far above a workload's own rate one instance is tried."""
FEWEST = 1000
"""Requests below which a P99 says nothing of one instance."""
ALONE = 40
"""Replicas, or shares of a trace, that one instance is tried with."""
SAMPLED = 20
"""Replicas whose burstiness a naive baseline has."""


def _lowest(requests: float) -> int:
    """The lowest step at which so many requests still are enough."""
    return min(math.ceil(math.log(FEWEST / max(requests, 1.0), STEP)), 0)


@dataclass(eq=False)
class SampledPool:
    """Replicas of a pool; one instance gets all of its clients, each slower."""

    name: str
    pool: ClientPool
    rate: Any
    how: Mapping[str, Any]
    seed: int
    replicas: int
    baseline: Mapping[str, Any] | None = None
    highest: ClassVar[int] = HIGHEST
    _made: dict[int, Workload] = field(default_factory=dict)
    _making: Any = field(default_factory=Lock)

    @classmethod
    def of(
        cls, name: str, pool: ClientPool, rate: Any, how: Mapping[str, Any], seed: int, replicas: int
    ) -> SampledPool:
        """With keywords of `stream`, checked."""
        if wrong := sorted({"requests", "replica", "shard", "device"} & set(how)):
            raise OptionError("a study without requests, replica, shard and device", wrong[0], "leave it out")
        return cls(name, pool, rate, how, seed, replicas)

    def workload(self, step: int) -> Workload:
        """The workload at a step of the grid; packed once."""
        with self._making:
            if step not in self._made:
                how = dict(self.how)
                rate = scaled_rate(self.rate, STEP**step, how.pop("scale", None), how.pop("peak", None))
                self._made[step] = stream(self.pool, rate=rate, seed=self.seed, **how)
            return self._made[step]

    def trace(self, replica: int, step: int = 0) -> Trace:
        """A replica, at a step of the grid."""
        return replace(self.workload(step), key=derive_key(self.seed, replica)).joined()

    @cached_property
    def span_s(self) -> float:
        """Length of a replica."""
        packed = self.workload(0).packed
        return (packed.end_us - packed.start_us) / 1e6

    @property
    def rate_rps(self) -> float:
        """Expected mean rate."""
        return self.workload(0).expected_requests / self.span_s

    @property
    def lowest(self) -> int:
        """The lowest step."""
        return _lowest(self.rate_rps * self.span_s * self.alone)

    @property
    def alone(self) -> int:
        """Replicas that one instance is tried with."""
        return min(self.replicas, ALONE)

    @property
    def shared(self) -> bool:
        """Whether several threads may make replicas at once."""
        return self.workload(0).backend.shared

    @property
    def settings(self) -> dict[str, Any]:
        """Where the replicas are from."""
        provenance = self.workload(0).provenance
        stated = {name: provenance[name] for name in STATED}
        limits = {name: self.how[name] for name in ("max_input", "max_output", "over") if name in self.how}
        measured = int(np.count_nonzero(self.pool.measured[self.pool.profile]))
        return stated | {"limits": limits, "clients_measured": measured, "baseline": self.baseline}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return self.workload(0).notes


@dataclass(eq=False)
class GivenTrace:
    """The only replica of itself; one instance gets a share of its conversations, by chance."""

    given: Trace
    seed: int
    name: ClassVar[str] = "trace"
    replicas: ClassVar[int] = 1
    highest: ClassVar[int] = 0
    alone: ClassVar[int] = ALONE
    shared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not len(self.given):
            raise OptionError("a trace with requests", "an empty one", "give another trace")

    def trace(self, replica: int, step: int = 0) -> Trace:
        """The trace, thinned to a step of the grid, each time in another way."""
        return thin(self.given, STEP**step, seed=(self.seed + replica) % 2**64) if step else self.given

    @property
    def span_s(self) -> float:
        """Length of the trace."""
        return duration_of(self.given.provenance) or (int(self.given["arrival_us"][-1]) + 1) / 1e6

    @property
    def rate_rps(self) -> float:
        """Mean rate."""
        return len(self.given) / self.span_s

    @property
    def lowest(self) -> int:
        """The lowest step."""
        return _lowest(len(self.given) * self.alone)

    @property
    def settings(self) -> dict[str, Any]:
        """Where the trace is from."""
        known = self.given.provenance
        return {name: known[name] for name in STATED if name in known} | {"requests": len(self.given)}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return ("one trace: it has a number of its own, and says nothing of the confidence of that number",)


Requested = SampledPool | GivenTrace


def naive_baseline(of: Requested, family: str, replicas: int) -> SampledPool:
    """What a workload looks like as one renewal process, with its rate, its lengths and its burstiness.

    Of a pool, rates and lengths are those of the windows of the study; but where conversations make inputs longer
    than a pool's tables know, they are those of the first replica.
    """
    family = POISSON if family == "poisson" else family
    if family not in FAMILIES:
        raise OptionError(f"naive as True, poisson, {', '.join(FAMILIES)}", repr(family)[:60], "choose one of them")
    cv = _burstiness(of) if FAMILIES[family].has_shape else 1.0
    stated = {"family": family, "cv": cv}
    shape: dict[str, Any] = {"family": family, "cv": cv if FAMILIES[family].has_shape else "fit"}
    if isinstance(of, SampledPool) and all(model.growth == "sorted" for model in of.pool.turn_models):
        start_s = of.workload(0).packed.start_us / 1e6
        past_end = of.how.get("past_end", "wrap")
        pool = naive_of(of.pool.span(start_s, start_s + of.span_s, past_end), **shape)
        how = {**of.how, "start": start_s, "counts": "renewal"}
        return SampledPool("naive", pool, of.rate, how, of.seed, replicas, stated)
    pool = naive_of(of.trace(0), **shape)
    return SampledPool("naive", pool, None, {"duration": of.span_s, "counts": "renewal"}, of.seed, replicas, stated)


def _burstiness(of: Requested) -> float:
    """Median CV of gaps in windows of five minutes, over some replicas, to four digits."""
    window_s = min(BURST_WINDOW_S, of.span_s)
    cvs = [gap_cvs(of.trace(replica), window_s) for replica in range(min(SAMPLED, of.replicas))]
    return float(f"{median_cv(np.concatenate(cvs), window_s):.4g}")
