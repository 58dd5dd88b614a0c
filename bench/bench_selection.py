"""Selecting windows and clients, and describing them: with statistics of tables at hand, and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import servegen_gpu as sg
from servegen_gpu.request.tables import Tables

RANGES: dict[str, Any] = {"cv": (1, 3), "mean_input_tokens": (100, 1000), "p95_output_tokens": (None, 2000)}
CLONES = 355


def fresh(pool: sg.ClientPool) -> sg.ClientPool:
    """The same pool without statistics of its tables."""
    tables = pool.tables
    return replace(pool, tables=Tables(tables.offsets, tables.values, tables.thresholds))


def test_first_filter_m_large(benchmark: Any, m_large: sg.ClientPool) -> None:
    arguments = lambda: ((fresh(m_large),), {})  # noqa: E731
    some = benchmark.pedantic(lambda pool: pool.filter(**RANGES), setup=arguments, rounds=20, warmup_rounds=2)
    benchmark.extra_info["windows"] = m_large.rate_rps.size
    assert 0 < len(some) < len(m_large)


def test_filter_m_large(benchmark: Any, m_large: sg.ClientPool) -> None:
    benchmark(lambda: m_large.filter(**RANGES))


def test_filter_by_rate_m_large(benchmark: Any, m_large: sg.ClientPool) -> None:
    benchmark(lambda: m_large.filter(rate_rps=(0.1, 3)))


def test_where_m_large(benchmark: Any, m_large: sg.ClientPool) -> None:
    benchmark(lambda: m_large.where(lambda w: (w.cv > 2) & (w.mean("input_tokens") < 1000)))


def test_clients_where_m_large(benchmark: Any, m_large: sg.ClientPool) -> None:
    benchmark(lambda: m_large.clients_where(activity=(0.5, None), mean_input_tokens=(None, 2000)))


def test_filter_clones(benchmark: Any, r1: sg.ClientPool) -> None:
    pool = r1.clone(CLONES)
    some = benchmark(lambda: pool.filter(cv=(1, 3)))
    benchmark.extra_info["clients"], benchmark.extra_info["profiles"] = len(some), len(some.rate_rps)


def test_filter_population_by_rate(benchmark: Any) -> None:
    pool = sg.population()
    some = benchmark(lambda: pool.filter(rate_rps=(0.001, None)))
    benchmark.extra_info["clients"], benchmark.extra_info["profiles"] = len(some), len(some.rate_rps)


def test_top(benchmark: Any, m_large: sg.ClientPool) -> None:
    benchmark(lambda: m_large.top(5))


@pytest.mark.parametrize("per", ["window", "span"])
def test_cdfs_m_large(benchmark: Any, m_large: sg.ClientPool, per: Any) -> None:
    arguments = lambda: ((fresh(m_large),), {})  # noqa: E731
    cdfs = benchmark.pedantic(lambda pool: pool.cdfs(per), setup=arguments, rounds=10, warmup_rounds=1)
    benchmark.extra_info["steps"] = sum(len(values) for values in cdfs.values.values())


def test_cdfs_population(benchmark: Any) -> None:
    pool = sg.population()
    benchmark.pedantic(lambda: pool.cdfs(), rounds=3, warmup_rounds=1)


def test_cdfs_to_pandas(benchmark: Any, m_large: sg.ClientPool) -> None:
    cdfs = m_large.cdfs()
    benchmark(lambda: cdfs.to_pandas())
