"""Why clients matter: rates and mean lengths in 3-second windows, of clients and of a naive baseline (Fig. 19)."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
WIDTH, HEIGHT, MOST_RPS, MOST_TOKENS = 360, 300, 24, 3_000

pool = sg.population("mm-image")
three_hours = {"start": "9h", "duration": "3h"}
baseline = sg.naive(pool.span(9 * 3600, 12 * 3600))  # one Gamma process, as bursty as all clients together
panels = []
for at, (name, source) in enumerate({"per client": pool, "naive": baseline}.items()):
    trace = sg.generate(source, seed=7, **three_hours)
    seen = sg.in_windows(trace, 3.0)
    print(f"{name}: {len(trace):,} requests, {trace['input_tokens'].mean():,.0f} input tokens, ", end="")
    print(f"burstiness {sg.fitted_cv(trace):.2f}; rates of 3 s: CV {seen.rate_cv:.2f}, ", end="")
    print(f"rank correlation with mean images {seen.rank_correlation('image_tokens'):+.2f}")

    x = seen.rate_rps / MOST_RPS * WIDTH
    y = HEIGHT - np.minimum(seen.mean("image_tokens") / MOST_TOKENS, 1) * HEIGHT
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True) if a < WIDTH and b == b)
    left = 40 + at * (WIDTH + 50)
    panels.append(
        f'<g transform="translate({left} 40)"><rect width="{WIDTH}" height="{HEIGHT}" fill="#f6f6f6"/>'
        f'<path d="{dots}" stroke="#1f5fa8" stroke-opacity=".3" stroke-width="4" stroke-linecap="round"/>'
        f'<text y="-12" font-weight="bold">{name}: CV of rates {seen.rate_cv:.2f}</text>'
        f'<text y="{HEIGHT + 20}">req/s in 3 s, 0 to {MOST_RPS}</text>'
        f'<text transform="translate(-10 {HEIGHT}) rotate(-90)">image tokens a request, 0 to {MOST_TOKENS:,}</text></g>'
    )
size = f'width="{2 * WIDTH + 110}" height="{HEIGHT + 80}"'
svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">{"".join(panels)}</svg>'
(directory / "naive_against_per_client.svg").write_text(svg)
