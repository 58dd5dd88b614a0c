"""Numbers of the built-in populations, one file per workload, and the words they are written in.

A preset describes kinds of behaviour; each client gets one kind of each sort (see `population`). Shares are shares of
requests, not of clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tokens:
    """A length in tokens: a log-normal body and, for some requests, a Pareto tail.

    Attributes
    ----------
    median, sigma : float
        Of the body; `sigma` is the standard deviation of the natural logarithm.
    max : int
        Longer draws are cut to this.
    tail_share, tail_from, tail_exponent : float
        Share of the requests in the tail, its smallest length and its exponent.
    """

    median: float
    sigma: float
    max: int
    tail_share: float = 0.0
    tail_from: float = 1.0
    tail_exponent: float = 1.0


@dataclass(frozen=True)
class Style:
    """What the requests of some clients look like: lengths, and how often little of the output is reasoning."""

    name: str
    share: float
    input_tokens: Tokens
    output_tokens: Tokens
    low_ratio_share: float


@dataclass(frozen=True)
class Gaps:
    """Inter-arrival times of some clients."""

    name: str
    share: float
    family: Literal["Exponential", "Gamma", "Weibull"]
    shape: float


@dataclass(frozen=True)
class Rhythm:
    """The day of some clients: a rate proportional to exp(swing · cos(2π (hour − peak_hour) / 24))."""

    name: str
    share: float
    swing: float
    peak_hour: float


@dataclass(frozen=True)
class Preset:
    """A population of a workload with reasoning.

    Attributes
    ----------
    clients : int
        How many there are, unless asked otherwise.
    requests_per_week : float
        Of all clients together, however many.
    head_offset, head_exponent : float
        The rate of client i is proportional to ``(i + 1 + head_offset) ** -head_exponent``.
    low_ratio, high_ratio : (float, float)
        Beta distributions of reason tokens over output tokens: the two modes.
    styles, gaps, rhythms : tuple
        The shares of each add up to 1.
    """

    name: str
    clients: int
    requests_per_week: float
    head_offset: float
    head_exponent: float
    low_ratio: tuple[float, float]
    high_ratio: tuple[float, float]
    styles: tuple[Style, ...]
    gaps: tuple[Gaps, ...]
    rhythms: tuple[Rhythm, ...]
