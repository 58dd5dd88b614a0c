"""Numbers and times in words: for pictures, and what is said of them."""

from __future__ import annotations

import math

NICE_S = (
    *(factor * 10.0**power for power in range(-6, 0) for factor in (1, 2, 5)),
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0),
    *(3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172800.0, 604800.0),
)
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def nice_bin_s(duration_s: float, at_most: int) -> float:
    """The shortest step of a clock that a duration holds at most so many times."""
    for step_s in NICE_S:
        if duration_s / step_s <= at_most:
            return step_s
    return math.ceil(duration_s / at_most / NICE_S[-1]) * NICE_S[-1]


def duration_text(seconds: float) -> str:
    """A duration in the largest unit that gives a short number: 90 s, 12.5 min, 6 h, 3 d."""
    for unit_s, name in UNITS:
        if abs(seconds) >= 2 * unit_s or (abs(seconds) >= unit_s and math.isclose(seconds % unit_s, 0.0)):
            return f"{seconds / unit_s:.4g} {name}"
    return f"{seconds:.4g} s"


def number(value: float) -> str:
    """A number of about four digits: 0.1234, 12.34, 1,234, 12,340,000."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(share: float, digits: int = 0) -> str:
    """A share as a percentage: 12 %."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else number(share)
