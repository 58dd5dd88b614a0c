"""How far the distributions of two traces are apart.

Distances of lengths are those of all requests; of inputs and outputs together, of all requests in bins of a sixteenth
of an octave. Inter-arrival times are counted in ticks of the coarser time stamps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.figures import About, Figures
from servegen_gpu.comparing.histograms import (
    PairEnergy,
    Points,
    box_of,
    cropped,
    gap_of_bin,
    ks,
    log_energy,
    log_spread,
    points_of,
)
from servegen_gpu.comparing.lengths import ITEMS
from servegen_gpu.comparing.talks import turn_gaps_ms
from servegen_gpu.comparing.ticks import on_ticks

COLUMNS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "reason": "reason_share",
    **{item: f"{item}_tokens" for item in ITEMS},
    **{f"{item}_count": f"{item}_tokens per request" for item in ITEMS},
}
"""Distributions by what they are called in figures."""


def _about() -> Iterator[tuple[str, About]]:
    named = {"input": "inputs", "output": "outputs", "gap": "inter-arrival times"}
    for name, label in named.items():
        group = "arrivals" if name == "gap" else "lengths"
        yield f"{name}_ks", About(f"KS of {label}", "", group, "ks")
        yield f"{name}_energy", About(f"energy distance of {label}", "", group, "energy")
    yield "pair_energy", About("energy distance of inputs and outputs together", "", "lengths", "energy")
    yield "reason_ks", About("KS of shares of reasoning", "", "reasoning", "ks")
    yield "turn_gap_ks", About("KS of times between turns", "", "conversations", "ks")
    for item in ITEMS:
        yield f"{item}_ks", About(f"KS of tokens of {item}s", "", "items", "ks")
        yield f"{item}_count_ks", About(f"KS of numbers of {item}s", "", "items", "ks")


DISTANCES = dict(_about())
"""Every distance by its name."""


class Distances:
    """Distances of other traces from one.

    Parameters
    ----------
    log : Figures
    """

    def __init__(self, log: Figures) -> None:
        self.log = log
        lengths = log.seen.lengths
        self.points = {name: lengths[column].points() for name, column in COLUMNS.items() if column in lengths}
        self.turn_gaps = points_of(turn_gaps_ms(log.seen)[0])

    def of(self, other: Figures) -> dict[str, float]:
        """Distances by name, of what both have; NaN where one has no value."""
        found: dict[str, float] = {}
        lengths = other.seen.lengths
        for name, points in self.points.items():
            if COLUMNS[name] in lengths:
                theirs = lengths[COLUMNS[name]].points()
                found[f"{name}_ks"] = ks(points, theirs)
                found[f"{name}_energy"] = log_energy(points, theirs)
        gaps = [gaps_of(figures, self.tick_us(other)) for figures in (self.log, other)]
        found |= {"gap_ks": ks(*gaps), "gap_energy": log_energy(*gaps)}
        ours, theirs_ = self.log.seen.pairs, other.seen.pairs
        if ours is not None and theirs_ is not None:
            box = box_of(ours, theirs_)
            energy = PairEnergy(self.spread, box)
            found["pair_energy"] = energy.distance(cropped(ours, box), cropped(theirs_, box))
        if len(self.turn_gaps[0]) and other.seen.talks:
            found["turn_gap_ks"] = ks(self.turn_gaps, points_of(turn_gaps_ms(other.seen)[0]))
        return {name: found[name] for name in DISTANCES if name in found}

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviations of ln(1 + tokens) of inputs and outputs."""
        return log_spread(self.points["input"]), log_spread(self.points["output"])

    def tick_us(self, other: Figures) -> int:
        """The coarser ticks of the two."""
        return max(self.log.tick_us, other.tick_us)


def gaps_of(figures: Figures, tick_us: int) -> Points:
    """Inter-arrival times of a trace in ticks."""
    bins, counts = figures.seen.gaps.points()
    return on_ticks(gap_of_bin(bins), counts, tick_us, figures.tick_us)


def in_bins(values: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bin of each value, int64[n], and the largest value of each: about as many values in each of `most` at most."""
    edges = np.unique(values)
    if len(edges) > most:
        edges = np.unique(np.quantile(values, np.arange(1, most + 1) / most, method="higher"))
    return np.searchsorted(edges, values), edges
