"""An environment that makes replicas as bursty as the log is, whatever else is in them.

An environment moves what begins; turns that follow seconds or minutes later come when they do, so dispersion on short
times is lower than the environment alone would make it; clients with bursts of their own add to it. It is corrected by
trying: replicas are made, and the variances of the environment's means over windows are multiplied by what is missing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.fitting.environment import EnvironmentFit, with_window_variances
from servegen_gpu.pipeline import generate, stream

REPLICAS, STEPS = 32, 3
REQUESTS, MOST_REQUESTS, MOST_IN_STEP = 40_000, 1 << 22, 1 << 21
"""Of a replica, at least and at most, and of all replicas of a step: a longer log is represented by its begin."""
FEWEST_REPLICAS = 4
LONGEST_PARTS = 32
MOST_CORRECTION, PRIOR_WINDOWS = 2.0, 16


def calibrated(
    pool: ClientPool, found: EnvironmentFit, arrival_us: NDArray[np.int64], span_s: float
) -> tuple[ClientPool, EnvironmentFit]:
    """The pool with an environment that gives its replicas the dispersion of the log.

    Parameters
    ----------
    pool : ClientPool
        With one environment, that of `found`.
    found : EnvironmentFit
    arrival_us : int64[requests]
        Of the log, from 0 on.
    span_s : float
    """
    cell_s = found.environment.cell_s
    rate = len(arrival_us) / span_s
    longest = max(found.environment.octaves)
    length_s = min(span_s, max(REQUESTS / rate, LONGEST_PARTS * found.environment.longest_s), MOST_REQUESTS / rate)
    count = int(np.clip(MOST_IN_STEP / (rate * length_s), FEWEST_REPLICAS, REPLICAS))
    cells = int(length_s / cell_s)
    # windows that the log has several of; coarser octaves than it told of stay out
    scales = 1 << np.arange(max(longest, int(np.log2(max(cells / 8, 1)))) + 1)
    scales = scales[scales <= max(cells // 8, 1)]
    log = _excess(arrival_us, cells, cell_s, scales)
    if len(scales) < 2 or not (log > 0).all():
        return pool, found
    sure = cells / (cells + PRIOR_WINDOWS * scales)  # a log says little about windows that it has few of
    wanted = np.array([found.window_variance(n * cell_s) for n in scales])
    for step in range(STEPS):
        packed = stream(pool, duration=length_s, counts="renewal").packed
        made = (generate(packed, replica=step * count + r)["arrival_us"] for r in range(count))
        replicas = np.mean([_excess(each_us, cells, cell_s, scales) for each_us in made], axis=0)
        ratio = np.where(replicas > 0, log / np.maximum(replicas, 1e-9), MOST_CORRECTION)
        wanted = wanted * np.clip(ratio, 1 / MOST_CORRECTION, MOST_CORRECTION) ** sure
        found = with_window_variances(found, scales, wanted)
        pool = replace(pool, environments=(found.environment,))
    return pool, found


def _excess(arrival_us: NDArray[np.int64], cells: int, cell_s: float, scales: NDArray[np.int64]) -> NDArray[np.float64]:
    """Index of dispersion of counts above that of a Poisson process, over sliding windows, float64[scales]."""
    cell = arrival_us // round(cell_s * 1e6)
    upto = np.concatenate(([0], np.cumsum(np.bincount(cell[cell < cells], minlength=cells))))
    found = []
    for n in scales.tolist():
        counts = upto[n:] - upto[:-n]
        found.append(counts.var() / max(counts.mean(), 1e-12) - 1.0)
    return np.array(found)
