"""Reading profiles: parsed from the files, and from the cache; importing the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from common import child, median, ours

import servegen_gpu as sg

WORKLOADS = ("deepseek-r1", "mm-image", "m-large")
IMPORT = """
import json, time
t = time.perf_counter()
from servegen_gpu import generate
print(json.dumps(time.perf_counter() - t))
"""


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> tuple[Path, str]:
    return request.getfixturevalue("m_large_profiles" if request.param == "m-large" else "profiles"), request.param


def test_cold(benchmark: Any, workload: tuple[Path, str]) -> None:
    arguments = {"missing": "drop", "cache": False}
    pool = benchmark.pedantic(sg.load_servegen, workload, arguments, rounds=5, warmup_rounds=1)
    benchmark.extra_info["clients"] = len(pool)


def test_cached(benchmark: Any, workload: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path))
    arguments = {"missing": "drop", "cache": True}
    pool = benchmark.pedantic(sg.load_servegen, workload, arguments, rounds=5, warmup_rounds=1)
    benchmark.extra_info["clients"] = len(pool)
    benchmark.extra_info["cache_mb"] = round(sum(file.stat().st_size for file in tmp_path.iterdir()) / 1e6, 2)


def test_import(benchmark: Any) -> None:
    inside: list[float] = []

    def fresh() -> None:
        inside.append(json.loads(child([sys.executable, "-c", IMPORT], env=ours()).output))

    benchmark.pedantic(fresh, rounds=7, warmup_rounds=1)
    benchmark.extra_info["import_s"] = round(median(inside), 4)
