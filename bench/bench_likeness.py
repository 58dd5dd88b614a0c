"""How like a log replicas of its fit are, and those of worse models: figures and instances needed. See README.md.

Models: `servegen_gpu.fit`; one renewal process with the log's rates by 600 s and by 60 s (`servegen_gpu.naive`);
Poisson with the mean rate; a hidden Markov model with four states on counts of a second (Baum and others, 1970).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import add_json, write_json

import servegen_gpu as sg
from servegen_gpu.comparing.figures import Figures, figures_of
from servegen_gpu.comparing.floors import Floor
from servegen_gpu.fitting.sessions import block_tokens
from servegen_gpu.prefixes.lru import cache_sizes, lru_curve
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import instances_needed_each

IDC = ("idc_1s", "idc_10s", "idc_60s", "idc_600s")
PEAKS = ("peak_1s", "peak_10s", "peak_60s")
OTHERS = ("gap_cv", "empty_1s", "match_share", "input_idc_1s", "input_idc_10s", "input_idc_60s")
CACHE_REPLICAS, SHORTEST_HALF_S = 20, 300
SLO_S = 2.0
WITHIN, SERVERS_WITHIN = 0.20, 0.25
Model = Callable[[int], sg.Trace]


def models(log: sg.Trace) -> dict[str, Model]:
    """Replicas of the log by what makes them."""
    span_s = (int(log["arrival_us"][-1]) - int(log["arrival_us"][0]) + 1) / 1e6

    def of(pool: sg.ClientPool) -> Model:
        return lambda r: sg.generate(pool, duration=span_s, replica=r)

    constant = sg.naive(log, family="poisson")
    steady = constant.own_rps.mean()
    return {
        "fit": of(sg.fit(log)),
        "one renewal, 600 s": of(sg.naive(log)),
        "one renewal, 60 s": of(sg.naive(log, window_s=60)),
        "poisson, constant rate": lambda r: sg.generate(constant, rate=float(steady), duration=span_s, replica=r),
        "hidden markov, 4 states": _hidden_markov(log, span_s),
    }


def _hidden_markov(log: sg.Trace, span_s: float, states: int = 4, steps: int = 80) -> Model:
    """Poisson counts of seconds whose rate follows a Markov chain, by expectation maximisation."""
    second = (log["arrival_us"] - log["arrival_us"][0]) // 1_000_000
    counts = np.bincount(second)
    rate = np.quantile(counts[counts > 0], np.linspace(0.1, 0.95, states)) * np.linspace(0.2, 1, states)
    moves = np.full((states, states), 0.1 / (states - 1)) + (0.9 - 0.1 / (states - 1)) * np.eye(states)
    begin = np.full(states, 1 / states)
    for _ in range(steps):
        logs = counts[:, None] * np.log(rate) - rate
        likely = np.exp(logs - logs.max(axis=1, keepdims=True))
        ahead, back = np.empty_like(likely), np.ones_like(likely)
        now = begin * likely[0]
        for i in range(len(counts)):
            now = now if i == 0 else (now @ moves) * likely[i]
            now = now / now.sum()
            ahead[i] = now
        both = np.zeros_like(moves)
        for i in range(len(counts) - 2, -1, -1):
            after = likely[i + 1] * back[i + 1]
            pair = ahead[i][:, None] * moves * after
            both += pair / pair.sum()
            back[i] = moves @ after
            back[i] /= back[i].sum()
        share = ahead * back
        share /= share.sum(axis=1, keepdims=True)
        moves, begin = both / both.sum(axis=1, keepdims=True), share[0]
        rate = np.maximum((share * counts[:, None]).sum(axis=0) / share.sum(axis=0), 1e-4)
    upto = np.cumsum(moves, axis=1)

    def replica(r: int) -> sg.Trace:
        rng = np.random.default_rng([7, r])
        state = np.empty(len(counts), np.int64)
        state[0] = rng.choice(states, p=begin)
        for i, u in enumerate(rng.random(len(counts) - 1)):
            state[i + 1] = min(np.searchsorted(upto[state[i]], u), states - 1)
        n = rng.poisson(rate[state])
        at_us = np.sort(np.repeat(np.arange(len(n)) * 1_000_000, n) + rng.integers(0, 1_000_000, n.sum()))
        rows = rng.integers(0, len(log), len(at_us))
        return sg.Trace({"arrival_us": at_us} | {k: log[k][rows] for k in ("input_tokens", "output_tokens")})

    return replica


def seen(made: Sequence[sg.Trace], instances: bool) -> dict[str, float]:
    """Means of figures over replicas, medians of peaks, and the instances that they need on average."""
    each = [figures_of(trace) for trace in made]
    found = {name: float(np.nanmean([one[name] for one in each])) for name in (*IDC, *OTHERS) if name in each[0]}
    found |= {name: float(np.median([one[name] for one in each])) for name in PEAKS}
    if instances:
        found["instances"] = float(np.mean(instances_needed_each(made, Server(), slo_ttft_s=SLO_S)))
    return found


def faults(found: dict[str, float], log: Figures, floor: Floor, needed: float | None) -> list[str]:
    """What is not like the log: dispersion, peaks, instances."""
    wrong = [
        f"{name} {found[name]:.3g}, log {log[name]:.3g}"
        for name in IDC[:3]
        if name in log and abs(found[name] / log[name] - 1) > WITHIN
    ]
    for name in [one for one in (IDC[3], *PEAKS) if one in log]:
        interval = floor.interval(name)
        if not interval.low <= found[name] <= interval.high:
            wrong.append(f"{name} {found[name]:.3g}, not in {interval.low:.3g} to {interval.high:.3g}")
    if needed is not None and abs(found["instances"] / needed - 1) > SERVERS_WITHIN:
        wrong.append(f"{found['instances']:.1f} instances, log {needed:g}")
    return wrong


def half_to_half(log: sg.Trace, replicas: int) -> tuple[float, float]:
    """Mean |ln ratio| of dispersion at 1, 10 and 60 s: the fit of the first half to the second, and the first half."""
    begin_us, end_us = int(log["arrival_us"][0]), int(log["arrival_us"][-1]) + 1
    middle_s = (begin_us + end_us) / 2e6
    first, second = log.between(begin_us / 1e6, middle_s), log.between(middle_s, end_us / 1e6)
    wanted, own = figures_of(second), figures_of(first)
    pool = sg.fit(first)
    made = seen([sg.generate(pool, duration=middle_s - begin_us / 1e6, replica=r) for r in range(replicas)], False)

    def off(found: Any) -> float:
        return float(np.mean([abs(np.log(found[name] / wanted[name])) for name in IDC[:3]]))

    return off(made), off(own)


def caches(log: sg.Trace, replicas: int) -> dict[str, list[float]]:
    """Hit shares of LRU caches, of the log and on average of replicas of its fit."""
    pool, report = sg.fit_with_report(log)
    made = [sg.generate(pool, duration=report.span_s, replica=r) for r in range(replicas)]
    sizes, block = cache_sizes(log, 5), block_tokens(log)
    curves = [lru_curve(one.with_hash_ids(block, system_tokens=pool.system_prompts()), sizes) for one in made]
    both = {"log": lru_curve(log, sizes), "fit": np.mean(curves, axis=0)}
    return {name: np.round(curve, 4).tolist() for name, curve in both.items()}


def rows(log: sg.Trace, replicas: int) -> Iterator[dict[str, Any]]:
    """A line for the log and for every model."""
    figures = figures_of(log)
    floor, instances = Floor(figures), float(instances_needed_each([log], Server(), slo_ttft_s=SLO_S)[0])
    needed = instances if np.isfinite(instances) else None  # where not even 64 would do
    names = [name for name in (*IDC, *PEAKS, *OTHERS) if name in figures]
    yield {"case": "log", **{name: round(figures[name], 4) for name in names}, "instances": needed}
    for name, model in models(log).items():
        found = seen([model(r) for r in range(replicas)], needed is not None)
        yield {
            "case": name,
            **{key: round(value, 4) for key, value in found.items()},
            "faults": faults(found, figures, floor, needed),
        }
    if "hash_ids" in log:
        yield {"case": "hits of LRU caches of five sizes", **caches(log, min(replicas, CACHE_REPLICAS))}
    if IDC[2] not in figures or figures.seen.seconds < 2 * SHORTEST_HALF_S:
        return
    fitted, own = half_to_half(log, replicas)
    yield {"case": "fit of the first half, to the second", "mean_ln_ratio": round(fitted, 3), "floor": round(own, 3)}


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, help="any trace file, such as AzureLLMInferenceTrace_code.csv")
    parser.add_argument("--replicas", type=int, default=200)
    add_json(parser)
    options = parser.parse_args()
    results = []
    for row in rows(sg.read_trace(options.log), options.replicas):
        print(row, file=sys.stderr)
        results.append(row)
    write_json(options.json, {"likeness": results})


if __name__ == "__main__":
    main()
