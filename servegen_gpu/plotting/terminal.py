"""Small pictures for a terminal, as text: no library, no colour; ASCII where the terminal has nothing better."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.plotting.words import duration_text, nice_bin_s

if TYPE_CHECKING:
    from servegen_gpu.clients.pool import ClientPool
    from servegen_gpu.describe import Seen

LEAST_WIDTH, MOST_WIDTH = 40, 120
ROWS = 6
"""Height of the picture of rates, lines of text."""
LENGTH_COLUMNS = 48
MOST_CLIENTS = 10

Floats = NDArray[np.float64]
Lengths = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
"""Names; values in tokens, and how often each occurs."""


@dataclass(frozen=True)
class Style:
    """What a terminal can show.

    Attributes
    ----------
    width : int
        Characters in a line.
    levels : str
        Characters by height: the first is empty, the last a full cell.
    wall, corner, floor : str
        Of the axes.
    """

    width: int
    levels: str = " ▁▂▃▄▅▆▇█"
    partial: str = " ▏▎▍▌▋▊▉█"
    wall: str = "│"
    corner: str = "└"
    floor: str = "─"


def style_of(stream: TextIO) -> Style:
    """What can be shown on a stream: blocks if its encoding has them, as wide as the terminal, from 40 to 120."""
    width = min(max(shutil.get_terminal_size().columns - 1, LEAST_WIDTH), MOST_WIDTH)
    best = Style(width)
    try:
        "".join((best.levels, best.partial, best.wall, best.corner, best.floor)).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ascii_style(width)
    return ascii_style(width) if os.environ.get("TERM") == "dumb" else best


def ascii_style(width: int) -> Style:
    """Characters that everything can show."""
    return Style(width, levels=" .-=#", partial=" #", wall="|", corner="+", floor="-")


def of_trace(seen: Seen, top: int, style: Style) -> list[str]:
    """Rate over time, lengths and the busiest clients of a trace, as lines of text."""
    edges_s, requests = seen.timeline.until(seen.duration_s)
    return _pictures(edges_s, requests, seen.token_lengths(), seen.busiest(min(top, MOST_CLIENTS)), style)


def of_pool(pool: ClientPool, top: Sequence[Mapping[str, Any]], style: Style) -> list[str]:
    """The same of a pool at its own rates; `top` is what `describe_pool` lists."""
    from servegen_gpu.clients.describe.describe import token_lengths

    edges_s = np.linspace(pool.start_s, pool.end_s, pool.windows + 1)
    clients = [(row["client"], row["share"]) for row in top[:MOST_CLIENTS]]
    return _pictures(edges_s, pool.own_rps * pool.window_s, token_lengths(pool), clients, style)


def _pictures(
    edges_s: Floats, requests: NDArray[Any], lengths: Lengths, clients: Sequence[tuple[int, float]], style: Style
) -> list[str]:
    pictures = (
        rate_picture(edges_s, requests, style),
        length_pictures(lengths, style),
        client_picture(clients, style),
    )
    return "\n\n".join("\n".join(lines) for lines in pictures if lines).split("\n")


def sparkline(values: NDArray[Any], style: Style) -> str:
    """One character a value, by its part of the largest; what is above 0 is never empty."""
    top = len(style.levels) - 1
    largest = float(values.max(initial=0.0))
    height = np.ceil(values / largest * top) if largest > 0 else np.zeros(len(values))
    return "".join(style.levels[int(h)] for h in height)


def bar(part: float, width: int, style: Style) -> str:
    """A horizontal bar of `part` (0 to 1) of `width` characters; not empty above 0."""
    steps = len(style.partial) - 1
    eighths = min(round(part * width * steps), width * steps) if part > 0 else 0
    whole, rest = divmod(max(eighths, part > 0), steps)
    return style.partial[-1] * whole + (style.partial[rest] if rest else "")


def columns(values: Floats, style: Style, rows: int = ROWS) -> list[str]:
    """A column a value, from 0 to the largest: lines from top to bottom, each a character a value."""
    top = len(style.levels) - 1
    largest = float(values.max(initial=0.0))
    height = np.ceil(values / largest * rows * top).astype(int) if largest > 0 else np.zeros(len(values), int)
    lines = []
    for row in reversed(range(rows)):
        lines.append("".join(style.levels[level] for level in np.clip(height - row * top, 0, top)))
    return lines


def rate_picture(edges_s: Floats, requests: NDArray[Any], style: Style) -> list[str]:
    """Requests per second over time.

    Parameters
    ----------
    edges_s : float64[n + 1]
        Where bins begin and end, seconds.
    requests : float64[n]
        How many requests each bin holds; within a bin they are taken as evenly spread.
    style : Style
    """
    start_s, end_s = float(edges_s[0]), float(edges_s[-1])
    if not end_s > start_s:
        return []
    room = style.width - 14
    bin_s = nice_bin_s(end_s - start_s, room)
    at_s = np.append(np.arange(start_s, end_s - bin_s * 1e-6, bin_s), end_s)
    held = np.diff(np.interp(at_s, edges_s, np.append(0.0, np.cumsum(requests))))
    rate_rps = held / np.diff(at_s)
    lines = columns(rate_rps, style)
    labels = [f"{rate_rps.max():,.4g}", *[""] * (len(lines) - 2), "0"]
    drawn = [f"{label:>10} {style.wall}{line}" for label, line in zip(labels, lines, strict=True)]
    first, last = duration_text(start_s), duration_text(end_s)
    ends = first + last.rjust(max(len(rate_rps) - len(first), len(last) + 1))
    mean_rps = held.sum() / (end_s - start_s)
    title = f"  requests per second over time, a column for {duration_text(bin_s)}; mean {mean_rps:,.4g}"
    return [title, *drawn, f"{'':11}{style.corner}{style.floor * len(rate_rps)}", f"{'':12}{ends}"]


def length_pictures(lengths: Lengths, style: Style) -> list[str]:
    """Distributions of lengths on one logarithmic axis.

    Parameters
    ----------
    lengths : mapping from names to (values, weights), float64[n] each
        Tokens, and how often each length occurs. Lengths below 1 are drawn as 1.
    style : Style
    """
    some = {
        name: (np.maximum(values, 1.0), weights) for name, (values, weights) in lengths.items() if weights.sum() > 0
    }
    if not some:
        return []
    low = min(float(values.min()) for values, _ in some.values())
    high = max(float(values.max()) for values, _ in some.values())
    room = min(LENGTH_COLUMNS, style.width - 20)
    # bins of less than a factor of 1.15 would show whole numbers, not a distribution
    bins = max(1, min(room, int(np.log(high / low) / np.log(1.15))))
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    lines = [f"  lengths from {low:,.0f} to {high:,.0f} tokens, a column for a factor of {edges[1] / edges[0]:.2f}"]
    for name, (values, weights) in some.items():
        into = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
        shares = np.bincount(into, weights, minlength=bins)
        lines.append(f"  {name:16}{style.wall}{sparkline(shares, style)}{style.wall}")
    return lines


def client_picture(clients: Sequence[tuple[int, float]], style: Style) -> list[str]:
    """Bars of the shares of clients: pairs of an id and a share of all requests, busiest first."""
    if not clients:
        return []
    room = min(LENGTH_COLUMNS, style.width - 24)
    largest = clients[0][1]
    lines = ["  busiest clients, share of the requests"]
    lines += [f"{client:>11} {share:7.1%} {bar(share / largest, room, style)}" for client, share in clients]
    return lines
