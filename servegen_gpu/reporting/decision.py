"""A provisioning study as parts of a page: the decision first, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.words import duration_text, number
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import paragraph, picture, pictures
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.reporting.words import with_interval
from servegen_gpu.serving.objective import Objective
from servegen_gpu.studies.provisioned import LEVELS, Provision

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Share of replicas that is to hold the objective, in the sentence of the decision."""
FIGURES = {
    "instances": "instances for the whole",
    "by_rate": "instances by the rate of one",
    "peak": "most instances in any window",
    "mean": "mean of instances over windows",
    "max_rate_rps": "highest rate of one instance, req/s",
}
SOURCES = {"clients": "the clients", "trace": "the trace", "naive": "the naive generator"}
ORIGINS = {
    "published": "Published",
    "fitted": "Fitted to measurements",
    "assumed": "Assumed",
}


def decision_sections(settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """Sections of a provisioning study."""
    study = Provision(table, settings)
    made = [Section("The decision", _decision(study)), Section("Needed over time", _over_time(study))]
    if len(study.sample(study.sources[0])) > 1:
        made.append(Section("Chance of missing the objective", _misses(study)))
    made.append(Section("All figures", _figures(study)))
    made.append(Section("Measured and assumed", _origins(settings)))
    return made


def decision_text(study: Provision) -> str:
    """What to buy, in a sentence or two."""
    source, objective = study.sources[0], Objective(**study.settings["objective"])
    several = len(study.sample(source)) > 1
    found = study.plan(source, LEVEL if several else 1.0)
    held = f"a {objective}" + (f" in {LEVEL:.0%} of replicas" if several else "")
    if not math.isfinite(found.value):
        said = f"No number of instances holds {held}: single requests take longer than it allows."
    elif several:
        ends = f"(interval of {study.confidence:.4g} confidence: {number(found.low)} to {number(found.high)})"
        said = f"{_instances(found.value)} {'hold' if found.value != 1 else 'holds'} {held} {ends}."
    else:
        said = f"{_instances(found.value)} {'hold' if found.value != 1 else 'holds'} {held}, for this one trace."
    return said + (_naive_text(study, found.value) if "naive" in study.sources else "")


def _naive_text(study: Provision, needed: float) -> str:
    bought = study.plan("naive", LEVEL).value
    missed = float((study.sample(study.sources[0]) > bought).mean())
    apart = (
        f", {abs(bought - needed) / needed:.0%} {'fewer' if bought < needed else 'more'}" if bought != needed else ""
    )
    several = len(study.sample(study.sources[0])) > 1
    of = f"{missed:.0%} of replicas miss" if several else f"it {'misses' if missed else 'holds'}"
    said = f" A naive generator says {number(bought)}{apart if math.isfinite(needed) else ''}"
    return f"{said}: with so many, {of} the objective."


def _instances(value: float) -> str:
    return f"{value:,.0f} instance{'s' if value != 1 else ''}"


def _decision(study: Provision) -> str:
    rows = []
    source = study.sources[0]
    several = len(study.sample(source)) > 1
    naive = study.against_naive() if "naive" in study.sources else None
    for at, level in enumerate(LEVELS if several or naive is not None else ()):
        row = [
            f"{level:.0%}",
            with_interval(study.plan(source, level)) if several else number(study.plan(source, 1.0).value),
        ]
        if naive is not None:
            bought = naive.iloc[at]
            missed = f"{bought['missed']:.1%}"
            row += [with_interval(study.plan("naive", level)), f"{bought['percent']:+.0f} %", missed]
        rows.append(row)
    head = ["share of replicas that hold", "instances"]
    head += ["naive", "difference", "replicas that miss with the naive number"] if naive is not None else []
    said = paragraph(decision_text(study))
    caption = "Instances by how sure one wants to be, with their intervals"
    return said + (table_of(head, rows, caption=caption) if rows else "")


def _over_time(study: Provision) -> str:
    windows = study.over_time()
    made = []
    for source in study.sources:
        rows = windows[windows["source"] == source]
        if len(rows):
            made.append(_needed(study, source, rows))
    return pictures(made) if made else paragraph("The study has no windows.")


def _needed(study: Provision, source: str, rows: pd.DataFrame) -> str:
    start_s, length_s = rows["window_start_s"].to_numpy(np.float64), rows["window_s"].to_numpy(np.float64)
    edges_s = np.append(start_s, start_s[-1] + length_s[-1])
    middle, high = rows["p50"].to_numpy(np.float64), rows["p95"].to_numpy(np.float64)
    several = len(study.sample(source)) > 1
    level = LEVEL if several else 1.0
    whole, peak, mean = (study.plan(source, level, name).value for name in ("instances", "peak", "mean"))
    lines = {"whole": whole, "peak": peak, "mean": mean}
    shown = {name: value for name, value in lines.items() if math.isfinite(value)}
    drawn = (np.where(np.isfinite(x), x, np.nan) for x in (middle, middle, high))
    label = f"instances in {duration_text(float(length_s[0]))}"
    figure = draw.needed_over_time(edges_s, tuple(drawn), shown, label, f"50 to {LEVEL:.0%} of replicas")  # type: ignore[arg-type]
    busiest = int(np.argmax(high))
    of = f"{LEVEL:.0%} of replicas" if several else "the trace"
    alt = (
        f"Instances that {SOURCES[source]} need in each window of {duration_text(float(length_s[0]))}: the median goes "
        f"from {number(middle.min())} to {number(middle.max())}; most are needed from "
        f"{duration_text(start_s[busiest])} on, {number(high[busiest])} for {of}. For {of}, the whole needs "
        f"{number(whole)}, the peak is {number(peak)}, the mean {number(mean)}."
    )
    lost = int((~np.isfinite(high)).sum())
    silent = f" In {lost} windows no number of instances is enough; they are left out." if lost else ""
    title = SOURCES[source][0].upper() + SOURCES[source][1:]
    return picture(figure, alt + silent, f"{title}. Whole: one objective over all of the time.{silent}")


def _misses(study: Provision) -> str:
    misses = study.misses()
    if not len(misses):
        return paragraph("No replica can hold the objective, so there is no number of instances to look at.")
    sides = {}
    for source in study.sources:
        of = misses[misses["source"] == source]
        columns = (of[name].to_numpy(np.float64) for name in ("probability", "low", "high"))
        sides[f"for {SOURCES[source]}"] = tuple(columns)
    instances = np.unique(misses["instances"].to_numpy(np.int64))
    found = study.plan(study.sources[0], LEVEL).value
    decision = int(found) if math.isfinite(found) else None
    figure = draw.chance_of_missing(instances, sides, decision, 1 - LEVEL)  # type: ignore[arg-type]
    first = misses[misses["source"] == study.sources[0]]
    near = first[(first["probability"] > 0) & (first["probability"] < 1)]
    told = near if len(near) else first
    said = "; ".join(
        f"{n:,}: {p:.1%} ({low:.1%} to {high:.1%})"
        for n, p, low, high in zip(told["instances"], told["probability"], told["low"], told["high"], strict=True)
    )
    alt = f"Probability that so many instances miss the objective for {SOURCES[study.sources[0]]}: {said}."
    caption = "Share of replicas that need more instances, with its interval."
    rows = [
        [
            SOURCES[row["source"]],
            f"{row['instances']:,}",
            *(f"{row[name]:.1%}" for name in ("probability", "low", "high")),
        ]
        for row in misses.to_dict("records")
    ]
    head = ("for", "instances", "miss", "from", "to")
    return pictures([picture(figure, alt, caption)]) + table_of(head, rows, caption="Chance of missing the objective")


def _figures(study: Provision) -> str:
    rows: list[list[str]] = []
    last = None
    for row in study.summary().to_dict("records"):
        if (group := (row["source"], row["figure"])) != last:
            rows.append([f"{FIGURES[row['figure']]}, {SOURCES[row['source']]}"])
            last = group
        level = "one trace" if math.isnan(row["level"]) else f"{row['level']:.0%} of replicas"
        rows.append([level, *map(number, (row["value"], row["low"], row["high"]))])
    caption = "What suffices for so many replicas; of the rate, what so many reach"
    return table_of(("", "value", "from", "to"), rows, caption=caption)


def _origins(settings: Mapping[str, Any]) -> str:
    """Numbers of the server by where they are from."""
    server = settings["server"]
    origins = server.get("origins", {})
    words = [f"{name}: {server[name]}" for name in ("name", "model", "hardware") if server.get(name)]
    rows: list[list[str]] = []
    for kind, title in ORIGINS.items():
        found = [
            [name, number(float(value)), origins.get(name, "assumed")]
            for name, value in server.items()
            if isinstance(value, int | float) and str(origins.get(name, "assumed")).startswith(kind)
        ]
        rows += [[title], *found] if found else []
    said = paragraph("The server is a model; its numbers are by their origin. " + "; ".join(words) + ".")
    return said + table_of(("number", "value", "origin"), rows, caption="The server", long=2)
