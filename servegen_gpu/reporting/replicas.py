"""A study of replicas as parts of a page: distributions, quantiles with intervals, convergence, load over time.

Replicas of one draw of parameters hang together, so intervals are over draws where a draw has several replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.studies import Level
from servegen_gpu.plotting.words import number
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import paragraph, picture, pictures
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.reporting.words import label_of, with_interval
from servegen_gpu.studies.intervals import (
    Interval,
    clustered_quantile_interval,
    mean_interval,
    parameter_share,
    quantile_interval,
)

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.5, 0.9, 0.95, 0.99)
DRAWN = (0.5, 0.9, 0.99)
MOST_PICTURES = 12
MOST_POINTS = 400
"""Of a curve of convergence."""


class Sample:
    """One metric of a study.

    Attributes
    ----------
    name : str
    units : list of float64[replicas]
        Values by draw of parameters; every replica is a unit of its own where nothing varies. Without NaN.
    confidence : float
    """

    def __init__(self, name: str, draws: NDArray[np.int64], values: Floats, varied: bool, confidence: float) -> None:
        self.name, self.confidence = name, confidence
        known = np.isfinite(values)
        self.values = values[known]
        _, at, sizes = np.unique(draws[known], return_inverse=True, return_counts=True)
        self.clustered = varied and bool((sizes > 1).any())
        self.means = np.bincount(at, self.values) / sizes if self.clustered else self.values
        # draws that were not finished are left out where all draws must be of one size
        whole = sizes == sizes.max(initial=0)
        order = np.argsort(at, kind="stable")[whole[np.sort(at)]]
        self.grid = self.values[order].reshape(int(whole.sum()), -1) if len(self.values) else np.zeros((0, 1))

    @property
    def label(self) -> str:
        """The metric in words."""
        return label_of(self.name)

    @property
    def mean(self) -> Interval:
        """Mean over replicas."""
        return mean_interval(self.means, self.confidence)

    def quantile(self, q: float) -> Interval:
        """A quantile of replicas."""
        if self.clustered:
            return clustered_quantile_interval(self.grid, q, self.confidence)
        return quantile_interval(self.values, q, self.confidence)

    @property
    def parameter_share(self) -> Interval:
        """Share of the variance that is that of parameters; NaN where draws have one replica each."""
        return parameter_share(self.grid, self.confidence)


def replica_sections(settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """Sections of a study of replicas."""
    varied, confidence = bool(settings.get("vary")), float(settings.get("confidence", 0.95))
    draws = table["draw"].to_numpy()
    samples = [
        Sample(str(name), draws, table[name].to_numpy(np.float64), varied, confidence) for name in settings["metrics"]
    ]
    shown = samples[:MOST_PICTURES]
    made = [Section("What was found", _found(settings, len(np.unique(draws)), len(table), samples))]
    if settings.get("bins"):
        made.append(Section("Load over time", _fans(settings["bins"])))
    made.append(Section("Distributions over replicas", pictures(list(map(_distribution, shown)))))
    if varied:
        made.append(Section("Parameters and chance", _shares(samples)))
    made.append(Section("Are there enough replicas?", pictures(list(map(_convergence, shown)))))
    return made


def _found(settings: Mapping[str, Any], draws: int, replicas: int, samples: Sequence[Sample]) -> str:
    duration = f" of {settings['duration_s']:,g} s" if settings.get("duration_s") else ""
    of = f", {draws:,} draws of parameters" if settings.get("vary") else ""
    said = f"{replicas:,} replicas{duration} of {settings.get('workload', 'a workload')}{of}."
    if samples and len(samples[0].values):
        first = samples[0]
        half, tail = number(first.quantile(0.5).value), number(first.quantile(0.95).value)
        said += f" The {first.label} is above {half} in half of them, and above {tail} in one of twenty."
    rows: list[list[str]] = []
    for sample in samples:
        estimates = {"mean": sample.mean} | {f"p{q * 100:g}": sample.quantile(q) for q in QUANTILES}
        rows.append([sample.label])
        rows += [[name, *map(number, one)] for name, one in estimates.items()]
    level = samples[0].confidence if samples else 0.95
    caption = f"Over replicas, with intervals of {level:.4g} confidence; ∞ where replicas are too few to bound them"
    return paragraph(said) + table_of(("", "value", "from", "to"), rows, caption=caption)


def _distribution(sample: Sample) -> str:
    if not len(sample.values):
        return paragraph(f"{sample.label}: no replica has a value.")
    levels = [Level(f"p{q * 100:g}", *sample.quantile(q)) for q in DRAWN]
    said = "; ".join(f"{one.name} {with_interval(Interval(*one[1:]))}" for one in levels)
    low, high = number(sample.values.min()), number(sample.values.max())
    alt = f"Histogram of {sample.label} over {len(sample.values):,} replicas, from {low} to {high}: {said}."
    figure = draw.distribution(sample.values, levels, sample.label)
    return picture(figure, alt, "Lines: quantiles over replicas. Bands: their intervals.")


def running(units: Floats, confidence: float) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Numbers n of units, at most 400 of them from 2 on; mean of the first n, half width of its interval."""
    n = np.unique(np.linspace(2, len(units), MOST_POINTS).astype(np.int64)) if len(units) > 1 else np.zeros(0, np.int64)
    found = [mean_interval(units[:k], confidence) for k in n.tolist()]
    return n, np.array([one.value for one in found]), np.array([(one.high - one.low) / 2 for one in found])


