"""How much of the P99 of the 10-second load comes from the ten largest of a thousand clients, at 30 req/s in all?

1. They send 70 % of the output tokens, and without them the P99 is 69 % lower: of the peak they have what they send.
2. Of what is kept free for the peak, P99 less mean, they alone need 95 % of what all clients together need.
3. Independent excesses add up in squares (26,500² + 9,400² = 28,100²): the other 990 make 11 % of it.
4. The same traffic from a thousand clients would need a quarter less: that much is because they are few.
5. So know your largest clients by name: what they do decides, and the others average out.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import servegen_gpu as sg

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
pool = sg.population("m-large", clients=1000)
ten = pool.span(14 * 3600, 15 * 3600).top(10).client_ids.tolist()
largest = pool.select(ten).with_shares_of(pool)
others = pool.select(set(pool.client_ids.tolist()) - {*ten}).with_shares_of(pool)
parts = {"all clients": pool, "ten largest": largest, "as 1,000 clients": largest.clone(100), "990 others": others}
found, metrics = {}, ["output_tokens_mean_10s", "output_tokens_p99_10s"]
for name, part in parts.items():
    study = sg.monte_carlo(part, rate=30, duration="1h", start="14h", replicas=60, metrics=metrics)
    (mean, p99), (_, high) = (study.summary()[end].to_numpy() for end in ("mean", "mean_high"))
    found[name] = mean, p99, high - p99
    print(f"{name:16} mean {mean:7,.0f}, P99 {p99:7,.0f} ± {high - p99:4,.0f}: {p99 - mean:6,.0f} above (per 10 s)")
if find_spec("matplotlib"):
    from servegen_gpu.plotting.style import GREY, LINES, legend, sheet

    with sheet() as (figure, axes):
        for at, (mean, p99, half) in enumerate(found.values()):
            axes.bar(at, mean, color=LINES[2].color, label="mean" if not at else None)
            axes.bar(at, p99 - mean, bottom=mean, color=LINES[3].color, label="P99" if not at else None)
            axes.errorbar(at, p99, half, color=GREY, capsize=4)
        axes.set_xticks(range(len(found)), [name.replace(" ", "\n", 1) for name in found])
        axes.set_ylabel("output tokens in 10 s")
        legend(axes, loc="upper right")
    figure.savefig(folder / "the_ten_largest.png")
