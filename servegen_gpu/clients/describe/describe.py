"""What a pool holds, in figures: how many requests, whose, how bursty, how long."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.describe.cdfs import cdfs_of, skew_of
from servegen_gpu.clients.describe.figures import STATISTICS
from servegen_gpu.clients.pool import DAY_S, ClientPool
from servegen_gpu.errors import printable
from servegen_gpu.request.families import EXPONENTIAL, FAMILY_NAMES
from servegen_gpu.request.schema import KINDS, Field, Kind

SHARES = (1, 5, 10, 20)
PARTS = (0.01, 0.05, 0.1, 0.5)
"""Parts of the clients whose share of the requests is shown."""

QUANTILES = (0.5, 0.9, 0.99)
ACROSS = (0.1, 0.5, 0.9)
"""Quantiles, across windows of clients, of statistics of lengths."""


def describe_pool(pool: ClientPool, top: int = 10) -> dict[str, Any]:
    """Figures of a pool at its own rates.

    Parameters
    ----------
    pool : ClientPool
    top : int
        How many of the busiest clients to list.

    Returns
    -------
    dict
        Plain numbers, texts, lists and dicts, ready for JSON. Rates are requests per second, lengths tokens; shares
        are of the requests. Lengths are weighted by requests, those of single images, audio or video clips by the
        expected number of them, and None where a pool has none. ``lengths_across_clients`` has quantiles, weighted
        by requests, of the mean, median and so on of every window of every client. ``conversations`` has the models
        of conversations, and how many clients follow each; ``environments`` has the random factors on rates, and how
        many clients each moves.
    """
    weight = _requests(pool)
    total = float(weight.sum())
    skew = skew_of(pool)
    by_family = np.bincount(pool.family.ravel(), weights=weight.ravel(), minlength=len(FAMILY_NAMES))
    active = weight > 0
    return {
        "name": pool.name,
        "category": pool.category,
        "clients": len(pool),
        "profiles": len(np.unique(pool.profile)),
        "measured": bool(pool.measured.all()),
        "window_s": pool.window_s,
        "start_s": pool.start_s,
        "end_s": pool.end_s,
        "days": (pool.end_s - pool.start_s) / DAY_S,
        "requests": total,
        "rate_rps": {name: float(getattr(pool.own_rps, name)()) for name in ("min", "mean", "max")},
        "share_of_top": {str(n): skew.of_top(n) for n in SHARES},
        "share_of_top_part": {f"{part:.0%}": skew.of_top_part(part) for part in PARTS},
        "clients_for_90_percent": skew.clients_for(0.9),
        "top": [
            {
                "client": int(skew.client_ids[i]),
                "requests": float(skew.requests[i]),
                "share": _ratio(skew.requests[i], total),
            }
            for i in range(min(top, len(pool)))
        ],
        "cv": _summary(pool.cv[active], weight[active], moments=False),
        "families": {FAMILY_NAMES[f]: _ratio(by_family[f], total) for f in range(EXPONENTIAL, len(FAMILY_NAMES))},
        "lengths": _lengths(pool, weight),
        "lengths_across_clients": _across(pool) if active.any() else {},
        "conversations": _conversations(pool),
        "environments": _environments(pool),
        "digest": pool.digest(),
    }


def _ratio(part: float, total: float) -> float:
    return float(part / total) if total else 0.0


def _lengths(pool: ClientPool, weight: NDArray[np.float64]) -> dict[str, dict[str, float] | None]:
    """Summary of each field; `weight` is requests, float64[profiles, windows]."""
    summaries: dict[str, dict[str, float] | None] = {}
    for field, (values, weights) in _values(pool, weight).items():
        summaries[field.name] = _summary(values, weights, moments=True, unit=field.unit) if len(values) else None
    return summaries


def _values(pool: ClientPool, weight: NDArray[np.float64]) -> dict[Field, tuple[NDArray[Any], NDArray[np.float64]]]:
    """Values of each field and their expected number, in no order; empty arrays where a pool has none."""
    active = weight > 0
    rows, requests = pool.table[active], weight[active]
    table_mean = pool.tables.means
    counts = {items.item: items.count.lane for items in pool.schema.items}
    found = {}
    for field in pool.schema.fields:
        each = table_mean[rows[:, counts[field]]] if field in counts else 1.0
        of_table = np.bincount(rows[:, field.lane], weights=requests * each, minlength=len(pool.tables))
        used = np.flatnonzero(of_table)
        tables = pool.tables.select(used)
        found[field] = (
            tables.values,
            tables.widths().astype(np.float64) * np.repeat(of_table[used], np.diff(tables.offsets)),
        )
    return found


def token_lengths(pool: ClientPool) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Values of each field in tokens, and their expected number over the span of a pool, in no order."""
    values = _values(pool, _requests(pool))
    return {
        field.name: (tokens / field.unit, number)
        for field, (tokens, number) in values.items()
        if field.kind in (Kind.ONCE, Kind.ITEM)
    }


