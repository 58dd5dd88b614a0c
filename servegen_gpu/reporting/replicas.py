"""A study of replicas as parts of a page: quantiles with intervals, distributions, convergence, load over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.studies import Level
from servegen_gpu.plotting.words import duration_text, number, percent
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import bullets, paragraph, picture, pictures
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.reporting.words import label_of, with_interval
from servegen_gpu.studies.fan import Load, loads_of
from servegen_gpu.studies.intervals import Interval, mean_interval
from servegen_gpu.studies.study import QUANTILES, Study

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
DRAWN = (50, 90, 99)
"""Percentages that histograms show."""
MOST_PICTURES = 12
MOST_POINTS = 400
"""Of a curve of convergence."""


def replica_sections(settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """Sections of a study of replicas."""
    study = Study(table, settings)
    summary = study.summary()
    shown = study.metrics[:MOST_PICTURES]
    made = [Section("What was found", _found(study, summary))]
    rows = [row for _, row in summary.iterrows()]
    histograms = [_distribution(study, name, row) for name, row in zip(shown, rows, strict=False)]
    made.append(Section("Distributions over replicas", pictures(histograms)))
    if loads := loads_of(settings):
        made.append(Section("Load over time", pictures([_fan(one) for one in loads])))
    if study.parameters:
        made.append(Section("Parameters and chance", _shares(summary)))
    made.append(Section("Are there enough replicas?", _enough(study, summary)))
    return made


def interval_of(row: pd.Series[float], name: str) -> Interval:
    """An estimate of a summary with the ends of its interval."""
    return Interval(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]))


def _found(study: Study, summary: pd.DataFrame) -> str:
    settings = study.settings
    duration = f" of {settings['duration_s']:,g} s" if settings.get("duration_s") else ""
    of = f", {study.table['draw'].nunique():,} draws of parameters" if study.parameters else ""
    said = f"{len(study):,} replicas{duration} of {settings.get('workload', 'a workload')}{of}."
    if np.isfinite(summary["p95"].iloc[0]):
        half, tail = number(summary["p50"].iloc[0]), number(summary["p95"].iloc[0])
        said += f" The {label_of(study.metrics[0])} is above {half} in half of them, and above {tail} in one of twenty."
    rows: list[list[str]] = []
    for name, row in summary.iterrows():
        rows.append([label_of(str(name))])
        rows.append(["mean", *map(number, interval_of(row, "mean"))])
        if row["variance_reduction"] > 0:
            rows.append(["mean with control variates", *map(number, interval_of(row, "controlled"))])
        rows.append(["standard deviation", number(row["sd"]), "", ""])
        rows += [[f"quantile {p} %", *map(number, interval_of(row, f"p{p}"))] for p in QUANTILES]
    caption = f"Intervals of {percent(study.confidence)} confidence each; ∞ where replicas are too few for an end"
    return paragraph(said) + table_of(("", "value", "from", "to"), rows, caption=caption)


def _distribution(study: Study, name: str, row: pd.Series[float]) -> str:
    values, label = study.table[name].to_numpy(np.float64), label_of(name)
    values = values[np.isfinite(values)]
    if not len(values):
        return paragraph(f"{label}: no replica has a value.")
    found = [Level(f"{p} %", *interval_of(row, f"p{p}")) for p in DRAWN]
    levels = [one for one in found if np.isfinite(one.value)]  # there is none of draws that are not complete
    said = "; ".join(f"{one.name} quantile {with_interval(Interval(*one[1:]))}" for one in levels) or "no quantiles yet"
    low, high = number(values.min()), number(values.max())
    alt = f"Histogram of the {label} over {len(values):,} replicas, from {low} to {high}: {said}."
    return picture(draw.distribution(values, levels, label), alt, "Lines: quantiles. Bands: their intervals.")


def _shares(summary: pd.DataFrame) -> str:
    known = summary.dropna(subset=["parameter_share"])
    if not len(known):
        return paragraph("Each draw of parameters has one replica, so what chance adds cannot be told apart.")
    shares = [interval_of(row, "parameter_share") for _, row in known.iterrows()]
    names = [label_of(str(name)) for name in known.index]
    said = "; ".join(
        f"{name} {percent(one.value)} ({percent(one.low)} to {percent(one.high)})"
        for name, one in zip(names, shares, strict=True)
    )
    alt = f"Share of the variance over replicas that is of the parameters; the rest is chance: {said}."
    caption = "Whiskers: intervals of the share of the parameters."
    return pictures([picture(draw.shares(names, np.array(shares)), alt, caption)])


def _enough(study: Study, summary: pd.DataFrame) -> str:
    """How the means settled, what control variates save, and what rules of stopping say."""
    said = [f"{verdict}." for verdict in study.verdicts()]
    reduced = summary["variance_reduction"].dropna()
    if len(reduced):
        each = ", ".join(f"{label_of(str(name))} {percent(max(part, 0.0), 1)}" for name, part in reduced.items())
        said.append(f"Means with control variates have less variance, by: {each}.")
    return bullets(said) + pictures([_convergence(study, name) for name in study.metrics[:MOST_PICTURES]])


def running(units: Floats, confidence: float) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Numbers n of units, at most 400 of them from 2 on; mean of the first n, half width of its interval."""
    n = np.unique(np.linspace(2, len(units), MOST_POINTS).astype(np.int64)) if len(units) > 1 else np.zeros(0, np.int64)
    found = [mean_interval(units[:k], confidence) for k in n.tolist()]
    return n, np.array([one.value for one in found]), np.array([(one.high - one.low) / 2 for one in found])


def _convergence(study: Study, name: str) -> str:
    units, label = study.sample(name).mean(axis=1), label_of(name)
    if endless := int(np.isinf(units).sum()):
        return paragraph(f"{label}: infinite in {endless:,} of {len(units):,}, and so is its mean.")
    n, mean, half = running(units[np.isfinite(units)], study.confidence)
    if not len(n):
        return paragraph(f"{label}: an interval takes two replicas at least.")
    unit = "draws of parameters" if study.parameters else "replicas"
    part = f" ({percent(half[-1] / abs(mean[-1]), 2)})" if mean[-1] else ""
    at = int(np.searchsorted(n, n[-1] / 2))
    now = f"{number(mean[-1])} ± {number(half[-1])}{part}"
    alt = (
        f"Running mean of the {label}: {number(mean[at])} ± {number(half[at])} after {n[at]:,} {unit}, "
        f"{now} after all {n[-1]:,}."
    )
    figure = draw.convergence(n.astype(np.float64), mean, half, label, unit)
    return picture(figure, alt, f"Mean over {unit} so far: {now}.")


def _fan(load: Load) -> str:
    """Quantiles of a load over time."""
    percentages = [f"{100 * level:.4g}" for level in load.levels]
    time_s = (np.arange(load.quantiles.shape[1]) + 0.5) * load.bin_s
    label = f"{load.column.replace('_', ' ')} in {load.bin_s:g} s"
    figure = draw.fan(time_s, dict(zip(load.levels.tolist(), load.quantiles, strict=True)), label)
    said = "; ".join(
        f"the {p} % quantile is largest in the bin at {duration_text(row.argmax() * load.bin_s)}, {number(row.max())}"
        for p, row in zip(percentages, load.quantiles, strict=True)
    )
    return picture(figure, f"Quantiles of {label} over replicas along time: {said}.", "Bands: quantiles over replicas.")
