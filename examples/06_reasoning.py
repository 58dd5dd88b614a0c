"""Reasoning: outputs that are split into reason and answer, and how both add up over clients."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

pool = sg.population("deepseek-r1", clients=5_000)
trace = sg.generate(pool, rate=50, duration="20m", seed=7)
reason, output = trace["reason_tokens"].astype(float), trace["output_tokens"]
answer = output - trace["reason_tokens"]
print(f"{len(trace):,} requests; reason {reason.mean():,.0f} tokens, answer {answer.mean():,.0f}")

share = reason / output
counts, edges = np.histogram(share, bins=10, range=(0, 1))
for count, edge in zip(counts, edges[:-1], strict=True):
    print(f"{edge:.1f} {'#' * int(60 * count / counts.max())}")

busiest = np.bincount(trace["client"]).argsort()[::-1][:3]
for client in busiest:
    mine = trace["client"] == client
    print(f"client {client}: {mine.sum():,} requests, median share {np.median(share[mine]):.2f}")
trace.write(directory / "reasoning.parquet")
