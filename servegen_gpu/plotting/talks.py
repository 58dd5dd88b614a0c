"""Pictures of what requests have in common: conversations, and blocks that a cache would find again."""

from __future__ import annotations

import numpy as np

from servegen_gpu.comparing.histograms import points_of
from servegen_gpu.comparing.table import number
from servegen_gpu.comparing.talks import turn_gaps_ms
from servegen_gpu.plotting import curves
from servegen_gpu.plotting.drawing import (
    Drawing,
    Side,
    Sides,
    by_side,
    from_zero,
    log_axis,
    sentence,
    share_axis,
    styles,
    time_text,
)
from servegen_gpu.plotting.style import PALE, legend, sheet
from servegen_gpu.prefixes.lru import NEVER, stack_distances

CACHE_POINTS = 80


def talks(sides: Sides) -> Drawing | None:
    """Turns of a conversation, and the time between them (Fig. 15)."""
    there = {side: turns for side in sides if len(turns := _turns(side))}
    if not there:
        return None
    gaps = {side: turn_gaps_ms(side.data.seen)[0] / 1e3 for side in there}
    gaps = {side: some for side in there if len(some := gaps[side][gaps[side] > 0])}
    said = {}
    with sheet(2, share_x=False) as (figure, (above, below)):
        for side, line in styles(list(there)):
            marked = line.curve() | {"marker": line.marker, "markersize": 3}
            above.plot(*curves.tail(points_of(there[side])), label=side.label, **marked)
            mean, most = there[side].mean(), there[side].max()
            said[side] = [f"{len(there[side]):,} conversations of {number(float(mean))} turns, {most:,} at most"]
        if gaps:
            ends = [float(x) for some in gaps.values() for x in (some.min(), some.max())]
            edges = curves.log_cells(min(ends), max(ends), whole=False)
            for side, line in styles(list(there)):
                if side not in gaps:
                    continue
                heights = curves.density(_times(gaps[side]), edges)
                if len(sides) == 1:
                    below.stairs(heights, edges, fill=True, color=PALE)
                below.stairs(heights, edges, color=line.color, linestyle=line.dashes, linewidth=1.4)
                middle, high = np.quantile(gaps[side], (0.5, 0.9))
                said[side].append(f"time between turns: median {time_text(middle)}, P90 {time_text(high)}")
        log_axis(above, "x")
        log_axis(above, "y", "share")
        log_axis(below, "x", "time")
        above.set(title="Turns of a conversation", xlabel="turns", ylabel="at least so many")
        below.set(title="Time between turns", xlabel="time", ylabel="share by decade")
        from_zero(below)
        if len(sides) > 1:
            legend(above)
    alt = "Two panels: the share of conversations with at least so many turns, and times between turns."
    return Drawing("Conversations", figure, alt, by_side(sides, lambda side: sentence(said.get(side, []))))


def _times(gap_s: curves.Floats) -> tuple[curves.Floats, curves.Ints]:
    """Times and counts."""
    values, counts = np.unique(gap_s, return_counts=True)
    return values, counts


def _turns(side: Side) -> curves.Ints:
    """Turns of each conversation of at least two that was kept, int64[conversations]."""
    rows = side.data.seen.talks
    if not rows:
        return np.zeros(0, np.int64)
    turns = points_of(rows["conversation"])[1]
    return turns[turns > 1]


def reuse(sides: Sides) -> Drawing | None:
    """Share of blocks that an LRU cache finds, by its size."""
    said = {}
    there = [side for side in sides if side.data.seen.block_count]
    if not there:
        return None
    with sheet() as (figure, axes):
        for side, line in styles(there):
            ids, _ = side.data.seen.blocks
            distance = stack_distances(ids)
            found = np.sort(distance[distance != NEVER])
            different = len(distance) - len(found)
            sizes = np.unique(np.geomspace(1, max(different, 2), CACHE_POINTS).astype(np.int64))
            hits = np.searchsorted(found, sizes) / len(distance)
            axes.plot(sizes, hits, label=side.label, **line.curve())
            tenth = float(np.searchsorted(found, max(different // 10, 1)) / len(distance))
            kept = "" if len(ids) == side.data.rows else f" of the first {len(ids):,} requests"
            said[side] = sentence(
                [
                    f"{len(distance):,} blocks{kept}, {different:,} of them different",
                    f"{hits[-1]:.1%} found again by a cache of all, {tenth:.1%} by one of a tenth",
                ]
            )
        log_axis(axes, "x")
        share_axis(axes.yaxis)
        axes.set(title="Blocks found in an LRU cache", xlabel="size of the cache, blocks", ylabel="share of blocks")
        from_zero(axes)
        if len(sides) > 1:
            legend(axes)
    alt = "Share of blocks of inputs that a cache with least recently used eviction finds, by its size in blocks."
    return Drawing("Reuse of blocks", figure, alt, by_side(sides, lambda side: said.get(side, "")))