def _convergence(sample: Sample) -> str:
    n, mean, half = running(sample.means, sample.confidence)
    if not len(n):
        return paragraph(f"{sample.label}: an interval takes two replicas at least.")
    unit = "draws of parameters" if sample.clustered else "replicas"
    part = f" ({half[-1] / abs(mean[-1]):.2%})" if mean[-1] else ""
    at = int(np.searchsorted(n, n[-1] / 2))
    now = f"{number(mean[-1])} ± {number(half[-1])}{part}"
    alt = (
        f"Running mean of {sample.label}: {number(mean[at])} ± {number(half[at])} after {n[at]:,} {unit}, "
        f"{now} after all {n[-1]:,}."
    )
    figure = draw.convergence(n.astype(np.float64), mean, half, sample.label, unit)
    return picture(figure, alt, f"Mean over {unit} so far: {now}.")


def _shares(samples: Sequence[Sample]) -> str:
    known = [(s.label, share) for s in samples if np.isfinite((share := s.parameter_share).value)]
    if not known:
        return paragraph("Each draw of parameters has one replica, so what chance adds cannot be told apart.")
    figure = draw.shares([name for name, _ in known], np.array([share for _, share in known]))
    said = "; ".join(f"{name} {share.value:.0%} ({share.low:.0%} to {share.high:.0%})" for name, share in known)
    alt = f"Share of the variance over replicas that is that of parameters; chance has the rest: {said}."
    return pictures([picture(figure, alt, "Whiskers: intervals of the share of the parameters.")])


def _fans(bins: Mapping[str, Any]) -> str:
    """Pictures of ``{"bin_s": …, "quantiles": [levels], "loads": {column: [[per bin] per level]}}``."""
    bin_s, levels = float(bins["bin_s"]), [float(q) for q in bins["quantiles"]]
    return pictures([_fan(name, bin_s, levels, np.array(rows, np.float64)) for name, rows in bins["loads"].items()])


def _fan(name: str, bin_s: float, levels: Sequence[float], rows: NDArray[Any]) -> str:
    time_s = (np.arange(rows.shape[1]) + 0.5) * bin_s
    label = f"{label_of(name)} in {bin_s:g} s"
    figure = draw.fan(time_s, dict(zip(levels, list(rows), strict=True)), label)
    said = "; ".join(
        f"the {q:.4g} quantile is largest at {time_s[row.argmax()]:,.0f} s with {number(row.max())}"
        for q, row in zip(levels, rows, strict=True)
    )
    return picture(figure, f"Quantiles of {label} over replicas along time: {said}.", "Bands: quantiles over replicas.")
