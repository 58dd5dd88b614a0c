"""How unequal the rates of clients are: a law in the rank of a client, from figures as they are published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.diurnal import settled
from servegen_gpu.errors import OptionError

SUMMED = 1024
"""So many terms are summed one by one, the rest as an integral: off by less than 1e-6 of the sum."""
MAX_EXPONENT = 64.0
OFFSETS = (-0.999, 1e6)


@dataclass(frozen=True)
class Skew:
    """The largest `top` of the clients send a `share` of the requests, the largest alone `largest`.

    The rate of the client of rank i, from 0, is proportional to ``(i + 1 + offset) ** -exponent``; both parameters
    follow from the figures and the number of clients that they were published for.

    Attributes
    ----------
    top : int
    share, largest : float
        Shares of the requests; without `largest` the offset is 0 (Zipf's law).
    """

    top: int
    share: float
    largest: float | None = None

    @lru_cache(maxsize=64)  # noqa: B019 - figures of a few files
    def law(self, clients: int) -> tuple[float, float]:
        """Offset and exponent that give these figures with so many clients.

        Raises
        ------
        OptionError
            If no parameters do.
        """
        if not self.top < clients:
            raise OptionError(
                f"the top of fewer than all {clients:,} clients", f"top {self.top:,}", "lower top, or raise clients"
            )
        if not self.top / clients < self.share < 1:
            raise OptionError(
                f"a share of the top {self.top:,} above {self.top / clients:.3g} (all alike) and below 1",
                f"{self.share:g}",
                "change share",
            )
        if self.largest is None:
            return 0.0, _rounded(self._exponent(0.0, clients))
        low, high = (math.log(end + 1) for end in OFFSETS)
        least, most = (self._largest(math.exp(end) - 1, clients) for end in (high, low))
        if not least <= self.largest <= most:
            raise OptionError(
                f"largest from {least:.4f} to {most:.4f}, as the share {self.share:g} of the top {self.top:,} allows",
                f"{self.largest:g}",
                "change largest, share or top",
            )
        for _ in range(48):  # the larger the offset, the flatter the head
            middle = (low + high) / 2
            low, high = (middle, high) if self._largest(math.exp(middle) - 1, clients) > self.largest else (low, middle)
        offset = _rounded(math.exp(low) - 1)
        return offset, _rounded(self._exponent(offset, clients))

    def _exponent(self, offset: float, clients: int) -> float:
        """Exponent that gives the top its share, by halving."""
        logs = _logs(offset, self.top, clients)
        low, high = 0.0, MAX_EXPONENT * (1 + max(offset, 0.0))
        for _ in range(60):
            middle = (low + high) / 2
            _, share = _parts(logs, offset, middle, self.top, clients)
            low, high = (middle, high) if share < self.share else (low, middle)
        return low

    def _largest(self, offset: float, clients: int) -> float:
        logs = _logs(offset, self.top, clients)
        return _parts(logs, offset, self._exponent(offset, clients), self.top, clients)[0]


def _logs(offset: float, top: int, clients: int) -> NDArray[np.float64]:
    """Logarithms of the ranks that are summed one by one, 0 for the first client."""
    return np.asarray(np.log((np.arange(1.0, min(max(top, SUMMED), clients) + 1) + offset) / (1 + offset)))


def _parts(logs: NDArray[np.float64], offset: float, exponent: float, top: int, clients: int) -> tuple[float, float]:
    """Shares of the first client and of the first `top`."""
    terms = np.exp(-exponent * logs)
    rest = 0.0
    if clients > len(logs):  # the midpoint rule, backwards
        a, b = ((end + 0.5 + offset) / (1 + offset) for end in (len(logs), clients))
        power = 1 - exponent
        whole = math.log(b / a) if abs(power) < 1e-9 else (b**power - a**power) / power
        rest = whole * (1 + offset)
    total = float(terms.sum()) + rest
    return 1 / total, float(terms[:top].sum()) / total


def weights(law: tuple[float, float], clients: int) -> NDArray[np.float64]:
    """Rates of clients but for a common factor, float64[clients], largest first, the first 1."""
    offset, exponent = law
    at = (np.arange(1.0, clients + 1) + offset) / (1 + offset)
    return settled(np.power(at, -exponent))


def _rounded(x: float) -> float:
    """To 20 bits after the point: elementary functions differ in the last of 53 from machine to machine."""
    return round(x * 2.0**20) * 2.0**-20
