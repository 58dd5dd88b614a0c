"""Small traces of every category, for pictures and pages of them."""

from __future__ import annotations

from functools import cache

import servegen_gpu as sg
from servegen_gpu.plotting.seen import Pictured, pictured

RATES = {"m-small": 12.0, "deepseek-r1": 8.0, "mm-omni": 6.0}


@cache
def made(name: str, replica: int = 0) -> sg.Trace:
    """A built-in workload for twenty minutes; that of reasoning has conversations and ids of blocks."""
    pool = sg.population(name, clients=60)
    trace = sg.generate(pool, rate=RATES[name], duration="20m", replica=replica, warmup=600)
    return trace.with_hash_ids(256) if name == "deepseek-r1" else trace


@cache
def seen_of(name: str, replica: int = 0) -> Pictured:
    """What pictures need of it."""
    return pictured(made(name, replica))


def cut(trace: sg.Trace, rows: int) -> list[sg.Trace]:
    """The trace in slabs."""
    return [trace.rows(lo, lo + rows) for lo in range(0, len(trace), rows)]
