"""What a study varies about a workload: parameters by name, their ranges, and pools that have other values of them.

========================  =====================================================================================
``rate``                  factor on the total rate: the same clients send more
``growth``                factor on the total rate, from 1: new clients join that are like the old ones
``burstiness``            factor on the CV of the gaps of every client
``length_scale``          factor on all lengths in tokens
``length_tail``           factor on the spread of the logarithm of lengths, at the same means
``clients``               factor on the number of clients, who are drawn anew; the total rate stays
``top_share``             share of the requests of the ten largest clients; the total rate stays
``conversation_share``    share of the requests that belong to conversations
========================  =====================================================================================

A factor of 1 changes nothing (but ``clients``, which draws whenever it is given). What each does exactly: `who`,
`gaps` and `lengths` in this package. Random numbers of clients keep their addresses, so that requests of two values
differ by what the values do, and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.law.address import Key, derive_key
from servegen_gpu.rates import Rate, resolve_rate
from servegen_gpu.schedules import Schedule
from servegen_gpu.studies import who
from servegen_gpu.studies.gaps import burstier
from servegen_gpu.studies.lengths import relengthened

Scale = Literal["linear", "log"]


class _Known(NamedTuple):
    """A parameter that there is: its least and largest value, and what it is in a pool that nothing was done to."""

    low: float
    high: float
    own: Callable[[ClientPool], float] = lambda pool: 1.0


PARAMETERS: Mapping[str, _Known] = {
    "rate": _Known(1e-3, 1e3),
    "growth": _Known(1.0, 100.0),
    "burstiness": _Known(0.01, 100.0),
    "length_scale": _Known(0.01, 100.0),
    "length_tail": _Known(0.05, 5.0),
    "clients": _Known(1e-3, 100.0),
    "top_share": _Known(1e-6, 1.0 - 1e-6, who.own_top_share),
    "conversation_share": _Known(0.0, 1.0, who.own_conversation_share),
}
"""Parameters by name."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that a study varies.

    Parameters
    ----------
    name : str
        One of `PARAMETERS`.
    low, high : float
        Its range, ends included.
    scale : {"linear", "log"}
        In what it is uniform.

    Raises
    ------
    OptionError
        For an unknown name, a range that is none or upside down, or one with values that the parameter cannot have.
    """

    name: str
    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        _check_name(self.name)
        for end in ("low", "high"):
            object.__setattr__(self, end, _checked(self.name, getattr(self, end)))
        if self.low > self.high:
            got = f"{self.low:g} to {self.high:g}"
            raise OptionError(f"{self.name} from its smaller to its larger value", got, "exchange the ends")
        if self.scale not in get_args(Scale):
            raise OptionError(f"{self.name} on a linear or log scale", repr(self.scale), "write linear, log or neither")
        if self.scale == "log" and self.low <= 0:
            got = f"{self.low:g} to {self.high:g}"
            raise OptionError(f"{self.name} above 0 on a log scale", got, "raise its lower end, or make it linear")

    def at(self, u: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Values at places in the range, float64 of the shape of `u`: from 0, its lower end, to 1, its upper end."""
        u = np.asarray(u, np.float64)
        if self.scale == "log":
            middle = self.low * (self.high / self.low) ** u
        else:
            middle = self.low + (self.high - self.low) * u
        return np.asarray(np.clip(middle, self.low, self.high))

    def place(self, value: float) -> float:
        """The inverse of `at`; of what is outside, the nearer end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if low == high:
            return 0.5
        return math.log(value / low) / math.log(high / low) if self.scale == "log" else (value - low) / (high - low)

    def __str__(self) -> str:
        return f"{self.name}={self.low:.10g}:{self.high:.10g}" + (":log" if self.scale == "log" else "")


def parse_vary(vary: str | Parameter | Iterable[str | Parameter] | Mapping[str, Any]) -> list[Parameter]:
    """Parameters from words such as ``"rate=0.8:1.2"`` and ``"burstiness=0.5:2:log"``, or ``{"rate": (0.8, 1.2)}``.

    Raises
    ------
    OptionError
        For words that say something else, and for a parameter that is there twice.
    """
    if isinstance(vary, Mapping):
        found = [Parameter(name, *_ends(name, ends)) for name, ends in vary.items()]
    else:
        each = [vary] if isinstance(vary, str | Parameter) else list(vary)
        found = [one if isinstance(one, Parameter) else _parsed(one) for one in each]
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError("every parameter once", f"{', '.join(twice)} twice", "leave out one of them")
    return found


def _parsed(word: object) -> Parameter:
    expected, fix = "a parameter and its range as NAME=LOW:HIGH, or NAME=LOW:HIGH:log", "write for example rate=0.8:1.2"
    if not isinstance(word, str):
        raise OptionError(expected, repr(word)[:60], fix)
    name, _, ends = word.partition("=")
    _check_name(name.strip())
    parts = [part.strip() for part in ends.split(":")]
    try:
        low, high = (float(part) for part in parts[:2])
    except ValueError:
        raise OptionError(expected, repr(word), fix) from None
    if len(parts) > 3:
        raise OptionError(expected, repr(word), fix)
    return Parameter(name.strip(), low, high, *parts[2:])  # type: ignore[arg-type]


def _ends(name: str, ends: Any) -> tuple[Any, ...]:
    if not isinstance(ends, tuple | list) or len(ends) not in (2, 3):
        raise OptionError(f"{name} as (low, high), or (low, high, 'log')", repr(ends)[:60], "give both ends")
    return tuple(ends)


def own_value(pool: ClientPool, name: str) -> float:
    """What a parameter is in a pool as it stands: 1 for a factor, else the share that the pool has."""
    return PARAMETERS[name].own(pool)


def check_vary(pool: ClientPool, parameters: Sequence[Parameter]) -> None:
    """Refuse parameters that a pool does not carry, and ends of ranges that it cannot reach: see `applied`."""
    for end in ("low", "high"):
        applied(pool, {one.name: getattr(one, end) for one in parameters})


class Applied(NamedTuple):
    """A pool with other values of parameters.

    Attributes
    ----------
    pool : ClientPool
        Its total rate is that of the pool that it was made from.
    rate_factor : float
        What the total rate is to be multiplied by: see `scaled_rate`.
    """

    pool: ClientPool
    rate_factor: float


def applied(pool: ClientPool, values: Mapping[str, float], key: Key | None = None) -> Applied:
    """A pool with other values of parameters.

    Parameters
    ----------
    pool : ClientPool
        Released, stated, fitted or a population.
    values : mapping of str to float
        By the name of the parameter; those left out stay as they are.
    key : Key, optional
        Of `derive_key`, decides who is drawn for ``clients``; that of seed 0 by default.

    Returns
    -------
    pool : ClientPool
    rate_factor : float
        To give `stream` the rate ``scaled_rate(rate, rate_factor)``.

    Raises
    ------
    OptionError
        For an unknown parameter, a value that it cannot have, or a parameter that the pool does not carry.

    Examples
    --------
    >>> changed, factor = applied(pool, {"rate": 1.2, "burstiness": 2})
    >>> stream(changed, rate=scaled_rate(100, factor), duration="1h")
    """
    for name in values:
        _check_name(name)
    value = {name: _checked(name, values[name]) for name in PARAMETERS if name in values}
    factor = value.get("rate", 1.0) * value.get("growth", 1.0)
    # lengths first: what they need of a pool is kept for the next call
    pool = relengthened(pool, value.get("length_scale", 1.0), value.get("length_tail", 1.0))
    pool = burstier(pool, value.get("burstiness", 1.0))
    if "clients" in value:
        pool = who.drawn(pool, value["clients"], derive_key(0) if key is None else key)
    if "top_share" in value:
        pool = who.with_top_share(pool, value["top_share"])
    if "conversation_share" in value:
        pool = who.with_conversation_share(pool, value["conversation_share"])
    return Applied(who.grown(pool, value.get("growth", 1.0)), factor)


def scaled_rate(rate: Any, factor: float, scale: float | None = None, peak: float | None = None) -> Rate:
    """A target rate `factor` times as high, in any of the forms that `stream` takes, as its ``rate=``."""
    target = resolve_rate(rate, scale, peak)
    if factor == 1:
        return target
    if target.kind == "own":
        return Rate("scaled", factor)
    if target.schedule is not None:
        old = target.schedule
        return Rate("schedule", schedule=Schedule(old.times_us / 1e6, old.rates_rps * factor, old.kind))
    if target.function is not None:
        return Rate("function", function=partial(_times, target.function, factor))
    return Rate(target.kind, target.value * factor)


def _times(function: Callable[[Any], Any], factor: float, time_s: Any) -> Any:
    return np.multiply(function(time_s), factor)


def _check_name(name: object) -> None:
    if name not in PARAMETERS:
        raise unknown("a parameter", name, PARAMETERS)


def _checked(name: str, value: object) -> float:
    low, high, _ = PARAMETERS[name]
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        fix = "for a lower rate vary `rate`" if name == "growth" else f"change {name}"
        raise OptionError(f"{name} from {low:g} to {high:g}", repr(value), fix)
    return float(value)  # type: ignore[arg-type]
