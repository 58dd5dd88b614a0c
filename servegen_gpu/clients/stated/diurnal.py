"""A rate that follows the time of day."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.schedules import MAX_RATE_RPS

HOURS = (np.arange(144) + 0.5) / 6
"""Middles of ten minutes: a mean over them is a mean over the day to the last bit, the curve being smooth."""


@dataclass(frozen=True)
class Diurnal:
    """A day with one peak: a rate proportional to exp(swing · cos(2π (hour − peak_hour) / 24)).

    It is a function of time, and so also a target rate for `generate`.

    Attributes
    ----------
    mean : float
        Mean over the day, req/s.
    swing : float
        From 0 (steady) to 10; the rate at the peak is exp(2 · swing) times that of twelve hours later: 0.8 makes 5.
    peak_hour : float
        On the profiles' clock, from 0 to below 24.
    """

    mean: float
    swing: float = 0.8
    peak_hour: float = 14.0

    def __post_init__(self) -> None:
        number("mean", self.mean, above=0, high=MAX_RATE_RPS)
        number("swing", self.swing, 0, high=10)
        number("peak_hour", self.peak_hour, 0, high=24)

    def __call__(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Rate at times in seconds, req/s."""
        return np.asarray(self.mean * (self._curve(np.asarray(time_s, np.float64) / 3600) / self._mean))

    def _curve(self, hour: NDArray[np.float64]) -> NDArray[np.float64]:
        return settled(np.exp(self.swing * np.cos(2 * np.pi * (hour - self.peak_hour) / 24)))

    @cached_property
    def _mean(self) -> float:
        return math.fsum(self._curve(HOURS).tolist()) / len(HOURS)


def settled(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to 30 bits: elementary functions differ in the last of 53 from machine to machine, a pool must not."""
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, 30)), exponent - 30))
