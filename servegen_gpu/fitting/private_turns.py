"""Models of conversations without what few conversations stand behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.fitting.private_bins import merged_bins

FIELDS = ("turns", "gap_s", "new_tokens")
DIGITS = 2
"""Of edges of histograms, which were times of a log."""


def private_model(model: TurnModel, least: int) -> tuple[TurnModel, tuple[str, ...]]:
    """The model with at least `least` counts behind every value and bin, and notes on what could not be judged.

    Weights that are whole numbers are taken for counts. Distributions of a few parameters stay as they are.
    """
    made: dict[str, Any] = {}
    notes: list[str] = []
    for name in FIELDS:
        distribution = getattr(model, name)
        if not isinstance(distribution, d.Pmf | d.Samples | d.Histogram):
            continue
        weights = np.asarray((distribution.pmf if isinstance(distribution, d.Samples) else distribution).weights)
        if (weights != np.rint(weights)).any() or weights.sum() < least:
            notes.append(f"{name} of conversations are no counts, or fewer than {least:,}: left as they were stated")
            continue
        made[name] = (
            _histogram(distribution, least) if isinstance(distribution, d.Histogram) else _pmf(distribution, least)
        )
    return replace(model, **made), tuple(notes)


def _pmf(distribution: d.Pmf | d.Samples, least: int) -> d.Pmf:
    pmf = distribution.pmf if isinstance(distribution, d.Samples) else distribution
    values, weights = np.rint(np.asarray(pmf.values)), np.asarray(pmf.weights)
    distinct, at = np.unique(values.astype(np.int64), return_inverse=True)
    counts = np.bincount(at, weights).astype(np.int64)
    _, kept, sums = merged_bins(np.array([0, len(distinct)]), distinct, counts, least)
    return d.Pmf(kept.astype(np.float64), sums.astype(np.float64), min=pmf.min, max=pmf.max)


def _histogram(distribution: d.Histogram, least: int) -> d.Distribution:
    """Bins joined until all have enough, with edges of two digits."""
    edges, weights = np.asarray(distribution.edges), np.asarray(distribution.weights)
    rough = np.array([float(f"{edge:.{DIGITS - 1}e}") for edge in edges.tolist()])
    upto = np.concatenate(([0.0], np.cumsum(weights)))
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
