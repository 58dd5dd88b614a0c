"""A provisioning study as parts of a page: the decision first, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.plotting import studies as draw
from servegen_gpu.plotting.words import duration_text, number, percent
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import escaped, paragraph, picture, pictures
from servegen_gpu.reporting.parts import table as table_of
from servegen_gpu.reporting.words import with_interval
from servegen_gpu.serving.objective import Objective
from servegen_gpu.studies.intervals import Interval
from servegen_gpu.studies.provisioned import LEVELS, Provision

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Share of replicas that is to hold the objective, in the sentence of the decision."""
FIGURES = {
    "instances": "instances for all of the time",
    "peak": "instances in the busiest window",
    "mean": "instances, mean over windows",
    "by_rate": "instances by the rate of one",
    "max_rate_rps": "req/s that one instance holds",
}
OF_ONE = ("by_rate", "max_rate_rps")
"""Figures of one instance alone: nothing is said of them where it holds no rate that was tried."""
SOURCES = {"clients": "the clients", "trace": "the trace", "naive": "the naive generator"}
ORIGINS = {"published": "Published", "fitted": "Fitted to measurements", "assumed": "Assumed"}


def decision_sections(settings: Mapping[str, Any], table: pd.DataFrame) -> list[Section]:
    """Sections of a provisioning study."""
    study = Provision(table, settings)
    made = [Section("The decision", _decision(study)), Section("Needed over time", _over_time(study))]
    if _several(study):
        made.append(Section("Chance of missing the objective", _misses(study)))
    made.append(Section("All figures", _figures(study)))
    made.append(Section("Measured and assumed", origins(settings)))
    return made


def _several(study: Provision) -> bool:
    """Whether there are replicas of the workload, not one trace."""
    return len(study.sample(study.sources[0])) > 1


def _needed(study: Provision, figure: str = "instances") -> Interval:
    return study.plan(study.sources[0], LEVEL if _several(study) else 1.0, figure)


def decision_text(study: Provision) -> str:
    """What to buy, in a few sentences."""
    found, objective = _needed(study), Objective(**study.settings["objective"])
    bounded = (("TTFT", objective.ttft_s), ("TBT", objective.tbt_s))
    bounds = [f"of {name} within {bound:g} s" for name, bound in bounded if bound is not None]
    held = f"the P{100 * objective.level:g} {' and '.join(bounds)}" + (
        f" in {percent(LEVEL)} of replicas" if _several(study) else ""
    )
    if not math.isfinite(found.value):
        said = f"No number of instances holds {held}."
    else:
        sure = _sure(found, study.confidence) if _several(study) else ", for this one trace"
        said = f"{_instances(found.value)} {'holds' if found.value == 1 else 'hold'} {held}{sure}."
    return said + (_naive_text(study, found.value) if "naive" in study.sources else "")


def _sure(found: Interval, confidence: float) -> str:
    level = f"interval of {percent(confidence)} confidence"
    if math.isfinite(found.high):
        return f" ({level}: {number(found.low)} to {number(found.high)})"
    return f" ({level}: from {number(found.low)} on; an upper end takes more replicas)"


def _naive_text(study: Provision, needed: float) -> str:
    bought = study.plan("naive", LEVEL).value
    missed = float((study.sample(study.sources[0]) > bought).mean())
    if _several(study):
        so = f"{percent(missed)} of replicas miss the objective"
    else:
        so = f"the trace {'misses' if missed else 'holds'} the objective"
    if not math.isfinite(bought):
        return " For a naive generator, no number of instances does."
    apart = ""
    if math.isfinite(needed) and bought != needed:
        apart = f", {percent(abs(bought - needed) / needed)} {'fewer' if bought < needed else 'more'}"
    return f" A naive generator says {number(bought)}{apart}: with {number(bought)}, {so}."


def _instances(value: float) -> str:
    return f"{value:,.0f} instance{'' if value == 1 else 's'}"


def _decision(study: Provision) -> str:
    said = f"<p><strong>{escaped(decision_text(study))}</strong></p>"
    naive = study.against_naive().to_dict("records") if "naive" in study.sources else None
    if naive is None and not _several(study):
        return said
    rows = []
    for at, level in enumerate(LEVELS):
        needed = study.plan(study.sources[0], level)
        rows.append([percent(level), with_interval(needed) if _several(study) else number(needed.value)])
        if naive is not None:
            missed = percent(naive[at]["missed"], 1) if _several(study) else "yes" if naive[at]["missed"] else "no"
            bought = with_interval(study.plan("naive", level))
            apart = f"{naive[at]['percent']:+.0f} %" if math.isfinite(naive[at]["percent"]) else "–"
            rows[-1] += [bought, apart, missed]
    head = ["replicas that hold", "instances"] if _several(study) else ["naive replicas that hold", "the trace needs"]
    head += ["naive", "difference", "missed with the naive number"] if naive is not None else []
    return said + table_of(head, rows, caption="Instances by how sure one wants to be, with their intervals")


