"""By hand with NumPy: gaps, running sums, lengths, one packed sort, gathers."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
from problem import WINDOW_S, Problem, main, named

RNG = np.random.Generator(np.random.SFC64(1))


def window(of: Problem, w: int) -> dict[str, Any]:
    """Columns of a window."""
    count = of.count[w]
    ends = np.cumsum(count)
    n, gamma_requests = int(ends[-1]), int(ends[of.gammas - 1]) if of.gammas else 0
    client = np.repeat(np.arange(len(count), dtype=np.int32), count)
    shape = of.shape[client]
    gaps = np.empty(n)
    gaps[:gamma_requests] = RNG.standard_gamma(shape[:gamma_requests])
    gaps[gamma_requests:] = RNG.standard_exponential(n - gamma_requests) ** (1.0 / shape[gamma_requests:])
    sums = np.cumsum(gaps)
    last = np.concatenate(([0.0], sums))[ends]
    before = np.concatenate(([0.0], last[:-1]))
    scale = np.divide(WINDOW_S * 1e6, last - before, out=np.zeros(len(count)), where=last > before)
    us = np.minimum((sums - before[client]) * scale[client], WINDOW_S * 1e6 - 1).astype(np.int64)
    fields = []
    for f in range(of.table.shape[1]):
        table = of.table[:, f][client]
        fields.append(of.values[np.searchsorted(of.cdf, RNG.random(n) + table)])
    key = (us << 32) | np.arange(n)
    key.sort()
    order = key & 0xFFFFFFFF
    return named(
        (key >> 32) + w * WINDOW_S * 1_000_000,
        of.client[client[order]],
        [field[order] for field in fields],
        lambda outputs, ratio: (2 * outputs.astype(np.int64) * ratio + 501) // 1002,
    )


if __name__ == "__main__":
    main(window, lambda: None, lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
