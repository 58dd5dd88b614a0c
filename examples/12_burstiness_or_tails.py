"""What matters more to the load that servers see, burstiness or length tails? Half to twice the CV of all gaps, against
two thirds to three halves of the spread of (log) lengths at the same means.

1. Burstiness, at any rate: it moves the P99 of input tokens per 10 seconds two to five times as far as tails do.
2. By more, the more traffic there is: lengths of many requests average out, while a large client's bursts do not.
3. Tails come closer where few requests share a bin, at low rates.
4. Outputs depend on tails less than inputs do, because their tails are shorter.
5. So measure gaps by client before lengths: what gets lengths right and bursts wrong misses the peak.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import servegen_gpu as sg

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
pool = sg.population("m-large", clients=1000)
vary = {"burstiness": (0.5, 2, "log"), "length_tail": (2 / 3, 1.5, "log")}
metrics = ["input_tokens_p99_1s", "input_tokens_p99_10s", "output_tokens_p99_10s"]

print(f"{'':28}{'burstiness':>12}{'tails':>8}   (swing of the metric, of its value at the base)")
for rate in (1, 10, 100):
    found = sg.sensitivity(pool, vary, metrics, rate=rate, duration="20m", start="14h", replicas=10)
    found.write(folder / f"burstiness_or_tails_{rate}.parquet")  # for servegen-gpu report
    for metric, rows in found.table.groupby("metric", sort=False):
        bursts, tails = rows["swing"] / rows["base"]
        print(f"{rate:4} req/s {metric:22}{bursts:8.0%}{tails:8.0%}")
    if find_spec("matplotlib"):
        from servegen_gpu.plotting.studies import tornado

        rows = found.table[found.table["metric"] == "input_tokens_p99_10s"]
        high = rows["at_low"].to_numpy()[:, None] + rows[["swing", "swing_low", "swing_high"]].to_numpy()
        label = f"P99 of input tokens per 10 s, at {rate} req/s"
        picture = tornado(found.parameters, rows["at_low"].to_numpy(), high, rows["base"].iloc[0], label)
        picture.savefig(folder / f"burstiness_or_tails_{rate}.png")