def _requests(pool: ClientPool) -> NDArray[np.float64]:
    """Expected requests of each profile and window, float64[profiles, windows]."""
    factor = np.bincount(pool.profile, weights=pool.rate_factor, minlength=len(pool.rate_rps))
    return np.asarray(factor[:, None] * pool.rate_rps * pool.window_s)


def _across(pool: ClientPool) -> dict[str, dict[str, dict[str, float]]]:
    """Quantiles across windows of clients of each statistic of each field."""
    cdfs = cdfs_of(pool, "span", STATISTICS)
    return {
        field: {
            statistic: {
                f"p{q * 100:.0f}": float(v)
                for q, v in zip(ACROSS, cdfs.cdf(f"{statistic}_{field}").quantile(ACROSS), strict=True)
            }
            for statistic in STATISTICS
        }
        for field in pool.fields
    }


def _conversations(pool: ClientPool) -> list[dict[str, Any]]:
    """The models of conversations that clients follow."""
    found = []
    for row, model in enumerate(pool.turn_models):
        clients = int((pool.turn_model[pool.profile] == row).sum())
        turns, share = model.tables.count.table(0)
        bins, widths = model.tables.gap.values, model.tables.gap.widths()
        middle_s = (model.tables.gap_us + model.tables.gap_width_us // 2)[bins] / 1e6
        found.append(
            {
                "clients": clients,
                "share": model.share,
                "mean_turns": float(turns @ share / share.sum()),
                "gap_s": _summary(middle_s, widths.astype(np.float64), moments=False),
                "growth": model.growth,
                "session_s": model.session_s,
            }
        )
    return [model for model in found if model["clients"]]


def _environments(pool: ClientPool) -> list[dict[str, Any]]:
    """The environments that move clients; octaves by the step of their lattice in seconds."""
    found = []
    for row, environment in enumerate(pool.environments):
        found.append(
            {
                "clients": int((pool.environment[pool.profile] == row).sum()),
                "each": environment.each,
                "common": environment.common,
                "number": environment.number,
                "variance": environment.margin.variance,
                "empty_cells": environment.margin.zero,
                "cell_s": environment.cell_s,
                "octaves_s": {f"{environment.cell_s * 2**k:g}": w for k, w in environment.octaves.items()},
            }
        )
    return [environment for environment in found if environment["clients"]]


def _summary(
    values: NDArray[Any], weights: NDArray[np.float64], *, moments: bool, unit: float = 1
) -> dict[str, float] | None:
    """Weighted quantiles of values, with mean and maximum if asked for, divided by `unit`."""
    if not len(values):
        return None
    order = np.argsort(values)
    running = np.cumsum(weights[order])
    at = np.searchsorted(running, np.array(QUANTILES) * running[-1])
    quantiles = values[order[np.minimum(at, len(order) - 1)]]
    summary = {f"p{q * 100:.0f}": float(v) / unit for q, v in zip(QUANTILES, quantiles, strict=True)}
    if not moments:
        return summary
    mean = float(np.dot(values, weights) / running[-1]) / unit
    return {"mean": mean} | summary | {"max": float(values[order[-1]]) / unit}


def format_description(description: dict[str, Any]) -> str:
    """The figures of `describe_pool` as a table for the terminal."""
    d = description
    rate = d["rate_rps"]
    counts = "measured" if d["measured"] else "modelled"
    lines = [
        printable(f"{d['name']} ({d['category']}, {counts} rates)"),
        "",
        f"  clients     {d['clients']:,} on {d['profiles']:,} profiles; {d['clients_for_90_percent']:,} send 90 %",
        f"  span        {d['start_s']:,} to {d['end_s']:,} s: {d['days']:g} days in windows of {d['window_s']:,} s",
        f"  requests    {d['requests']:,.0f}",
        f"  rate        {rate['mean']:,.2f} req/s on average, from {rate['min']:,.2f} to {rate['max']:,.2f}",
        "  top         " + " · ".join(f"{n}: {share:.1%}" for n, share in d["share_of_top"].items()),
        "  top part    " + " · ".join(f"{part}: {share:.1%}" for part, share in d["share_of_top_part"].items()),
        "  gap family  " + " · ".join(f"{name} {share:.1%}" for name, share in d["families"].items() if share),
    ]
    if d["cv"]:
        lines.append("  gap CV      " + " · ".join(f"{q} {cv:.2f}" for q, cv in d["cv"].items()))
    for model in d["conversations"]:
        gaps = " · ".join(f"{q} {gap:,.0f} s" for q, gap in model["gap_s"].items())
        lines += [
            f"  turns       {model['share']:.1%} of the requests of {model['clients']:,} clients in conversations of "
            f"{model['mean_turns']:.2f} turns; {model['growth']} inputs",
            f"  turn gap    {gaps}; at most {model['session_s'] / 3600:g} h in all",
        ]
    for each in d["environments"]:
        moves = {"pool": "together", "group": "as a group", "client": "each alone"}[each["each"]]
        common = f", {each['common']:.0%} in common" if each["common"] and each["each"] != "pool" else ""
        octaves = " · ".join(f"{step} s {weight:.0%}" for step, weight in each["octaves_s"].items())
        lines += [
            f"  environment variance {each['variance']:.3g}, {each['empty_cells']:.1%} of the cells of "
            f"{each['cell_s']:g} s empty; moves {each['clients']:,} clients {moves}{common}",
            f"  octaves     {octaves}",
        ]
    names, across = ("mean", "p50", "p90", "p99", "max"), d["lengths_across_clients"]
    lines += ["", f"  {'':69}{'means of windows':>27}"]
    lines += [
        f"  {'':14}" + "".join(f"{name:>11}" for name in names) + "".join(f"{f'p{q * 100:.0f}':>9}" for q in ACROSS)
    ]
    for field, summary in d["lengths"].items():
        form = ".3f" if KINDS[field] is Kind.RATIO else ",.1f"
        cells = [
            format(summary[n], form if n == "mean" or form == ".3f" else ",.0f") if summary else "–" for n in names
        ]
        means = [format(mean, form) for mean in across[field]["mean"].values()] if summary else ["–"] * len(ACROSS)
        lines.append(f"  {field:14}" + "".join(f"{c:>11}" for c in cells) + "".join(f"{m:>9}" for m in means))
    lines += ["", f"  {'client':>10}{'requests':>17}{'share':>9}"]
    lines += [f"  {row['client']:>10}{row['requests']:>17,.0f}{row['share']:>9.1%}" for row in d["top"]]
    if "origins" in d:
        counts = " · ".join(f"{n} {origin}" for origin, n in d["origins"].items() if n)
        lines += ["", f"  numbers {counts}: see `servegen-gpu presets show {d['name']}`"]
    if "fit" in d:
        lines += ["", *(f"  {key:11} {_plain(value)}" for key, value in d["fit"].items())]
    lines += ["", f"  digest {d['digest']}"]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """A value of the section [fit] of a saved profile, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
