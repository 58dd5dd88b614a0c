"""Pictures of how long requests are: distributions with their tails, and which lengths go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import Counts, Points
from servegen_gpu.comparing.seen import RATIO_STEPS
from servegen_gpu.comparing.table import number
from servegen_gpu.plotting import curves
from servegen_gpu.plotting.drawing import (
    Drawing,
    Side,
    Sides,
    by_side,
    from_zero,
    log_axis,
    log_labels,
    sentence,
    share_axis,
    styles,
)
from servegen_gpu.plotting.families import length_family
from servegen_gpu.plotting.style import LINES, PALE, SHADES, legend, legend_below, sheet

NAMES = {
    "input_tokens": "Input",
    "output_tokens": "Output",
    "reason_tokens": "Reasoning",
    "answer_tokens": "Answer",
    "new_tokens": "New input tokens of a turn",
    "text_tokens": "Text",
}
"""Columns with a picture of their own; answers are outputs without their reasoning."""
TAIL_SHARE = 1e-7


def counts_of(side: Side, name: str) -> Counts | None:
    """How often each length occurred; None without the column."""
    if name == "answer_tokens":
        return side.data.answers if len(side.data.answers.points()[0]) else None
    return side.data.seen.lengths.get(name)


def lengths(sides: Sides, name: str = "input_tokens") -> Drawing | None:
    """One column's distribution and its tail, with a family fitted where there is one side (Fig. 3, 13)."""
    found = {side: counts for side in sides if (counts := counts_of(side, name)) is not None}
    there = {side: counts.points() for side, counts in found.items() if (counts.points()[0] > 0).any()}
    if not there:
        return None
    most = max(int(points[0][-1]) for points in there.values())
    least = min(int(points[0][points[0] > 0][0]) for points in there.values())
    edges = curves.log_cells(least, most, whole=True)
    family = length_family(next(iter(found.values())), name) if len(sides) == 1 else None
    with sheet(2) as (figure, (above, below)):
        for side, line in styles(list(there)):
            shares = curves.density(there[side], edges)
            if len(sides) == 1:
                above.stairs(shares, edges, fill=True, color=PALE, label="trace")
            else:
                above.stairs(shares, edges, color=line.color, linestyle=line.dashes, linewidth=1.6)
            below.plot(*curves.tail(there[side]), label=side.label if len(sides) > 1 else "trace", **line.curve())
        if family is not None:
            above_0 = 1 - _zero(next(iter(there.values())))
            shares = above_0 * np.diff(family.at_most(edges)) / np.diff(np.log10(edges))
            above.stairs(shares, edges, baseline=None, color=LINES[1].color, linestyle=LINES[1].dashes, linewidth=1.6)
            fine = np.geomspace(least, most, 200)
            down = above_0 * (1 - family.at_most(fine - 0.5))
            below.plot(fine[down > 0], down[down > 0], label=family.name, **LINES[1].curve())
        log_axis(below, "x")
        log_axis(below, "y", "share")
        total = max(int(points[1].sum()) for points in there.values())
        below.set_ylim(max(0.5 / total, TAIL_SHARE), 1.5)
        above.set(title=f"{NAMES[name]}: distribution", ylabel="share by decade")
        below.set(title="Tail: share of requests at least as long", xlabel="tokens")
        from_zero(above)
        legend(below, loc="lower left")

    def says(side: Side) -> str:
        return _summary(there[side]) if side in there else ""

    caption = by_side(sides, says)
    if family is not None:
        caption += f"\nFitted: {family.name} ({family.about}), KS {number(family.ks)}."
    alt = "Two panels with tokens on a logarithmic axis: a histogram, and the share of requests that are longer"
    return Drawing(NAMES[name], figure, alt + (f", with a fitted {family.name}." if family else "."), caption)


def _zero(points: Points) -> float:
    """Share of values of 0."""
    values, counts = points
    return float(counts[values == 0].sum() / counts.sum())


def _summary(points: Points) -> str:
    values, counts = points
    share: NDArray[np.float64] = np.cumsum(counts) / counts.sum()
    at = np.searchsorted(share, (0.5, 0.99, 1.0)).clip(max=len(values) - 1)
    middle, high, most = values[at].tolist()
    mean = float(values @ counts / counts.sum())
    none = _zero(points)
    zero = f", {none:.1%} are 0" if none else ""
    return f"Mean {number(mean)}, median {middle:,}, P99 {high:,}, largest {most:,} tokens{zero}."


