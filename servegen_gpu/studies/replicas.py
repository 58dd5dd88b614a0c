"""Replicas of a study, a range of them at a time: made by this process, or by others on a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from servegen_gpu.distributing.on_ray import in_order
from servegen_gpu.studies.controls import deviations
from servegen_gpu.studies.fan import FIRST, Fan
from servegen_gpu.studies.measures import Measures
from servegen_gpu.studies.source import REPLICAS_OF_A_DRAW, Source

MOST_OF_A_TASK = 32
"""Replicas; a worker that is lost loses no more."""


class Range(NamedTuple):
    """Consecutive replicas of a draw."""

    draw: int
    first: int
    stop: int


class Replica(NamedTuple):
    """What is kept of a replica.

    Attributes
    ----------
    figures, controls : dict
        By name.
    loads : mapping
        States of the reduction that `Fan` takes, of the first replicas; else empty.
    """

    figures: dict[str, float]
    controls: dict[str, float]
    loads: Mapping[str, Any]


@dataclass(frozen=True)
class Making:
    """All that replicas depend on. It can be pickled, if metrics that are functions can.

    Attributes
    ----------
    source : Source
    measures : Measures
    threads : int or None
        Replicas at a time, in one process.
    """

    source: Source
    measures: Measures
    threads: int | None

    def here(self, ranges: Sequence[Range]) -> Generator[Replica]:
        """Replicas of ranges, one after the other."""
        for each in ranges:
            yield from _replicas(self, each)

    def on_ray(self, ranges: Sequence[Range], workers: int | None) -> Generator[Replica]:
        """The same, in the same order, from a Ray cluster."""
        tasks = [
            Range(draw, at, min(at + MOST_OF_A_TASK, stop))
            for draw, first, stop in ranges
            for at in range(first, stop, MOST_OF_A_TASK)
        ]
        for found in in_order(_all_of, self, tasks, workers):
            yield from found


def fan_number(varied: bool, draw: int, i: int) -> int | None:
    """Number for `Fan.add` of replica i of a draw: the first ones, or the first of each draw; None of all others."""
    number = (None if i else draw) if varied else i
    return number if number is not None and number < FIRST else None


def _replicas(making: Making, wanted: Range) -> Iterator[Replica]:
    source, measures, (draw, first, stop) = making.source, making.measures, wanted
    packed = source.packed(source.values(draw), draw)
    expected = source.expected(packed)
    numbers = (draw * REPLICAS_OF_A_DRAW + i for i in range(first, stop))
    of_loads = Fan.of(measures.reductions).reduction
    found = measures.over(packed, source.seed, numbers, making.threads, source.sampling)
    for i, one in enumerate(found, first):
        kept = of_loads is not None and fan_number(bool(source.parameters), draw, i) is not None
        loads = {of_loads.name: one.states[of_loads.name]} if of_loads is not None and kept else {}
        yield Replica(one.figures, deviations(one.totals, expected), loads)


def _all_of(making: Making, wanted: Range) -> list[Replica]:
    return list(_replicas(making, wanted))
