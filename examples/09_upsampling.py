"""Upsampling conversations tenfold: all times squeezed (naive), or only the time between conversations (ITT); Fig. 16."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
HOURS, MINUTE_US = 24, 60_000_000
# conversations of 2 to 9 turns, minutes apart, that begin in bursts of half an hour
bursts = {f"{m}m": 4.0 if m % 210 < 60 else 0.7 for m in range(0, HOURS * 60, 30)}
begun = sg.generate(sg.pool([sg.client(rate=bursts, input_tokens=50, output_tokens=300)]), duration=f"{HOURS}h", seed=7)
n = len(begun)
turns = sg.sample_from_cdf([2, 3, 5, 9], [0.4, 0.7, 0.9, 1.0], n, seed=1)
row = np.repeat(np.arange(n), turns)
first = np.repeat(np.cumsum(turns) - turns, turns)
gap_us = sg.sample_from_cdf([20, 60, 100, 300, 1500], [0.2, 0.4, 0.7, 0.9, 1.0], len(row), seed=2) * 1_000_000
gap_us[np.unique(first)] = 0
after_us = np.cumsum(gap_us) - np.cumsum(gap_us)[first]
unsorted = begun.take(row)
columns = unsorted.columns | {"arrival_us": unsorted["arrival_us"] + after_us, "conversation": row}
original = sg.Trace(columns, begun.provenance).take(np.argsort(columns["arrival_us"], kind="stable"))
original = original.between("0h", f"{HOURS}h")

height = 0
lines = []
for name, trace in {"naive": original.rescaled(10, "naive"), "itt": original.rescaled(10, "itt", tails="cut")}.items():
    minutes = np.bincount(trace["arrival_us"] // MINUTE_US, minlength=HOURS * 6)[: HOURS * 6]
    points = " ".join(f"{5 * x},{400 - y * 200 / minutes.mean():.0f}" for x, y in enumerate(minutes / 2))
    colour = {"naive": "firebrick", "itt": "steelblue"}[name]
    lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    print(f"{name:6} {len(trace):,} requests; rate by the minute, CV {minutes.std() / minutes.mean():.2f}")
    print("".join(" ▁▂▃▄▅▆▇█"[min(int(m / minutes.mean() * 3), 8)] for m in minutes[::2]))
svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 400">{"".join(lines)}</svg>'
(directory / "upsampling.svg").write_text(svg, encoding="utf-8")
