"""What the log's own chance allows: how far its halves are apart, and resamples of its blocks.

Blocks of time are drawn with replacement, as many as cover the log: of five minutes, of a twelfth of a shorter log, of
a 72nd of a longer one up to an hour. A figure's interval is where 90 % of its resamples lie. A distance's floor is the
larger of that of the two halves and of what 95 % of pairs of resamples do not exceed; these are of the rows that are
kept (see `seen`).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.distances import COLUMNS, Distances, in_bins
from servegen_gpu.comparing.figures import Figures, top_shares
from servegen_gpu.comparing.histograms import (
    PAIR_SIDE,
    PairEnergy,
    Points,
    box_of,
    cropped,
    ks,
    log_energy,
    log_spread,
    pair_bin,
)
from servegen_gpu.comparing.histograms import points_of as points
from servegen_gpu.comparing.lengths import ITEMS
from servegen_gpu.comparing.measures import Largest, Summed
from servegen_gpu.comparing.seen import reason_share
from servegen_gpu.comparing.talks import turn_gaps_ms
from servegen_gpu.law.address import derive_key
from servegen_gpu.law.philox import philox4x32

RESAMPLES = 400
SEED = 20_260_101
BLOCK_S = 300
LONGEST_BLOCK_S = 3600
FEWEST_BLOCKS = 12
MOST_BLOCKS = 48
"""Of floors of distances: more are put together."""
BINS = 512
INSIDE = (0.05, 0.95)


class Interval(NamedTuple):
    """Where a figure of the log lies by chance, and what its halves have; NaN where that cannot be said."""

    low: float
    high: float
    halves: tuple[float, float]


def draws(count: int, below: int, purpose: int) -> NDArray[np.int64]:
    """Whole numbers from 0 on below `below`, int64[count], the same on every call."""
    number = np.arange((count + 3) // 4, dtype=np.uint64)
    zero = np.zeros(1, np.uint64)
    words = philox4x32(np, (number, zero + np.uint64(purpose), zero, zero), derive_key(SEED))
    drawn = np.stack(words, axis=-1).ravel()[:count]
    return np.asarray((drawn.astype(np.float64) * (below / 2**32)).astype(np.int64))


class Floor:
    """The log's own chance.

    Parameters
    ----------
    log : Figures
    """

    def __init__(self, log: Figures) -> None:
        self.log = log
        self.cells = len(log.seen.cells["requests"])
        length_s = self.cells * log.seen.cell_s
        wanted_s = min(length_s / FEWEST_BLOCKS, max(BLOCK_S, min(length_s / 72, LONGEST_BLOCK_S)))
        self.block = max(int(wanted_s / log.seen.cell_s), 1)
        self.blocks = -(-self.cells // self.block)

    @property
    def block_s(self) -> int:
        """Length of a block, seconds."""
        return self.block * self.log.seen.cell_s

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First cells of the blocks of every resample, int64[resamples, blocks]."""
        return draws(RESAMPLES * self.blocks, self.cells, 0).reshape(RESAMPLES, self.blocks)

    def interval(self, name: str) -> Interval:
        """Of a figure by its name."""
        value = self.log[name]
        if name == "requests":
            rate = self.interval("rate_rps")
            scale = value / self.log["rate_rps"] if self.log["rate_rps"] else 1.0
            low, high, halves = rate.low * scale, rate.high * scale, (rate.halves[0] * scale, rate.halves[1] * scale)
        elif name in self.log.measures:
            low, high, halves = self._of_blocks(name)
        else:
            halves = self._halves.get(name, (np.nan, np.nan))
            low, high = min(halves), max(halves)
        return Interval(float(np.minimum(low, value)), float(np.maximum(high, value)), halves)

    def _of_blocks(self, name: str) -> Interval:
        measure = self.log.measures[name]
        halves = (np.nan, np.nan)
        if isinstance(measure, Summed):
            features, middle = measure.features(), self.cells // 2
            parts = features[:, :middle].sum(axis=1), features[:, middle:].sum(axis=1)
            halves = float(measure.combine(parts[0])), float(measure.combine(parts[1]))
        elif isinstance(measure, Largest):
            values, middle = measure.values(), self.cells // 2
            halves = float(values[:middle].max(initial=0)), float(values[middle:].max(initial=0))
        if self.blocks < FEWEST_BLOCKS:
            return Interval(np.nan, np.nan, halves)
        found = measure.resampled(self.starts, self.block)
        found = found[np.isfinite(found)]
        if len(found) < RESAMPLES / 2:
            return Interval(np.nan, np.nan, halves)
        low, high = (float(q) for q in np.quantile(found, INSIDE))
        if isinstance(measure, Largest) and low > 0:
            high = max(high, self.log[name] ** 2 / low)  # a resample has no more than the log, another day may
        return Interval(low, high, halves)

    @cached_property
    def _halves(self) -> dict[str, tuple[float, float]]:
        """What the halves have of figures that are no sums over time."""
        kept = self.log.seen.kept
        if "client" not in kept:
            return {}
        second = kept["arrival_us"] >= self.log.seen.end_us / 2
        first, last = (top_shares(np.unique(kept["client"][rows], return_counts=True)[1]) for rows in (~second, second))
        return {name: (first[name], last[name]) for name in first if name in last}

    def distances(self) -> dict[str, float]:
        """Floor of every distance that is known, by name."""
        found: dict[str, float] = {}
        seen = self.log.seen
        for name, (values, at_us) in self._columns().items():
            found |= self._floor_of(name, values, at_us)
        if seen.pairs is not None:
            found["pair_energy"] = self._pair_floor()
        return found

    def _columns(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Values and times of kept rows by what they are called in distances."""
        kept = self.log.seen.kept
        at_us = kept["arrival_us"]
        found = {
            name: (kept[COLUMNS[name]].astype(np.int64), at_us) for name in ("input", "output") if COLUMNS[name] in kept
        }
        if {"reason_tokens", "output_tokens"} <= set(kept):
            share = reason_share(kept)
            found["reason"] = (share[share >= 0], at_us[share >= 0])
        follows = np.flatnonzero(np.diff(kept["row"]) == 1) + 1
        tick = self.log.tick_us
        found["gap"] = ((at_us[follows] - at_us[follows - 1] + tick // 2) // tick, at_us[follows])
        found["turn_gap"] = turn_gaps_ms(self.log.seen)
        for name in (*ITEMS, *(f"{item}_count" for item in ITEMS)):
            if items := self.log.seen.items(COLUMNS[name]):
                found[name] = (items["value"].astype(np.int64), items["arrival_us"])
        return found

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How often blocks are drawn in two times so many resamples, float64[resamples, blocks] each."""
        count = min(self.blocks, MOST_BLOCKS)
        drawn = draws(2 * RESAMPLES * count, count, 1).reshape(2, RESAMPLES, count)
        first, second = ((drawn[side, :, :, None] == np.arange(count)).sum(axis=1) for side in (0, 1))
        return first.astype(np.float64), second.astype(np.float64)

    def _block_of(self, at_us: NDArray[np.int64]) -> NDArray[np.int64]:
        count = min(self.blocks, MOST_BLOCKS)
        return np.minimum(at_us * count // max(self.log.seen.end_us, 1), count - 1)

    def _floor_of(self, name: str, values: NDArray[np.int64], at_us: NDArray[np.int64]) -> dict[str, float]:
        second = at_us >= self.log.seen.end_us / 2
        halves: list[Points] = [points(values[~second]), points(values[second])]
        floors = {f"{name}_ks": [ks(*halves)], f"{name}_energy": [log_energy(*halves)]}
        if self.blocks >= FEWEST_BLOCKS and len(values):
            which, edges = in_bins(values, BINS)
            count = self._weights[0].shape[1]
            mass = np.bincount(self._block_of(at_us) * len(edges) + which, minlength=count * len(edges))
            table = mass.reshape(count, len(edges)).astype(np.float64)
            one, two = (np.cumsum(weights @ table, axis=1) for weights in self._weights)
            with np.errstate(invalid="ignore"):
                apart = one / one[:, -1:] - two / two[:, -1:]
            width = np.diff(np.log1p(edges.astype(np.float64))) / log_spread(points(values))
            floors[f"{name}_ks"].append(float(np.nanquantile(np.abs(apart).max(axis=1), INSIDE[1])))
            floors[f"{name}_energy"].append(float(np.nanquantile(2 * apart[:, :-1] ** 2 @ width, INSIDE[1])))
        return {key: float(np.fmax.reduce(found)) for key, found in floors.items()}

    def _pair_floor(self) -> float:
        """Of inputs and outputs together: energies of resamples from distances between blocks."""
        kept = self.log.seen.kept
        box = box_of(self.log.seen.pairs) if self.log.seen.pairs is not None else (1, 1)
        energy = PairEnergy(Distances(self.log).spread, box)
        pair = pair_bin(kept["input_tokens"], kept["output_tokens"])

        def mass(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
            return cropped(np.bincount(pair[rows], minlength=PAIR_SIDE**2), box)

        second = kept["arrival_us"] >= self.log.seen.end_us / 2
        found = [energy.distance(mass(~second), mass(second))] if second.any() and not second.all() else [np.nan]
        if self.blocks >= FEWEST_BLOCKS:
            block = self._block_of(kept["arrival_us"])
            masses = [mass(block == at) for at in range(self._weights[0].shape[1])]
            flat = np.stack([each.ravel() for each in masses]).astype(np.float64)
            between = flat @ np.stack([energy.potential(each).ravel() for each in masses]).T
            sizes = flat.sum(axis=1)
            one, two = (weights / np.maximum(weights @ sizes, 1)[:, None] for weights in self._weights)
            apart = one - two
            found.append(float(np.quantile(-np.einsum("ri,ij,rj->r", apart, between, apart), INSIDE[1])))
        return float(np.fmax.reduce(found))
