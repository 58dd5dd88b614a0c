"""From the provenance of a trace back to what made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.population.population import population
from servegen_gpu.clients.population.presets import PRESETS
from servegen_gpu.errors import OptionError, RateError
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.pipeline import Workload, stream
from servegen_gpu.plan import share_us
from servegen_gpu.prefixes import hash_slabs
from servegen_gpu.prefixes.dense import dense_ids
from servegen_gpu.prefixes.system_prompts import system_prompts
from servegen_gpu.provenance import GENERATOR, changes_of
from servegen_gpu.rates import Rate, resolve_rate
from servegen_gpu.trace import Trace

DIGEST_ONLY = "its digest alone can be checked (--digest)"
LIMITS = frozenset(("max_input", "max_output", "over"))
WITH_RULES = ("counts", "dependence", "occupancy", "empty", "past_end")


@dataclass(frozen=True)
class Again:
    """A trace that can be made again, as a whole or in shares.

    Attributes
    ----------
    workload : Workload
        Of all rows, as they are before ids of blocks are added and ids numbered.
    blocks : dict or None
        Arguments of `hash_slabs`.
    dense : bool
        Whether ids are numbered in the order in which they appear.
    requests : int or None
        To how many rows the trace was cut.
    """

    workload: Workload
    blocks: dict[str, Any] | None
    dense: bool
    requests: int | None

    def slabs(self, share: tuple[int, int]) -> Iterable[Trace]:
        """The rows of a share; those of the whole trace end where it was cut."""
        cut = self.workload.cut if share == (0, 1) else replace(self.workload.cut, requests=None)
        slabs: Iterable[Trace] = replace(self.workload, shard=share, cut=cut)
        if self.blocks is not None:
            slabs = hash_slabs(slabs, **self.blocks)
        return dense_ids(slabs) if self.dense else slabs

    def span_us(self, share: tuple[int, int]) -> tuple[int, int]:
        """When the requests of a share arrive."""
        begin_us, end_us = share_us(self.workload.packed, share)
        return begin_us - self.workload.packed.start_us, end_us - self.workload.packed.start_us

    def check_shares(self) -> None:
        """Refuse to make shares of a trace whose rows depend on all those before them."""
        fix = "verify all of it, without a sample"
        if self.dense:
            raise OptionError("ids that do not depend on earlier rows", "dense ids", fix)
        if self.workload.cut.limits and self.workload.packed.conversations is not None:
            raise OptionError("requests that do not depend on earlier ones", "conversations with limited lengths", fix)


def again(about: Mapping[str, Any], pool: ClientPool | None, rate: Any, backend: str, memory: float | str) -> Again:
    """What a provenance says, ready to be made.

    Parameters
    ----------
    about : mapping
        Provenance of a trace, or of one of its shares.
    pool : ClientPool, optional
        Its clients; by default those of the built-in workload of that name.
    rate : optional
        Its rate, where the provenance cannot tell.
    backend, memory
        As for `stream`.

    Raises
    ------
    OptionError
        If that cannot be made again, and why.
    """
    _check_generated(about)
    requests, limits = _cuts(about)
    stated_rate = _rate(about.get("rate"), rate)
    if requests is not None and stated_rate.kind == "peak":
        got = "a trace under a peak, cut to a number of requests, whose provenance does not say how long it was"
        raise OptionError("a trace with its duration", got, DIGEST_ONLY)
    clients = _clients(about, pool)
    rules = about.get("rules")
    stated = rules if isinstance(rules, Mapping) else {}
    keywords: dict[str, Any] = {name: stated[name] for name in (*WITH_RULES, "rank_correlation") if name in stated}
    if requests is None:
        keywords["duration"] = _number(about, "duration_s")
    workload = stream(
        clients,
        rate=stated_rate,
        start=_number(about, "start_s"),
        requests=requests,
        seed=about.get("seed", -1),
        replica=about.get("replica", -1),
        warmup=stated.get("warmup_s"),
        backend=backend,
        memory=memory,
        **limits,
        **keywords,
    )
    return Again(workload, _blocks(about.get("hash_ids"), clients), "dense_ids" in about, requests)


def _check_generated(about: Mapping[str, Any]) -> None:
    """Refuse what no `generate` of this version made."""
    if about.get("generator") != GENERATOR["generator"]:
        raise OptionError("a trace that `generate` made", "one without such a provenance", DIGEST_ONLY)
    if (version := about.get("stream_version")) != STREAM_VERSION:
        got = f"one of version {version!r} (servegen-gpu {about.get('version')})"
        raise OptionError(f"a trace of stream version {STREAM_VERSION}", got, "verify it with the release that made it")
    if "read" in about:
        raise OptionError("a trace as it was generated", "one read from a file for another program", DIGEST_ONLY)
    if "pool_digest" not in about:
        raise OptionError("a trace whose clients are known", "one of a packed workload", DIGEST_ONLY)


def _cuts(about: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """To how many requests and to which lengths a trace was cut; any other change is refused."""
    left = changes_of(about)
    limits = left.pop(0) if left and set(left[0]) <= LIMITS else {}
    requests = left.pop(0)["requests"] if left and set(left[0]) == {"requests"} else None
    if left:
        names = ", ".join(left[0])[:60]
        fix = "verify the trace that it was made from; of this one the digest alone can be checked (--digest)"
        raise OptionError("a trace as it was generated", f"one that was changed later ({names})", fix)
    return requests, limits


def _rate(stated: Any, given: Any) -> Rate:
    """The rate in a provenance; one that is given must be described as it is there."""
    if given is None:
        try:
            return Rate.described(stated)
        except RateError as error:
            raise RateError(error.expected, error.got, f"{error.fix}: --rate, or rate=") from None
    rate = given if isinstance(given, Rate) else resolve_rate(given)
    if rate.describe() != stated:
        raise RateError(
            "the rate of the provenance", f"another: {str(rate.describe())[:80]}", "give the one it was made with"
        )
    return rate


def _clients(about: Mapping[str, Any], pool: ClientPool | None) -> ClientPool:
    """The pool that is given, or the built-in one; its digest must be that of the provenance."""
    name, recorded = about.get("workload"), about["pool_digest"]
    fix = "give WORKLOAD and the options of clients that `generate` had, or the pool"
    if pool is None:
        if not isinstance(name, str) or name not in PRESETS:
            raise OptionError("a built-in workload, whose clients are known", repr(name)[:60], fix)
        pool = population(name, clients=about.get("clients"))
    if (digest := pool.digest()) != recorded:
        got = f"others, of {pool.name} ({len(pool):,}, digest {digest[:16]}…)"
        raise OptionError(f"the clients of the trace (digest {str(recorded)[:16]}…)", got, fix)
    return pool


def _number(about: Mapping[str, Any], name: str) -> float:
    value = about.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f"a provenance with {name}", repr(value)[:60], DIGEST_ONLY)
    return float(value)


def _blocks(stated: Any, pool: ClientPool) -> dict[str, Any] | None:
    """Arguments of `hash_slabs` that made the ids of blocks."""
    if stated is None:
        return None
    about = stated if isinstance(stated, Mapping) else {}
    system = about.get("system_tokens")
    if not isinstance(system, int):
        own = pool.system_prompts()
        if not own or system_prompts(own).about != system:
            got = "those of system prompts that are neither one number nor the workload's own"
            raise OptionError("ids of blocks that the provenance tells", got, DIGEST_ONLY)
        system = own
    names = ("block_tokens", "seed")
    return {name: about.get(name) for name in names} | {"system_tokens": system, "dense": bool(about.get("dense"))}
