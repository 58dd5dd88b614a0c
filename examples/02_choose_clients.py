"""Choose clients and windows of a pool by what they are like, and look at what is left."""

import sys
from pathlib import Path

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

pool = sg.population("deepseek-r1", clients=2_000)
bursty = pool.filter(cv=(2, None), mean_output_tokens=(None, 3_000))
evening = pool.span(18 * 3600, 22 * 3600).top(10)
talkative = pool.where(lambda w: w.mean("output_tokens") > 3 * w.mean("input_tokens"))
steady = pool.clients_where(activity=(0.9, None), requests=(100, None))
for name, some in {"bursty": bursty, "evening": evening, "talkative": talkative, "steady": steady}.items():
    print(f"{name:10} {len(some):6,} clients, {some.own_rps.mean():.3f} req/s")

print(pool.cdfs("span").to_pandas().head())
rates = pool.cdfs("span").cdf("rate_rps")
print("rates of five clients like these:", sg.sample_from_cdf(rates.values, rates.probabilities, 5, seed=7))
sg.generate(bursty, duration="30m", seed=7).write(directory / "bursty.parquet")
