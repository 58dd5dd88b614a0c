"""Conversations and prefix reuse: how much of an input a prefix cache has seen, turn by turn."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg
from servegen_gpu.clients.distributions import Exponential, LogNormal

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

# Requests of 20 clients, dealt out to 1,000 chats round by round: what they ask and answer adds up to their contexts.
user = sg.client(count=20, rate=0.1, input_tokens=LogNormal(median=150, sigma=1), output_tokens=Exponential(400))
dealt = sg.generate(sg.pool([user]), duration="1h", seed=7)
chats, turns = 1_000, len(dealt) // 1_000
arrival, new, output = (dealt[c][: chats * turns] for c in ("arrival_us", "input_tokens", "output_tokens"))
new[:chats] += 800  # the system prompt of the chat's client
said = np.cumsum((new + output).reshape(turns, chats), axis=0, dtype=np.int32).ravel()
chat, turn = np.tile(np.arange(chats), turns), np.repeat(np.arange(1, turns + 1, dtype=np.int32), chats)
columns = {"arrival_us": arrival, "client": (chat % 20).astype(np.int32), "input_tokens": said - output}
trace = sg.Trace(columns | {"output_tokens": output, "conversation": chat, "turn": turn, "new_tokens": new})

size = 64
hits = sg.prefix_hits(trace, size, system_tokens=800)
print("turn  requests  input tokens  in earlier inputs  or answers")
for at in range(1, turns + 1):
    rows = trace["turn"] == at
    tokens, fresh = trace["input_tokens"][rows], trace["new_tokens"][rows]
    seen, answered = (blocks.sum() * size / tokens.sum() for blocks in (hits[rows], (tokens - fresh) // size))
    print(f"{at:4}  {rows.sum():8,}  {tokens.mean():12,.0f}  {seen:17.0%}  {max(seen, answered):10.0%}")
written = trace.with_hash_ids(size, system_tokens=800).write(directory / "prefixes.parquet")
print(f"{written.rows:,} requests, {written.bytes / written.rows:.1f} bytes each with ids of their blocks")
