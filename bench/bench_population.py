"""Building populations: of the published size, of any size, from a pool; what they hold."""

from __future__ import annotations

from typing import Any

import pytest

import servegen_gpu as sg
from servegen_gpu.clients.population import population as module
from servegen_gpu.clients.population.presets import PRESETS, built_in
from servegen_gpu.packing import pack
from servegen_gpu.rates import Rate


def forget() -> None:
    """As in a fresh process: neither presets nor their tables are kept."""
    for cached in (built_in, module._in_time, module._tables):
        cached.cache_clear()


@pytest.mark.parametrize("name", PRESETS)
def test_first_population(benchmark: Any, name: str) -> None:
    pool = benchmark.pedantic(lambda: sg.population(name), setup=forget, rounds=5, warmup_rounds=1)
    benchmark.extra_info["clients"], benchmark.extra_info["profiles"] = len(pool), len(pool.rate_rps)
    packed, _ = pack(pool, Rate("own"), start_s=0, end_s=86_400)
    held = [getattr(packed, field) for field in vars(packed)]
    benchmark.extra_info["packed_mb"] = round(sum(getattr(array, "nbytes", 0) for array in held) / 1e6, 1)


@pytest.mark.parametrize("clients", [1_000, 25_913, 1_000_000])
def test_further_population(benchmark: Any, clients: int) -> None:
    benchmark(lambda: sg.population("deepseek-r1", clients=clients, seed=1))


@pytest.mark.parametrize("clients", [100, 25_913])
def test_resample(benchmark: Any, r1: sg.ClientPool, clients: int) -> None:
    benchmark(lambda: sg.resample(r1, clients, seed=1))
