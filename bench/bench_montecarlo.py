"""Studies of many replicas: seconds, processor time, peak memory, and what a study costs beside its replicas.

See README.md. With ServeGen's released data, hours of deepseek-r1 at its own rate; without, of the population.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from common import add_json, child, data_dir, median, ours, timed, write_json

METRICS = ("input_tokens_peak_10s", "output_tokens_peak_10s")
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "100 replicas": (100, {}),
    "1,000 replicas": (1000, {}),
    "3,000 replicas": (3000, {}),
    "10 replicas of 100 draws of three parameters": (
        10,
        {"vary": ["rate=0.8:1.2", "burstiness=0.5:2:log", "length_scale=0.8:1.25:log"], "draws": 100},
    ),
}


def in_child(case: str) -> None:
    """One study, and its replicas without it; print what they took as JSON."""
    import servegen_gpu as sg
    from servegen_gpu.reducing.metrics import metrics
    from servegen_gpu.reducing.replicas import reduce_replicas

    data = data_dir()
    pool = sg.load_servegen(data, "deepseek-r1") if data else sg.population("deepseek-r1").with_conversations(None)
    replicas, varied = CASES[case]
    sg.monte_carlo(pool, duration="1h", replicas=2, metrics=METRICS)
    study, took = timed(lambda: sg.monte_carlo(pool, duration="1h", replicas=replicas, metrics=METRICS, **varied))
    table = study.table["control_requests"]
    expected = sg.stream(pool, duration="1h", counts="renewal").expected_requests
    found = {"replicas": len(study), "requests": round(float((table + 1).sum() * expected)), **took}
    if not varied:
        packed = sg.stream(pool, duration="1h", counts="renewal").packed
        named = metrics((*METRICS, "requests"), 3600.0)
        _, alone = timed(lambda: [one.figures() for one in reduce_replicas(packed, named, 0, range(replicas))])
        found |= {"alone_s": alone["seconds"], "alone_cpu_s": alone["cpu_s"]}
    print(json.dumps(found))


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="processes whose median counts")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    add_json(parser)
    options = parser.parse_args()
    if options.child:
        in_child(options.child)
        return
    results = []
    for case in CASES:
        done = [child([sys.executable, __file__, "--child", case], env=ours()) for _ in range(options.repeat)]
        found = [each.json() for each in done]
        figures = {"case": case, "replicas": found[0]["replicas"], "requests": found[0]["requests"]}
        names = ("seconds", "cpu_s", "alone_s", "alone_cpu_s")
        figures |= {name: round(median([one[name] for one in found]), 3) for name in names if name in found[0]}
        figures |= {"peak_mb": round(max(each.peak_mb for each in done)), "load": round(os.getloadavg()[0], 1)}
        print(figures, flush=True)
        results.append(figures)
    write_json(options.json, {"studies": results})


if __name__ == "__main__":
    main()
