"""One slab through the backend: requests per second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import servegen_gpu as sg
from servegen_gpu.plan import plan

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "r1, 10,000 req/s": ("r1", {"rate": 10_000, "duration": 400}),
    "r1, 10,000 req/s, renewal": ("r1", {"rate": 10_000, "duration": 400, "counts": "renewal"}),
    "r1, 10,000 req/s, comonotone": ("r1", {"rate": 10_000, "duration": 400, "dependence": "comonotone"}),
    "r1, 100,000 req/s, a part of a window": ("r1", {"rate": 100_000, "duration": 600, "memory": "300MB"}),
    "mm-image, 1,000 req/s": ("mm_image", {"rate": 1_000, "duration": 3600}),
    "25,915 clients, 1,000 req/s": ("clones", {"rate": 1_000, "start": "10h", "duration": 3600}),
    "25,915 clients, 16 req/s": ("clones", {"rate": 16, "start": "10h", "duration": 3600}),
}


@pytest.fixture
def clones(r1: sg.ClientPool) -> sg.ClientPool:
    return r1.clone(355)


@pytest.mark.parametrize("kind", KINDS)
def test_slab(per: Callable[..., Any], request: pytest.FixtureRequest, kind: str) -> None:
    name, keywords = KINDS[kind]
    workload = sg.stream(request.getfixturevalue(name), **keywords)
    slab = next(iter(plan(workload.packed, workload.max_requests)))
    rows = len(workload.backend.sample_slab(workload.packed, workload.key, slab)["arrival_us"])
    per("request", rows, workload.backend.sample_slab, workload.packed, workload.key, slab)
