"""What the two CuPy scripts have in common: unsorted columns of a window on the device."""

from __future__ import annotations

import functools
from typing import Any

import cupy as cp
from problem import WINDOW_S, Problem, named

RNG = cp.random.default_rng(1)


@functools.cache
def on_device(of: Problem) -> dict[str, Any]:
    """The problem's arrays, uploaded once."""
    return {name: cp.asarray(getattr(of, name)) for name in ("shape", "table", "cdf", "values", "client")}


def unsorted(of: Problem, w: int) -> tuple[Any, Any, list[Any]]:
    """Seconds inside the window (float64), client (int32 index) and fields (int32) of every request."""
    have, count = on_device(of), cp.asarray(of.count[w])
    ends = cp.cumsum(count)
    n = int(of.count[w].sum())
    gammas = int(of.count[w][: of.gammas].sum())
    begins = cp.zeros(n, cp.int32)
    # the client of every request: a mark where each client begins, and a running sum
    some = cp.flatnonzero(count)
    begins[(ends - count)[some]] = cp.diff(some, prepend=cp.zeros(1, some.dtype)).astype(cp.int32)
    client = cp.cumsum(begins, dtype=cp.int32)
    del begins
    gaps = cp.empty(n)
    if gammas:
        gaps[:gammas] = RNG.standard_gamma(have["shape"][client[:gammas]])
    if gammas < n:
        gaps[gammas:] = RNG.standard_exponential(n - gammas) ** (1.0 / have["shape"][client[gammas:]])
    sums = cp.cumsum(gaps)
    del gaps
    last = cp.concatenate((cp.zeros(1), sums))[ends]
    before = cp.concatenate((cp.zeros(1), last[:-1]))
    scale = cp.where(last > before, WINDOW_S / cp.maximum(last - before, 1e-300), 0.0)
    seconds = cp.minimum((sums - before[client]) * scale[client], WINDOW_S - 1e-6)
    del sums
    fields = []
    for f in range(of.table.shape[1]):
        word = RNG.random(n)
        word += have["table"][:, f][client]
        fields.append(have["values"][cp.searchsorted(have["cdf"], word)])
    return seconds, client, fields


def gathered(of: Problem, w: int, us: Any, order: Any, client: Any, fields: list[Any]) -> dict[str, Any]:
    """Columns in order."""
    return named(
        us + w * WINDOW_S * 1_000_000,
        on_device(of)["client"][client[order]],
        [field[order] for field in fields],
        lambda outputs, ratio: ((2 * outputs.astype(cp.int64) * ratio + 501) // 1002).astype(cp.int32),
    )


def wait() -> None:
    """Until the device is done."""
    cp.cuda.Device().synchronize()


def peak() -> int:
    """What the memory pool has taken."""
    return int(cp.get_default_memory_pool().total_bytes())
