"""From a log to clients: fit one, look at the report, and see how like the log its replicas are."""

import sys
from pathlib import Path

import servegen_gpu as sg
from servegen_gpu.clients.stated.environment import Environment, Margin

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# a log: here one of a population whose clients something moves together; use your own file instead
moved = sg.population("m-small", clients=200).with_environment(Environment(Margin.gamma(0.5), {3: 0.5, 7: 0.5}))
log = sg.generate(moved, rate=5, duration="1h", seed=1)
log.write(folder / "log.csv")

pool, report = sg.fit_with_report(folder / "log.csv", min_count=10)
print(report)
pool.save(folder / "profile")  # to read and edit; a workload of all commands

print(sg.compare(log, pool, replicas=5, naive=True, only=["dispersion", "peaks"]).table())
