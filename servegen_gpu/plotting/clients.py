"""Pictures of clients: how unequal they are, how they differ, and the largest of them alone."""

from __future__ import annotations

import numpy as np

from servegen_gpu.comparing.table import number
from servegen_gpu.plotting import curves
from servegen_gpu.plotting.drawing import (
    Drawing,
    Side,
    Sides,
    by_side,
    count_axis,
    from_zero,
    log_axis,
    sentence,
    share_axis,
    styles,
    time_text,
    unit_of,
)
from servegen_gpu.plotting.style import LINES, heading, legend, legend_below, sheet

TOP = 4
"""Largest clients that are drawn alone (Fig. 6 and 12 of the paper)."""
MOST_REQUESTS = 0.9
UNITS = {"rate_rps": " requests/s", "cv": "", "input": " tokens", "output": " tokens"}


def skew(sides: Sides) -> Drawing | None:
    """Share of the requests that the largest clients send."""
    found = {side: side.data.seen.clients for side in sides}
    there = {side: np.sort(c.points()[1])[::-1] for side, c in found.items() if c is not None}
    there = {side: counts for side, counts in there.items() if len(counts) > 1}
    if not there:
        return None
    said = {}
    with sheet() as (figure, axes):
        for side, line in styles(list(there)):
            share = np.cumsum(there[side]) / there[side].sum()
            axes.plot(*curves.cdf((np.arange(1, len(share) + 1), there[side])), label=side.label, **line.curve())
            most = int(np.searchsorted(share, MOST_REQUESTS)) + 1
            axes.plot([most], [share[most - 1]], **line.points(markersize=6))
            tops = [f"{share[min(n, len(share)) - 1]:.1%} from the top {n}" for n in (1, 10) if n < len(share)]
            said[side] = sentence([f"{len(share):,} clients", *tops, f"{MOST_REQUESTS:.0%} of requests from {most:,}"])
        log_axis(axes, "x")
        share_axis(axes.yaxis)
        axes.set(title="Skew of clients", xlabel="largest clients", ylabel="share of requests", ylim=(0, 1.03))
        if len(sides) > 1:
            legend(axes)
    alt = "Share of requests of the largest clients, by their number on a logarithmic axis, with a mark at 90 %."
    return Drawing("Skew of clients", figure, alt, by_side(sides, lambda side: said.get(side, "")))


def spread(sides: Sides) -> Drawing | None:
    """How clients differ: distribution functions over clients, each weighted by its requests (Fig. 5 and 11)."""
    there = {side: totals for side in sides if (totals := _totals(side)) is not None}
    if not there:
        return None
    kinds = {"rate_rps": "rate", "cv": "CV of gaps", "input": "mean input", "output": "mean output"}
    kinds = {name: label for name, label in kinds.items() if any(name in totals for totals in there.values())}
    said: dict[Side, list[str]] = {}
    with sheet(4, 2, share_x=False) as (figure, panels):
        for (name, label), axes in zip(kinds.items(), panels, strict=False):
            for side, line in styles(list(there)):
                totals = there[side]
                some = np.isfinite(totals[name]) & (totals[name] > 0) if name in totals else np.zeros(0, np.bool_)
                if not some.any():
                    continue
                order = np.argsort(totals[name][some])
                values, weights = totals[name][some][order], totals["requests"][some][order]
                axes.step(*curves.cdf((values, weights)), where="post", label=side.label, **line.curve())
                middle = values[np.searchsorted(np.cumsum(weights), weights.sum() / 2)]
                said.setdefault(side, []).append(f"{label} {number(float(middle))}{UNITS[name]}")
            log_axis(axes, "x", ticks=4)
            share_axis(axes.yaxis)
            axes.set(title=label[0].upper() + label[1:], xlabel=UNITS[name].strip(), ylim=(0, 1.05))
        for axes in panels[len(kinds) :]:
            axes.set_visible(False)
        heading(figure, "How clients differ")
        figure.supylabel("share of requests from clients up to", fontsize=9)
        if len(sides) > 1:
            legend(panels[0])
    alt = (
        "Distribution functions over clients of their rate, CV of inter-arrival times, mean input and mean output, "
        "each client weighted by its requests."
    )

    def says(side: Side) -> str:
        return f"Half of the requests come from clients up to: {', '.join(said[side])}." if side in said else ""

    return Drawing("How clients differ", figure, alt, by_side(sides, says))


def _totals(side: Side) -> dict[str, curves.Floats] | None:
    """Figures of each client over the whole trace."""
    kept = side.data.by_client
    if kept.full or len(kept.ids) < 2:
        return None
    sums = kept.totals()
    found = {"requests": sums["requests"], "rate_rps": sums["requests"] / max(side.data.seen.seconds, 1e-6)}
    found["cv"] = curves.gap_cv(sums["gaps"], sums["gap_s"], sums["gap_s2"])
    for name in ("input", "output"):
        if f"{name}_tokens" in sums:
            found[name] = sums[f"{name}_tokens"] / sums["requests"]
    return found


def top(sides: Sides) -> Drawing | None:
    """The largest clients alone, over time (Fig. 6 and 12); of the first side only, if it has two."""
    side = sides[0]
    kept = side.data.by_client
    largest = kept.largest(TOP)
    if len(largest) < 2 or side.data.seen.seconds < 4 * kept.bin_s:
        return None
    kinds = {"rate_rps": "Rate, requests/s", "cv": "CV of inter-arrival times"}
    kinds |= {f"{name}_tokens": f"Mean {name}, tokens" for name in ("input", "output") if f"{name}_tokens" in kept.sums}
    bins = int(max(side.data.seen.seconds // kept.bin_s, 1))
    size, unit = unit_of(side.data.seen.seconds)
    at = (np.arange(bins) + 0.5) * kept.bin_s / size
    binned = {name: np.zeros((bins, len(largest))) for name in kept.sums}
    for name, grid in kept.sums.items():
        some = grid[:bins, largest]
        binned[name][: len(some)] = some
    over_time = {name: _over_time(binned, name, kept.bin_s) for name in kinds}
    shown = [name for name in kinds if np.isfinite(over_time[name]).any()]  # a CV takes several gaps in a bin
    with sheet(len(shown)) as (figure, panels):
        panels = np.atleast_1d(panels)
        for name, axes in zip(shown, panels, strict=True):
            for column, curve, line in zip(largest, over_time[name].T, LINES, strict=False):
                axes.plot(at, curve, label=f"client {kept.ids[column]}", **line.curve())
            axes.set_title(kinds[name])
            from_zero(axes)
            count_axis(axes.yaxis)
        panels[-1].set_xlabel(unit)
        heading(figure, "The largest clients")
        legend_below(figure, panels[0])
    share = kept.totals()["requests"][largest] / side.data.rows
    named = [f"client {kept.ids[c]} sends {part:.1%}" for c, part in zip(largest, share, strict=True)]
    whose = f" of {side.name}" if len(sides) > 1 else ""
    return Drawing(
        f"The largest clients{whose}",
        figure,
        f"Panels over time, with a line for each of the largest clients: {', '.join(kinds[name] for name in shown)}.",
        f"{side.name}: " * (len(sides) > 1) + sentence([*named, f"bins of {time_text(kept.bin_s)}"]),
    )


def _over_time(of: dict[str, curves.Floats], name: str, bin_s: int) -> curves.Floats:
    if name == "rate_rps":
        return of["requests"] / bin_s
    if name == "cv":
        return curves.gap_cv(of["gaps"], of["gap_s"], of["gap_s2"])
    return curves.ratio(of[name], of["requests"])
