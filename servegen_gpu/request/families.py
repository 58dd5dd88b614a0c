"""Families of gaps between the requests of a client."""

from __future__ import annotations

import math

NO_FAMILY, EXPONENTIAL, GAMMA, WEIBULL = range(4)

FAMILY_NAMES = ("", "Exponential", "Gamma", "Weibull")
"""Names of the gap families by code; the empty name marks a window without requests."""

FAMILIES = tuple(name.lower() for name in FAMILY_NAMES[EXPONENTIAL:])

CV_RANGE = (0.01, 1000.0)

SHAPE_RANGE = {GAMMA: (1e-6, 1e4), WEIBULL: (0.05, 1e3)}


def cv_of(family: int, shape: float) -> float:
    """Coefficient of variation of a gap family."""
    if family == WEIBULL:
        return math.sqrt(math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2 - 1)
    return 1.0 if family == EXPONENTIAL else shape**-0.5


def shape_of(family: int, cv: float) -> float:
    """Shape with a coefficient of variation, by halving where there is no formula."""
    if family != WEIBULL:
        return 1.0 if family == EXPONENTIAL else 1.0 / (cv * cv)
    low, high = (math.log2(end) for end in SHAPE_RANGE[WEIBULL])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cv_of(WEIBULL, 2.0**middle) > cv else (low, middle)
    return settled(2.0**low)


def settled(x: float) -> float:
    """Rounded to 30 bits: gamma functions differ in the last of 53 from machine to machine."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(math.ldexp(mantissa, 30)), exponent - 30)
