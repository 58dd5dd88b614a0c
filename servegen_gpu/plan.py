"""From a packed workload to slabs: what a backend samples at once.

The time axis is cut into *slices*: a window, or equal parts of its operational time (a power of two of them) where
it expects more than `SLICE_REQUESTS`. Slices do not depend on the memory budget, so a shard, which takes every n-th
slice, is the same set of rows everywhere. A *slab* is as many slices as the budget allows: whole windows together, or
a run of slices of one large window.

Axes: windows (of the packed workload), cells (of a slab: client by client inside window by window).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import MAX_WINDOW
from servegen_gpu.law.position import clock_us
from servegen_gpu.law.tables import find_bin
from servegen_gpu.packed import PackedWorkload

SLICE_REQUESTS = 1 << 23
SLAB_REQUESTS = 1 << 20
"""A slab stops taking windows here even if memory would allow more: its arrays stay small enough to be used again."""

SLAB_CELLS = 1 << 20


@dataclass(frozen=True, eq=False)
class Slab:
    """Work for one call of a backend.

    Attributes
    ----------
    windows : int64[n]
        Indices into the packed windows, ascending.
    from_us, to_us : int
        Requests outside of this part of the absolute time axis are dropped.
    expected : float
        Requests that will be alive at once while the slab is sampled.
    surveyed : bool
        True if the slab is a part of a window too large to be sampled whole: a survey finds its requests.
    """

    windows: NDArray[np.int64]
    from_us: int
    to_us: int
    expected: float
    surveyed: bool = False


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells with a positive expected count, window by window, clients ascending.

    Attributes
    ----------
    client, profile, row, window : int64[cells]
        Index of the client, of its profile, of the profile's row, and the absolute window number.
    window_index : int64[cells]
        Index into the packed windows.
    expected_q32 : int64[cells]
        Expected requests in 32.32 fixed point, so that counts are drawn in integers.
    """

    client: NDArray[np.int64]
    profile: NDArray[np.int64]
    row: NDArray[np.int64]
    window: NDArray[np.int64]
    window_index: NDArray[np.int64]
    expected_q32: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.client)

    @property
    def number(self) -> NDArray[np.uint64]:
        """The window in addresses, uint64[cells]: windows before the time axis begins are counted from the last."""
        return number_of(self.window)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Cells:
        """The cells at `index`."""
        return Cells(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def number_of(window: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Windows as addresses have them, uint64[n]: 24 bits."""
    return (window % MAX_WINDOW).astype(np.uint64)


def cells_of(packed: PackedWorkload, windows: NDArray[np.int64]) -> Cells:
    """The cells of some windows."""
    rows = packed.row[windows]
    scale = packed.window_scale[windows] * packed.window_length_s[windows]
    mean = packed.rate_rps[packed.profile[None, :], rows[:, None]] * packed.rate_factor * scale[:, None]
    expected_q32 = (mean * 2.0**32).astype(np.int64)
    at, client = np.nonzero(expected_q32)
    return Cells(
        client=client,
        profile=packed.profile[client],
        row=rows[at],
        window=packed.first_window + windows[at],
        window_index=windows[at],
        expected_q32=expected_q32[at, client],
    )


def plan(
    packed: PackedWorkload,
    max_requests: int,
    shard: tuple[int, int] = (0, 1),
    slab_requests: int | None = None,
) -> Iterator[Slab]:
    """Slabs in order of time.

    Parameters
    ----------
    packed : PackedWorkload
    max_requests : int
        How many requests may be alive at once.
    shard : tuple of int
        (k, n): every n-th slice, beginning with slice k.
    slab_requests : int, optional
        Where a slab stops taking windows even if memory would allow more; `SLAB_REQUESTS` by default.
    """
    most = min(slab_requests or SLAB_REQUESTS, max_requests)
    clients_per_profile = np.bincount(packed.profile, minlength=len(packed.rate_rps))
    row_cells = ((packed.rate_rps > 0) * clients_per_profile[:, None]).sum(axis=0)
    group: list[int] = []
    group_requests, group_cells = 0.0, 0
    slices_before = 0

    def whole() -> Slab:
        return Slab(np.array(group, np.int64), packed.start_us, packed.end_us, group_requests)

    for w, (expected, cells) in enumerate(zip(packed.expected, row_cells[packed.row], strict=True)):
        parts = slices_of(float(expected))
        mine = [s for s in range(parts) if (slices_before + s) % shard[1] == shard[0]]
        slices_before += parts
        if not mine or expected <= 0:
            continue
        alone = parts > 1 or expected > max_requests
        room = group_requests + expected <= most and group_cells + cells <= SLAB_CELLS
        room = room and is_after_start(packed, w) == is_after_start(packed, group[0] if group else w)
        if group and (alone or not room):
            yield whole()
            group, group_requests, group_cells = [], 0.0, 0
        if alone:
            yield from _parts_of_window(packed, w, parts, mine, max_requests)
        else:
            group.append(w)
            group_requests += float(expected)
            group_cells += int(cells)
    if group:
        yield whole()


def is_after_start(packed: PackedWorkload, w: int) -> bool:
    """Whether a window ends after the trace's start; those before it are there for conversations that go on."""
    return (packed.first_window + w + 1) * packed.window_us > packed.trace_start_us


def slices_of(expected: float) -> int:
    """How many slices a window has: the least power of two that keeps them within `SLICE_REQUESTS`."""
    mantissa, exponent = math.frexp(expected / SLICE_REQUESTS)
    return 1 << max(0, exponent - 1 if mantissa == 0.5 else exponent)


def _parts_of_window(packed: PackedWorkload, w: int, parts: int, mine: list[int], max_requests: int) -> Iterator[Slab]:
    """Slabs of one large window: whole, or runs of its slices."""
    expected = float(packed.expected[w])
    windows = np.array([w], np.int64)
    finer = 1
    while expected / (parts * finer) > max_requests:
        finer *= 2
    per_piece = expected / (parts * finer)
    edges = slice_edges_us(packed, w, parts * finer)
    # a window that fits is sampled whole and cut, unless so many cuts are wanted that finding them pays
    runs = _runs([s * finer + i for s in mine for i in range(finer)])
    surveyed = expected > max_requests or len(runs) > 3
    if surveyed:
        most = max(1, int(max_requests / per_piece))
        runs = [(a, min(a + most, b)) for begin, b in runs for a in range(begin, b, most)]
    for a, b in runs:
        from_us, to_us = max(int(edges[a]), packed.start_us), min(int(edges[b]), packed.end_us)
        if from_us < to_us:
            yield Slab(windows, from_us, to_us, per_piece * (b - a) if surveyed else expected, surveyed)


def _runs(pieces: list[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as half-open ranges."""
    chosen = set(pieces)
    begins = [p for p in pieces if p - 1 not in chosen]
    ends = [p + 1 for p in pieces if p + 1 not in chosen]
    return list(zip(begins, ends, strict=True))


def slice_edges_us(packed: PackedWorkload, w: int, parts: int) -> NDArray[np.int64]:
    """Where equal parts of a window's operational time begin and end on the absolute time axis, int64[parts + 1]."""
    begin = (packed.first_window + w) * packed.window_us
    x = (np.arange(1, parts, dtype=np.uint64) << np.uint64(32)) // np.uint64(parts)
    table = np.full(len(x), packed.clock.table[w])
    s = find_bin(np, x.astype(np.uint32), table, packed.clock.segments)
    inner = clock_us(np, x, packed.clock.first[s], packed.clock.start_us[s], packed.clock.slope[s])
    return np.concatenate(([begin], begin + inner.astype(np.int64), [begin + packed.window_us]))


def share_before(packed: PackedWorkload, w: int, time_us: int) -> float:
    """Share of a window's requests that is expected before an instant of the absolute time axis."""
    clock, segments = packed.clock, packed.clock.segments
    at = time_us - (packed.first_window + w) * packed.window_us
    guide = segments.guide.reshape(-1, (1 << segments.guide_bits) + 1)[clock.table[w]]
    s = int(guide[0] + np.searchsorted(clock.start_us[guide[0] : guide[-1] + 1], max(at, 0), side="right")) - 1
    if s < guide[0]:
        return 0.0
    first, past = int(clock.first[s]), int(segments.thresholds[s]) + 1
    words = (at - int(clock.start_us[s])) * 2.0**32 / float(clock.slope[s])
    return min(first + words, past) * 2.0**-32
