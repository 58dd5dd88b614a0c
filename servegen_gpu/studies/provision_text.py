"""A provisioning study in words: the decision first, then what it rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from servegen_gpu.serving.objective import Objective
from servegen_gpu.studies.provisioned import LEVELS, WHOLE, Provision

if TYPE_CHECKING:
    from servegen_gpu.studies.intervals import Interval

LINES = {
    "instances": "as a whole",
    "peak": "in the busiest window",
    "mean": "mean over windows",
}


def text_of(study: Provision) -> str:
    """All of it."""
    return "\n".join(
        [*_head(study), "", *_plans(study), *_naive(study), *_misses(study), "", *_server(study), *_notes(study)]
    )


def _head(study: Provision) -> list[str]:
    settings = study.settings
    objective = Objective(**settings["objective"])
    whole = study.table[study.table["window_start_s"] == WHOLE]
    lines = []
    for source in study.sources:
        of = whole[whole["source"] == source]
        replicas = "one trace, no confidence" if len(of) == 1 else f"{len(of):,} replicas"
        name = settings.get("workload", "trace") if source != "naive" else _baseline(study)
        lines.append(f"{source}: {name}, {of['requests'].mean():,.0f} requests in {settings['span_s']:g} s, {replicas}")
    bounds = zip(("TTFT", "mean TBT"), (objective.ttft_s, objective.tbt_s), strict=True)
    words = [f"{name} within {bound:g} s" for name, bound in bounds if bound is not None]
    return [*lines, f"objective: P{100 * objective.level:g} of {' and '.join(words)}; {settings['routing']} routing"]


def _baseline(study: Provision) -> str:
    about = study.settings["naive"]
    return f"one {about['family']} process, CV {about['cv']:g}"


def _plans(study: Provision) -> list[str]:
    """Instances by confidence; in brackets the interval."""
    single = all(len(study.sample(source)) == 1 for source in study.sources)
    heads = [] if single else [f"{level:.0%}" for level in LEVELS]
    lines = [_row("instances that suffice" + (" for this trace" if single else " for"), heads)]
    several = len(study.table) > sum(len(study.sample(source)) for source in study.sources) * 2
    shown = {figure: words for figure, words in LINES.items() if several or figure not in ("peak", "mean")}
    for source in study.sources:
        one = len(study.sample(source)) == 1
        for figure, words in shown.items():
            plans = [study.plan(source, 1.0 if one else level, figure) for level in LEVELS[: 1 if one else None]]
            lines.append(_row(f"{source}, {words}", [_plan(plan, figure) for plan in plans]))
        rate_rps, by_rate = (study.plan(source, 1.0, figure).value for figure in ("max_rate_rps", "by_rate"))
        holds = (
            f"up to {rate_rps:.3g} req/s, {by_rate:,.0f} would do at that" if rate_rps > 0 else "no rate that was tried"
        )
        lines.append(f"{source}, one instance alone holds {holds} (it bears bursts that several share)")
    return lines


def _row(name: str, cells: list[str]) -> str:
    return (f"{name:<40}" + "".join(f" {cell:>15}" for cell in cells)).rstrip()


def _plan(plan: Interval, figure: str) -> str:
    """A value with its interval; an end that takes more replicas is left open."""
    value, *ends = (_number(number, figure) for number in plan)
    low, high = ("" if math.isinf(end) else shown for end, shown in zip(plan[1:], ends, strict=True))
    return value if math.isnan(plan.low) else f"{value} ({low}–{high})"


def _number(value: float, figure: str) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:.1f}" if figure == "mean" else f"{value:,.0f}"


def _naive(study: Provision) -> list[str]:
    """What the naive plan has too few, or too many."""
    if "naive" not in study.sources:
        return []
    lines, one = [], len(study.sample(study.sources[0])) == 1
    for row in study.against_naive().to_dict("records"):
        apart, needed = row["difference"], row["needed"]
        if not math.isfinite(row["percent"]):
            continue
        word = "too few" if apart < 0 else "too many" if apart > 0 else "as many"
        by = f"{abs(apart):,.0f} {word} ({row['percent']:+.0f} %)" if apart else word
        outcome = f"misses the objective in {row['missed']:.0%} of replicas"
        if one:
            outcome = f"{'misses' if row['missed'] else 'holds'} the objective"
        plan = f"{row['naive']:,.0f} instances where {needed:,.0f} suffice"
        lines.append(f"at {row['level']:.0%} the naive plan has {plan}, {by}: it {outcome}")
    return ["", *lines]


def _misses(study: Provision) -> list[str]:
    """The probability of a miss by number, around the plans of the workload."""
    if len(study.sample(study.sources[0])) == 1:
        return []
    misses = study.misses()
    table = misses.pivot_table(index="instances", columns="source", values="probability")[list(study.sources)]
    near = table[(table > 0.005).any(axis=1) & (table < 1).any(axis=1)]
    if near.empty:
        return []
    lines = ["", _row("probability of a miss with", list(study.sources))]
    rows = list(near.itertuples()) if len(near) <= 16 else list(near.iloc[:: -(-len(near) // 16)].itertuples())
    return lines + [_row(f"{row[0]:,} instances", [f"{value:.1%}" for value in row[1:]]) for row in rows]


def _server(study: Provision) -> list[str]:
    """What was measured, and what is assumed."""
    server, settings = study.settings["server"], study.settings
    about = ", ".join(filter(None, (server["model"], server["hardware"])))
    lines = [f"server: {server['name'] or 'your own'}{f' ({about})' if about else ''}"]
    for kind in ("published", "fitted", "assumed"):
        of = {n: p for n, p in server["parameters"].items() if p["origin"].startswith(kind)}
        numbers = ", ".join(f"{name} {one['value']:g}" for name, one in of.items())
        lines += [f"  {kind}: {numbers}"] if of else []
    if "clients_measured" in settings:
        measured, clients = settings["clients_measured"], settings["clients"]
        lines.append(f"workload: {clients:,} clients, {measured:,} of them measured, {clients - measured:,} modelled")
    return lines


def _notes(study: Provision) -> list[str]:
    return [f"note: {note}" for note in study.notes]
