"""A folder for what the tests compile, shared by the workers of a run."""

from __future__ import annotations

import os
import tempfile

import pytest
from built import SHARED


def pytest_configure(config: pytest.Config) -> None:
    """Workers and child processes inherit the variable, and with it the folder."""
    if SHARED not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="servegen_gpu-tests-")
        os.environ[SHARED] = folder.name
        config.add_cleanup(lambda: os.environ.pop(SHARED, None))
        config.add_cleanup(folder.cleanup)
