"""Pictures of studies with matplotlib: distributions, convergence, fans, tornadoes, planes of effects, decisions.

Every function takes plain arrays and gives a figure; the words for those who do not see it are in
`servegen_gpu.reporting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.plotting.drawing import count_axis, share_axis, unit_of
from servegen_gpu.plotting.style import BAND, GREY, LINES, PALE, legend, sheet
from servegen_gpu.plotting.words import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MAIN, OTHER = LINES[2], LINES[1]
ROW_IN = 0.3
"""Height of a row of bars."""
LONGEST_NAME = 30


class Level(NamedTuple):
    """A value with its name and the ends of its interval; infinite where there is none."""

    name: str
    value: float
    low: float
    high: float


def distribution(values: Floats, levels: Sequence[Level], label: str) -> Figure:
    """Histogram of replicas, float64[n], with quantiles and their intervals."""
    with sheet() as (figure, axes):
        edges = _edges(values)
        axes.hist(values, bins=edges, color=PALE, edgecolor=GREY, linewidth=0.6)
        for line, level in zip(LINES[1:], levels, strict=False):
            low, high = max(level.low, edges[0]), min(level.high, edges[-1])
            axes.axvspan(low, high, color=line.color, alpha=BAND, linewidth=0)
            axes.axvline(level.value, label=f"{level.name}: {number(level.value)}", **line.curve())
        axes.set(xlabel=label, ylabel="replicas")
        axes.yaxis.get_major_locator().set_params(integer=True)
        count_axis(axes.xaxis)
        _room_for_legend(axes)
        legend(axes, loc="upper right")
    return figure


def _edges(values: Floats) -> Floats:
    """Edges of equally wide bins: as many as the spread and number of values carry, 5 to 50."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.array([low - 0.5, low + 0.5])
    upper, lower = np.quantile(values, (0.75, 0.25))
    width = float(2 * (upper - lower) / len(values) ** (1 / 3)) or (high - low) / 10
    return np.linspace(low, high, min(max(int(np.ceil((high - low) / width)), 5), 50) + 1)


