"""A study of sensitivity as text, with a bar for each parameter."""

from __future__ import annotations

import math
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from servegen_gpu.comparing.table import WIDTH, number
from servegen_gpu.plotting.terminal import bar, style_of
from servegen_gpu.studies.sensitivity import METHODS, Sensitivity
from servegen_gpu.studies.settings import assumed_in_words

if TYPE_CHECKING:
    import pandas as pd

BAR = 24
NOISY = 0.2
"""A share of noise above which indices are mostly its own."""

SAYS = {
    "tornado": "Each parameter at its ends, all others at their base; bars are swings.",
    "morris": (
        "Elementary effects over the whole range of each parameter: mu* is the mean of their sizes (bars), mu their "
        "mean, sigma their spread, which is large where effects are not linear or depend on other parameters."
    ),
    "sobol": (
        "Shares of the variance: first is what a parameter explains alone, total (bars) what it has part in; the rest "
        "of total comes from interactions."
    ),
}
HEADS = {
    "tornado": (("base", "base"), ("at low", "at_low"), ("at high", "at_high"), ("swing", "swing")),
    "morris": (("mu*", "mu_star"), ("mu", "mu"), ("sigma", "sigma")),
    "sobol": (("first", "first"), ("total", "total")),
}
WITH_INTERVAL = ("swing", "mu_star", "first", "total")


def text_of(study: Sensitivity) -> str:
    """A block for each metric, parameters in the order of what they do."""
    settings = study.settings
    size = f"{settings['points']:,} points of {settings['replicas']:,} replicas of {settings['duration_s']:,.10g} s"
    lines = [f"{settings.get('workload')}: {study.method}, {size}, seed {settings.get('seed')}"]
    ranges = {name: _range(*ends) for name, ends in settings["vary"].items()}
    label = max(len(name) + len(of) + 1 for name, of in ranges.items())
    for metric, rows in study.table.groupby("metric", sort=False):
        lines += ["", *_block(study, str(metric), rows, ranges, label)]
    lines.append("")
    chance = (
        f"Intervals are of {100 * settings['confidence']:.6g} % each. Noise is what common random numbers and means "
        "over replicas leave of chance, as a share of the variance over points."
    )
    for said in (SAYS[study.method], chance, *assumed_in_words(settings)):
        lines += textwrap.wrap(said, WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _block(study: Sensitivity, metric: str, rows: pd.DataFrame, ranges: dict[str, str], label: int) -> list[str]:
    size = METHODS[study.method].size
    rows = rows.reindex(rows[size].abs().sort_values(ascending=False, na_position="last", kind="stable").index)
    largest = 1.0 if study.method == "sobol" else float(rows[size].abs().max())
    share = float(rows["noise_share"].iloc[0])
    noise = f", noise {share:.2%}" if math.isfinite(share) else ", noise unknown: take two replicas or more"
    noise += ": take more replicas" if share > NOISY else ""
    heads, style = HEADS[study.method], style_of(sys.stdout)
    widths = [26 if name in WITH_INTERVAL else 9 for _, name in heads]
    head = "".join(" " + title.rjust(width) for (title, _), width in zip(heads, widths, strict=True))
    lines = [f"{metric}{noise}", "  " + " " * label + head]
    for _, row in rows.iterrows():
        name = str(row["parameter"])
        cells = "".join(" " + _cell(row, figure).rjust(width) for (_, figure), width in zip(heads, widths, strict=True))
        said = f"{name} {ranges[name]}".ljust(label)
        part = abs(float(row[size])) / largest if largest > 0 else 0.0
        lines.append(f"  {said}{cells}  {bar(min(part, 1.0), BAR, style) if math.isfinite(part) else ''}".rstrip())
    return lines


def _cell(row: pd.Series[Any], figure: str) -> str:
    said = number(row[figure]) or "–"
    if figure not in WITH_INTERVAL:
        return said
    low, high = number(row[f"{figure}_low"]), number(row[f"{figure}_high"])
    return f"{said} ({low} to {high})" if low and high else said


def _range(low: float, high: float, scale: str) -> str:
    return f"{low:g}–{high:g}" + " log" * (scale == "log")
