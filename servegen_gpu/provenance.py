"""What a trace was made from: enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.rates import Rate
from servegen_gpu.rules import CountRule

VERSION = "0.1.0"
__version__ = VERSION

GENERATOR: dict[str, Any] = {"generator": "servegen_gpu", "version": VERSION, "stream_version": STREAM_VERSION}


def provenance_of(
    pool: ClientPool,
    rate: Rate,
    start_s: float,
    end_s: float,
    rules: dict[str, Any],
    seed: int,
    replica: int,
    backend: str,
    shard: tuple[int, int],
) -> dict[str, Any]:
    """Provenance as JSON values. Nothing that leaves the rows as they are, such as the memory budget, is in it."""
    turns = {"conversations": [model.describe() for model in pool.turn_models]} if pool.turn_models else {}
    what = {
        "workload": pool.name,
        "category": pool.category,
        "clients": len(pool),
        "pool_digest": pool.digest(),
        "rate": rate.describe(),
        "start_s": start_s,
        "duration_s": end_s - start_s,
    }
    return turns | GENERATOR | what | _how(seed, replica, rules, backend, shard)


def provenance_of_packed(
    packed: PackedWorkload, seed: int, replica: int, backend: str, shard: tuple[int, int]
) -> dict[str, Any]:
    """What is known of a packed workload: who its clients are and what rate was asked for is not."""
    what = {
        "category": packed.category,
        "clients": len(packed.client_id),
        "start_s": packed.start_us / 1e6,
        "duration_s": (packed.end_us - packed.start_us) / 1e6,
    }
    counts = sorted(CountRule(rule).name.lower() for rule in set(packed.count_rule.tolist()))
    rules = {"counts": ", ".join(counts), "dependence": packed.dependence}
    return GENERATOR | what | _how(seed, replica, rules, backend, shard)


def _how(seed: int, replica: int, rules: dict[str, Any], backend: str, shard: tuple[int, int]) -> dict[str, Any]:
    numbers = {"seed": int(seed), "replica": int(replica)}
    return numbers | {"rules": rules, "backend": backend, "shard": f"{shard[0] + 1}/{shard[1]}"}


def duration_of(provenance: Mapping[str, Any]) -> float | None:
    """Length of a trace in seconds, if its provenance says so."""
    return _seconds(provenance.get("duration_s")) or None


def start_us_of(provenance: Mapping[str, Any]) -> int:
    """Where a trace's first microsecond is on the time axis, as its provenance says; 0 if it does not."""
    cuts = (change.get("from_s") for change in changes_of(provenance) if change.get("keep_times") is False)
    return sum(round(_seconds(stated) * 1e6) for stated in (provenance.get("start_s"), *cuts))


def _seconds(stated: Any) -> float:
    """A number of seconds, 0 where there is none; a file may say anything."""
    real = isinstance(stated, int | float) and not isinstance(stated, bool)
    return float(stated) if real and 0 < stated < 2.0**33 else 0.0


def changes_of(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was done to a trace since it was made, in order."""
    changes = provenance.get("changes")
    return [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []


def noted(provenance: Mapping[str, Any], change: dict[str, Any], duration_s: float | None) -> dict[str, Any]:
    """Provenance of a trace after a change: what it was made from, and under ``changes`` all that was done to it."""
    with_change = dict(provenance) | {"changes": [*changes_of(provenance), change]}
    return with_change if duration_s is None else with_change | {"duration_s": duration_s}
