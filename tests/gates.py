"""Goodness-of-fit gates share one error budget: all of them together fail by chance in 1 run of 1,000 at most."""

from __future__ import annotations

FAMILY_ALPHA = 1e-3
GATES = 400  # upper bound of the number of p-values in the suite: about 240 are taken
GATE_ALPHA = FAMILY_ALPHA / GATES


def passes(p: float) -> bool:
    """Whether a p-value is within a gate's share of the budget; NaN is not."""
    return bool(p >= GATE_ALPHA)


def check(p: float, what: str) -> None:
    """Fail, naming what was tested, if a gate rejects."""
    assert passes(p), f"{what}: p = {p:.3g} is below {GATE_ALPHA:.3g}"
