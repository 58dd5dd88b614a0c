"""Pictures of what is in an input besides text: how many items, how large, and how much of all they are."""

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
    unit_of,
)
from servegen_gpu.plotting.seen import SHARE_STEPS
from servegen_gpu.plotting.style import LINES, Line, legend, sheet

MOST_ITEMS = 12
"""Numbers of items that are drawn."""


def kinds(side: Side) -> list[str]:
    """Columns of items that a trace has any of."""
    lengths = side.data.seen.lengths
    return [name for name in side.data.modal_shares if len(lengths[name].points()[0])]


def _styles(sides: Sides) -> list[tuple[Side, str, Line, str]]:
    """Side, column, style and label of each curve: colours are of columns, and of two sides the second is dashed."""
    names = list(dict.fromkeys(name for side in sides for name in kinds(side)))
    found = []
    for at, side in enumerate(sides):
        for name in kinds(side):
            line = LINES[names.index(name)]
            if len(sides) > 1:
                line = Line(line.color, ("solid", (0, (4, 2)))[at], line.marker)
            label = name.removesuffix("_tokens") + (f", {side.label}" if len(sides) > 1 else "")
            found.append((side, name, line, label))
    return found


def counts(sides: Sides) -> Drawing | None:
    """How many items a request has, and how large one is (Fig. 7 and 8)."""
    shown = _styles(sides)
    if not shown:
        return None
    said: dict[Side, list[str]] = {}
    with sheet(2, share_x=False) as (figure, (above, below)):
        for side, name, line, label in shown:
            number_of = side.data.seen.lengths[f"{name} per request"].points()
            heights = np.bincount(np.minimum(number_of[0], MOST_ITEMS), number_of[1], MOST_ITEMS + 1) / side.data.rows
            above.plot(heights, label=label, **(line.curve(linewidth=1.2) | {"marker": line.marker, "markersize": 4}))
            sizes = side.data.seen.lengths[name].points()
            below.step(*curves.cdf(sizes), where="post", **line.curve())
            with_some = float(1 - heights[0])
            each = float(np.dot(*number_of) / max(number_of[1][number_of[0] > 0].sum(), 1))
            middle = int(sizes[0][np.searchsorted(np.cumsum(sizes[1]), sizes[1].sum() / 2)])
            words = f"{with_some:.1%} of requests with {name.removesuffix('_tokens')}, {number(each)} of them each"
            said.setdefault(side, []).append(f"{words}, median size {middle:,} tokens")
        last = max((int(s.data.seen.lengths[f"{n} per request"].points()[0][-1]) for s, n, *_ in shown), default=1)
        above.set(title="Items of a request", xlabel="items (the last: so many and more)", ylabel="share of requests")
        above.set_xlim(-0.3, min(last, MOST_ITEMS) + 0.3)
        share_axis(above.yaxis)
        log_axis(below, "x")
        share_axis(below.yaxis)
        below.set(title="Size of an item", xlabel="tokens", ylabel="share of items up to", ylim=(0, 1.05))
        from_zero(above)
        legend(above)
    alt = "Two panels with a curve for each kind of item: how many a request has, and the distribution of their sizes."
    return Drawing("Items", figure, alt, by_side(sides, lambda side: sentence(said.get(side, []))))


def shares(sides: Sides) -> Drawing | None:
    """How much of an input is items (Fig. 9), and tokens of text and items over time (Fig. 7)."""
    shown = _styles(sides)
    if not shown:
        return None
    size, unit = unit_of(max(side.data.seen.seconds for side in sides))
    said: dict[Side, list[str]] = {}
    with sheet(2, share_x=False) as (figure, (above, below)):
        for side, name, line, label in shown:
            steps = side.data.modal_shares[name]
            some = np.flatnonzero(steps[1:]) + 1
            if not len(some):
                continue
            x, y = curves.cdf((some / SHARE_STEPS, steps[some]))
            above.step(x, y, where="post", label=label, **line.curve())
            mean = float(np.arange(len(steps)) @ steps / max(steps.sum(), 1) / SHARE_STEPS)
            said.setdefault(side, []).append(f"{name.removesuffix('_tokens')}: {mean:.1%} of an input on average")
            seen = curves.windows(side.data.seen, curves.window_for(side.data.seen, requests=20))
            below.plot((seen.start_s + seen.window_s / 2) / size, seen.sums[name] / seen.window_s, **line.curve())
        share_axis(above.xaxis)
        share_axis(above.yaxis)
        above.set(title="Share of the input, where there are any", xlabel="share of input tokens", ylim=(0, 1.05))
        above.set_ylabel("share of requests up to")
        below.set(title="Tokens over time", xlabel=unit, ylabel="tokens/s")
        from_zero(below)
        count_axis(below.yaxis)
        legend(above)
    alt = "Two panels with a curve for each kind of item: its share of the inputs, and its tokens per second over time."
    return Drawing("Items in inputs", figure, alt, by_side(sides, lambda side: sentence(said.get(side, []))))
