"""Ten billion requests in parts, as they are planned: see README.md. No request is sampled."""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from itertools import pairwise
from typing import Any

import numpy as np
from common import add_json, write_json

import servegen_gpu as sg
from servegen_gpu.digest import Digest
from servegen_gpu.distributing.job import job_of
from servegen_gpu.formats.parted import Part, Parted, record_bytes
from servegen_gpu.plan import expected_in, plan, share_us

REQUESTS = 10**10
SPAN_S = 7 * 86_400
ROW_BYTES = 6
CASES = ((64, "2GB"), (64, "300MB"), (1024, "2GB"), (1024, "300MB"), (10_000, "300MB"))


def figures(parts: int, memory: str) -> dict[str, Any]:
    """What is known of parts before they are made."""
    pool = sg.population("m-small").with_conversations(None)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        keywords = {"rate": REQUESTS / SPAN_S, "duration": SPAN_S, "memory": memory}
        job, source = job_of(pool, f"{folder}/out", parts, "delta", (), keywords)
    packed_s = time.perf_counter() - begun
    packed = source.packed
    begun = time.perf_counter()
    spans = [share_us(packed, (k, parts)) for k in range(parts)]
    edges_s = time.perf_counter() - begun
    assert spans[0][0] == packed.start_us
    assert spans[-1][1] == packed.end_us
    assert all(one[1] == other[0] and one[0] < one[1] for one, other in pairwise(spans))
    expected = np.array([expected_in(packed, packed.requests, span) for span in spans])
    assert abs(expected.sum() / REQUESTS - 1) < 1e-9
    begun = time.perf_counter()
    slabs = [list(plan(packed, source.max_requests, span)) for span in spans]
    plan_s = time.perf_counter() - begun
    for span, made in zip(spans, slabs, strict=True):
        assert (made[0].from_us, made[-1].to_us) == span
        assert all(one.to_us == other.from_us for one, other in pairwise(made))
    alive = max(slab.expected for made in slabs for slab in made)
    part = Part(int(expected.max()), ROW_BYTES * int(expected.max()), Digest().hex, "0" * 64)
    whole = Parted(job.store, job.workload, dict.fromkeys(range(parts), part))
    return {
        "parts": parts,
        "memory": memory,
        "seconds_to_pack": round(packed_s, 3),
        "seconds_to_find_edges": round(edges_s, 3),
        "seconds_to_plan_slabs": round(plan_s, 3),
        "requests_a_part": [round(expected.min()), round(expected.max())],
        "hours_a_part": [
            round(min(b - a for a, b in spans) / 3.6e9, 3),
            round(max(b - a for a, b in spans) / 3.6e9, 3),
        ],
        "slabs_a_part": [min(map(len, slabs)), max(map(len, slabs))],
        "requests_alive": round(alive),
        "mb_alive": round(alive * source.backend.bytes_per_request(packed.category) / 1e6),
        "job_mb": round(len(pickle.dumps(job)) / 1e6, 2),
        "record_bytes": len(record_bytes(part, 0, job.workload)),
        "manifest_kb": round(len(whole.manifest()) / 1e3),
        "part_mb": round(part.size / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_json(parser)
    options = parser.parse_args()
    found = []
    for parts, memory in CASES:
        found.append(figures(parts, memory))
        print(found[-1])
    write_json(options.json, {"requests": REQUESTS, "parts": found})


if __name__ == "__main__":
    main()
