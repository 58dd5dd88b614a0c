"""Files of one trace: rows per second, and bytes a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import servegen_gpu as sg


@pytest.fixture(scope="module")
def trace(r1: sg.ClientPool) -> sg.Trace:
    return sg.generate(r1, rate=10_000, duration=200, seed=7)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_write(per: Callable[..., Any], benchmark: Any, trace: sg.Trace, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix}"
    written = per("row", len(trace), trace.write, path)
    benchmark.extra_info["bytes_per_row"] = round(written.bytes / len(trace), 2)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_read(per: Callable[..., Any], trace: sg.Trace, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix}"
    trace.write(path)
    try:
        per("row", len(trace), sg.read_trace, path)
    except sg.OptionError as error:
        pytest.skip(str(error))
