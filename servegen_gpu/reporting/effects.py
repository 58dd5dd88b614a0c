"""A study of sensitivity as parts of a page: what each metric depends on, most first, and how much of it is chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.studies import Level
from servegen_gpu.plotting.words import number, percent
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import paragraph, picture, pictures
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.reporting.words import label_of, with_interval
from servegen_gpu.studies.intervals import Interval
from servegen_gpu.studies.sensitivity import METHODS, Sensitivity
from servegen_gpu.studies.sensitivity_text import HEADS, SAYS, WITH_INTERVAL

if TYPE_CHECKING:
    import pandas as pd


def effect_sections(settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """Sections of a study of sensitivity: one for each metric, and what the figures mean."""
    study = Sensitivity(table, settings)
    makers = {"tornado": _tornado, "morris": _morris, "sobol": _sobol}
    made = [Section("What matters", _found(study))]
    for metric in study.metrics:
        rows = table[table["metric"] == metric]
        order = rows[METHODS[study.method].size].abs().sort_values(ascending=False, na_position="last", kind="stable")
        rows = rows.reindex(order.index)
        said = pictures([makers[study.method](metric, rows), _figures(study, metric, rows)])
        label = label_of(metric)
        made.append(Section(label[0].upper() + label[1:], said + paragraph(_noise(rows))))
    return made


def _found(study: Sensitivity) -> str:
    """The parameter that matters most, by metric, and what the method says."""
    size = METHODS[study.method].size
    rows = []
    for metric, of in study.table.groupby("metric", sort=False):
        sizes = of.dropna(subset=[size])
        if not len(sizes):
            rows.append([label_of(str(metric)), "–", "–", "–"])
            continue
        first = sizes.iloc[int(sizes[size].abs().to_numpy().argmax())]
        name, low, high = first["parameter"], first["value_low"], first["value_high"]
        rows.append(
            [
                label_of(str(metric)),
                f"{name}, {low:g} to {high:g}",
                with_interval(_interval(first, size)),
                _share(first),
            ]
        )
    head = ("metric", "parameter that matters most", _title(study, size), "noise")
    points = f"{study.settings['points']:,} points of {study.settings['replicas']:,} replicas each"
    return paragraph(f"{SAYS[study.method].replace(' (bars)', '')} {points}.") + table_of(
        head, rows, caption="Largest effects", left=2
    )


def _title(study: Sensitivity, figure: str) -> str:
    return next(title for title, name in HEADS[study.method] if name == figure)


def _interval(row: pd.Series[Any], figure: str) -> Interval:
    return Interval(float(row[figure]), float(row[f"{figure}_low"]), float(row[f"{figure}_high"]))


def _share(row: pd.Series[Any]) -> str:
    return percent(row["noise_share"], 2) if math.isfinite(row["noise_share"]) else "unknown"


def _noise(rows: pd.DataFrame) -> str:
    share = _share(rows.iloc[0])
    return (
        f"Noise: {share} of the variance over points is chance, which common random numbers and means over replicas "
        "leave."
    )


def _figures(study: Sensitivity, metric: str, rows: pd.DataFrame) -> str:
    cells = []
    for _, row in rows.iterrows():
        cells.append([f"{row['parameter']}, {row['value_low']:g} to {row['value_high']:g}"])
        for _, name in HEADS[study.method]:
            cells[-1].append(with_interval(_interval(row, name)) if name in WITH_INTERVAL else number(float(row[name])))
    head = ("parameter", *(title for title, _ in HEADS[study.method]))
    level = study.settings.get("confidence", 0.95)
    return table_of(head, cells, caption=f"{label_of(metric)}, with intervals of {percent(level)} confidence")


def _levels(rows: pd.DataFrame, figure: str) -> list[Level]:
    return [Level(str(row["parameter"]), *_interval(row, figure)) for _, row in rows.iterrows()]


def _names(rows: pd.DataFrame) -> list[str]:
    return [f"{name}\n{low:g} to {high:g}" for name, low, high in zip(
        rows["parameter"], rows["value_low"], rows["value_high"], strict=True
    )]  # fmt: skip


def _tornado(metric: str, rows: pd.DataFrame) -> str:
    base = float(rows["base"].iloc[0])
    low, high = (rows[name].to_numpy(np.float64) for name in ("at_low", "at_high"))
    # the interval is that of the way from the low end to the high end
    ends = low[:, None] + rows[["swing_low", "swing_high"]].to_numpy(np.float64)
    figure = draw.tornado(_names(rows), low, np.column_stack((high, ends)), base, label_of(metric))
    said = "; ".join(
        f"{row['parameter']} from {number(row['at_low'])} at {row['value_low']:g} to {number(row['at_high'])} at "
        f"{row['value_high']:g}"
        for _, row in rows.iterrows()
    )
    alt = f"Tornado plot of the {label_of(metric)}, {number(base)} at the base, largest swing first: {said}."
    return picture(figure, alt, "Line: the base. Whiskers: interval of the swing, from the lower end.")


def _morris(metric: str, rows: pd.DataFrame) -> str:
    figure = draw.morris_plane(_levels(rows, "mu_star"), rows["sigma"].to_numpy(np.float64), label_of(metric))
    said = "; ".join(
        f"{row['parameter']} mu* {with_interval(_interval(row, 'mu_star'))}, sigma {number(row['sigma'])}"
        for _, row in rows.iterrows()
    )
    alt = f"Mean size of effects (mu*) and their spread (sigma) on the {label_of(metric)}, largest first: {said}."
    return picture(figure, alt, "Right: matters more. Up: not linear, or depends on other parameters.")


def _sobol(metric: str, rows: pd.DataFrame) -> str:
    figure = draw.sobol(_names(rows), _levels(rows, "first"), _levels(rows, "total"), label_of(metric))
    said = "; ".join(
        f"{row['parameter']} first {with_interval(_interval(row, 'first'))}, "
        f"total {with_interval(_interval(row, 'total'))}"
        for _, row in rows.iterrows()
    )
    alt = f"Sobol indices, shares of the variance of the {label_of(metric)}, largest total first: {said}."
    return picture(figure, alt, "Whiskers: intervals. An index may be estimated below 0.")
