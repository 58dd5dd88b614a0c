"""Arguments as a user gives them, checked and in base units."""

from __future__ import annotations

import math
import re

from servegen_gpu.errors import OptionError

TIME_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
MEMORY_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_QUANTITY = re.compile(r"\s*([0-9.eE+-]+?)\s*([a-zA-Z]*)\s*")
MIN_SLAB_REQUESTS = 1 << 12


def _quantity(name: str, value: float | str, units: dict[str, float] | dict[str, int], example: str) -> float:
    """A finite number with one of the units, in base units."""
    number, unit = (value, "") if isinstance(value, int | float) and not isinstance(value, bool) else (math.nan, "")
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value)):
        unit = match[2].lower()
        try:
            number = float(match[1])
        except ValueError:
            number = math.nan
    if not math.isfinite(number) or unit not in units:
        raise OptionError(
            f"{name} as a number or like {example}", repr(value), f"units are {', '.join(filter(None, units))}"
        )
    return float(number) * units[unit]


def seconds(name: str, value: float | str) -> float:
    """A time in seconds from a number or text like ``"90m"``."""
    return _quantity(name, value, TIME_UNITS_S, '"600s", "1h" or "7d"')


def integer(name: str, value: int, largest: int) -> int:
    """An integer from 0 to `largest`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= value <= largest:
        raise OptionError(f"{name} as an integer from 0 to {largest}", repr(value), f"change {name}")
    return int(value)


def budget_bytes(memory: float | str) -> int:
    """A memory budget in bytes."""
    return int(_quantity("memory", memory, MEMORY_UNITS, '"2GB"'))


def requests_in(memory: float | str, bytes_per_request: int) -> int:
    """How many requests may be alive at once under a memory budget."""
    most = budget_bytes(memory) // bytes_per_request
    if most < MIN_SLAB_REQUESTS:
        raise OptionError(
            f"memory of at least {MIN_SLAB_REQUESTS * bytes_per_request / 1e6:.1f}MB", repr(memory), "allow more"
        )
    return most


def shard(value: str | tuple[int, int]) -> tuple[int, int]:
    """``"3/8"``, counted from 1, as (2, 8); a pair is taken as it is."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", value)
        pair = (int(match[1]) - 1, int(match[2])) if match else (-1, 0)
    else:
        pair = value
    if not 0 <= pair[0] < pair[1]:
        raise OptionError('a shard like "3/8", from 1/n to n/n', repr(value), "change shard")
    return pair
