"""What the child of a fork makes anew: it has the parent's memory, but only the thread that forked."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable


def in_children(renew: Callable[[], object]) -> None:
    """Call `renew` first of all in every child that is forked from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def unlock_cached_properties() -> None:
    """Free the locks of cached properties that other threads of the parent were computing."""
    modules = [module for name, module in sys.modules.items() if name.startswith("servegen_gpu.")]
    classes = [found for module in modules for found in vars(module).values() if isinstance(found, type)]
    for attribute in (found for each in classes for found in vars(each).values()):
        if isinstance(attribute, functools.cached_property):
            vars(attribute)["lock"] = threading.RLock()


if sys.version_info < (3, 12):  # later ones compute without a lock
    in_children(unlock_cached_properties)
