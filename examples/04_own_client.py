"""Clients of your own, in Python and from a TOML file, beside a built-in population."""

import sys
from pathlib import Path

from scipy import stats

import servegen_gpu as sg
from servegen_gpu.clients.stated.distributions import Beta, LogNormal, Mixture, Pareto

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

agents = sg.client(
    name="agents",
    count=20,
    rate=sg.Diurnal(mean=0.05, swing=0.8, peak_hour=15),
    arrivals="gamma",
    cv={"0h": 1.0, "8h": 4.0},  # calm at night, bursty by day
    input_tokens=Mixture([LogNormal(median=800, sigma=0.9), Pareto(alpha=1.4, scale=3000)], [0.8, 0.2], max=100_000),
    output_tokens=stats.gamma(2, scale=700),  # any frozen distribution of SciPy
    reason_ratio=Mixture([Beta(17, 28), Beta(4.6, 1.25)], [0.2, 0.8]),
    rank_correlation={"input_tokens:output_tokens": 0.4},
    context_tokens=131_072,
)
probe = sg.client(name="probe", rate=0.1, input_tokens=12, output_tokens={1: 9, 2: 1}, reason_ratio=0)
everybody = sg.join([sg.population("deepseek-r1", clients=1_000), sg.pool([agents, probe], name="agents")])
trace = sg.generate(everybody, start="14h", duration="10m", seed=7)
print(everybody, trace, sep="\n")

own = sg.pool([agents], name="agents")
print(sg.generate(own, scale=10, duration="1h").to_pandas()[["input_tokens", "output_tokens"]].corr("spearman"))

service = sg.read_clients(Path(__file__).parent / "own_clients.toml")
sg.generate(service, start="9h", duration="1h", seed=7).write(directory / "own.parquet")
print(service)
