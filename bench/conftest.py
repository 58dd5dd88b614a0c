"""Pools for the benchmarks, and JSON without host names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from common import data_dir, in_lines, m_large_dir, machine

import servegen_gpu as sg


@pytest.fixture(scope="session")
def profiles() -> Path:
    """ServeGen's released data."""
    found = data_dir()
    if found is None:
        pytest.skip("no profiles: set SERVEGEN_DATA")
    return found


@pytest.fixture(scope="session")
def m_large_profiles() -> Path:
    """The data directory of m-large."""
    found = m_large_dir()
    if found is None:
        pytest.skip("no m-large: set SERVEGEN_M_LARGE")
    return found


@pytest.fixture(scope="session")
def r1(profiles: Path) -> sg.ClientPool:
    return sg.load_servegen(profiles, "deepseek-r1", cache=False)


@pytest.fixture(scope="session")
def mm_image(profiles: Path) -> sg.ClientPool:
    return sg.load_servegen(profiles, "mm-image", cache=False)


@pytest.fixture(scope="session")
def m_large(m_large_profiles: Path) -> sg.ClientPool:
    return sg.load_servegen(m_large_profiles, "m-large", missing="drop", cache=False)


@pytest.fixture
def per(benchmark: Any) -> Callable[..., Any]:
    """``per("request", n, work, *arguments)``: measure, and note rate and time per element."""

    def measure(element: str, count: int, work: Callable[..., Any], *arguments: Any) -> Any:
        made = benchmark(work, *arguments)
        if benchmark.stats is not None:  # None with --benchmark-disable
            median_s = benchmark.stats.stats.median
            benchmark.extra_info[f"{element}s"] = count
            benchmark.extra_info[f"ns_per_{element}"] = round(median_s / count * 1e9, 2)
            benchmark.extra_info[f"{element}s_per_s"] = round(count / median_s)
        return made

    return measure


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(machine())


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["commit_info"] = {"id": output_json["commit_info"].get("id")}
    for each in output_json["benchmarks"]:
        each["stats"].pop("data", None)  # every single round


def pytest_unconfigure(config: pytest.Config) -> None:
    """The file of --benchmark-json, which is complete by now, in one line a benchmark."""
    path = config.getoption("benchmark_json", None)
    if path and path.exists():  # there is none if nothing was measured
        path.write_text(in_lines(json.loads(path.read_text())))
