"""What all tests of a run share: a folder for what they compile, and who runs which."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest
from built import SHARED


def pytest_configure(config: pytest.Config) -> None:
    """Workers and child processes inherit the variable, and with it the folder."""
    if SHARED not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="servegen_gpu-tests-")
        os.environ[SHARED] = folder.name
        config.add_cleanup(lambda: os.environ.pop(SHARED, None))
        config.add_cleanup(folder.cleanup)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbours run in one worker, which has their fixtures and compilations; who is done takes from the others."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None
