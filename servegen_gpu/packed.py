"""All that sampling depends on but the key, as tensors: a backend sees nothing else of a workload."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.errors import ProfileError
from servegen_gpu.packed_turns import PackedTurns
from servegen_gpu.request.schema import FIELDS, scalar_field_count
from servegen_gpu.request.tables import PackedTables


@dataclass(frozen=True, eq=False)
class PackedClock:
    """Clock tables with a guide over operational time.

    Attributes
    ----------
    segments : PackedTables
        Its thresholds are the last operational instants of the segments.
    first, start_us, slope : uint64[segments]
    table : int64[windows]
        Table of each window; 0 is the constant window.
    """

    segments: PackedTables
    first: NDArray[np.uint64]
    start_us: NDArray[np.uint64]
    slope: NDArray[np.uint64]
    table: NDArray[np.int64]


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
    rate_rps, shape, occupancy : float64[profiles, rows]
    log_mean_gap : float64[profiles, rows]
        Logarithm of the mean of the gap family at scale 1; zeros if no count rule needs it.
    is_gamma : bool[profiles, rows]
        Gamma, or else Weibull; exponential is packed as Weibull of shape 1.
    table : int64[profiles, rows, fields]
    count_rule : uint8[profiles]
    row : int64[windows]
    window_scale : float64[windows]
        Multiplies the profiles' rates to meet the target.
    window_length_s : float64[windows]
        The window's length, shorter only where the ``servegen`` rule meets the span's edge.
    expected : float64[windows]
        Requests expected in the window.
    mixing : float64[mixings, scalar fields, scalar fields]
        Of the Gaussian copula; the first is the identity, which leaves words as they are.
    mixing_of : int32[profiles]
        Row of `mixing`; zeros unless `dependence` is ``copula``.
    context_tokens : int32[profiles]
        Most tokens of input and output together; 0 where there is no limit.
    tables : PackedTables
    clock : PackedClock
    turns : PackedTurns or None
        How requests continue as conversations: then rates and counts above are those of sessions, requests that
        begin one or stand alone, and the span begins before the trace does.
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
    rate_rps: NDArray[np.float64]
    shape: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    log_mean_gap: NDArray[np.float64]
    is_gamma: NDArray[np.bool_]
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
    turns: PackedTurns | None = None

    @property
    def addressed(self) -> bool:
        """Whether backends are to give the ordinals of rows: conversations continue from their addresses."""
        return self.turns is not None

    @property
    def trace_start_us(self) -> int:
        """Where the trace begins on the absolute time axis."""
        return self.start_us + (self.turns.warmup_us if self.turns else 0)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the drawn fields, in lane order."""
        return FIELDS[self.category]

    @property
    def scalar_fields(self) -> int:
        """How many of the fields are drawn once per request; the rest are drawn per item."""
        return scalar_field_count(self.category)

    @property
    def limited(self) -> bool:
        """Whether any client has a context limit."""
        return bool(self.context_tokens.any())

    def save(self, path: str | PathLike[str]) -> None:
        """Write the packed workload to one file, which appears only when complete."""
        header, arrays = _flatten(self)
        save_arrays(path, header, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PackedWorkload:
        """Read what `save` wrote; a ProfileError if it is anything else."""
        return _unflatten(*load_arrays(path), path)


FILE_FORMAT = 4
"""Of files of packed workloads; raised whenever their fields change."""

_TURN_TABLES = ("counts", "gaps", "new")

_SCALARS = ("category", "window_us", "start_us", "end_us", "first_window", "dependence")


def _flatten(packed: PackedWorkload) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    header: dict[str, Any] = {name: getattr(packed, name) for name in _SCALARS}
    header["format"] = FILE_FORMAT
    arrays: dict[str, NDArray[Any]] = {}
    parts: dict[str, Any] = {"": packed, "tables.": packed.tables}
    parts |= {"clock.": packed.clock, "clock.segments.": packed.clock.segments}
    if packed.turns:
        parts |= {"turns.": packed.turns}
        parts |= {f"turns.{name}.": getattr(packed.turns, name) for name in _TURN_TABLES}
    for prefix, part in parts.items():
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                arrays[prefix + field.name] = value
            elif isinstance(value, int) and prefix:
                header[prefix + field.name] = value
    return header, arrays


def _unflatten(header: dict[str, Any], arrays: dict[str, NDArray[Any]], source: str | PathLike[str]) -> PackedWorkload:
    if (found := header.pop("format", None)) != FILE_FORMAT:
        raise ProfileError(
            f"a packed workload in format {FILE_FORMAT}", f"format {found} in {source}", "pack and save it again"
        )
    everything: dict[str, Any] = header | arrays

    def part(prefix: str) -> dict[str, Any]:
        names = (name for name in everything if name.startswith(prefix) and "." not in name[len(prefix) :])
        return {name[len(prefix) :]: everything[name] for name in names}

    clock = PackedClock(segments=PackedTables(**part("clock.segments.")), **part("clock."))
    turns = None
    if conversations := part("turns."):
        conversations |= {name: PackedTables(**part(f"turns.{name}.")) for name in _TURN_TABLES}
        turns = PackedTurns(**conversations)
    return PackedWorkload(**part(""), tables=PackedTables(**part("tables.")), clock=clock, turns=turns)
