"""Pictures of when requests come: inter-arrival times, rates, and what goes with the rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.comparing.histograms import gap_of_bin
from servegen_gpu.comparing.measures import midranks
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
    styles,
    time_text,
    unit_of,
)
from servegen_gpu.plotting.families import gap_families
from servegen_gpu.plotting.style import LINES, PALE, Line, legend, sheet

MOST_DOTS = 2000
SCATTER_S = 3
"""Windows of the scatter of rates and lengths, as in Fig. 19 of the paper."""
COLUMNS = {"input_tokens": "input", "output_tokens": "output"}


def gaps(sides: Sides) -> Drawing | None:
    """Inter-arrival times of all clients together, with families fitted to them where there is one side (Fig. 1)."""
    there = [side for side in sides if len(_positive(side)[0]) > 1]
    if not there:
        return None
    ends = [value for side in there for value in _positive(side)[0][[0, -1]]]
    edges = curves.log_cells(min(ends), max(ends), whole=False)
    fitted = gap_families(there[0].data.seen.gaps) if len(sides) == 1 else ()
    with sheet() as (figure, axes):
        for side, line in styles(there):
            shares = curves.density(_positive(side), edges)
            if len(sides) == 1:
                axes.stairs(shares, edges, fill=True, color=PALE, label="trace")
            else:
                axes.stairs(shares, edges, color=line.color, linestyle=line.dashes, linewidth=1.6, label=side.label)
        fine = np.geomspace(edges[0], edges[-1], 200)
        for family, line in zip(fitted, LINES, strict=False):
            rate = np.diff(family.at_most(fine)) / np.diff(np.log10(fine))
            axes.plot(np.sqrt(fine[1:] * fine[:-1]), rate, label=family.name, **line.curve())
        log_axis(axes, "x", "time")
        axes.set(title="Inter-arrival times", xlabel="time since the request before", ylabel="share by decade")
        from_zero(axes)
        legend(axes)

    def says(side: Side) -> str:
        if side not in there:
            return ""
        n, total, squares = (float(side.data.seen.cells[name].sum()) for name in ("gaps", "gap_s", "gap_s2"))
        mean = total / n if n else 0.0
        cv = np.sqrt(max(squares / n - mean**2, 0)) / mean if mean else float("nan")
        zero = 1 - _positive(side)[1].sum() / max(side.data.seen.gaps.points()[1].sum(), 1)
        ties = f"; {zero:.1%} are 0" if zero > 0.0005 else ""
        return f"Mean {time_text(mean)}, CV {number(cv)}{ties}." if mean else ""

    fits = "; ".join(f"{family.name} ({family.about}) KS {number(family.ks)}" for family in fitted)
    return Drawing(
        "Inter-arrival times",
        figure,
        "Histogram of inter-arrival times on a logarithmic axis"
        + (", with exponential, Gamma and Weibull densities fitted to it." if fitted else ", one for each trace."),
        by_side(sides, says) + (f"\nFitted to all of them: {fits}." if fits else ""),
    )


def _positive(side: Side) -> tuple[curves.Floats, curves.Ints]:
    """Inter-arrival times above 0 in seconds, and how often each occurred."""
    bins, counts = side.data.seen.gaps.points()
    return gap_of_bin(bins[bins > 0]) / 1e6, counts[bins > 0]


def rate(sides: Sides) -> Drawing | None:
    """Requests per second, and the CV of inter-arrival times, over time (Fig. 2)."""
    there = [side for side in sides if side.data.rows and side.data.seen.seconds > 2]
    if not there:
        return None
    size, unit = unit_of(max(side.data.seen.seconds for side in there))
    said: dict[Side, tuple[curves.Windows, curves.Windows]] = {}
    with sheet(2) as (figure, (above, below)):
        for side, line in styles(there):
            seen = side.data.seen
            fine = curves.windows(seen, curves.window_for(seen))
            coarse = curves.windows(seen, curves.window_for(seen, requests=60))
            said[side] = fine, coarse
            above.plot(*_steps(fine, fine.rate_rps, size), label=side.label, **line.curve(linewidth=1.3))
            below.plot(*_steps(coarse, coarse.gap_cv, size), **_dotted(line, coarse.gap_cv))
        above.set(title="Rate", ylabel="requests/s")
        below.set(title="CV of inter-arrival times", xlabel=unit, ylabel="CV")
        below.axhline(1, color=PALE, linewidth=1)
        for axes in (above, below):
            from_zero(axes)
            count_axis(axes.yaxis)
        if len(sides) > 1:
            legend(above)

    def says(side: Side) -> str:
        if side not in said:
            return ""
        fine, coarse = said[side]
        rates, cvs = fine.rate_rps, coarse.gap_cv
        spread = f"{number(rates.min())} to {number(rates.max())} requests/s in windows of {time_text(fine.window_s)}."
        if not np.isfinite(cvs).any():
            return spread
        return f"{spread} Median CV {number(float(np.nanmedian(cvs)))} in windows of {time_text(coarse.window_s)}."

    title = "Rate and burstiness over time"
    alt = "Two panels over time: requests per second, and the CV of inter-arrival times by window, with a line at 1."
    return Drawing(title, figure, alt, by_side(sides, says))


def _steps(seen: curves.Windows, values: curves.Floats, unit_s: float) -> tuple[curves.Floats, curves.Floats]:
    """Values at the middle of each window, which is at least two points wide, in a unit of time."""
    if len(values) == 1:
        return np.array([0.0, seen.window_s]) / unit_s, np.repeat(values, 2)
    return (seen.start_s + seen.window_s / 2) / unit_s, values


def _dotted(line: Line, values: curves.Floats) -> dict[str, Any]:
    """A curve; with dots where some windows have no value, as those beside them would not be seen."""
    dots = {} if np.isfinite(values).all() else {"marker": line.marker, "markersize": 2.5}
    return line.curve(linewidth=1.3) | dots


def means(sides: Sides) -> Drawing | None:
    """Mean input and output over time (Fig. 3 and 13)."""
    there = [side for side in sides if side.data.rows and side.data.seen.seconds > 2]
    names = [name for name in COLUMNS if any(name in side.data.seen.lengths for side in there)]
    if not there or not names:
        return None
    size, unit = unit_of(max(side.data.seen.seconds for side in there))
    said: dict[Side, list[str]] = {}
    with sheet(len(names)) as (figure, panels):
        for name, axes in zip(names, np.atleast_1d(panels), strict=True):
            for side, line in styles(there):
                if name not in side.data.seen.lengths:
                    continue
                seen = curves.windows(side.data.seen, curves.window_for(side.data.seen, requests=20))
                values = seen.mean(name)
                axes.plot(*_steps(seen, values, size), label=side.label, **_dotted(line, values))
                words = said.setdefault(side, [f"windows of {time_text(seen.window_s)}"])
                if np.isfinite(values).any():
                    ends = f"{number(np.nanmin(values))} to {number(np.nanmax(values))}"
                    words.append(f"{COLUMNS[name]} {ends} tokens")
            axes.set(title=f"Mean {COLUMNS[name]}", ylabel="tokens")
            from_zero(axes)
            count_axis(axes.yaxis)
        axes.set_xlabel(unit)
        if len(sides) > 1:
            legend(axes)
    alt = "Mean input and mean output of the requests of each window, over time."
    return Drawing("Mean lengths over time", figure, alt, by_side(sides, lambda side: sentence(said.get(side, []))))


def scatter(sides: Sides) -> Drawing | None:
    """Rates and mean lengths of windows of three seconds (Fig. 19)."""
    there = [side for side in sides if side.data.rows and side.data.seen.seconds >= 10 * SCATTER_S]
    names = [name for name in COLUMNS if all(name in side.data.seen.lengths for side in there)]
    if not there or not names:
        return None
    said: dict[Side, list[str]] = {}
    with sheet(len(names)) as (figure, panels):
        for name, axes in zip(names, np.atleast_1d(panels), strict=True):
            for side, line in styles(there):
                seen = curves.windows(side.data.seen, SCATTER_S)
                some = seen.sums["requests"] > 0
                x, y = seen.rate_rps[some], seen.mean(name)[some]
                rho = _rank_correlation(x, y)
                words = said.setdefault(side, [f"windows of {time_text(seen.window_s)}"])
                if len(words) == 1:
                    words.append(f"CV of rates {number(_cv(seen.rate_rps))}")
                words.append(f"rank correlation of rate and mean {COLUMNS[name]} {number(rho)}")
                every = -(-len(x) * len(sides) // MOST_DOTS)
                dots = line.points(markersize=2.5, alpha=0.45, markeredgewidth=0, rasterized=True)
                if side is not sides[0]:
                    dots |= {"markersize": 3.5, "alpha": 0.7, "markeredgewidth": 0.6, "markerfacecolor": "none"}
                axes.plot(x[::every], y[::every], label=side.label, **dots)
            log_axis(axes, "y")
            axes.set(ylabel=f"mean {COLUMNS[name]}, tokens")
        np.atleast_1d(panels)[0].set_title("Rates and mean lengths in short windows")
        axes.set_xlabel("requests/s")
        if len(sides) > 1:
            legend(axes, markerscale=1.6)
    return Drawing(
        "Rates and mean lengths in short windows",
        figure,
        "Scatter plots: each dot is a window, its rate across and the mean length of its requests upwards.",
        by_side(sides, lambda side: sentence(said.get(side, []))),
    )


def _cv(values: curves.Floats) -> float:
    return float(values.std() / values.mean()) if values.mean() else float("nan")


def _rank_correlation(x: curves.Floats, y: curves.Floats) -> float:
    a, b = midranks(x), midranks(y)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else float("nan")
