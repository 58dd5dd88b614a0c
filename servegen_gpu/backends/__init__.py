"""What computes the law: one module per array library or device, behind one contract."""

from __future__ import annotations

from servegen_gpu.backends.contract import Backend
from servegen_gpu.errors import OptionError

BACKENDS = ("numpy",)


def choose_backend(name: str = "auto") -> Backend:
    """A backend by name, or the fastest that works here."""
    from servegen_gpu.backends.reference import NumpyBackend

    if name in ("auto", "numpy"):
        return NumpyBackend()
    raise OptionError(f"a backend among auto, {', '.join(BACKENDS)}", repr(name), "choose one of them")


def describe_backends() -> list[dict[str, str]]:
    """What is here: name, state, and detail of every backend."""
    import numpy as np

    from servegen_gpu.backends.blocks import thread_count

    return [{"name": "numpy", "state": "ready", "detail": f"NumPy {np.__version__} on {thread_count()} threads"}]
