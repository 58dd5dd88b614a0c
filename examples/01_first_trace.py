"""A first trace: a built-in population, ten minutes, written to a file and looked at."""

import sys
from pathlib import Path

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

pool = sg.population("deepseek-r1", clients=1_000)
trace = sg.generate(pool, rate=20, duration="10m", seed=7)
print(trace)

frame = trace.to_pandas()
print(frame[["input_tokens", "output_tokens", "reason_tokens"]].describe().round(1))
print("busiest clients:", frame["client"].value_counts().head(3).to_dict())

trace.write(directory / "first.parquet")
for slab in sg.stream(pool, scale=1.0, duration="2h", memory="100MB"):  # any length, bounded memory
    print(f"{len(slab):,} requests from row {slab.first_row:,}")
