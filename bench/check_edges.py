"""Arrival density at the edges of windows, relative to the mean: 1 where windows do not show.

    python bench/check_edges.py DATA [--workload deepseek-r1] [--rate 1000] [--duration 24h] [--counts exact]

DATA is ServeGen's data directory. Densities come with their standard errors, estimated from window to window; the
exit status is 1 if one of the first or last 10 ms is outside 0.85 to 1.15 by more than three standard errors.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import servegen_gpu as sg

EDGES_S = (0.01, 0.1, 1.0, 5.0)
LEAST, MOST = 0.85, 1.15


def edge_requests(workload: sg.Workload, window_us: int, windows: int) -> tuple[np.ndarray, int]:
    """Requests in the first and last part of every window, int64[2, edges, windows], and the length of the trace."""
    found = np.zeros((2, len(EDGES_S), windows), np.int64)
    total = 0
    for slab in workload:
        window, place = np.divmod(slab["arrival_us"], window_us)
        total += len(slab)
        for i, edge in enumerate(EDGES_S):
            for side, inside in enumerate((place < edge * 1e6, place >= window_us - edge * 1e6)):
                found[side, i] += np.bincount(window[inside], minlength=windows)
    return found, total


def densities(found: np.ndarray, mean_rps: float) -> tuple[np.ndarray, np.ndarray]:
    """Density relative to the mean and its standard error, float64[2, edges] each."""
    relative = found / (mean_rps * np.array(EDGES_S)[:, None])
    return relative.mean(axis=2), relative.std(axis=2, ddof=1) / np.sqrt(found.shape[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--workload", default="deepseek-r1")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--duration", default="24h")
    parser.add_argument("--counts", default="exact")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    pool = sg.load_servegen(options.data, options.workload)
    begin = time.perf_counter()
    workload = sg.stream(pool, rate=options.rate, duration=options.duration, counts=options.counts, seed=options.seed)
    windows = len(workload.packed.expected)
    found, total = edge_requests(workload, workload.packed.window_us, windows)
    density, error = densities(found, total / (windows * pool.window_s))
    print(f"{pool.name}, {options.counts}: {total:,} requests, {windows} windows, {time.perf_counter() - begin:.1f} s")
    for side, name in enumerate(("first", "last")):
        cells = (f"{e:g} s: {d:.3f} ± {s:.3f}" for e, d, s in zip(EDGES_S, density[side], error[side], strict=True))
        print(f"{name:>5}  " + "   ".join(cells))
    outside = np.maximum(LEAST - density[:, 0], density[:, 0] - MOST) > 3 * error[:, 0]
    return int(outside.any())


if __name__ == "__main__":
    raise SystemExit(main())
