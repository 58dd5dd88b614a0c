"""Where what can be made again is kept, and whether it can be believed."""

from __future__ import annotations

import os
import stat
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


def distrusted(path: Path) -> str:
    """Why what is at a path must not be run or believed: others than this user and root could have written it.

    Returns
    -------
    str
        Which file or directory is at fault, and how; empty if none is.
    """
    if not hasattr(os, "geteuid"):
        return ""
    real = Path(os.path.realpath(path))
    try:
        if path.is_symlink():
            return f"{path} is a link"
        for place in dict.fromkeys((real, *real.parents, *path.absolute().parents)):
            if why := _of_others(place):
                return why
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"
    return ""


def _of_others(place: Path) -> str:
    try:
        about = place.stat()
    except FileNotFoundError:
        return ""
    if about.st_uid not in (0, os.geteuid()):
        return f"{place} belongs to another user (number {about.st_uid})"
    writers = stat.S_IWOTH | (0 if _is_alone(about.st_gid) else stat.S_IWGRP)
    sticky = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
    return f"others may write to {place}" if about.st_mode & writers and not sticky else ""


def _is_alone(group: int) -> bool:
    """Whether a group is the one that systems make for this user alone."""
    import grp
    import pwd

    try:
        me, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return (group, found.gr_name) == (me.pw_gid, me.pw_name) and set(found.gr_mem) <= {me.pw_name}
