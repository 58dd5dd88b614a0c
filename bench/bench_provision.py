"""Provisioning: the paper's Fig. 20 with 200 replicas, in cells and on held-out traces, and Fig. 21. See README.md."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import add_json, m_large_dir, timed, write_json

import servegen_gpu as sg
from servegen_gpu.serving.objective import parse_objective
from servegen_gpu.studies.provisioned import Provision
from servegen_gpu.studies.requested import SampledPool, naive_baseline

SLO, SERVER = "ttft=2.25s,tbt=0.5s", "llama-3-70b-4xa100"
HOW: dict[str, Any] = {"rate": 50, "duration": "10m", "start": "10h"}
CELLS = [f"ttft={ttft}s,tbt={tbt}s" for tbt in (0.5, 0.3) for ttft in (1.5, 2.25, 3, 4)]
BASE, TIGHT_TBT, TIGHT_TTFT = (
    parse_objective(slo) for slo in ("ttft=8s,tbt=60ms", "ttft=8s,tbt=30ms", "ttft=4s,tbt=60ms")
)
TRANSFER = 327_680 / 25e9
"""Seconds a token of KV cache takes: bytes of Qwen2.5-72B, at 25 GB/s."""


def figures(name: str, study: Provision, seconds: dict[str, float]) -> dict[str, Any]:
    """A study as a line."""
    found: dict[str, Any] = {"pool": name, "server": study.settings["server"]["name"], **study.settings["objective"]}
    for source in study.sources:
        found[source] = [study.plan(source, level).value for level in (0.5, 0.9, 0.95, 0.99)]
        found[f"{source}_by_rate"] = study.plan(source, 0.5, "by_rate").value
    missed = study.against_naive().set_index("level")["missed"]
    found |= {"missed_with_naive_50": float(missed[0.5]), "missed_with_naive_99": float(missed[0.99])}
    found = {key: value if not isinstance(value, float) or np.isfinite(value) else None for key, value in found.items()}
    return found | {name: round(value, 2) for name, value in seconds.items()}


def held_out(pool: sg.ClientPool, plan: Provision, replicas: int) -> dict[str, Any]:
    """What traces of another seed need, against what was planned for one replica in two."""
    real = sg.provision(pool, SLO, SERVER, **HOW, replicas=replicas, seed=1).sample("clients")
    errors = {source: plan.plan(source, 0.5).value / real - 1 for source in plan.sources}
    found: dict[str, Any] = {"traces": replicas, "median_needed": float(np.median(real))}
    for source, error in errors.items():
        found[f"{source}_median_error_percent"] = round(100 * float(np.median(error)), 1)
        found[f"{source}_within_10_percent"] = round(float((np.abs(error) <= 0.1).mean()), 3)
    return found


def splits(pool: sg.ClientPool, rate: float, replicas: int) -> list[dict[str, Any]]:
    """Share of requests that keep to the bounds, by split of eight instances, for clients and naive baselines."""
    how = {"duration": "10m", "start": "15h", "counts": "renewal"}
    clients = SampledPool.of("clients", pool, rate, how, 0, replicas)
    sources = {"clients": clients} | {kind: naive_baseline(clients, kind, replicas) for kind in ("gamma", "poisson")}
    server, found = sg.load_server("qwen2.5-72b-4xh20"), []
    for name, source in sources.items():
        for prefill in range(3, 8):
            split = sg.Split(prefill, 8 - prefill, transfer_s_per_token=TRANSFER)
            served = [sg.simulate(source.trace(replica), server, split) for replica in range(replicas)]
            row = {"rate_rps": rate, "source": name, "split": str(split)}
            for words, objective in (("base", BASE), ("tight_tbt", TIGHT_TBT), ("tight_ttft", TIGHT_TTFT)):
                row[words] = round(float(np.mean([objective.attainment(s.ttft_s, s.tbt_s) for s in served])), 4)
            found.append(row)
        best = [max(found[-5:], key=lambda row, of=of: row[of])["split"] for of in ("base", "tight_tbt", "tight_ttft")]
        print(f"{name}, {rate:g} req/s, best splits:", *best)
    return found


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="the study of Fig. 20 alone")
    add_json(parser)
    options = parser.parse_args()
    pools = {"m-large": sg.population("m-large")}
    if (released := m_large_dir()) is not None:
        pools["m-large, released"] = sg.load_servegen(released, "m-large", missing="drop")
    results: dict[str, list[dict[str, Any]]] = {"fig20": [], "cells": [], "held_out": [], "fig21": []}
    for name, pool in pools.items():
        for family in ("gamma", "poisson"):
            study, took = timed(
                lambda pool=pool, family=family: sg.provision(
                    pool, SLO, SERVER, **HOW, replicas=options.replicas, naive=family
                )
            )
            results["fig20"].append(figures(name, study, took))
            print(results["fig20"][-1])
        if options.quick:
            continue
        results["held_out"].append({"pool": name} | held_out(pool, study, options.replicas))
        print(results["held_out"][-1])
        for slo in CELLS:
            study, took = timed(
                lambda pool=pool, slo=slo: sg.provision(pool, slo, SERVER, **HOW, replicas=20, naive="gamma")
            )
            results["cells"].append(figures(name, study, took))
            print(results["cells"][-1])
    if not options.quick:
        for rate in (10.0, 12.0, 14.0):
            results["fig21"] += splits(pools["m-large"], rate, 16)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
