"""Models of conversations without what few conversations stand behind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.fitting.private_bins import merged_bins

FIELDS = ("turns", "gap_s", "new_tokens")
DIGITS = 2
"""Of edges of histograms and of bounds, which were times of a log."""

Counted = d.Pmf | d.Samples | d.Histogram


def private_model(model: TurnModel, least: int, conversations: int = 0) -> tuple[TurnModel, tuple[str, ...]]:
    """The model with at least `least` counts behind every value and bin, and notes on what could not be judged.

    Parameters
    ----------
    model : TurnModel
    least : int
    conversations : int
        Of the log, whose model it is: weights that are no whole numbers are shares of these, and what has fewer counts
        than `least` becomes one rounded value. 0 for a model of which that is not known: then weights that are whole
        numbers are taken for counts, and all else stays as it is.
    """
    made: dict[str, Any] = {}
    notes: list[str] = []
    for name in FIELDS:
        distribution = getattr(model, name)
        if distribution is None:
            continue
        if not isinstance(distribution, Counted):
            if conversations:
                made[name] = _plain(distribution, conversations < least)
            continue
        counts = _counts(distribution, conversations if name == "turns" else 0)
        if not conversations and ((counts != _weights(distribution)).any() or counts.sum() < least):
            notes.append(f"{name} of conversations are no counts, or fewer than {least:,}: left as they were stated")
        elif counts.sum() < least:
            made[name] = d.Constant(max(_short(_mean(distribution), 1), 2.0 if name == "turns" else 0.0))
            notes.append(f"{name} of conversations were counted fewer than {least:,} times: one rounded value")
        elif isinstance(distribution, d.Histogram):
            made[name] = _histogram(distribution, counts, least)
        else:
            made[name] = _pmf(distribution, counts, least)
    if conversations:
        made["session_s"] = min(_above(model.session_s), MAX_SESSION_S)
    return replace(model, **made), tuple(notes)


def _weights(distribution: Counted) -> NDArray[np.float64]:
    return np.asarray((distribution.pmf if isinstance(distribution, d.Samples) else distribution).weights)


def _counts(distribution: Counted, total: int) -> NDArray[np.float64]:
    """Whole counts of values or bins: the weights themselves, or shares of a total, if that is above 0."""
    weights = _weights(distribution)
    if (weights == np.rint(weights)).all():
        return weights
    upto = np.cumsum(weights)
    return np.diff(np.rint(upto * (total / upto[-1] if total else 1.0)), prepend=0.0)


def _mean(distribution: Counted) -> float:
    weights = _weights(distribution)
    if isinstance(distribution, d.Histogram):
        values = (np.asarray(distribution.edges)[1:] + np.asarray(distribution.edges)[:-1]) / 2
    else:
        values = np.asarray((distribution.pmf if isinstance(distribution, d.Samples) else distribution).values)
    return float(np.average(values, weights=weights))


def _short(x: float, digits: int) -> float:
    return float(f"{x:.{digits - 1}e}")


def _above(x: float) -> float:
    """The next number of few digits."""
    short = _short(x, DIGITS)
    return short if short >= x else _short(x + 0.5 * 10.0 ** (math.floor(math.log10(x)) - DIGITS + 1), DIGITS)


def _plain(distribution: d.Distribution, few: bool) -> d.Distribution:
    """A distribution of few parameters: an upper bound that was a time of the log is rounded, and all if few tell."""
    if few and isinstance(distribution, d.Constant):
        return d.Constant(_short(float(distribution.value), 1))
    if isinstance(distribution, d.LogNormal) and distribution.max is not None:
        median, sigma = float(distribution.median or 0), float(distribution.sigma or 0)
        if few:
            median, sigma = _short(median, 1), _short(sigma, 1)
        return d.LogNormal(median=median, sigma=sigma, min=distribution.min, max=_above(distribution.max))
    return distribution


def _pmf(distribution: d.Pmf | d.Samples, counts: NDArray[np.float64], least: int) -> d.Pmf:
    pmf = distribution.pmf if isinstance(distribution, d.Samples) else distribution
    distinct, at = np.unique(np.rint(np.asarray(pmf.values)).astype(np.int64), return_inverse=True)
    together = np.bincount(at, counts).astype(np.int64)
    _, kept, sums = merged_bins(np.array([0, len(distinct)]), distinct, together, least)
    return d.Pmf(kept.astype(np.float64), sums.astype(np.float64), min=pmf.min, max=pmf.max)


def _histogram(distribution: d.Histogram, counts: NDArray[np.float64], least: int) -> d.Distribution:
    """Bins joined until all have enough, with edges of two digits."""
    rough = np.array([_short(edge, DIGITS) for edge in np.asarray(distribution.edges).tolist()])
    upto = np.concatenate(([0.0], np.cumsum(counts)))
    last = np.append(np.diff(rough) > 0, True)  # of several edges that become one, the last
    rough, upto = rough[last], upto[last]
    upto[0] = 0.0
    at = [0]
    for i in range(1, len(rough)):
        if upto[i] - upto[at[-1]] >= least:
            at.append(i)
    if len(at) > 1:
        at[-1] = len(rough) - 1
    if len(at) < 2:
        return d.Constant(float(rough[-1]), min=distribution.min, max=distribution.max)
    return d.Histogram(rough[at], np.diff(upto[at]), min=distribution.min, max=distribution.max)
