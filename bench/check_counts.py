"""Figures of the counts and of the dependence between fields, against what the law says: see README.md."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from common import add_json, data_dir, need, write_json
from numpy.typing import NDArray

import servegen_gpu as sg
from servegen_gpu.plan import cells_of
from servegen_gpu.request.families import GAMMA

WINDOW_US = 600_000_000
EDGE_US = 10_000
HOUR_10 = 36_000


def many_clients(r1: sg.ClientPool) -> dict[str, Any]:
    """25,915 clients at 16 req/s: fewer than two requests a client, so any bias of a count shows."""
    workload = sg.stream(r1.clone(355), rate=16, start=HOUR_10, duration=600, seed=7)
    packed = workload.packed
    share = np.modf(cells_of(packed, np.arange(1)).expected_q32 * 2.0**-32)[0]
    sd = math.sqrt((share * (1 - share)).sum())  # unbiased rounding of every cell
    totals = [len(sg.generate(r1.clone(355), rate=16, start=HOUR_10, duration=600, seed=seed)) for seed in range(20)]
    target = workload.expected_requests
    return {
        "clients": len(packed.client_id),
        "active": len(share),
        "target": target,
        "requests": totals[0],
        "relative_error": totals[0] / target - 1,
        "sd_from_target": (totals[0] - target) / sd,
        "sd_from_target_20_seeds": (float(np.mean(totals)) - target) / sd * math.sqrt(20),
    }


def edges(r1: sg.ClientPool, rate: float, hours: float) -> dict[str, Any]:
    """Arrival density beside the edges of windows, relative to the mean, of a stream in bounded memory."""
    bins = np.zeros(WINDOW_US // EDGE_US, np.int64)
    longest = 0
    for slab in sg.stream(r1, rate=rate, duration=hours * 3600, seed=7, memory="1GB"):
        bins += np.bincount(slab["arrival_us"] % WINDOW_US // EDGE_US, minlength=len(bins))
        longest = max(longest, len(slab))
    density = bins / bins.mean()
    return {
        "requests": int(bins.sum()),
        "most_at_once": longest,
        "first_10_ms": float(density[0]),
        "last_10_ms": float(density[-1]),
        "sd_of_any_10_ms": float(density.std()),
        "poisson_sd": 1 / math.sqrt(bins.mean()),
    }


def variance(r1: sg.ClientPool, seeds: int) -> dict[str, Any]:
    """Variance of the number of requests over seeds, beside that of independent renewal processes."""
    keywords: dict[str, Any] = {"start": HOUR_10, "duration": 600}
    renewal = [len(sg.generate(r1, counts="renewal", seed=seed, **keywords)) for seed in range(seeds)]
    exact = [len(sg.generate(r1, counts="exact", seed=seed, **keywords)) for seed in range(seeds)]
    packed = sg.stream(r1, **keywords).packed
    cells = cells_of(packed, np.arange(1))
    at = (cells.profile, cells.row)
    expected = cells.expected_q32 * 2.0**-32
    shape = packed.shape[at]
    cv2 = np.where(packed.family[at] == GAMMA, 1 / shape, _weibull_cv2(shape))
    return {
        "seeds": seeds,
        "target": float(expected.sum()),
        "renewal_mean": float(np.mean(renewal)),
        "renewal_variance": float(np.var(renewal, ddof=1)),
        "renewal_variance_se": float(np.var(renewal, ddof=1) * math.sqrt(2 / (seeds - 1))),
        "sum_of_cv2_lambda_t": float((cv2 * expected).sum()),
        "exact_mean": float(np.mean(exact)),
        "exact_variance": float(np.var(exact, ddof=1)),
        "poisson_variance": float(expected.sum()),
    }


def _weibull_cv2(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import gammaln

    return np.asarray(np.expm1(gammaln(1 + 2 / shape) - 2 * gammaln(1 + 1 / shape)))


def dependence(r1: sg.ClientPool, least: int = 10_000) -> dict[str, Any]:
    """Spearman correlation of input and output inside cells of one window, by kind of dependence."""
    from scipy.stats import spearmanr

    made: dict[str, Any] = {}
    for kind in ("independent", "comonotone", "copula"):
        correlation = np.array([[1, 0.3, 0], [0.3, 1, 0], [0, 0, 1]]) if kind == "copula" else None
        trace = sg.generate(
            r1, rate=2000, start=HOUR_10, duration=600, seed=7, dependence=kind, rank_correlation=correlation
        )
        rho, weight = [], []
        for client in np.flatnonzero(np.bincount(trace["client"]) >= least):
            mine = trace["client"] == client
            rho.append(float(spearmanr(trace["input_tokens"][mine], trace["output_tokens"][mine]).statistic))
            weight.append(int(mine.sum()))
        made[kind] = {
            "cells": len(rho),
            "mean": float(np.average(rho, weights=weight)),
            "min": min(rho),
            "max": max(rho),
            "sd_of_mean_if_0": 1 / math.sqrt(sum(weight)),
        }
    made["copula"]["asked"] = 0.3
    return made


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and seeds")
    add_json(parser)
    options = parser.parse_args()
    data: Path = need(data_dir(), "profiles (SERVEGEN_DATA)")
    r1 = sg.load_servegen(data, "deepseek-r1")
    results = {}
    for name, figures in (
        ("25,915 clients, 16 req/s, 600 s", lambda: many_clients(r1)),
        ("edges of windows", lambda: edges(r1, 1000, 1 if options.quick else 24)),
        ("variance of counts", lambda: variance(r1, 50 if options.quick else 200)),
        ("dependence inside cells", lambda: dependence(r1)),
    ):
        results[name] = figures()
        print(name, results[name], flush=True)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
