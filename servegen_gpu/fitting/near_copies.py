"""Requests whose input is nearly the one of a request shortly before: sessions of a log that names none.

Completions of an editor send the same context again and again, a few tokens longer each time. Such *matches* are there
by chance, too: as many as there would be if each client's inputs came in another order. What is above that, the
*excess*, is sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.trace import Trace

LAGS = 20
"""How many requests back a match may be, where the share of matches is stated; of the same client."""
REACH = 50
"""How many requests back sessions are looked for: in a burst, many requests come between two turns."""
WITHIN_TOKENS = 5
ORDERS = 8
"""Other orders of the inputs, which tell how many matches come by chance, and how sure that is."""
FURTHEST = 1000
"""Requests of a client between an input and the place that it is moved to, for one order more each."""
SURE = 6.0
"""Standard deviations above chance, so that orders that are alike by chance never make sessions."""
SHARE = 0.01
"""Of the requests: fewer matches above chance are no sessions to speak of."""
GAP_CLASSES = 8
STEP_CLASSES = np.array([0, 1, 2, 3, 3, 3])
"""Class of a step of 0, 1, 2, … tokens."""
STEPS = int(STEP_CLASSES.max()) + 1

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matches:
    """Near copies of one trace; requests are those of one client after another, in order of time.

    Attributes
    ----------
    order : int64[n]
        Rows of the trace.
    inputs : list of int32[n]
        Tokens of inputs, then those of other orders.
    lag : int64[n]
        How many requests of its client back the nearest match of each request is; 0 if there is none.
    by_chance : list of int64[n]
        The same for inputs in other orders.
    """

    order: Ints
    inputs: list[NDArray[np.int32]]
    lag: Ints
    by_chance: list[Ints]

    @cached_property
    def share(self) -> float:
        """Of the requests that match one of those before."""
        return float((self.lag > 0).mean()) if len(self.lag) else 0.0

    @cached_property
    def chance(self) -> float:
        """Share that matches where inputs come in other orders."""
        return float(np.mean(self._shares)) if len(self.lag) else 0.0

    @property
    def _shares(self) -> list[float]:
        return [float((lag > 0).mean()) for lag in self.by_chance]

    @cached_property
    def links(self) -> int:
        """How many matches are none by chance; 0 where that is not sure."""
        if not len(self.lag) or self.share <= self.chance:
            return 0
        n, excess = len(self.lag), (self.share - self.chance) / (1 - self.chance)
        spread = np.sqrt(np.var(self._shares, ddof=1) + self.chance * (1 - self.chance) / n)
        return round(excess * n) if excess > max(SURE * float(spread), SHARE) else 0


def matches_of(trace: Trace, lags: int = LAGS, within_tokens: int = WITHIN_TOKENS) -> Matches:
    """Requests whose input is within some tokens of one of the last requests of the same client.

    Parameters
    ----------
    trace : Trace
        With ``input_tokens``, in order of time; clients matter if there is the column ``client``.
    lags : int
        How many requests back.
    within_tokens : int
    """
    client = np.asarray(trace["client"]) if "client" in trace else np.zeros(len(trace), np.int32)
    order = np.argsort(client, kind="stable")
    first = np.flatnonzero(np.diff(client[order], prepend=-1))
    counts = np.diff(np.append(first, len(order)))
    place = np.arange(len(order)) - np.repeat(first, counts)
    inputs = np.asarray(trace["input_tokens"])[order].astype(np.int32)
    each = [inputs, *_other_orders(inputs, place, np.repeat(counts, counts))]
    found = [_lags(inputs, before, place, lags, within_tokens) for before in each]
    return Matches(order, each, found[0], found[1:])


def _lags(inputs: NDArray[np.int32], before: NDArray[np.int32], place: Ints, lags: int, within: int) -> Ints:
    """Requests back to the nearest of `before` that an input matches; 0 if there is none of its client."""
    found = np.zeros(len(inputs), np.int16)
    upper, reach = (inputs + within).view(np.uint32), np.minimum(place, lags).astype(np.int16)
    for lag in range(min(lags, len(inputs) - 1), 0, -1):
        near = (upper[lag:] - before[:-lag].view(np.uint32)) <= 2 * within
        near &= reach[lag:] >= lag
        found[lag:][near] = lag
    return found.astype(np.int64)


def _other_orders(inputs: NDArray[np.int32], place: Ints, count: Ints) -> list[NDArray[np.int32]]:
    """Inputs where each client's are moved round by some of its requests, so that their level in time stays."""
    begin = np.arange(len(inputs)) - place
    step = np.minimum(FURTHEST, count // (ORDERS + 1) + 1)
    return [inputs.take(begin + (place + number * step) % count) for number in range(1, ORDERS + 1)]


def links_of(trace: Trace, matches: Matches) -> Ints:
    """Row of the request that each request is a near copy of, int64[n]; below 0 where it is none.

    As many matches as are above chance, in all and in every class of time since the match and of tokens between the
    two: matches by chance lie any time back, at any distance. Which ones of a class are kept does not matter; they are
    taken evenly.
    """
    parent = np.full(len(trace), -1)
    if not matches.links:
        return parent
    at_us, inputs = np.asarray(trace["arrival_us"])[matches.order], matches.inputs[0].astype(np.int64)
    rows = np.flatnonzero(matches.lag)
    gaps = at_us[rows] - at_us[rows - matches.lag[rows]]
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, GAP_CLASSES + 1)[1:-1]))

    def classes(lag: Ints, before: NDArray[np.int32]) -> Ints:
        found = np.flatnonzero(lag)
        gap: Ints = np.searchsorted(edges, at_us[found] - at_us[found - lag[found]], side="right")
        step: Ints = STEP_CLASSES[np.abs(inputs[found] - before[found - lag[found]])]
        return gap * STEPS + step

    own, *others = (classes(*each) for each in zip((matches.lag, *matches.by_chance), matches.inputs, strict=True))
    cells = (len(edges) + 1) * STEPS
    seen = np.bincount(own, minlength=cells)
    chance = np.mean([np.bincount(other, minlength=cells) for other in others], axis=0)
    excess = np.maximum(seen - chance, 0.0)
    excess = np.minimum(excess * (matches.links / excess.sum()), seen)
    kept = rows[_evenly(own, excess / np.maximum(seen, 1))]
    parent[matches.order[kept]] = matches.order[kept - matches.lag[kept]]
    return parent


def _evenly(classes: Ints, share: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A share of every class, spread over its members."""
    order = np.argsort(classes, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(classes[order], classes[order])
    upto = np.floor((place + 1) * share[classes[order]] + 0.5) > np.floor(place * share[classes[order]] + 0.5)
    kept = np.zeros(len(classes), np.bool_)
    kept[order] = upto
    return kept
