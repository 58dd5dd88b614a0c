"""Fast, faithful LLM serving workloads: thousands of clients sampled at once, one time-sorted trace.

>>> import servegen_gpu as sg
>>> pool = sg.load_servegen("ServeGen/data", "deepseek-r1")
>>> trace = sg.generate(pool, rate=100, duration="1h", seed=7)
>>> trace.write("trace.parquet")
"""

import importlib
import pkgutil
import re

_MODULES = {
    name: module
    for module, name in re.findall(
        r"^from (\S+) import (\w+) as", (pkgutil.get_data(__name__, "__init__.pyi") or b"").decode(), re.MULTILINE
    )
}
"""Where each public name is."""

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    """A public name, whose module is imported when it is first used: importing the package costs next to nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name, None)
    if found is None:  # a module itself
        found = importlib.import_module(f"{_MODULES[name]}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
