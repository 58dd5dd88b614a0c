"""A trace in parts for tests: how it is made, what is in it, and what tasks of an array are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servegen_gpu.cli import main

N = 3
SIZES = ["--clients", "40", "--rate", "3", "--duration", "20m", "--warmup", "20m", "--seed", "7"]
KEYWORDS: dict[str, Any] = {"rate": 3, "duration": "20m", "warmup": "20m", "seed": 7}


def generate(path: Path | str, *more: str, workload: str = "deepseek-r1") -> int:
    return main(["generate", workload, *SIZES, "--quiet", "-o", str(path), *more])


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def slurm(first: int, last: int, step: int = 1) -> dict[str, str]:
    """What a task of an array is told, but for its number."""
    told = {"MIN": first, "MAX": last, "STEP": step, "COUNT": (last - first) // step + 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()}
