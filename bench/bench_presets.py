"""Presets beside the released deepseek-r1, in turns inside one process; short traces and shares: see README.md.

Slabs are sampled and dropped, under one memory budget. A turn samples every case once; ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import add_json, data_dir, median, need, write_json

import servegen_gpu as sg

FAST: dict[str, Any] = {"rate": 10_000, "memory": "1GB"}
RELEASED = "released deepseek-r1"


def cases() -> dict[str, sg.ClientPool]:
    """Pools by name, the released one first."""
    r1 = sg.population("deepseek-r1")
    return {
        RELEASED: sg.load_servegen(need(data_dir(), "profiles (SERVEGEN_DATA)"), "deepseek-r1"),
        "deepseek-r1 without conversations": r1.with_conversations(None),
        "m-large": sg.population("m-large"),
        "m-small": sg.population("m-small"),
        "deepseek-r1 with conversations": r1,
    }


def sampled(pool: sg.ClientPool, **keywords: Any) -> tuple[int, float]:
    """Requests, and seconds of sampling them; packing is not counted."""
    workload = sg.stream(pool, **keywords)
    begun = time.perf_counter()
    requests = sum(map(len, workload))
    return requests, time.perf_counter() - begun


def speeds(pools: dict[str, sg.ClientPool], duration: str, turns: int) -> list[dict[str, Any]]:
    """Requests a second of every pool, and ratios to the released one."""
    found: dict[str, list[float]] = {name: [] for name in pools}
    for turn in range(turns + 1):
        for name, pool in pools.items():
            requests, seconds = sampled(pool, duration=duration, **FAST)
            if turn:  # the first one warms up
                found[name].append(requests / seconds / 1e6)
    rows = []
    for name, rates in found.items():
        ratios = [own / released for own, released in zip(rates, found[RELEASED], strict=True)]
        row = {"case": name, "million_requests_per_s": round(median(rates), 1), "ratio": round(median(ratios), 2)}
        rows.append(row | {"least": round(min(ratios), 2), "most": round(max(ratios), 2)})
        print(rows[-1], flush=True)
    return rows


def short(pool: sg.ClientPool, turns: int) -> dict[str, Any]:
    """Ten minutes of 100 req/s, whose conversations are looked for from twelve hours before."""
    times = [sampled(pool, rate=100, duration="10m")[1] for _ in range(turns + 1)][1:]
    found = {"case": "10 minutes of 100 req/s", "milliseconds": round(median(times) * 1e3, 1)}
    found["least"], found["most"] = round(min(times) * 1e3, 1), round(max(times) * 1e3, 1)
    print(found, flush=True)
    return found


def shares(pool: sg.ClientPool, turns: int) -> list[dict[str, Any]]:
    """One share of eight beside the whole, with conversations and without, in turns."""
    rows = []
    for name, of in {"with conversations": pool, "without": pool.with_conversations(None)}.items():
        keywords: dict[str, Any] = {"rate": 500, "duration": "12h", "memory": "1GB"}
        parts = {"whole": {}, "share 4/8": {"shard": "4/8"}, "warm-up alone": {"duration": "1s"}}
        times: dict[str, list[float]] = {part: [] for part in parts}
        for turn in range(turns + 1):
            for part, more in parts.items():
                _, seconds = sampled(of, **(keywords | more))
                if turn:
                    times[part].append(seconds)
        middle = {part: median(seconds) for part, seconds in times.items()}
        row = {"case": f"deepseek-r1 {name}, 500 req/s, 12 h", "whole_s": round(middle["whole"], 3)}
        row |= {"share_of_whole": round(middle["share 4/8"] / middle["whole"], 3)}
        rows.append(row | {"warmup_of_whole": round(middle["warm-up alone"] / middle["whole"], 3)})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--duration", default="1h")
    add_json(parser)
    options = parser.parse_args()
    pools = cases()
    preset = pools["deepseek-r1 with conversations"]
    results = {
        "short": short(preset, options.turns),
        "shares": shares(preset, options.turns),
        "speeds": speeds(pools, options.duration, options.turns),
    }
    write_json(options.json, results)


if __name__ == "__main__":
    main()
