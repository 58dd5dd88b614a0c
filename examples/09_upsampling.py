"""Conversations made ten times denser: all times squeezed (naive), or only between conversations (ITT); Fig. 16."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

workload = sg.generate(sg.population("deepseek-r1", clients=1_000), duration="24h", seed=1)
_, of, turns = np.unique(workload["conversation"], return_inverse=True, return_counts=True)
conversations = workload.take(np.flatnonzero(turns[of] > 1))
factor = len(workload) / len(conversations)
traces = {
    "original": workload,
    "naive": conversations.rescaled(factor, "naive"),
    "itt": conversations.rescaled(factor, "itt", tails="cut"),
}
print(f"{len(conversations):,} of {len(workload):,} requests are in conversations: {factor:.1f} times as dense")

lines = []
minutes, mean = int(24 * 60 / factor), len(workload) / 24 / 60
for (name, trace), colour in zip(traces.items(), ("gray", "firebrick", "steelblue"), strict=True):
    rate = np.bincount(trace["arrival_us"] // 60_000_000)[: int(trace.provenance["duration_s"] / 60)]
    change = np.diff(rate) ** 2 / 2 / ((rate[1:] + rate[:-1]) / 2)  # 1 for Poisson
    print(f"{name:8} from minute to minute, requests vary {change.mean():.2f} times as much as Poisson's")
    print(" " * 9 + "".join(" ▁▂▃▄▅▆▇█"[min(int(4 * r / mean), 8)] for r in rate[:100]))
    points = " ".join(f"{5 * minute},{300 - 150 * r / mean:.0f}" for minute, r in enumerate(rate[:minutes]))
    lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}"><title>{name}</title></polyline>')
svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {5 * minutes} 300">{"".join(lines)}</svg>'
(directory / "upsampling.svg").write_text(svg, encoding="utf-8")
