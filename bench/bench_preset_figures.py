"""What presets look like as a whole, beside what is published of their workloads: see README.md.

Clients of seed s are sampled with seed s at their own rates, for three hours from two in the afternoon on; figures are
means over seeds. A second sample at 60 req/s over the whole period gives the CV of every five minutes, and a third one,
at own rates over a day, how much the rate changes from ten minutes to ten minutes.

Released clients change their rates from ten minutes to ten minutes, each for itself; the rates of presets are smooth.
`MOVED` has environments that make the largest clients of a preset change as released ones do: fitted to the second
differences of the released total over one and two windows, times the squared share of the requests that it has.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from common import add_json, data_dir, write_json
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.clients.population.presets import PRESETS
from servegen_gpu.clients.stated.environment import Environment, Margin
from servegen_gpu.windowed import gap_cvs

SPAN: dict[str, Any] = {"start": "14h", "duration": "3h"}
SCALES_S = (1, 10, 60, 600)
FAST: dict[str, Any] = {"memory": "1GB"}
FOR_RANKS = 200_000
RELEASED, OF_EACH = "released ", ", each of 20 clients moved"
MOVED = {
    "m-large": Environment(Margin.gamma(0.31), {0: 0.55, 1: 0.45}, cell_s=300, each="client"),
    "mm-image": Environment(Margin.gamma(0.105), {0: 0.39, 1: 0.61}, cell_s=300, each="client"),
    "deepseek-r1": Environment(Margin.gamma(0.30), {0: 1}, cell_s=300, each="client"),
}


def pool_of(name: str, seed: int) -> sg.ClientPool:
    """A preset by its name, with its largest clients moved or not, or a released workload."""
    if name.startswith(RELEASED):
        return sg.load_servegen(data_dir() or "", name.removeprefix(RELEASED))
    preset = name.removesuffix(OF_EACH)
    pool = sg.population(preset, seed=seed)
    return pool if preset == name else pool.with_environment(MOVED[preset], clients=range(20))


def dispersion(requests: np.ndarray) -> dict[str, float]:
    """Variance over mean of numbers of requests in windows, from those of every second.

    Once as it is, and once, "local", of the distance from a straight line through the windows before and after, which
    leaves out that rates rise and fall with the hour.
    """
    found = {}
    for scale in SCALES_S:
        counts = requests[: len(requests) // scale * scale].reshape(-1, scale).sum(axis=1)
        found[f"dispersion_{scale}_s"] = float(counts.var(ddof=1) / counts.mean())
        found[f"local_dispersion_{scale}_s"] = float((np.diff(counts, 2) ** 2).mean() / 6 / counts.mean())
    return found


def changes(requests: np.ndarray) -> float:
    """Standard deviation of the logarithm of numbers of requests around a line through the windows beside each."""
    log = np.log(np.maximum(requests, 1))
    return float(np.sqrt((np.diff(log, 2) ** 2).mean() / 6))


def ranks(trace: sg.Trace, seed: int) -> dict[str, float]:
    """Spearman correlations of lengths, of all requests together and of the largest client's."""
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(len(trace), min(len(trace), FOR_RANKS), replace=False))
    columns = {name: trace[name][some].astype(float) for name in ("input_tokens", "output_tokens")}
    into, out = columns.values()
    clients, sizes = np.unique(trace["client"][some], return_counts=True)
    mine = trace["client"][some] == clients[sizes.argmax()]
    found = {
        "input_output": stats.spearmanr(into, out).statistic,
        "of_the_largest_client": stats.spearmanr(into[mine], out[mine]).statistic,
    }
    fifths = np.digitize(into, np.quantile(into, [0.2, 0.4, 0.6, 0.8]))
    found["output_of_longest_over_shortest_fifth"] = np.median(out[fifths == 4]) / np.median(out[fifths == 0])
    if "reason_tokens" in trace:
        reason = trace["reason_tokens"][some].astype(float)
        found["reason_answer"] = stats.spearmanr(reason, out - reason).statistic
    return {name: float(value) for name, value in found.items()}


def short_windows(slabs: Iterable[sg.Trace] | sg.Trace) -> dict[str, float]:
    """Fig. 19: the spread of rates in windows of three seconds, and how lengths go with them."""
    seen = sg.in_windows(slabs, 3.0)
    found = {"rate_cv": seen.rate_cv}
    for column in ("input_tokens", "output_tokens"):
        found[f"rate_and_{column}"] = seen.rank_correlation(column)
    return found


def figures(name: str, seeds: int) -> dict[str, Any]:
    """Means over seeds."""
    rows = []
    for seed in range(seeds):
        pool = pool_of(name, seed)
        trace = sg.generate(pool, **SPAN, counts="renewal", seed=seed)
        naive = sg.generate(sg.naive(pool), **SPAN, counts="renewal", seed=seed)
        second = sg.in_windows(trace, 1.0).requests
        row = {"requests_per_s": float(second.mean()), **dispersion(second), "cv_5_min": sg.fitted_cv(trace)}
        row |= ranks(trace, seed) | {f"3_s_{key}": value for key, value in short_windows(trace).items()}
        rows.append(row | {f"naive_3_s_{key}": value for key, value in short_windows(naive).items()})
    found: dict[str, Any] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    pool = pool_of(name, 0)
    period_s = pool.period_windows * pool.window_s
    cvs = gap_cvs(sg.stream(pool, rate=60, duration=period_s, counts="renewal", **FAST))
    found |= dict(zip(("cv_5_%", "cv_median", "cv_95_%"), np.nanquantile(cvs, [0.05, 0.5, 0.95]).tolist(), strict=True))
    day = sg.in_windows(sg.stream(pool, duration="1d", counts="renewal", **FAST), 600.0)
    found["rate_changes_600_s"] = changes(day.requests)
    return {"case": name} | {key: float(f"{value:.3g}") for key, value in found.items()}


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="names of presets")
    add_json(parser)
    options = parser.parse_args()
    released = [RELEASED + name for name in ("mm-image", "deepseek-r1")] if data_dir() else []
    rows = []
    for name in options.only or (*PRESETS, *(name + OF_EACH for name in MOVED), *released):
        rows.append(figures(name, options.seeds))
        print(rows[-1], flush=True)
    write_json(options.json, {"seeds": options.seeds, "figures": rows})


if __name__ == "__main__":
    main()
