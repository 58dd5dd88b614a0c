"""The workloads that figures of a device are of: an hour of 25,913 clients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import servegen_gpu as sg
from servegen_gpu.request.families import GAMMA

CLIENTS = 25_913
WORKLOADS = (("language", "renewal"), ("language", "exact"), ("deepseek-r1", "renewal"))
"""Names of pools, and count rules."""


def pool_of(name: str, clients: int = CLIENTS) -> sg.ClientPool:
    """A population without conversations; ``language`` is m-small's with Gamma gaps alone, and fields by themselves."""
    if name == "language":
        pool = sg.population("m-small", clients=clients, seed=1)
        return replace(pool, family=np.full_like(pool.family, GAMMA))
    return sg.population(name, clients=clients, seed=1).with_conversations(None)


def workload(name: str, requests: float, counts: str = "auto", clients: int = CLIENTS) -> sg.Workload:
    """A workload of about so many requests in an hour, for any backend."""
    dependence = "independent" if name == "language" else "auto"
    keywords = {"rate": requests / 3600, "duration": 3600, "seed": 7, "counts": counts, "dependence": dependence}
    return sg.stream(pool_of(name, clients), backend="numpy", **keywords)  # type: ignore[arg-type]
