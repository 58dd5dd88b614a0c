"""Requests, tokens and inter-arrival times by client and time, in a bounded number of cells.

Bins are equally long. Their length doubles where there would be too many of them, or too many clients for so many: any
cut into slabs gives the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import grown

MOST_CELLS = 1 << 20
MOST_BINS = 128
SUMS = ("requests", "input_tokens", "output_tokens", "gaps", "gap_s", "gap_s2")

Floats = NDArray[np.float64]


@dataclass(eq=False)
class ByClient:
    """What is kept of each client.

    Attributes
    ----------
    bin_s : int
        Length of a bin.
    ids : int64[clients]
        In any order.
    sums : dict of str to float64[bins, room]
        By the names of `SUMS`; gaps are those of the client, and belong to the bin in which they end. Columns past the
        number of clients are empty.
    full : bool
        Whether there were more clients than half of `MOST_CELLS`; nothing is kept then.
    """

    bin_s: int = 1
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: dict[str, Floats] = field(default_factory=dict)
    full: bool = False
    _sorted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _last_us: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def _room(self) -> int:
        return 1 << max(len(self.ids) - 1, 0).bit_length()

    def add(self, slab: Trace) -> None:
        """See the next slab; it has at least one request."""
        if self.full:
            return
        arrival_us = slab["arrival_us"]
        place = self._places(slab["client"])
        most = min(MOST_BINS, MOST_CELLS // self._room)
        if most < 2:
            self.full, self.sums = True, {}
            return
        while int(arrival_us[-1]) // (self.bin_s * 1_000_000) >= most:
            self._coarsen()
        bins = arrival_us // (self.bin_s * 1_000_000)
        first, end = int(bins[0]), int(bins[-1]) + 1
        cell = (bins - first) * self._room + place
        self._count("requests", cell, None, first, end)
        for name in ("input_tokens", "output_tokens"):
            if name in slab:
                self._count(name, cell, slab[name], first, end)
        self._add_gaps(arrival_us, place, cell, first, end)

    def _places(self, client: NDArray[np.integer]) -> NDArray[np.int64]:
        """Column of each request's client, int64[n]; new clients get one."""
        low, high = int(client.min()), int(client.max())
        if high - low <= 4 * len(client):
            there = np.flatnonzero(np.bincount(client - low)) + low
        else:
            there = distinct(client).astype(np.int64)
        new = there[~np.isin(there, self.ids, assume_unique=True)]
        if len(new):
            self.ids = np.concatenate((self.ids, new))
            self._sorted = np.argsort(self.ids)
            self._last_us = np.concatenate((self._last_us, np.full(len(new), -1)))
            self.sums = {name: _wider(grid, self._room) for name, grid in self.sums.items()}
        if high - low <= 4 * len(client):
            table = np.zeros(high - low + 1, np.int64)
            inside = self._sorted[np.searchsorted(self.ids, there, sorter=self._sorted)]
            table[there - low] = inside
            return np.asarray(table[client - low])
        return self._sorted[np.searchsorted(self.ids, client, sorter=self._sorted)]

    def _count(
        self, name: str, cell: NDArray[np.int64], weights: NDArray[np.generic] | None, first: int, end: int
    ) -> None:
        grid = self.sums[name] = grown(self.sums.get(name, np.zeros((0, self._room))), end)
        found = np.bincount(cell, weights, (end - first) * self._room)
        grid[first:end] += found.reshape(end - first, self._room)

    def _add_gaps(
        self, arrival_us: NDArray[np.int64], place: NDArray[np.int64], cell: NDArray[np.int64], first: int, end: int
    ) -> None:
        narrow = place.astype(np.uint16) if self._room <= 1 << 16 else place  # NumPy sorts 16 bits by radix
        order = np.argsort(narrow, kind="stable")
        of, at_us = place[order], arrival_us[order]
        begins = np.flatnonzero(np.diff(of, prepend=-1))
        before = np.concatenate((at_us[:1], at_us[:-1]))
        before[begins] = self._last_us[of[begins]]
        self._last_us[of[begins]] = at_us[np.append(begins[1:], len(of)) - 1]
        known = before >= 0
        gap_s, cell = (at_us[known] - before[known]) / 1e6, cell[order][known]
        self._count("gaps", cell, None, first, end)
        self._count("gap_s", cell, gap_s, first, end)
        self._count("gap_s2", cell, gap_s**2, first, end)

    def _coarsen(self) -> None:
        """Go on with bins twice as long."""
        self.bin_s *= 2
        for name, grid in self.sums.items():
            even = grid if len(grid) % 2 == 0 else np.concatenate((grid, np.zeros((1, grid.shape[1]))))
            self.sums[name] = even[0::2] + even[1::2]

    def totals(self) -> dict[str, Floats]:
        """Sums over time by client, float64[clients]."""
        return {name: grid.sum(axis=0)[: len(self.ids)] for name, grid in self.sums.items()}

    def largest(self, count: int) -> NDArray[np.int64]:
        """Columns of the clients with most requests, the largest first; equal ones by id."""
        if self.full or not self.sums:
            return np.zeros(0, np.int64)
        return np.lexsort((self.ids, -self.totals()["requests"]))[:count]


def _wider(grid: Floats, room: int) -> Floats:
    """The grid with room for more clients."""
    return np.concatenate((grid, np.zeros((len(grid), room - grid.shape[1]))), axis=1)
