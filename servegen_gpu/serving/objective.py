"""What servers are to hold: bounds on a quantile of the time to first token and of the time between tokens.

>>> parse_objective("ttft=2.25s,tbt=500ms", "p99")
Objective(ttft_s=2.25, tbt_s=0.5, level=0.99)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.errors import OptionError

if TYPE_CHECKING:
    from servegen_gpu.serving.simulate import Served

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

    def __str__(self) -> str:
        bounds = ((self.ttft_s, "TTFT"), (self.tbt_s, "mean TBT"))
        words = [f"{name} of at most {bound:g} s" for bound, name in bounds if bound is not None]
        return f"P{100 * self.level:g} {' and '.join(words)}"

    def reached(self, served: Served) -> tuple[float, float]:
        """The quantiles of TTFT and TBT, in seconds."""
        ttft_s, tbt_s = (float(np.quantile(times, self.level)) for times in (served.ttft_s, served.tbt_s))
        return ttft_s, tbt_s

    def met_by(self, served: Served) -> bool:
        """Whether both quantiles keep to their bounds."""
        return all(value <= bound for value, bound in zip(self.reached(served), self.bounds, strict=True))

    def attainment(self, served: Served) -> float:
        """Share of the requests that keep to both bounds, each by itself."""
        ttft_s, tbt_s = self.bounds
        return float(((served.ttft_s <= ttft_s) & (served.tbt_s <= tbt_s)).mean())

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of TTFT and TBT in seconds, infinite where there is none."""
        ttft_s, tbt_s = (math.inf if bound is None else bound for bound in (self.ttft_s, self.tbt_s))
        return ttft_s, tbt_s


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
    if not bounds:
        raise OptionError("a bound of ttft or tbt", "none", "such as ttft=2s")
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
