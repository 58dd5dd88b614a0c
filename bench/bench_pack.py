"""What comes before sampling: cloning, packing and planning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import servegen_gpu as sg
from servegen_gpu.plan import cells_of, plan

CLONES = 355


def test_clone(benchmark: Any, r1: sg.ClientPool) -> None:
    pool = benchmark(r1.clone, CLONES)
    benchmark.extra_info["clients"] = len(pool)


def test_digest(benchmark: Any, r1: sg.ClientPool) -> None:
    benchmark.pedantic(lambda pool: pool.digest(), setup=lambda: ((r1.clone(CLONES),), {}), rounds=5)


def test_pack_r1(benchmark: Any, r1: sg.ClientPool) -> None:
    benchmark(lambda: sg.stream(r1, rate=1000, duration="1h"))


def test_pack_r1_clones(benchmark: Any, r1: sg.ClientPool) -> None:
    pool = r1.clone(CLONES)
    pool.digest()
    benchmark(lambda: sg.stream(pool, rate=1000, duration="1h"))


def test_pack_m_large_14_days(benchmark: Any, m_large: sg.ClientPool) -> None:
    m_large.digest()
    benchmark.pedantic(lambda: sg.stream(m_large, scale=1, duration="14d"), rounds=5, warmup_rounds=1)


def test_plan_a_week_of_clones(benchmark: Any, r1: sg.ClientPool) -> None:
    packed = sg.stream(r1.clone(CLONES), rate=1000, duration="7d").packed
    slabs = benchmark(lambda: list(plan(packed, 1 << 24)))
    benchmark.extra_info["slabs"] = len(slabs)


def test_cells_of_a_week_of_clones(per: Callable[..., Any], benchmark: Any, r1: sg.ClientPool) -> None:
    packed = sg.stream(r1.clone(CLONES), rate=1000, duration="7d").packed
    slab = next(plan(packed, 1 << 24))
    cells = cells_of(packed, slab.windows)
    per("cell", len(cells), cells_of, packed, slab.windows)
    benchmark.extra_info["windows"] = len(slab.windows)
