"""All that sampling depends on but the key, as tensors: a backend sees nothing else of a workload.

Axes: clients, groups (of clients that follow the same clock), profiles, rows (windows of the profiles that the span
uses), windows (of the span, in order), fields.

A cell is one client in one window. Its expected number of requests is ``rate_factor[client] * rate_rps[profile, row]
* window_scale[group, window] * window_length_s[window]``.

A client sends up to two streams, each with its share of the rate and its own renewal process: requests that stand
alone, and conversations, of which only the first turns are sampled (`PackedWorkload.conversations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import flatten, is_free, load_arrays, need, need_within, save_arrays, unflatten
from servegen_gpu.blocks import distinct
from servegen_gpu.clients.pool import MAX_CLIENT_ID
from servegen_gpu.clients.stated.tabulate import grid_of
from servegen_gpu.clock import ClockTables
from servegen_gpu.disk import explained
from servegen_gpu.errors import OutputError, ProfileError
from servegen_gpu.law.address import ALONE, CONVERSATIONS, MAX_ITEMS, MAX_WINDOW
from servegen_gpu.law.dependence import KINDS
from servegen_gpu.law.elementary import log
from servegen_gpu.packed_environment import PackedEnvironment
from servegen_gpu.packed_turns import PackedTurns
from servegen_gpu.request.families import DRAWS, family_of, log_mean_gaps
from servegen_gpu.request.schema import INPUT, MAX_TOKENS, SCHEMAS, Schema, of
from servegen_gpu.request.tables import WORDS, PackedTables, Tables, pack_tables, unpack_tables
from servegen_gpu.rules import CountRule


@dataclass(frozen=True, eq=False)
class PackedClock:
    """Clock tables with a guide over operational time.

    Attributes
    ----------
    segments : PackedTables
        Its thresholds are the last operational instants of the segments.
    first, start_us, slope : uint64[segments]
    table : int64[groups, windows]
        Table of each window; 0 is the constant window.
    """

    segments: PackedTables
    first: NDArray[np.uint64]
    start_us: NDArray[np.uint64]
    slope: NDArray[np.uint64]
    table: NDArray[np.int64]


def pack_clocks(clocks: Sequence[ClockTables]) -> PackedClock:
    """One clock a group; all share the table of the constant window, for which kernels need no lookup."""
    base = np.cumsum([0] + [len(clock) for clock in clocks])
    ends = np.cumsum([0] + [len(clock.last) for clock in clocks])
    parts = [clock.offsets[1:] + end for clock, end in zip(clocks, ends, strict=False)]
    table = [np.where(clock.table, clock.table + t, 0) for clock, t in zip(clocks, base, strict=False)]
    last = np.concatenate([clock.last for clock in clocks])
    segments = Tables(np.concatenate(([0], *parts)), np.zeros(len(last), np.int32), last)
    return PackedClock(
        segments=pack_tables(segments),
        first=np.concatenate([clock.first for clock in clocks]).astype(np.uint64),
        start_us=np.concatenate([clock.start_us for clock in clocks]).astype(np.uint64),
        slope=np.concatenate([clock.slope for clock in clocks]),
        table=np.stack(table).astype(np.int64),
    )


def unpack_clock(packed: PackedClock) -> ClockTables:
    """The clock of the first group."""
    guide = packed.segments.guide.reshape(-1, (1 << packed.segments.guide_bits) + 1)
    return ClockTables(
        offsets=np.append(guide[:, 0], len(packed.first)).astype(np.int64),
        last=packed.segments.thresholds,
        first=packed.first.astype(np.uint32),
        start_us=packed.start_us.astype(np.uint32),
        slope=packed.slope,
        table=packed.table[0].astype(np.int32),
    )


@dataclass(frozen=True, eq=False)
class PackedWorkload:
    """A workload over a span of time, ready to sample with any key: replicas share one.

    Attributes
    ----------
    category : str
    window_us : int
    start_us, end_us : int
        The span on the absolute time axis.
    first_window : int
        Absolute number of the first window.
    dependence : str
        ``independent``, ``comonotone`` or ``copula``.
    client_id : uint64[clients]
        Ascending.
    profile : int64[clients]
    rate_factor : float64[clients]
    group : int64[clients]
        Whose clock and scale a client follows; zeros where all follow one.
    rate_rps, shape, occupancy : float64[profiles, rows]
    log_mean_gap : float64[profiles, rows]
        Logarithm of the mean of the gap family at scale 1; zeros if no count rule needs it.
    family : uint8[profiles, rows]
        Code of the draw that makes the gaps (`request/families.py`): exponential is packed as Weibull of shape 1.
    table : int64[profiles, rows, fields]
    count_rule : uint8[profiles]
    row : int64[windows]
    window_scale : float64[groups, windows]
        Multiplies the profiles' rates to meet the target.
    window_length_s : float64[windows]
        The window's length, shorter only where the ``servegen`` rule meets the span's edge.
    expected : float64[windows]
        Requests expected in the window, of all groups together.
    mixing : float64[mixings, scalar fields, scalar fields]
        Of the Gaussian copula; the first is the identity, which leaves words as they are.
    mixing_of : int32[profiles]
        Row of `mixing`; zeros unless `dependence` is ``copula``.
    context_tokens : int32[profiles]
        Most tokens of input and output together; 0 where there is no limit.
    tables : PackedTables
    clock : PackedClock
    stream : int
        Which of the clients' streams this is, `STREAMS`: each has addresses of its own.
    environment : PackedEnvironment or None
        What moves rates at random; sampling goes by the clock alone, which `realised` makes of it for a replica.
    turns : PackedTurns or None
        How requests continue as conversations, in the stream of conversations: there requests are first turns.
    conversations : PackedWorkload or None
        Beside requests that stand alone, the stream of conversations, whose span begins before the trace's.
    """

    category: str
    window_us: int
    start_us: int
    end_us: int
    first_window: int
    dependence: str
    client_id: NDArray[np.uint64]
    profile: NDArray[np.int64]
    rate_factor: NDArray[np.float64]
    group: NDArray[np.int64]
    rate_rps: NDArray[np.float64]
    shape: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    log_mean_gap: NDArray[np.float64]
    family: NDArray[np.uint8]
    table: NDArray[np.int64]
    count_rule: NDArray[np.uint8]
    row: NDArray[np.int64]
    window_scale: NDArray[np.float64]
    window_length_s: NDArray[np.float64]
    expected: NDArray[np.float64]
    mixing: NDArray[np.float64]
    mixing_of: NDArray[np.int32]
    context_tokens: NDArray[np.int32]
    tables: PackedTables
    clock: PackedClock
    environment: PackedEnvironment | None = None
    stream: int = ALONE
    turns: PackedTurns | None = None
    conversations: PackedWorkload | None = None

    def __repr__(self) -> str:
        span = f"{self.start_us / 1e6:.10g} s to {self.end_us / 1e6:.10g} s"
        return f"<PackedWorkload ({self.category}): {len(self.client_id):,} clients, {span}>"

    @property
    def addressed(self) -> bool:
        """Whether backends are to give the ordinals of rows: they are a part of ids."""
        return self.turns is not None or self.conversations is not None

    @property
    def requests(self) -> NDArray[np.float64]:
        """Expected requests that begin in each window, float64[windows]; conversations count with their later turns."""
        if (others := self.conversations) is None or others.turns is None:
            return self.expected
        return self.expected + others.turns.requests[self.first_window - others.first_window :]

    @property
    def schema(self) -> Schema:
        """What is drawn for a request, and what comes of it."""
        return of(self.category)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the drawn fields, in lane order."""
        return self.schema.names

    @property
    def scalar_fields(self) -> int:
        """How many of the fields are drawn once per request; the rest are drawn per item."""
        return len(self.schema.scalars)

    @property
    def limited(self) -> bool:
        """Whether any client has a context limit."""
        return bool(self.context_tokens.any())

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the packed workload to one file, which appears only when complete.

        A file that is no packed workload is replaced only with `overwrite`.
        """
        header, arrays = flatten(self)
        with explained(Path(path)):
            if not (overwrite or is_free(path)):
                fix = "give another path, or allow it with overwrite=True"
                raise OutputError("a new file, or an older packed workload, to replace", f"{path}, another's", fix)
            save_arrays(path, header | {"format": FILE_FORMAT}, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PackedWorkload:
        """Read what `save` wrote; a ProfileError if it is anything else."""
        header, arrays = load_arrays(path)
        if (found := header.get("format")) != FILE_FORMAT:
            raise ProfileError(
                f"a packed workload in format {FILE_FORMAT}", f"format {found} in {path}", "pack and save it again"
            )
        try:
            packed: PackedWorkload = unflatten(cls, header | arrays)
            check(packed)
        except (ValueError, RecursionError) as error:
            raise ProfileError("a packed workload", f"{error} in {path}", "pack and save it again") from None
        return packed


FILE_FORMAT = 9
"""Of files of packed workloads; raised whenever their fields change."""
MOST = 1e300
"""Of a number in a file."""


def check(packed: PackedWorkload) -> None:
    """Refuse what no pool packs to: kernels index by what a packed workload says, and believe it.

    Every index is inside what it points into; tables, clocks and guides are those that `pack_tables` makes; windows are
    those of the span; rates are finite, and make what is expected; lengths are those that a field may have.

    Raises
    ------
    ValueError
        Naming the first array at fault.
    """
    need(packed.category in SCHEMAS, "category", packed.category)
    need(packed.dependence in KINDS, "dependence", packed.dependence)
    need(packed.turns is None, "turns", "of requests that stand alone")
    _check_stream(packed, ALONE)
    _check_items(packed)
    if (others := packed.conversations) is not None:
        need(others.conversations is None, "conversations", "inside conversations")
        alike = ("category", "window_us", "end_us", "dependence")
        same = all(getattr(others, name) == getattr(packed, name) for name in alike)
        need(same and others.start_us <= packed.start_us, "conversations", "of another span")
        need(others.rate_rps.shape[:1] == packed.rate_rps.shape[:1], "conversations", "of other profiles")
        _check_stream(others, CONVERSATIONS)
        need(others.turns is not None, "conversations", "without turns")
        assert others.turns is not None
        others.turns.check(np.unique(others.profile), len(others.rate_rps), len(others.row))
        _check_items(others)


def _check_stream(packed: PackedWorkload, number: int) -> None:
    """One stream of the clients, but for its turns."""
    window_us, windows = packed.window_us, len(packed.row)
    need(packed.stream == number, "stream", packed.stream)
    need(0 < window_us < WORDS, "window_us", window_us)
    first, stop = packed.start_us // window_us, -(-packed.end_us // window_us)
    need(packed.start_us <= packed.end_us, "end_us", packed.end_us)
    need(first == packed.first_window, "first_window", packed.first_window)
    need(first > -MAX_WINDOW and stop <= MAX_WINDOW and windows == stop - first, "windows", f"{windows:,}")
    _check_shapes(packed)
    profiles, rows = packed.rate_rps.shape
    for name, end in (("profile", profiles), ("group", len(packed.window_scale)), ("row", rows)):
        need_within(getattr(packed, name), 0, end - 1, name)
    need_within(packed.mixing_of, 0, len(packed.mixing) - 1, "mixing_of")
    need_within(packed.client_id, 0, MAX_CLIENT_ID, "client_id")
    need((packed.client_id[1:] > packed.client_id[:-1]).all(), "client_id", "that do not ascend")
    for name, low, high in (
        *(("rate_factor", 0, MOST), ("rate_rps", 0, MOST), ("shape", 1 / MOST, MOST), ("occupancy", 1 / MOST, 1)),
        *(("log_mean_gap", -MOST, MOST), ("window_scale", 0, MOST), ("window_length_s", 0, window_us / 1e6)),
        *(("expected", 0, MOST), ("mixing", -1.0001, 1.0001), ("context_tokens", 0, MAX_TOKENS)),
        ("count_rule", 0, max(CountRule)),
    ):
        need_within(getattr(packed, name), low, high, name)
    _check_gaps(packed)
    _check_rates(packed)
    _check_lengths(packed)
    _check_clock(packed)
    if packed.environment is not None:
        packed.environment.check(profiles, window_us)


def _check_shapes(packed: PackedWorkload) -> None:
    need(packed.rate_rps.ndim == packed.window_scale.ndim == 2 and packed.mixing.ndim == 3, "arrays", "of other axes")
    clients, profiles, windows = (packed.client_id.shape, packed.rate_rps.shape, packed.row.shape)
    scalars, fields = packed.scalar_fields, len(packed.fields)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("profile", "rate_factor", "group"), clients)
    shapes |= dict.fromkeys(("shape", "occupancy", "log_mean_gap", "family"), profiles)
    shapes |= dict.fromkeys(("count_rule", "mixing_of", "context_tokens"), profiles[:1])
    shapes |= dict.fromkeys(("window_length_s", "expected"), windows)
    shapes |= {"table": (*profiles, fields), "window_scale": (len(packed.window_scale), *windows)}
    shapes |= {"mixing": (len(packed.mixing), scalars, scalars), "client_id": clients[:1], "row": windows[:1]}
    for name, shape in shapes.items():
        need(getattr(packed, name).shape == shape, f"{name} of shape", getattr(packed, name).shape)


def _check_gaps(packed: PackedWorkload) -> None:
    """Shapes are those that a draw is made for; where mean gaps are needed, they are those of the shapes."""
    need(np.isin(packed.family, DRAWS).all(), "family", "of no known draw")
    for code in np.unique(packed.family):
        need_within(packed.shape[packed.family == code], *family_of(int(code)).shape_range, "shape")
    if packed.log_mean_gap.any() or CountRule.RENEWAL in packed.count_rule:
        same = np.array_equal(packed.log_mean_gap, log_mean_gaps(log, packed.family, packed.shape))
        need(same, "log_mean_gap", "of other shapes")


def _check_rates(packed: PackedWorkload) -> None:
    """Counts of a cell fit their numbers, and what is expected of a window is what its cells make."""
    groups, profiles = len(packed.window_scale), len(packed.rate_rps)
    key, each_s = packed.group * profiles + packed.profile, packed.window_scale * packed.window_length_s
    factor = np.bincount(key, packed.rate_factor, groups * profiles).reshape(groups, profiles)
    most = np.zeros(groups * profiles)
    np.maximum.at(most, key, packed.rate_factor)
    busiest = (most.reshape(groups, profiles, 1) * packed.rate_rps).max(axis=1, initial=0.0)
    need_within(busiest[:, packed.row] * each_s, 0, WORDS / 2, "requests of a client in a window")
    expected = ((factor @ packed.rate_rps)[:, packed.row] * each_s).sum(axis=0)
    need(np.allclose(packed.expected, expected, 1e-6, 1e-9), "expected", "that is not what rates make")


def _check_lengths(packed: PackedWorkload) -> None:
    """Every field of a profile with a rate has a table, of values that it may have."""
    tables, active = unpack_tables(packed.tables), packed.rate_rps > 0
    need_within(packed.table, -1, len(tables) - 1, "table")
    need_within(packed.table[active], 0, len(tables) - 1, "table")
    for field in packed.schema.fields:
        used = distinct(packed.table[active][:, field.lane])
        need_within(tables.largest[used], 0, grid_of(field.name).limit, field.name)


def _check_items(packed: PackedWorkload) -> None:
    """With all its items, an input is of so many tokens that there can be."""
    tables = unpack_tables(packed.tables)
    largest = np.append(tables.largest, 0).astype(np.int64)[packed.table]  # [profiles, windows, fields]; -1 has none
    tokens = largest[..., INPUT]
    if packed.turns is not None:
        tokens = np.maximum(tokens, packed.turns.most_new_tokens()[:, None])
    for modality in packed.schema.items:
        count = largest[..., modality.count.lane]
        need_within(count, 0, MAX_ITEMS, modality.count.name)
        tokens = tokens + count * largest[..., modality.item.lane]
    need_within(tokens, 0, MAX_TOKENS, "tokens of one request")


def _check_clock(packed: PackedWorkload) -> None:
    """Segments follow one another and stay inside the window; the first table is the constant window."""
    clock, window_us = packed.clock, np.uint64(packed.window_us)
    tables = unpack_tables(clock.segments, times=True)
    last, begins = tables.thresholds.astype(np.uint64), tables.offsets[:-1]
    for name in ("first", "start_us", "slope"):
        need(getattr(clock, name).shape == last.shape, f"clock.{name} of shape", getattr(clock, name).shape)
    need(clock.table.shape == packed.window_scale.shape, "clock.table of shape", clock.table.shape)
    need_within(clock.table, 0, len(tables) - 1, "clock.table")
    first = np.append(np.uint64(0), last[:-1] + np.uint64(1))
    first[begins] = 0
    need(np.array_equal(clock.first, first), "clock.first", "that do not follow one another")
    width = last - first + np.uint64(1)
    inside = (clock.start_us < window_us) & (clock.slope > 0) & (clock.slope <= (window_us << np.uint64(32)) // width)
    need(inside.all(), "clock", "that leaves its window")
    end_us = clock.start_us + ((width - np.uint64(1)) * clock.slope >> np.uint64(32))
    need((end_us < window_us).all(), "clock", "that leaves its window")
    follow = np.delete(np.arange(1, len(last)), begins[1:] - 1)  # segments behind another one of the same table
    need((clock.start_us[follow] >= end_us[follow - 1]).all(), "clock", "that goes back")
    constant = tables.offsets[1] == 1 and clock.start_us[0] == 0 and clock.slope[0] == window_us
    need(constant, "clock", "whose first table is not the constant window")
