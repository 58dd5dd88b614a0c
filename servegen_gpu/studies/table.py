"""A study as text."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from servegen_gpu.comparing.table import WIDTH, number
from servegen_gpu.studies.intervals import sample_needed
from servegen_gpu.studies.settings import assumed_in_words
from servegen_gpu.studies.study import QUANTILES, Study

if TYPE_CHECKING:
    import pandas as pd


def text_of(study: Study) -> str:
    """A line for each metric, then what chance allows to say beyond."""
    summary = study.summary()
    lines = [*textwrap.wrap(_title(study), WIDTH, subsequent_indent="  "), "", *_aligned(_cells(summary)), ""]
    always = ", those of means however often one looks" if study.settings.get("until") else ""
    said = [f"Intervals are of {100 * study.confidence:.6g} % each{always}; quantiles have them for any distribution."]
    if len(study) and (empty := summary.index[summary["replicas"] == 0].tolist()):
        said.append(f"No replica has a value of {', '.join(empty)}: nothing to count, or bins too few or empty.")
    short = [p for p in QUANTILES if not np.isfinite(summary[[f"p{p}_low", f"p{p}_high"]].to_numpy()).all()]
    if short and not study.parameters and len(study):
        needed = [f"{p} %: {sample_needed(p / 100, study.confidence):,}" for p in short]
        said.append(f"Ends that are left out take more replicas ({', '.join(needed)}).")
    said += _variance(summary)
    said += [f"{verdict}." for verdict in study.verdicts()]
    said += assumed_in_words(study.settings)
    for text in (*said, *(f"note: {note}" for note in study.notes)):
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def cells_of(study: Study) -> list[list[str]]:
    """A head, and a row for each metric."""
    return _cells(study.summary())


def _cells(summary: pd.DataFrame) -> list[list[str]]:
    rows = [["", "mean", "±", "sd", *(f"{percent} %" for percent in QUANTILES)]]
    for name, row in summary.iterrows():
        half = (row["mean_high"] - row["mean_low"]) / 2
        cells = [str(name), _short(row["mean"]), _short(half) or "–", _short(row["sd"])]
        rows.append(cells + [_quantile(row, f"p{percent}") for percent in QUANTILES])
    return rows


def differences_of(study: Study, other: Study) -> str:
    """Differences from another study, a line for each metric."""
    rows = [["", "mean", "other", "difference", f"{100 * study.confidence:.6g} %", "pairs", "less variance by pairing"]]
    for name, row in study.against(other).iterrows():
        ends = f"{_short(row['difference_low'])} – {_short(row['difference_high'])}"
        cells = [_short(row["mean"]), _short(row["other_mean"]), _short(row["difference"]), ends]
        rows.append([str(name), *cells, f"{row['pairs']:,.0f}", f"{row['variance_reduction']:.1%}"])
    return "\n".join(_aligned(rows))


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines: names to the left, cells to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *cells in rows:
        line = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *line]))
    return lines


def _title(study: Study) -> str:
    settings = study.settings
    several = f"{len(study):,} replicas" + (f" in {study.table['draw'].nunique():,} draws" if study.parameters else "")
    rate = settings.get("rate") or {}
    known = {
        "own": "at own rates",
        "scaled": f"at {rate.get('factor', 1):.10g} times their own rates",
        "peak": f"of at most {rate.get('rps', 0):,.10g} req/s",
        "constant": f"at {rate.get('rps', 0):,.10g} req/s",
    }
    words = known.get(rate.get("rate", ""), "at a rate that varies")
    title = f"{settings.get('workload')}: {several} of {settings.get('duration_s') or 0:,.10g} s {words}"
    vary = settings.get("vary") or {}
    ranges = [f"{name} {low:g} to {high:g}{' (log)' * (scale == 'log')}" for name, (low, high, scale) in vary.items()]
    return f"{title}, seed {settings.get('seed')}" + (f"; {', '.join(ranges)}" if ranges else "")


def _variance(summary: pd.DataFrame) -> list[str]:
    """What control variates took away, and what parameters explain."""
    said = []
    reduced = summary["variance_reduction"].dropna()
    if len(reduced):
        each = ", ".join(f"{name} {max(share, 0.0):.1%}" for name, share in reduced.items())
        said.append(f"Means with control variates (controlled, in the summary) have less variance, by: {each}.")
    if "parameter_share" in summary:
        known = summary.dropna(subset=["parameter_share"])
        ends = ("parameter_share", "parameter_share_low", "parameter_share_high")
        each = ", ".join(
            "{} {:.0%} ({:.0%} to {:.0%})".format(name, *(row[end] for end in ends)) for name, row in known.iterrows()
        )
        if each:
            said.append(f"Share of the variance that is of parameters, the rest is chance: {each}.")
    return said


def _short(value: float) -> str:
    """A number in four digits or so, for a table; empty where there is none."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if math.isfinite(value) and abs(value) >= 100 * size:
            return f"{value / size:,.0f}{unit}" if abs(value) >= 1000 * size else f"{value / size:.1f}{unit}"
    return number(value)


def _quantile(row: pd.Series[float], name: str) -> str:
    low, high = _short(row[f"{name}_low"]), _short(row[f"{name}_high"])
    return f"{_short(row[name])} ({low}–{high})"
