"""Pools with other arrays."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from servegen_gpu.clients.pool import ClientPool


def changed(pool: ClientPool, **changes: Any) -> ClientPool:
    """``dataclasses.replace`` for changes that are as valid as what was there: the checks take longer than they do."""
    new = object.__new__(ClientPool)
    for field in fields(pool):
        value = changes.get(field.name, getattr(pool, field.name))
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(new, field.name, value)
    return new
