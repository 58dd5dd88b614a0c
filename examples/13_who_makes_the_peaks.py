"""How much of the P99 of the 10-second load comes from the ten largest clients? With 200 replicas: FOLDER 200

Of M-large's 2,000 clients, ten send 62 % of the tokens, and 64 % of those in the bins at or above the P99.
That P99 is 29 % above the mean. Were the ten even, it would be 17 %; were all others even, still 25 %.
So ten clients make more of what is above the mean than the other 1,990 together,
because many small clients even one another out, and ten large ones do not.
The total rate and its burstiness do not tell who bursts: look at the largest clients first.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import servegen_gpu as sg

folder, replicas = Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2]) if len(sys.argv) > 2 else 20
pool, how = sg.population("m-large"), {"rate": 50, "start": "10h", "duration": "10m"}
largest = pool.span(10 * 3600, 11 * 3600).top(10).client_ids


def peaks(trace):
    tokens, at = trace["input_tokens"] + trace["output_tokens"], trace["arrival_us"] // 10_000_000
    load, ten = (np.bincount(at, tokens * of, 60) for of in (1, np.isin(trace["client"], largest)))
    top, even = load >= np.quantile(load, 0.99), {"ten": load - ten + ten.mean(), "others": ten + (load - ten).mean()}
    p99 = {name: np.quantile(x, 0.99) / load.mean() for name, x in {"nobody": load, **even}.items()}
    shares = {"share of all": ten.sum() / load.sum(), "share of peaks": ten[top].sum() / load[top].sum()}
    return shares | {f"P99 over mean if {name} were even": value for name, value in p99.items()}


study = sg.monte_carlo(pool, **how, replicas=replicas, metrics=peaks)
print(study.summary()[["mean", "mean_low", "mean_high"]].round(3))
if find_spec("matplotlib"):
    from servegen_gpu.plotting import studies, style

    lines = [studies.Level(name[17:], *[value] * 3) for name, value in study.summary()["mean"].iloc[-2:].items()]
    picture = studies.distribution(study.table["P99 over mean if nobody were even"].to_numpy(), lines, "P99 over mean")
    (folder / "who_makes_the_peaks.svg").write_text(style.svg_of(picture))
