"""Where replicas come from: a pool as it stands, or as every draw of parameters makes it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from servegen_gpu import options
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packing import pack
from servegen_gpu.pipeline import Workload, stream
from servegen_gpu.studies.controls import expected_totals
from servegen_gpu.studies.parameters import Parameter, applied, check_vary, scaled_rate

REPLICAS_OF_A_DRAW = 1 << 16
"""Replica i of draw d has the key of replica ``d * REPLICAS_OF_A_DRAW + i`` of the seed."""
RULES = ("counts", "dependence", "rank_correlation", "occupancy", "empty")
"""Keywords of `pack`; those of `stream` that are not among them say when and how much."""
STATED = (
    *("workload", "category", "clients", "pool_digest", "rate", "start_s", "duration_s", "rules", "seed"),
    *("version", "stream_version"),
)
"""Of provenance, in the settings of a study."""


@dataclass(frozen=True)
class Source:
    """A pool with all that decides its replicas.

    Attributes
    ----------
    pool : ClientPool
    rate : Any
    packing : mapping
        Keywords of `stream` that say what is packed, but for the rate.
    sampling : mapping
        Keywords of `stream` that say how a packed workload is sampled.
    parameters : tuple of Parameter
        That vary.
    seed : int
    """

    pool: ClientPool
    rate: Any
    packing: Mapping[str, Any]
    sampling: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.pool, ClientPool):
            fix = "give what population, load_servegen, fit or read_clients return"
            raise OptionError("a pool of clients", repr(self.pool)[:60], fix)
        check_vary(self.pool, self.parameters)

    @cached_property
    def workload(self) -> Workload:
        """The pool as it stands."""
        return stream(self.pool, rate=self.rate, **self.packing, seed=self.seed, **self.sampling)

    @property
    def span_s(self) -> float:
        """Length of a replica."""
        packed = self.workload.packed
        return (packed.end_us - packed.start_us) / 1e6

    @property
    def settings(self) -> dict[str, Any]:
        """What a study states of its origin, in terms that JSON has."""
        stated = {name: self.workload.provenance[name] for name in STATED}
        if self.workload.cut.limits:
            stated["limits"] = {
                name: self.sampling[name] for name in ("max_input", "max_output", "over") if name in self.sampling
            }
        stated["vary"] = {one.name: [one.low, one.high, one.scale] for one in self.parameters}
        return stated

    def values(self, number: int) -> dict[str, float]:
        """Values of the parameters in a draw: each parameter has numbers of its own, whatever else varies."""
        found = {}
        for one in self.parameters:
            name = zlib.crc32(one.name.encode())
            word = draw(np, derive_key(self.seed), Purpose.STUDY, ordinal=[number], client=name, window=0)[0]
            found[one.name] = float(one.at((float(word[0]) + 0.5) * 2.0**-32))
        return found

    def packed(self, values: Mapping[str, float], number: int) -> PackedWorkload:
        """The workload of a draw."""
        if not values:
            return self.workload.packed
        pool, factor = applied(self.pool, values, derive_key(self.seed, number * REPLICAS_OF_A_DRAW))
        rate = scaled_rate(self.rate, factor, self.packing.get("scale"), self.packing.get("peak"))
        whole, warmup = self.workload.packed, self.packing.get("warmup")
        rules = {name: self.packing[name] for name in RULES if name in self.packing}
        # not by `stream`: the digest of a pool for its provenance would take longer than all else
        packed, _ = pack(
            pool,
            rate,
            start_s=whole.start_us / 1e6,
            end_s=whole.end_us / 1e6,
            warmup_s=None if warmup is None else options.seconds("warmup", warmup),
            **rules,
        )
        return packed

    def expected(self, packed: PackedWorkload) -> dict[str, float]:
        """Expected totals of a replica: tokens only where no limit cuts, nothing where requests are dropped."""
        cut = self.workload.cut
        if cut.drops:
            return {}
        found = expected_totals(packed)
        return {name: total for name, total in found.items() if not cut.limits or name == "requests"}
