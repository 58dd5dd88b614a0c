"""Where what can be made again is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """Where parsed pools are kept: ``$SERVEGEN_GPU_CACHE``, or ``servegen_gpu`` in the user's cache directory."""
    if own := os.environ.get("SERVEGEN_GPU_CACHE"):
        return Path(own)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "servegen_gpu"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "servegen_gpu"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "servegen_gpu" / "Cache"
    return Path.home() / ".cache" / "servegen_gpu"
