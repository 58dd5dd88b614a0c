"""A billion requests on a CUDA device, added up where they are; a million where there is none.

Slabs stay on the device as CuPy arrays: hand them to your simulator, or to PyTorch or JAX through DLPack.
"""

import time

import servegen_gpu as sg
from servegen_gpu.backends import describe_backends

device = any(row["name"] == "cupy" and row["state"] == "ready" for row in describe_backends())
requests = 1e9 if device else 1e6
pool = sg.population("deepseek-r1").with_conversations(None)
workload = sg.stream(pool, rate=requests / 3600, duration="1h", memory="8GB", seed=1, device=device)

begun = time.perf_counter()
rows = tokens = longest = 0
for slab in workload:
    rows += len(slab)
    tokens += int(slab["output_tokens"].sum(dtype="int64"))
    longest = max(longest, int(slab["input_tokens"].max()))
spent_s = time.perf_counter() - begun
print(f"{rows:,} requests on {workload.backend.name}: {spent_s:.2f} s, {rows / spent_s / 1e6:,.0f} million/s")
print(f"{tokens / 3600:,.0f} output tokens/s, inputs of up to {longest:,} tokens")
