"""What metrics are at points: every point is a workload of its own, and all have the same random numbers.

Axes: points, metrics, replicas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.blocks import in_turn, workers
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.studies.measures import Measures
from servegen_gpu.studies.source import Source

Progress = Callable[[int, int], None]
"""Told after each point how many there are, of how many."""


class Runs(NamedTuple):
    """Metrics at points.

    Attributes
    ----------
    names : list of str
        Of the metrics.
    y : float64[points, metrics, replicas]
        Replica r has the same keys at all points.
    """

    names: list[str]
    y: NDArray[np.float64]


def run(
    source: Source,
    measures: Measures,
    values: NDArray[np.float64],
    replicas: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Runs:
    """Sample every point, several at a time.

    Parameters
    ----------
    values : float64[points, parameters]
        Of the source's parameters.
    """
    count = min(workers(threads, source.workload.backend.shared), len(values))
    sampling = dict(source.sampling)
    sampling["memory"] = options.budget_bytes(sampling.get("memory", "2GB")) // count

    def one(point: NDArray[np.float64]) -> list[dict[str, float]]:
        by_name = dict(zip((each.name for each in source.parameters), point.tolist(), strict=True))
        try:
            packed = source.packed(by_name, 0)
            return [each.figures for each in measures.over(packed, source.seed, range(replicas), 1, sampling)]
        except ServeGenError as error:
            where = ", ".join(f"{name} {value:g}" for name, value in by_name.items())
            raise type(error)(error.expected, f"{error.got} (at {where})", error.fix) from error

    found: list[list[dict[str, float]]] = []
    for each in in_turn(one, values, count):
        found.append(each)
        if progress is not None:
            progress(len(found), len(values))
    names = list(found[0][0])
    if any(list(figures) != names for point in found for figures in point):
        raise OptionError("the same figures of all traces", "others of some", "change what the function returns")
    y = np.array([[list(figures.values()) for figures in point] for point in found], np.float64)
    return Runs(names, y.transpose(0, 2, 1))


def noise_share(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of chance in the variance of metrics over points, of their means over replicas, float64[metrics].

    What a replica has more than others at all points alike is kept out by the common random numbers. What is left is
    the residual of a two-way analysis of variance, points by replicas, divided by the number of replicas. NaN of a
    single replica or point, and where nothing varies.
    """
    points, metrics, replicas = y.shape
    if replicas < 2 or points < 2:
        return np.full(metrics, np.nan)
    of_points = y.mean(axis=2, keepdims=True)
    residual = y - of_points - y.mean(axis=0) + y.mean(axis=(0, 2))[:, None]
    left = (residual**2).sum(axis=(0, 2)) / ((points - 1) * (replicas - 1)) / replicas
    variance = of_points[..., 0].var(axis=0, ddof=1)
    share = np.divide(left, variance, out=np.full(metrics, np.nan), where=variance > 0)
    return np.asarray(np.minimum(share, 1.0))
