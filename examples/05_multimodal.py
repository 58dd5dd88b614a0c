"""Multimodal requests: text, and a list of images with sizes at a few standard values."""

import sys
from pathlib import Path

import numpy as np

import servegen_gpu as sg
from servegen_gpu.clients.stated.distributions import LogNormal

directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()

album = sg.client(
    name="album",
    rate={"0h": 0.5, "9h": 3.0},  # its ramp at nine o'clock carries the images of the whole workload
    arrivals="gamma",
    cv=2,
    text_tokens=LogNormal(median=120, sigma=1.0, max=4_000),
    image_count={1: 8, 2: 1, 4: 1},
    image_tokens=1_200,
    output_tokens=LogNormal(median=90, sigma=0.8, max=2_000),
)
sizes = {252: 2, 432: 1, 1_230: 3}
images_of = {"image_count": {0: 1, 1: 3}, "image_tokens": sizes}
mixed = sg.client(count=30, rate=0.1, text_tokens=570, output_tokens=130, **images_of)
pool = sg.pool([album, mixed], name="images")
for start in ("8h", "9h"):
    trace = sg.generate(pool, start=start, duration="30m", seed=7)
    images = trace["image_tokens"]
    share = images.values.sum() / trace["input_tokens"].sum()
    each = images.lengths.mean()
    print(f"{start}: {len(trace):,} requests, {each:.2f} images each, {share:.0%} of the input are images")
print(np.unique(images.values, return_counts=True))
trace.write(directory / "images.jsonl")