def _over_time(study: Provision) -> str:
    windows = study.over_time()
    own = windows[windows["source"] == study.sources[0]]
    if not len(own):
        return paragraph("The study has no windows.")
    start_s, length_s = own["window_start_s"].to_numpy(np.float64), own["window_s"].to_numpy(np.float64)
    median, high = _finite(own["p50"]), _finite(own["p95"])
    naive = _finite(windows.loc[windows["source"] == "naive", "p95"])
    levels = {"all of the time": "instances", "mean": "mean", "busiest window": "peak"}
    lines = {name: _needed(study, figure).value for name, figure in levels.items()}
    shown = {name: value for name, value in lines.items() if name != "busiest window" and math.isfinite(value)}
    band = f"{percent(LEVEL)} of replicas" if _several(study) else "the trace"
    figure = draw.needed_over_time(
        np.append(start_s, start_s[-1] + length_s[-1]),
        median,
        high,
        naive if len(naive) == len(own) else None,
        shown,
        band,
    )
    window = duration_text(float(length_s[0]))
    alt = f"Instances that {SOURCES[study.sources[0]]} need in windows of {window}, for {band}"
    known = np.flatnonzero(np.isfinite(high))
    if len(known):
        most = known[high[known].argmax()]
        alt += (
            f": from {number(high[known].min())} to {number(high[most])}, most from {duration_text(start_s[most])} on; "
            f"median from {number(np.nanmin(median))} to {number(np.nanmax(median))}"
        )
    if len(naive) and np.isfinite(naive).any():
        alt += f"; of the naive generator from {number(np.nanmin(naive))} to {number(np.nanmax(naive))}"
    alt += ". " + ", ".join(f"{name} {number(value)}" for name, value in lines.items()) + "."
    lost = len(high) - len(known)
    caption = f"Windows of {window}, each held by itself; the dashed line holds the objective over all of the time."
    caption += f" In {lost:,} windows no number of instances is enough." if lost else ""
    return pictures([picture(figure, alt, caption)])


def _finite(values: pd.Series[Any]) -> NDArray[np.float64]:
    found = values.to_numpy(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _misses(study: Provision) -> str:
    misses = study.misses()
    if not len(misses):
        return paragraph("No replica can hold the objective, so there is no number of instances to look at.")
    instances = np.unique(misses["instances"].to_numpy(np.int64))
    by_source = {
        source: misses.loc[misses["source"] == source, ["probability", "low", "high"]].to_numpy(np.float64)
        for source in study.sources
    }
    found = _needed(study).value
    decision = int(found) if math.isfinite(found) else None
    sides = {f"for {SOURCES[source]}": of for source, of in by_source.items()}
    figure = draw.chance_of_missing(instances, sides, decision, 1 - LEVEL)
    said = "; ".join(
        f"{n:,}: {percent(p, 1)} ({100 * low:.1f} to {100 * high:.1f})"
        for n, (p, low, high) in zip(instances.tolist(), by_source[study.sources[0]].tolist(), strict=True)
        if 0 < p < 1 or n == decision
    )
    alt = f"Probability that so many instances miss the objective for {SOURCES[study.sources[0]]}: {said}."
    rows = [
        [f"{n:,}", *(f"{percent(p, 1)} ({100 * low:.1f} to {100 * high:.1f})" for p, low, high in of)]
        for n, of in zip(instances.tolist(), np.stack(list(by_source.values()), axis=1).tolist(), strict=True)
    ]
    head = ("instances", *(SOURCES[source] for source in study.sources))
    shown = picture(figure, alt, "Share of replicas that need more instances, with its interval.")
    return pictures([shown, table_of(head, rows, caption="Probability of a miss, with its interval")])


def _figures(study: Provision) -> str:
    """All plans: one row for each figure, one column for each level."""
    rows: list[list[str]] = []
    levels = LEVELS if len(study.sample(study.sources[0])) > 1 else LEVELS[:1]
    for source in study.sources:
        several = len(study.sample(source)) > 1
        rows.append([SOURCES[source][0].upper() + SOURCES[source][1:]])
        holds_any = study.plan(source, LEVEL, "max_rate_rps").value > 0
        for figure, words in FIGURES.items():
            if figure in OF_ONE and not holds_any:
                continue
            plans = [study.plan(source, level, figure) for level in levels]
            plans = [Interval(plan.value, max(plan.low, 0.0), plan.high) for plan in plans]  # none is below 0
            rows.append([words, *(with_interval(plan) if several else number(plan.value) for plan in plans)])
    highest = _needed(study, "max_rate_rps").value
    alone = f"{number(highest)} req/s here" if highest > 0 else "none of those that were tried here"
    said = paragraph(
        "By the rate of one: the rate of the workload over the highest rate at which one instance alone holds the "
        f"objective, {alone}. One instance alone has to bear bursts that several even out."
    )
    of = [f"{percent(level)} of replicas" for level in levels] if len(levels) > 1 else ["the trace"]
    head = ("", *of)
    return said + table_of(head, rows, caption="What suffices for so many replicas; of rates, what so many reach")


def origins(settings: Mapping[str, Any]) -> str:
    """What the decision rests on: the numbers of the server by where they are from, and the clients."""
    server = settings["server"]
    about = ", ".join(str(server[name]) for name in ("model", "hardware") if server.get(name))
    said = f"The server is a model: {server.get('name') or 'your own'}{f' ({about})' if about else ''}."
    if "clients_measured" in settings:
        measured, clients = settings["clients_measured"], settings["clients"]
        said += f" Of {clients:,} clients, {measured:,} are measured, {clients - measured:,} modelled."
    rows: list[list[str]] = []
    for kind, title in ORIGINS.items():
        of = {name: one for name, one in server["parameters"].items() if one["origin"].startswith(kind)}
        more = [
            [name, f"{one['value']:,.6g}", one["origin"].removeprefix(kind).lstrip(": ")] for name, one in of.items()
        ]
        rows += [[title], *more] if of else []
    return paragraph(said) + table_of(("number of the server", "value", "from"), rows, caption="The server", long=2)
