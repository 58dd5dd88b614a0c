"""What a trace was made from: enough to make it again, and to tell whether shares belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from servegen_gpu import options
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.rules import CountRule

if TYPE_CHECKING:
    from servegen_gpu.clients.pool import ClientPool
    from servegen_gpu.packed import PackedWorkload
    from servegen_gpu.rates import Rate

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
    shard: tuple[int, int],
) -> dict[str, Any]:
    """Provenance as JSON values. Nothing that leaves the rows as they are, such as the backend, is in it."""
    turns = {"conversations": [model.describe() for model in pool.turn_models]} if pool.turn_models else {}
    if pool.environments:
        turns["environments"] = [environment.describe() for environment in pool.environments]
    what = {
        "workload": pool.name,
        "category": pool.category,
        "clients": len(pool),
        "pool_digest": pool.digest(),
        "rate": rate.describe(),
        "start_s": start_s,
        "duration_s": end_s - start_s,
    }
    return turns | GENERATOR | what | _how(seed, replica, rules, shard)


def provenance_of_packed(packed: PackedWorkload, seed: int, replica: int, shard: tuple[int, int]) -> dict[str, Any]:
    """What is known of a packed workload: who its clients are and what rate was asked for is not."""
    what = {
        "category": packed.category,
        "clients": len(packed.client_id),
        "start_s": packed.start_us / 1e6,
        "duration_s": (packed.end_us - packed.start_us) / 1e6,
    }
    counts = sorted(CountRule(rule).name.lower() for rule in set(packed.count_rule.tolist()))
    rules = {"counts": ", ".join(counts), "dependence": packed.dependence}
    return GENERATOR | what | _how(seed, replica, rules, shard)


def _how(seed: int, replica: int, rules: dict[str, Any], shard: tuple[int, int]) -> dict[str, Any]:
    numbers = {"seed": int(seed), "replica": int(replica)}
    return numbers | {"rules": rules, "shard": f"{shard[0] + 1}/{shard[1]}"}


def share_of(provenance: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Which share of how many a part of a trace is, from (0, 1) on; `name` is what messages call the part."""
    try:
        return options.shard(str(provenance["shard"]))
    except (KeyError, OptionError):
        raise OptionError(
            "shares of a trace, with their provenance", f"none in {name}", "generate it with --shard k/n"
        ) from None


def whole_of(shares: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Provenance of the trace that shares make, which must come in order and belong together.

    Parameters
    ----------
    shares : sequence of mapping
        Provenance of every share, the first share first.
    names : sequence of str
        What messages call them.

    Raises
    ------
    OptionError
        If a share is missing, doubled, out of order, of another trace, or of another version of the stream.
    """
    numbers = [share_of(share, name) for share, name in zip(shares, names, strict=True)]
    n = numbers[0][1]
    for share, name in zip(shares, names, strict=True):
        _check_of_one_trace((shares[0], names[0]), (share, name))
    for (k, j), both in zip(pairwise(k for k, _ in numbers), pairwise(names), strict=True):
        if j == k:
            raise OptionError("every share once", f"{k + 1}/{n} twice: {' and '.join(both)}", "leave out one of them")
        if j < k:
            raise OptionError(f"shares in order, 1/{n} to {n}/{n}", f"{j + 1}/{n} after {k + 1}/{n}", "sort them")
    if missing := [f"{k + 1}/{n}" for k in sorted({*range(n)} - {k for k, _ in numbers})]:
        named = ", ".join(missing[:5]) + ", …" * (len(missing) > 5)
        raise OptionError(f"all {n} shares", f"{len(numbers)}, without {named}", f"generate --shard {missing[0]}")
    return dict(shares[0]) | {"shard": "1/1"}


def _check_of_one_trace(one: tuple[Mapping[str, Any], str], other: tuple[Mapping[str, Any], str]) -> None:
    """Refuse shares, with what messages call them, that are not of one trace and of this version of the stream."""
    version, name = other[0].get("stream_version"), other[1]
    if version != STREAM_VERSION:
        raise OptionError(f"shares of stream version {STREAM_VERSION}", f"{version} in {name}", "generate all again")
    if any({"requests", "rows"} & set(change) for change in changes_of(other[0])):
        raise OptionError("whole shares", f"{name}, cut to some of its rows", "join first, and cut the trace")
    stated = [dict(about) | {"shard": share_of(about, name)[1]} for about, name in (one, other)]
    for key in sorted({*stated[0], *stated[1]}):
        values = [about.get(key) for about in stated]
        if values[0] != values[1]:
            what = "number of shares" if key == "shard" else key
            got = f"{what} {str(values[0])[:60]} in {one[1]} and {str(values[1])[:60]} in {name}"
            raise OptionError("shares of one trace", got, "generate them with the same arguments")


def duration_of(provenance: Mapping[str, Any]) -> float | None:
    """Length of a trace in seconds, if its provenance says so."""
    return _seconds(provenance.get("duration_s")) or None


def share_stated(provenance: Mapping[str, Any]) -> str | None:
    """Such as ``"2/4"``, if a trace is a share of another one: the stated duration is that of the whole."""
    shard = provenance.get("shard")
    return shard if isinstance(shard, str) and shard != "1/1" else None


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


def begun_later(provenance: Mapping[str, Any], by_us: int) -> Mapping[str, Any]:
    """Provenance of a part of a trace that begins so much later: its ``origin`` moves if it is a date, else it goes."""
    if "origin" not in provenance:
        return provenance
    stated = str(provenance["origin"])
    zone = "Z" if stated.endswith("Z") else ""
    rest = {name: value for name, value in provenance.items() if name != "origin"}
    try:
        begin = datetime.fromisoformat(stated.removesuffix("Z")[:26])
        moved = (begin + timedelta(microseconds=by_us)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return rest
    return rest | {"origin": f"{moved}{zone}"}
