"""What a trace was made from: enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.rates import Rate

VERSION = "0.1.0"
__version__ = VERSION


def provenance_of(
    pool: ClientPool,
    rate: Rate,
    start_s: float,
    end_s: float,
    seed: int,
    replica: int,
    rules: dict[str, Any],
    backend: str,
    shard: tuple[int, int],
) -> dict[str, Any]:
    """Provenance as JSON values. Nothing that leaves the rows as they are, such as the memory budget, is in it."""
    turns = {"conversations": [model.describe() for model in pool.turn_models]} if pool.turn_models else {}
    return turns | {
        "generator": "servegen_gpu",
        "version": VERSION,
        "stream_version": STREAM_VERSION,
        "workload": pool.name,
        "category": pool.category,
        "clients": len(pool),
        "pool_digest": pool.digest(),
        "rate": rate.describe(),
        "start_s": start_s,
        "duration_s": end_s - start_s,
        "seed": int(seed),
        "replica": int(replica),
        "rules": rules,
        "backend": backend,
        "shard": f"{shard[0] + 1}/{shard[1]}",
    }


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