def pairs(sides: Sides) -> Drawing | None:
    """Inputs against outputs, with the median and 90 % of the outputs by input (Fig. 4)."""
    squares = {side: side.data.seen.pairs for side in sides if side.data.seen.pairs is not None}
    return _pairs(sides, squares, "Input and output", ("input, tokens", "output, tokens"))


def _pairs(sides: Sides, squares: dict[Side, NDArray[np.int64]], title: str, labels: tuple[str, str]) -> Drawing | None:
    """A histogram of pairs of the first side, and quantiles of all."""
    if not squares:
        return None
    from matplotlib.colors import LogNorm

    said = {}
    with sheet() as (figure, axes):
        for at, (side, line) in enumerate(styles(list(squares))):
            edges, square = curves.shaded(squares[side])
            middles, (low, middle, high) = curves.quantiles_by_cell(squares[side], (0.05, 0.5, 0.95))
            if not at:
                shade = axes.pcolormesh(
                    1 + edges,
                    1 + edges,
                    np.where(square > 0, square, np.nan).T,
                    norm=LogNorm(1, max(int(square.max()), 10)),
                    cmap=SHADES,
                    alpha=0.75,
                    rasterized=True,
                )
                log_labels(figure.colorbar(shade, ax=axes, label="requests").ax.yaxis, ticks=5)
            axes.plot(1 + middles, 1 + middle, **line.curve(linewidth=2), label=f"median{_of(side, sides)}")
            for edge, name in ((low, "5 and 95 %" if len(sides) == 1 else None), (high, None)):
                axes.plot(1 + middles, 1 + edge, **line.curve(linewidth=1, label=name))
            if len(middles):
                said[side] = f"median {labels[1].split(',')[0]} {number(middle.min())} to {number(middle.max())} tokens"
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set(title=title, xlabel=f"1 + {labels[0]}", ylabel=f"1 + {labels[1]}")
        legend_below(figure, axes)
    alt = f"Two-dimensional histogram of {title.lower()} on logarithmic axes, with lines for the median and 90 %."
    return Drawing(title, figure, alt, by_side(sides, lambda side: sentence([said.get(side, "")])))


def _of(side: Side, sides: Sides) -> str:
    return f", {side.label}" if len(sides) > 1 else ""


def reasoning(sides: Sides) -> Drawing | None:
    """How large a part of the output is reasoning (Fig. 14)."""
    there = {side: side.data.seen.lengths["reason_share"] for side in sides if "reason_share" in side.data.seen.lengths}
    there = {side: counts for side, counts in there.items() if len(counts.points()[0])}
    if not there:
        return None
    edges = np.linspace(0, 1, 51)
    said = {}
    with sheet() as (figure, axes):
        for side, line in styles(list(there)):
            steps, counts = there[side].points()
            cell = np.minimum(steps * 50 // RATIO_STEPS, 49)
            shares = np.bincount(cell, counts, 50) / counts.sum()
            if len(sides) == 1:
                axes.stairs(shares, edges, fill=True, color=PALE)
            axes.stairs(shares, edges, color=line.color, linestyle=line.dashes, linewidth=1.4, label=side.label)
            mean = float(steps @ counts / counts.sum() / RATIO_STEPS)
            said[side] = f"Mean share {mean:.1%}; " + _answers(side)
        share_axis(axes.xaxis)
        share_axis(axes.yaxis)
        axes.set(title="Reasoning in the output", xlabel="reasoning, share of the output", ylabel="share of requests")
        from_zero(axes)
        if len(sides) > 1:
            legend(axes)
    alt = "Histogram of the share of reasoning in the output of each request."
    return Drawing("Reasoning in the output", figure, alt, by_side(sides, lambda side: said.get(side, "")))


def _answers(side: Side) -> str:
    """Reasoning for each token of an answer."""
    reason, answer = (
        float(np.dot(*counts.points())) if counts is not None else 0.0
        for counts in (counts_of(side, "reason_tokens"), counts_of(side, "answer_tokens"))
    )
    return f"{number(reason / answer)} reasoning tokens for each token of an answer." if answer else "no answers."


def reason_pairs(sides: Sides) -> Drawing | None:
    """Reasoning against answers."""
    squares = {side: side.data.reason_pairs for side in sides if side.data.reason_pairs is not None}
    return _pairs(sides, squares, "Reasoning and answer", ("reasoning, tokens", "answer, tokens"))
