"""What servers are to hold: bounds on a quantile of the time to first token and of the time between tokens.

>>> parse_objective("ttft=2.25s,tbt=500ms", "p99")
Objective(ttft_s=2.25, tbt_s=0.5, level=0.99)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError

UNITS_S = {"s": 1.0, "ms": 1e-3}
BOUNDED = ("ttft", "tbt")
_BOUND = re.compile(r"\s*(\w+)\s*=\s*([0-9.eE+-]+)\s*([a-zA-Z]*)\s*")
_LEVEL = re.compile(r"\s*[pP]([0-9.]+)\s*")


@dataclass(frozen=True)
class Objective:
    """A service-level objective.

    Attributes
    ----------
    ttft_s, tbt_s : float or None
        Bounds of the quantile of the time to first token, and of the mean time between tokens of a request; at least
        one of them.
    level : float
        Of the quantile (linear between order statistics), above 0, up to 1.
    """

    ttft_s: float | None
    tbt_s: float | None
    level: float

    def __post_init__(self) -> None:
        for name, most in (("ttft_s", math.inf), ("tbt_s", math.inf), ("level", 1.0)):
            value = getattr(self, name)
            if value is None and name != "level":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                raise OptionError(f"{name} above 0{' and up to 1' if most == 1 else ''}", repr(value), f"change {name}")
        if self.ttft_s is None and self.tbt_s is None:
            raise OptionError("a bound of ttft or tbt", "none", "such as ttft=2s")

    def __str__(self) -> str:
        bounds = ((self.ttft_s, "TTFT"), (self.tbt_s, "mean TBT"))
        words = [f"{name} within {bound:g} s" for bound, name in bounds if bound is not None]
        return f"P{100 * self.level:g} of {' and '.join(words)}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of TTFT and TBT in seconds, infinite where there is none."""
        ttft_s, tbt_s = (math.inf if bound is None else bound for bound in (self.ttft_s, self.tbt_s))
        return ttft_s, tbt_s

    def reached(self, ttft_s: NDArray[np.float64], tbt_s: NDArray[np.float64]) -> tuple[float, float]:
        """The quantiles of both times, in seconds."""
        return float(np.quantile(ttft_s, self.level)), float(np.quantile(tbt_s, self.level))

    def met(self, ttft_s: NDArray[np.float64], tbt_s: NDArray[np.float64]) -> bool:
        """Whether the quantiles keep to their bounds; that of TTFT decides first, for it mostly does."""
        both = zip((ttft_s, tbt_s), self.bounds, strict=True)
        return all(bound == math.inf or float(np.quantile(times, self.level)) <= bound for times, bound in both)

    def attainment(self, ttft_s: NDArray[np.float64], tbt_s: NDArray[np.float64]) -> float:
        """Share of the requests that keep to both bounds, each by itself."""
        return float(((ttft_s <= self.bounds[0]) & (tbt_s <= self.bounds[1])).mean())

    def refuse(self, alone_s: tuple[float, float]) -> NoReturn:
        """Say that no number of instances meets it: requests alone with an instance have worse quantiles."""
        asked = ((self.ttft_s, "ttft"), (self.tbt_s, "tbt"))
        missed = {
            name: reached
            for (bound, name), reached in zip(asked, alone_s, strict=True)
            if bound is not None and reached > bound
        }
        least = [f"{name}={math.ceil(reached * 1e4) / 10:g}ms" for name, reached in missed.items()]
        alone = " and ".join(f"{name}={reached:.4g}s" for name, reached in missed.items())
        raise OptionError(
            "an objective that some number of instances meets",
            f"{self}, where requests alone on an instance have {alone}",
            f"relax it to {','.join(least)} at least, or take a faster server",
        )


def parse_objective(slo: str | Mapping[str, Any] | Objective, at: str | float = "p99") -> Objective:
    """An objective from what a user says.

    Parameters
    ----------
    slo : str, mapping or Objective
        ``"ttft=2.25s,tbt=500ms"``, units s and ms; or ``{"ttft": 2.25, "tbt": "500ms"}``, where numbers are seconds.
    at : str or float
        The quantile: ``"p99"``, ``"p99.9"``, or 0.99.

    Raises
    ------
    OptionError
        If a bound is unknown, twice there, without a unit, or not above 0; or if there is no such quantile.
    """
    if isinstance(slo, Objective):
        return slo
    if isinstance(slo, Mapping):
        bounds = {str(name): _seconds(str(name), value) for name, value in slo.items()}
    elif isinstance(slo, str):
        bounds = {}
        for part in slo.split(","):
            match = _BOUND.fullmatch(part)
            if match is None or match[1] in bounds:
                got = repr(part.strip()) if match is None else f"{match[1]} twice"
                raise OptionError("bounds such as ttft=2.25s,tbt=500ms, each once", got, "change slo")
            bounds[match[1]] = _seconds(match[1], match[2] + match[3])
    else:
        raise OptionError("an objective such as ttft=2.25s,tbt=500ms", repr(slo)[:60], "change slo")
    if unknown := [name for name in bounds if name not in BOUNDED]:
        raise OptionError(f"bounds of {' and '.join(BOUNDED)}", repr(unknown[0]), "name one of them")
    return Objective(bounds.get("ttft"), bounds.get("tbt"), _level(at))


def _seconds(name: str, value: Any) -> float:
    """A bound in seconds; text must have a unit, for 500 may be seconds and milliseconds."""
    found = math.nan
    if isinstance(value, str):
        match = _BOUND.fullmatch(f"{name}={value}")
        if match is not None and match[3] in UNITS_S:
            try:
                found = float(match[2]) * UNITS_S[match[3]]
            except ValueError:
                found = math.nan
    elif isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        found = float(value)
    if not 0 < found < math.inf:
        raise OptionError(f"{name} above 0 with a unit, s or ms", repr(value), f"write it like {name}=2.25s")
    return found


def _level(at: str | float) -> float:
    found = math.nan
    if isinstance(at, str):
        if match := _LEVEL.fullmatch(at):
            try:
                found = round(float(match[1]) / 100, 12)
            except ValueError:
                found = math.nan
    elif isinstance(at, int | float) and not isinstance(at, bool):
        found = float(at)
    if not 0 < found <= 1:
        raise OptionError("a quantile such as p99 or 0.99, above 0 and up to 1", repr(at), "change at")
    return found
