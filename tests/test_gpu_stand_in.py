"""Every test of test_gpu.py runs over the stand-in for CuPy, so that none is run for the first time on a device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_host import COMPILER
from test_cuda_sort import nvcc_in

HERE = Path(__file__).parent


@pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")
def test_the_tests_of_a_device_pass(tmp_path: Path) -> None:
    environment = os.environ | {
        "SERVEGEN_GPU_STAND_IN": "1",
        "PYTHONPATH": str(HERE.parent),
        "NVCC": str(nvcc_in(tmp_path)),
        "SERVEGEN_GPU_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_gpu.py")]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    passed, skipped = (int(n) for n in re.findall(r"(\d+) (?:passed|skipped)", done.stdout.splitlines()[-1]))
    assert passed > 120
    assert skipped == 4  # torch, a hundred million rows, and what the stand-in keeps no kernels for
