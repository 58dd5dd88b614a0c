"""All that sampling depends on but the key, as tensors: a backend sees nothing else of a workload.

Axes: clients, groups (of clients that follow the same clock), profiles, rows (windows of the profiles that the span
uses), windows (of the span, in order), fields.

A cell is one client in one window. Its expected number of requests is ``rate_factor[client] * rate_rps[profile, row]
* window_scale[group, window] * window_length_s[window]``.

A client sends up to two streams, each with its share of the rate and its own renewal process: requests that stand
alone, and conversations, of which only the first turns are sampled (`PackedWorkload.conversations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from os import PathLike
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.clock import ClockTables
from servegen_gpu.errors import ProfileError
from servegen_gpu.law.address import ALONE
from servegen_gpu.packed_environment import PackedEnvironment
from servegen_gpu.packed_turns import PackedTurns
from servegen_gpu.request.schema import Schema, of
from servegen_gpu.request.tables import PackedTables, Tables, pack_tables


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

    def save(self, path: str | PathLike[str]) -> None:
        """Write the packed workload to one file, which appears only when complete."""
        header, arrays = _flatten(self)
        save_arrays(path, header | {"format": FILE_FORMAT}, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PackedWorkload:
        """Read what `save` wrote; a ProfileError if it is anything else."""
        header, arrays = load_arrays(path)
        if (found := header.get("format")) != FILE_FORMAT:
            raise ProfileError(
                f"a packed workload in format {FILE_FORMAT}", f"format {found} in {path}", "pack and save it again"
            )
        workload: PackedWorkload = _unflatten(cls, header | arrays)
        return workload


FILE_FORMAT = 9
"""Of files of packed workloads; raised whenever their fields change."""


def _flatten(part: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Numbers and names of a dataclass, and its arrays, by dotted name; the same of the dataclasses inside."""
    header: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(part):
        value, name = getattr(part, field.name), prefix + field.name
        if is_dataclass(value):
            inner_header, inner_arrays = _flatten(value, f"{name}.")
            header |= {name: True} | inner_header
            arrays |= inner_arrays
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            header[name] = value
    return header, arrays


def _unflatten(kind: type[Any], everything: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass whose parts have these dotted names."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        value = everything[prefix + name]
        inner = next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
        if inner is not None and value is not None:
            value = _unflatten(inner, everything, f"{prefix}{name}.")  # type: ignore[arg-type]
        values[name] = value
    return kind(**values)
