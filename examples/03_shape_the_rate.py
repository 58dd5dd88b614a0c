"""One population under different total rates: own, scaled, bounded, steps, a schedule file, a function of time."""

import math
import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
schedule = directory / "day.csv"
schedule.write_text("# linear\ntime_s,rate_rps\n0,5\n1800,40\n3600,10\n")

pool = sg.population("deepseek-r1", clients=500)
ways = {
    "own": {},
    "three times own": {"scale": 3},
    "at most 10 req/s": {"peak": 10},
    "20 req/s": {"rate": 20},
    "steps": {"rate": {0: 5, 1200: 30, 2400: 10}},
    "schedule": {"rate": str(schedule)},
    "function": {"rate": lambda t: 20 + 15 * math.sin(t / 600)},
}
for name, how in ways.items():
    trace = sg.generate(pool, duration="1h", counts="exact", seed=7, **how)
    per_10_minutes = np.bincount(trace["arrival_us"] // 600_000_000, minlength=6)
    print(f"{name:18} {len(trace):7,} requests, by ten minutes: {per_10_minutes.tolist()}")
