"""A trace in parts on Dask: a task a part, and the directory that `servegen-gpu generate --parts` writes."""

import sys
from pathlib import Path

import dask

import servegen_gpu as sg

PARTS = 8
path = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "trace"  # of a cluster: a directory or store that all share
pool = sg.population("deepseek-r1", clients=500)


@dask.delayed(pure=True)
def part(pool: sg.ClientPool, k: int) -> sg.Distributed:
    """Part k, unless it is there; whoever makes the last one writes the manifest."""
    return sg.distributed(pool, path, PARTS, shard=(k, PARTS), rate=20, duration="1h", warmup="1h")


if __name__ == "__main__":
    # with dask.distributed.Client("tcp://scheduler:8786"), the same on a cluster
    sent = dask.delayed(pool)
    made = dask.compute(*(part(sent, k) for k in range(PARTS)), scheduler="processes", num_workers=2)
    last = sg.distributed(pool, path, PARTS, rate=20, duration="1h", warmup="1h")  # makes what a lost worker did not
    print(f"{sum(one.made for one in made)} of {PARTS} parts made, {last.rows:,} requests, digest {last.digest}")
