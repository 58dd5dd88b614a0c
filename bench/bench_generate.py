"""From a loaded pool to the whole trace: in memory, as a stream, and in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import servegen_gpu as sg
from servegen_gpu.formats import write_stream

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "r1, 10,000 req/s, 600 s": ("r1", {"rate": 10_000, "duration": 600}),
    "mm-image, 1,000 req/s, 1 h": ("mm_image", {"rate": 1_000, "duration": 3600}),
    "m-large, own rates, 1 h": ("m_large", {"duration": 3600}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[sg.ClientPool, dict[str, Any]]:
    name, keywords = KINDS[request.param]
    return request.getfixturevalue(name), keywords


def test_in_memory(per: Callable[..., Any], kind: tuple[sg.ClientPool, dict[str, Any]]) -> None:
    pool, keywords = kind
    rows = len(sg.generate(pool, **keywords))
    per("request", rows, lambda: sg.generate(pool, **keywords))


def test_clones(per: Callable[..., Any], r1: sg.ClientPool) -> None:
    """As many requests of 25,915 clients as of 73: what cells cost."""
    pool = r1.clone(355)
    rows = len(sg.generate(pool, rate=10_000, duration=600))
    per("request", rows, lambda: sg.generate(pool, rate=10_000, duration=600))


def test_stream(per: Callable[..., Any], kind: tuple[sg.ClientPool, dict[str, Any]]) -> None:
    pool, keywords = kind

    def walk() -> int:
        return sum(len(slab) for slab in sg.stream(pool, memory="100MB", **keywords))

    per("request", walk(), walk)


def test_to_parquet(
    per: Callable[..., Any], benchmark: Any, kind: tuple[sg.ClientPool, dict[str, Any]], tmp_path: Path
) -> None:
    pool, keywords = kind
    path = tmp_path / "trace.parquet"
    rows = write_stream(sg.stream(pool, **keywords), path).rows
    written = per("request", rows, lambda: write_stream(sg.stream(pool, **keywords), path))
    benchmark.extra_info["bytes_per_request"] = round(written.bytes / rows, 2)
