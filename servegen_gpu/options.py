"""Arguments as a user gives them, checked and in base units."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Iterable
from decimal import Decimal

from servegen_gpu.errors import OptionError, unknown

TIME_UNITS_S = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
}
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
SIZES = MEMORY_UNITS | {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
MULTIPLES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
PER_S = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86_400}

_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:_\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"\s*([+-]?)({_DIGITS})\s*(.*?)\s*", re.ASCII | re.DOTALL)
_TERM = re.compile(rf"({_DIGITS})\s*([a-zA-Z]*)\s*", re.ASCII)
_CLOCK = re.compile(r"(\d{1,9}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?", re.ASCII)
_RPS = re.compile(
    r"([kKMG]?)\s*(?:[rq]p([smh])|(?:req|reqs|request|requests|r|q|queries)?\s*(?:/|per)\s*([a-z]+))?", re.ASCII
)
MIN_SLAB_REQUESTS = 1 << 12
MAX_TIME_S = 2.0**33
"""Times are kept in whole microseconds; up to here (about 270 years) a float64 of seconds resolves them."""


def plain_number(value: object) -> float | None:
    """A number, also as text like ``"1e3"``, ``"1_000"`` or ``"1,000"``, finite or not; None for all else."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        return float(match[1] + re.sub("[,_]", "", match[2])) if match and not match[3] else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else math.inf
    return None


def seconds(name: str, value: float | str) -> float:
    """A time in seconds.

    Parameters
    ----------
    name : str
        What messages call it.
    value : float or str
        A number of seconds, or text: ``"90m"``, ``"10 minutes"``, ``"2d12h"``, ``"1h30m"``, ``"0.5h"``. With colons,
        as on a clock, hours come first: ``"1:30"`` is an hour and a half, ``"0:01:30"`` a minute and a half. Within
        ±`MAX_TIME_S`.
    """
    found = _terms(value) if isinstance(value, str) else plain_number(value)
    if found is None or not math.isfinite(found):
        raise OptionError(
            f'{name} as seconds or like "90s", "10 minutes", "1h30m", "2d12h" or "1:30" (hours and minutes)',
            repr(value)[:60],
            "units are ms, s, m or min, h, d, w",
        )
    if abs(found) > MAX_TIME_S:
        raise OptionError(f"{name} within ±{MAX_TIME_S:.0f} s (270 years)", repr(value)[:60], f"change {name}")
    return found


def _terms(text: str) -> float | None:
    """Seconds of a clock, or of numbers with units, one after the other; None for what is neither."""
    sign, text = (-1.0, text.strip()[1:]) if text.strip().startswith("-") else (1.0, text.strip().removeprefix("+"))
    if match := _CLOCK.fullmatch(text):
        return sign * (int(match[1]) * 3600.0 + int(match[2]) * 60.0 + float(match[3] or 0))
    total, at, last = 0.0, 0, math.inf
    while at < len(text):
        term = _TERM.match(text, at)
        unit = TIME_UNITS_S.get(term[2].lower()) if term else None
        alone = bool(term) and at == 0 and term.end() == len(text)  # type: ignore[union-attr]
        if term is None or unit is None or (not alone and (not term[2] or unit >= last)):
            return None
        total += float(re.sub("[,_]", "", term[1])) * unit
        at, last = term.end(), unit
    return sign * total if at else None


def rps(text: str) -> float | None:
    """Requests per second from text like ``"5"``, ``"1k"``, ``"5rps"``, ``"5 req/s"``, ``"300/min"``; else None."""
    match = _NUMBER.fullmatch(text)
    unit = _RPS.fullmatch(match[3]) if match else None
    per_s = PER_S.get(unit[2] or unit[3] or "s") if unit else None
    if match is None or unit is None or per_s is None:
        return None
    return float(match[1] + re.sub("[,_]", "", match[2])) * MULTIPLES[unit[1]] / per_s


def count(name: str, text: str) -> int:
    """A whole number from text like ``"500"``, ``"10k"``, ``"1.5M"``, ``"1e6"``, ``"1_000"`` or ``"1,000"``."""
    match = _NUMBER.fullmatch(text)
    if match is not None and match[3] in MULTIPLES:
        exact = Decimal(match[1] + re.sub("[,_]", "", match[2]))
        if exact.adjusted() < 24 and (found := exact * int(MULTIPLES[match[3]])) == int(found):
            return int(found)
    raise OptionError(f"{name} as a whole number, such as 500, 10k, 1.5M or 1,000", repr(text)[:60], f"change {name}")


def number(name: str, text: str) -> float:
    """A number from text like ``"2.5"``, ``"1k"`` or ``"1e3"``; a share may be a percentage, ``"10%"``."""
    match = _NUMBER.fullmatch(text)
    units = MULTIPLES | {"%": 0.01, "x": 1.0}
    if match is None or match[3] not in units:
        raise OptionError(f"{name} as a number, such as 0.5, 50%, 2 or 1e3", repr(text)[:60], f"change {name}")
    found = float(match[1] + re.sub("[,_]", "", match[2]))
    return found / 100 if match[3] == "%" else found * units[match[3]]


def whole(value: object) -> int | None:
    """An integer of Python or NumPy as Python's; None for all else, which truth values are."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def integer(name: str, value: object, largest: int, least: int = 0) -> int:
    """An integer from `least` to `largest`."""
    found = whole(value)
    if found is None or not least <= found <= largest:
        raise OptionError(f"{name} as an integer from {least} to {largest}", repr(value), f"change {name}")
    return found


def check_choice(name: str, value: object, choices: Iterable[str], fix: str = "choose one of them") -> None:
    """Refuse a value that is none of the choices, whatever it is."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise unknown(name, value, known, fix)


def budget_bytes(memory: float | str) -> int:
    """A memory budget in bytes."""
    match = _NUMBER.fullmatch(memory) if isinstance(memory, str) else None
    unit = SIZES.get(match[3].lower()) if match else 1
    found = plain_number(memory if match is None else match[1] + match[2])
    if found is None or unit is None or not math.isfinite(found * unit):
        units = ", ".join(filter(None, MEMORY_UNITS))
        raise OptionError('memory as bytes or like "2GB" or "512 MiB"', repr(memory)[:60], f"units are {units}")
    return int(found * unit)


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
        k, n = map(whole, value) if isinstance(value, tuple | list) and len(value) == 2 else (None, None)
        pair = (-1, 0) if k is None or n is None else (k, n)
    if not 0 <= pair[0] < pair[1]:
        raise OptionError('a shard like "3/8", from 1/n to n/n', repr(value), "change shard")
    return pair
