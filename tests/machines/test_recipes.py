"""The scripts of ``examples/many_machines/`` run, where their libraries are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import REPOSITORY

import servegen_gpu as sg

RECIPES = REPOSITORY / "examples" / "many_machines"


def run(name: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, RECIPES / name, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recipes_are_short() -> None:
    recipes = sorted(RECIPES.glob("*.py"))
    assert len(recipes) == 2
    assert all(len(path.read_text().splitlines()) < 45 for path in recipes)


def test_dask(tmp_path: Path) -> None:
    pytest.importorskip("dask")
    assert run("parts_on_dask.py", tmp_path).startswith("8 of 8 parts made")
    whole = sg.generate(sg.population("deepseek-r1", clients=500), rate=20, duration="1h", warmup="1h")
    assert sg.read_trace(tmp_path / "trace").digest() == whole.digest()
    assert run("parts_on_dask.py", tmp_path).startswith("0 of 8 parts made")


def test_spark(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java")
    assert run("frame_on_spark.py", tmp_path).endswith(" requests in 8 partitions\n")
