"""Conversations and prefix reuse: how much of an input a prefix cache has seen, turn by turn."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg
from servegen_gpu.clients.stated.distributions import LogNormal

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

pool = sg.population("deepseek-r1", clients=500)  # a tenth of its requests are in conversations
trace = sg.generate(pool, rate=20, duration="1h", seed=7)
print(trace)

rule = {"block_tokens": 64, "system_tokens": LogNormal(median=200, sigma=0.7, max=4_000)}  # drawn once for a client
hits = sg.prefix_hits(trace, **rule)
print("turn  requests  input tokens  held by a cache  of conversations alone")
for turn in range(1, 9):
    rows = trace["turn"] == turn
    tokens, new = trace["input_tokens"][rows].sum(), trace["new_tokens"][rows].sum()
    held, own = hits[rows].sum() * 64 / tokens, 1 - new / tokens
    print(f"{turn:4}  {rows.sum():8,}  {tokens / rows.sum():12,.0f}  {held:15.0%}  {own:22.0%}")

ids = sg.hash_ids(trace, **rule, dense=True)  # small numbers, as in the traces of Mooncake
longest = np.argmax(np.where(trace["turn"] == 4, trace["input_tokens"], 0))
for row in np.flatnonzero(trace["conversation"] == trace["conversation"][longest])[:4]:
    print(f"turn {trace['turn'][row]}: {len(ids[row])} blocks: {' '.join(map(str, ids[row][:12]))} …")

pieces = sg.hash_slabs(sg.stream(pool, rate=20, duration="1h", seed=7), **rule)  # any length, bounded memory
print(f"{sum(len(piece['hash_ids'].values) for piece in pieces):,} blocks in the stream")
trace.with_hash_ids(**rule).write(directory / "prefixes.parquet")
