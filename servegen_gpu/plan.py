"""From a packed workload to slabs: what a backend samples at once; and to shares of a trace.

A *slab* is as many windows as the budget allows, or a part of one large window: equal parts of its operational time,
a power of two of them. A *share* is a contiguous part of the trace in which about as many requests are expected as in
every other. Where shares begin follows in integers from the workload alone, so they fit together everywhere. Parts and
shares of windows are cut by the clock of the first group; what is in them goes by arrival.

Axes: windows (of the packed workload), cells (of a slab: client by client inside window by window).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import ALONE, MAX_WINDOW, STREAM_SHIFT
from servegen_gpu.law.position import clock_us
from servegen_gpu.law.tables import find_bin
from servegen_gpu.packed import PackedWorkload

SLAB_REQUESTS = 1 << 20
"""A slab stops taking windows here even if memory would allow more: its arrays stay small enough to be used again."""

PART_REQUESTS = 1 << 22
"""A window that memory does not allow whole is cut into parts of no more than this; rows of two are held at once."""

SLAB_CELLS = 1 << 18


@dataclass(frozen=True, eq=False)
class Slab:
    """Work for one call of a backend.

    Attributes
    ----------
    windows : int64[n]
        Indices into the packed windows, ascending.
    from_us, to_us : int
        Requests outside of this part of the absolute time axis are dropped; it is inside the windows.
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
    stream : int
    """

    client: NDArray[np.int64]
    profile: NDArray[np.int64]
    row: NDArray[np.int64]
    window: NDArray[np.int64]
    window_index: NDArray[np.int64]
    expected_q32: NDArray[np.int64]
    stream: int = ALONE

    def __len__(self) -> int:
        return len(self.client)

    @property
    def number(self) -> NDArray[np.uint64]:
        """The stream and the window in addresses, uint64[cells]: windows before the axis begins count from the last."""
        return number_of(self.window, self.stream)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Cells:
        """The cells at `index`."""
        arrays = {name: value[index] for name, value in vars(self).items() if name != "stream"}
        return replace(self, **arrays)


def number_of(window: NDArray[np.int64], stream: int) -> NDArray[np.uint64]:
    """Windows of a stream as addresses have them, uint64[n]."""
    return (window % MAX_WINDOW).astype(np.uint64) | np.uint64(stream << STREAM_SHIFT)


def cells_of(packed: PackedWorkload, windows: NDArray[np.int64]) -> Cells:
    """The cells of some windows."""
    rows = packed.row[windows]
    scale = (packed.window_scale[:, windows] * packed.window_length_s[windows]).T
    if scale.shape[1] > 1:
        scale = scale[:, packed.group]
    mean = packed.rate_rps[packed.profile[None, :], rows[:, None]] * packed.rate_factor * scale
    expected_q32 = (mean * 2.0**32).astype(np.int64)
    at, client = np.nonzero(expected_q32)
    return Cells(
        client=client,
        profile=packed.profile[client],
        row=rows[at],
        window=packed.first_window + windows[at],
        window_index=windows[at],
        expected_q32=expected_q32[at, client],
        stream=packed.stream,
    )


def clock_tables(packed: PackedWorkload, cells: Cells) -> NDArray[np.int64]:
    """The clock table that each cell follows, int64[cells]."""
    group = packed.group[cells.client] if len(packed.clock.table) > 1 else 0
    found: NDArray[np.int64] = packed.clock.table[group, cells.window_index]
    return found


def plan(
    packed: PackedWorkload,
    max_requests: int,
    span_us: tuple[int, int] | None = None,
    slab_requests: int | None = None,
) -> Iterator[Slab]:
    """Slabs in order of time, one after another without a gap where requests are expected.

    Parameters
    ----------
    packed : PackedWorkload
    max_requests : int
        How many requests may be alive at once; those of conversations count where their conversation begins.
    span_us : tuple of int, optional
        The part of the absolute time axis that is wanted; the workload's whole span by default.
    slab_requests : int, optional
        Where a slab stops taking windows even if memory would allow more; `SLAB_REQUESTS` by default.
    """
    from_us, to_us = span_us or (packed.start_us, packed.end_us)
    most = min(slab_requests or SLAB_REQUESTS, max_requests)
    clients_per_profile = np.bincount(packed.profile, minlength=len(packed.rate_rps))
    row_cells = ((packed.rate_rps > 0) * clients_per_profile[:, None]).sum(axis=0)
    requests = packed.requests
    group: list[int] = []
    group_requests, group_cells = 0.0, 0

    def slab(windows: list[int], expected: float) -> Slab:
        begin_us, end_us = _begin_us(packed, windows[0]), _begin_us(packed, windows[-1] + 1)
        return Slab(np.array(windows, np.int64), max(begin_us, from_us), min(end_us, to_us), expected)

    first = max(from_us // packed.window_us - packed.first_window, 0)
    last = min(-(-to_us // packed.window_us) - packed.first_window, len(requests))
    for w in range(int(first), int(last)):
        expected, cells = float(requests[w]), int(row_cells[packed.row[w]])
        if expected <= 0:
            continue
        alone = expected > max_requests
        room = group_requests + expected <= most and group_cells + cells <= SLAB_CELLS
        if group and (alone or not room):
            yield slab(group, group_requests)
            group, group_requests, group_cells = [], 0.0, 0
        if alone:
            yield from _parts_of_window(packed, w, expected, max_requests, from_us, to_us)
        else:
            group.append(w)
            group_requests += expected
            group_cells += cells
    if group:
        yield slab(group, group_requests)


def _begin_us(packed: PackedWorkload, w: int) -> int:
    """Where a window begins on the absolute time axis."""
    return (packed.first_window + w) * packed.window_us


def _parts_of_window(
    packed: PackedWorkload, w: int, expected: float, max_requests: int, from_us: int, to_us: int
) -> Iterator[Slab]:
    """Slabs of one window that does not fit: equal parts of its operational time."""
    parts = 2
    while expected / parts > min(max_requests, PART_REQUESTS):
        parts *= 2
    edges = slice_edges_us(packed, w, parts).tolist()
    for begin_us, end_us in pairwise(edges):
        begin_us, end_us = max(begin_us, from_us), min(end_us, to_us)
        if begin_us < end_us:
            yield Slab(np.array([w], np.int64), begin_us, end_us, expected / parts, surveyed=True)


def share_us(packed: PackedWorkload, shard: tuple[int, int]) -> tuple[int, int]:
    """The part of the absolute time axis that is share (k, n) of a trace, k from 0; shares adjoin."""
    k, n = shard
    return _share_begin_us(packed, k, n), _share_begin_us(packed, k + 1, n)


def longest_us(first_turns: PackedWorkload) -> int:
    """How long conversations may take from their first turn to their last, in a stream of conversations."""
    turns = first_turns.turns
    assert turns is not None
    return int(turns.session_us[turns.model[first_turns.profile]].max(initial=0))


def expected_in(packed: PackedWorkload, each: NDArray[np.float64], span_us: tuple[int, int]) -> float:
    """Of what is expected in each of the windows, float64[windows], how much is in a part of the packed span."""

    def before(time_us: int) -> float:
        w = min(max(time_us // packed.window_us - packed.first_window, 0), len(each) - 1)
        return float(each[:w].sum() + each[w] * share_before(packed, w, time_us))

    return before(span_us[1]) - before(span_us[0]) if len(each) else 0.0


def _share_begin_us(packed: PackedWorkload, k: int, n: int) -> int:
    """Where share k of n begins, in whole numbers: expected requests in 2**-10, times words of operational time."""
    if k in (0, n):
        return packed.end_us if k else packed.start_us
    weight = [int(w) for w in np.rint(packed.requests * 2.0**10)]
    before = [0, *accumulate(weight)]
    last = len(weight) - 1
    begin = weight[0] * int(share_before(packed, 0, packed.start_us) * 2.0**32)
    end = (before[last] << 32) + weight[last] * int(share_before(packed, last, packed.end_us) * 2.0**32)
    if end <= begin:  # nothing is expected: equal times
        return packed.start_us + (packed.end_us - packed.start_us) * k // n
    place = begin + (end - begin) * k // n
    w = bisect_right(before, place >> 32) - 1
    x = (place - (before[w] << 32)) // weight[w]
    at_us = _begin_us(packed, w) + int(_clock_us(packed, w, np.array([x], np.uint64))[0])
    return min(max(at_us, packed.start_us), packed.end_us)


def slice_edges_us(packed: PackedWorkload, w: int, parts: int) -> NDArray[np.int64]:
    """Where equal parts of a window's operational time begin and end on the absolute time axis, int64[parts + 1]."""
    begin = _begin_us(packed, w)
    x = (np.arange(1, parts, dtype=np.uint64) << np.uint64(32)) // np.uint64(parts)
    return np.concatenate(([begin], begin + _clock_us(packed, w, x), [begin + packed.window_us]))


def _clock_us(packed: PackedWorkload, w: int, x: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Microseconds from a window's begin to instants of the first group's operational time, int64[n]."""
    s = find_bin(np, x.astype(np.uint32), np.full(len(x), packed.clock.table[0, w]), packed.clock.segments)
    time: NDArray[np.uint64] = clock_us(np, x, packed.clock.first[s], packed.clock.start_us[s], packed.clock.slope[s])
    return time.astype(np.int64)


def share_before(packed: PackedWorkload, w: int, time_us: int) -> float:
    """Share of a window's requests that is expected before an instant of the absolute time axis."""
    clock, segments = packed.clock, packed.clock.segments
    at = time_us - (packed.first_window + w) * packed.window_us
    guide = segments.guide.reshape(-1, (1 << segments.guide_bits) + 1)[clock.table[0, w]]
    s = int(guide[0] + np.searchsorted(clock.start_us[guide[0] : guide[-1] + 1], max(at, 0), side="right")) - 1
    if s < guide[0]:
        return 0.0
    first, past = int(clock.first[s]), int(segments.thresholds[s]) + 1
    words = (at - int(clock.start_us[s])) * 2.0**32 / float(clock.slope[s])
    return min(first + words, past) * 2.0**-32
