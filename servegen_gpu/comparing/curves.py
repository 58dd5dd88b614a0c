"""Curves of a comparison's plot, at a bounded number of points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from servegen_gpu.comparing.arrivals import SIDES
from servegen_gpu.comparing.figures import Figures
from servegen_gpu.comparing.histograms import Counts

POINTS = 200
BARS = 300


def curves_of(sides: Mapping[str, Figures]) -> dict[str, Any]:
    """By what is drawn and by side: ``input`` and ``output`` have ``tokens`` and ``share``, ``rate`` has ``time_s`` and
    ``rps``.
    """
    curves: dict[str, Any] = {"rate": {name: _rate(figures) for name, figures in sides.items()}}
    for what, column in SIDES.items():
        there = {name: figures.seen.lengths.get(column) for name, figures in sides.items()}
        curves[what] = {name: _cdf(counts) for name, counts in there.items() if counts is not None}
    return curves


def _rate(figures: Figures) -> dict[str, list[float]]:
    requests = figures.seen.cells["requests"]
    width = -(-len(requests) // BARS)
    at = np.arange(0, len(requests), width)
    cells = np.diff(np.append(at, len(requests)))
    rps = np.add.reduceat(requests, at) / (cells * figures.seen.cell_s)
    return {"time_s": (at * float(figures.seen.cell_s)).tolist(), "rps": rps.tolist()}


def _cdf(counts: Counts) -> dict[str, list[float]]:
    values, weights = counts.points()
    share = np.cumsum(weights) / weights.sum()
    at = np.unique(np.searchsorted(share, np.arange(1, POINTS + 1) / POINTS - 1e-12).clip(max=len(values) - 1))
    return {"tokens": values[at].astype(float).tolist(), "share": share[at].tolist()}
