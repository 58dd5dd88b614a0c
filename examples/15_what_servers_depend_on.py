"""What matters more for the number of servers, burstiness or length tails? With 40 replicas: FOLDER 40

M-large at 50 req/s; the CV of every client, and the spread of the logarithm of lengths, each times 0.8 to 1.25.
Instances (P99 of TTFT within 3 s, of TBT within 0.5 s) go from 13.6 to 21.5 with tails, from 15.1 to 15.8 with bursts.
The P99 of the 10-second load moves the other way: 1.24 to 1.35 of the mean with bursts, 1.27 to 1.31 with tails.
Instances share bursts, but a long input holds up all that are behind it on its instance.
So measure tails first to buy servers, bursts first to size queues; a load curve alone says nothing of the former.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import servegen_gpu as sg
from servegen_gpu.serving.simulate import instances_needed

folder, replicas = Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2]) if len(sys.argv) > 2 else 2
server, how = sg.load_server("llama-3-70b-4xa100"), {"rate": 50, "start": "10h", "duration": "10m"}


def figures(trace):
    load = np.bincount(trace["arrival_us"] // 10_000_000, trace["input_tokens"] + trace["output_tokens"], 60)
    needed = instances_needed(trace, server, slo_ttft_s=3.0, slo_tbt_s=0.5, most=512)
    return {"instances": needed, "P99 over mean of 10 s": np.quantile(load, 0.99) / load.mean()}


vary = ["burstiness=0.8:1.25:log", "length_tail=0.8:1.25:log"]
found = sg.sensitivity(sg.population("m-large"), vary, figures, **how, replicas=replicas)
print(found)
if find_spec("matplotlib"):
    from servegen_gpu.plotting import studies, style

    of = found.table[found.table["metric"] == "instances"].sort_values("swing", ascending=False)
    high = (of[["swing", "swing_low", "swing_high"]].to_numpy().T + of["at_low"].to_numpy()).T
    picture = studies.tornado(list(of["parameter"]), of["at_low"].to_numpy(), high, of["base"].iloc[0], "instances")
    (folder / "what_servers_depend_on.svg").write_text(style.svg_of(picture))