def convergence(units: Floats, mean: Floats, half_width: Floats, label: str, unit: str) -> Figure:
    """Running mean with its interval, over the number of replicas or draws, float64[n] each."""
    with sheet() as (figure, axes):
        band = f"interval, now ± {number(half_width[-1])}"
        axes.fill_between(units, mean - half_width, mean + half_width, color=MAIN.color, alpha=BAND, label=band)
        axes.plot(units, mean, label=f"mean, now {number(mean[-1])}", **MAIN.curve(linestyle="solid"))
        # the first few intervals are so wide that they would hide all others
        settled = slice(min(len(mean) // 20, len(mean) - 1), None)
        low, high = float((mean - half_width)[settled].min()), float((mean + half_width)[settled].max())
        if high > low:
            axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
        count_axis(axes.yaxis)
        axes.set(xlabel=unit, ylabel=f"mean of {label}" if len(label) < 34 else f"mean of\n{label}")
        legend(axes, loc="upper right")
    return figure


def fan(time_s: NDArray[Any], quantiles: Mapping[float, NDArray[Any]], label: str) -> Figure:
    """Quantiles over time: pairs around the median as bands that darken inwards.

    Parameters
    ----------
    time_s : float64[n]
    quantiles : mapping from levels (0 to 1) to float64[n]
    label : str
        Of what.
    """
    levels = sorted(quantiles)
    pairs = [(low, high) for low, high in zip(levels, reversed(levels), strict=True) if low < high]
    with sheet() as (figure, axes):
        unit_s, unit = unit_of(float(time_s[-1]))
        at = time_s / unit_s
        for low, high in pairs:
            band = {
                "color": MAIN.color,
                "alpha": 0.22,
                "linewidth": 0.5,
                "label": f"{100 * low:.4g} to {100 * high:.4g} % quantile",
            }
            axes.fill_between(at, quantiles[low], quantiles[high], **band)
        if 0.5 in quantiles:
            axes.plot(at, quantiles[0.5], label="median", **LINES[0].curve(linewidth=1.1))
        axes.set(xlabel=f"time, {unit}", ylabel=label)
        count_axis(axes.yaxis)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        _room_for_legend(axes)
        legend(axes, loc="upper right", ncols=2)
    return figure


def shares(names: Sequence[str], parameters: Floats) -> Figure:
    """How much of the variance of each metric is that of parameters, float64[n, 3]: shares, and ends of intervals."""
    value, low, high = parameters.T
    with _rows(len(names)) as (figure, axes):
        at = np.arange(len(names))
        axes.barh(at, value, color=MAIN.color, label="parameters")
        axes.barh(at, 1 - value, left=value, color="white", hatch="///", edgecolor=GREY, label="chance in replicas")
        _whiskers(axes, at, value, low, high)
        _named(axes, names)
        axes.set(xlabel="share of the variance", xlim=(0, 1))
        share_axis(axes.xaxis)
        _legend_below(figure, axes)
    return figure


def tornado(names: Sequence[str], low: Floats, high: Floats, base: float, label: str) -> Figure:
    """What a metric becomes at either end of each parameter.

    Parameters
    ----------
    names : sequence of str
        Parameters, the first on top.
    low : float64[n]
        The metric where the parameter is at its lower end.
    high : float64[n, 3]
        The metric where it is at its upper end, and the ends of an interval.
    base : float
        The metric where none is changed.
    label : str
        Of the metric.
    """
    with _rows(len(names), ROW_IN * 1.3) as (figure, axes):
        at = np.arange(len(names))
        for value, name, fill in (
            (low, "lower end", {"color": "white", "hatch": "///"}),
            (high[:, 0], "upper end", {"color": MAIN.color}),
        ):
            axes.barh(at, value - base, left=base, height=0.62, linewidth=0.8, edgecolor=GREY, label=name, **fill)
        _whiskers(axes, at, *high.T)
        axes.axvline(base, color="black", linewidth=1)
        _named(axes, names)
        axes.set(xlabel=label)
        count_axis(axes.xaxis)
        _legend_below(figure, axes)
    return figure


def morris_plane(mu_star: Sequence[Level], sigma: Floats, label: str) -> Figure:
    """Mean size of elementary effects, with intervals, against their spread."""
    ends = np.array([*(end for level in mu_star for end in (level.value, level.high)), *sigma])
    largest = float(ends[np.isfinite(ends)].max(initial=0))  # of figures that may be infinite nothing is known
    with sheet(height_in=3.0 + 0.2 * ((len(mu_star) + 2) // 2)) as (figure, axes):
        most = largest * 1.15 or 1.0
        axes.plot([0, most], [0, most], color=GREY, linewidth=1, linestyle="dotted", label="sigma = mu*")
        for at, level in enumerate(mu_star):
            line = LINES[at % len(LINES)]
            value, low, high = np.array([level[1:]]).T
            _whiskers(axes, sigma[at : at + 1], value, low, high, line.color)
            axes.plot(level.value, sigma[at], label=_short(level.name), **line.points(markersize=6))
        axes.set(xlabel=f"mu*: mean size of effects on\n{label}", ylabel="sigma: spread of effects")
        count_axis(axes.xaxis)
        count_axis(axes.yaxis)
        axes.set_xlim(0, most)
        axes.set_ylim(0, most)
        _legend_below(figure, axes)
    return figure


def sobol(names: Sequence[str], first: Sequence[Level], total: Sequence[Level], label: str) -> Figure:
    """First-order and total indices of each parameter with their intervals."""
    with _rows(len(names), ROW_IN * 1.6) as (figure, axes):
        at = np.arange(len(names))
        for levels, shift, name, fill in (
            (first, -0.2, "first order: alone", {"color": MAIN.color}),
            (total, 0.2, "total: with interactions", {"color": "white", "hatch": "///"}),
        ):
            value = np.array([level.value for level in levels])
            axes.barh(at + shift, value, height=0.38, edgecolor=GREY, linewidth=0.8, label=name, **fill)
            _whiskers(axes, at + shift, value, *np.array([level[2:] for level in levels]).T)
        _named(axes, names)
        axes.set(xlabel=f"share of the variance of\n{label}")
        share_axis(axes.xaxis)
        axes.axvline(0, color="black", linewidth=0.8)
        _legend_below(figure, axes)
    return figure


def needed_over_time(
    edges_s: Floats, median: Floats, high: Floats, naive: Floats | None, lines: Mapping[str, float], band: str
) -> Figure:
    """Instances that are needed in each window of time.

    Parameters
    ----------
    edges_s : float64[n + 1]
    median, high : float64[n]
        Of replicas: half of them need no more, and so many as `band` says.
    naive : float64[n], optional
        As `high`, of the naive baseline.
    lines : mapping of str to float
        Levels to compare with, by name; finite.
    band : str
        What `high` is, in words.
    """
    with sheet() as (figure, axes):
        unit_s, unit = unit_of(float(edges_s[-1]))
        at = edges_s / unit_s
        if (high > median).any():
            axes.stairs(high, at, baseline=median, fill=True, color=MAIN.color, alpha=BAND, label=f"50 % to {band}")
        axes.stairs(high, at, baseline=None, label=band, **MAIN.curve(linestyle="solid"))
        if naive is not None:
            axes.stairs(naive, at, baseline=None, label=f"naive, {band}", **OTHER.curve())
        for line, (name, value) in zip((LINES[0], LINES[4], LINES[6]), lines.items(), strict=False):
            dashes = (0, (6, 3)) if line.dashes == "solid" else line.dashes
            axes.axhline(value, label=f"{name}: {number(value)}", **line.curve(linestyle=dashes, linewidth=1.2))
        axes.set(xlabel=f"time, {unit}", ylabel="instances")
        known = [float(np.nanmax(x, initial=0)) for x in (high, naive) if x is not None]
        axes.set_ylim(0, 1.6 * max(*known, *lines.values(), 1.0))
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0)
        legend(axes, loc="upper right", ncols=2)
    return figure


def chance_of_missing(
    instances: NDArray[np.int64], sides: Mapping[str, Floats], decision: int | None, accepted: float
) -> Figure:
    """Probability that so many instances miss the objective: float64[n, 3] by side, value and ends of an interval."""
    with sheet(height_in=3.4) as (figure, axes):
        for line, (name, chance) in zip((MAIN, OTHER), sides.items(), strict=False):
            value, low, high = chance.T
            axes.fill_between(instances, low, high, color=line.color, alpha=BAND, linewidth=0)
            axes.plot(instances, value, label=name, **line.curve(marker=line.marker, markersize=4))
        axes.axhline(accepted, color=GREY, linewidth=1, linestyle="dotted", label=f"accepted: {percent(accepted)}")
        if decision is not None:
            axes.axvline(decision, color="black", linewidth=1, label=f"decision: {decision:,}")
        axes.set(xlabel="instances", ylabel="probability of missing", ylim=(-0.02, 1.02))
        share_axis(axes.yaxis)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend_below(figure, axes)
    return figure


def _rows(rows: int, row_in: float = ROW_IN) -> AbstractContextManager[tuple[Figure, Any]]:
    """A sheet with room for so many rows of bars."""
    return sheet(height_in=1.3 + row_in * max(rows, 2))


def _whiskers(axes: Axes, at: Any, value: Floats, low: Floats, high: Floats, color: str = "black") -> None:
    """Intervals of bars, where they are known."""
    known = np.isfinite(value) & np.isfinite(low) & np.isfinite(high) & (high > low)
    if known.any():
        reach = np.maximum([(value - low)[known], (high - value)[known]], 0)
        axes.errorbar(value[known], at[known], xerr=reach, fmt="none", ecolor=color, capsize=3, linewidth=1)


def _named(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows, the first on top."""
    axes.set_yticks(np.arange(len(names)), [_short(name) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _short(name: str) -> str:
    return name if "\n" in name or len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _legend_below(figure: Figure, axes: Axes) -> None:
    """A legend where no bar can be."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)


def _room_for_legend(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
