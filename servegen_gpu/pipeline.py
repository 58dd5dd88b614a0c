"""The whole program: one line per stage. Open this first.

clients ─► rates ─► packing ─► realise ─► plan ══► backend: arrivals → lengths → merge ══► turns ─► trace ─► formats
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.backends import choose_backend
from servegen_gpu.backends.contract import Backend
from servegen_gpu.clients.correlation import spearman_matrix
from servegen_gpu.clients.named import AnyPool, as_pool
from servegen_gpu.clients.pool import PastEnd
from servegen_gpu.conversations.stage import CARRY_SHARE, bytes_per_request, with_turns
from servegen_gpu.cutting import UNCUT, Cut, Over
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key, derive_key
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packed_turns import HISTORY
from servegen_gpu.packing import pack
from servegen_gpu.plan import expected_in, longest_us, plan, share_us
from servegen_gpu.provenance import provenance_of, provenance_of_packed
from servegen_gpu.rates import resolve_rate, schedule_notes
from servegen_gpu.realise import realised
from servegen_gpu.request.columns import empty_columns
from servegen_gpu.rules import check_rules
from servegen_gpu.spans import span, span_for
from servegen_gpu.trace import Trace


@dataclass(frozen=True, eq=False, repr=False)
class Workload:
    """A workload that is ready to be sampled; iterating over it samples.

    It can be pickled: another process samples the same rows, with a backend of the same name.

    Attributes
    ----------
    packed : PackedWorkload
        Everything but the random numbers: `stream` takes it again, for another replica.
    key : tuple of int
        Of seed and replica.
    backend : Backend
    max_requests : int
        How many requests may be alive at once.
    carry_bytes : int
        What turns of conversations may take while they wait for their time.
    shard : tuple of int
    provenance : dict
        What the trace was made from, before it is cut.
    notes : tuple of str
        What a user should know: windows left empty, a span that repeats the data or ends with it.
    cut : Cut
        To how many requests and to which lengths slabs are cut.
    """

    packed: PackedWorkload
    key: Key
    backend: Backend
    max_requests: int
    carry_bytes: int
    shard: tuple[int, int]
    provenance: dict[str, Any]
    notes: tuple[str, ...]
    cut: Cut = UNCUT

    def __repr__(self) -> str:
        name, packed = self.provenance.get("workload", "a packed workload"), self.packed
        span = f"{packed.start_us / 1e6:.10g} s to {packed.end_us / 1e6:.10g} s"
        shard = f", shard {self.shard[0] + 1}/{self.shard[1]}" if self.shard[1] > 1 else ""
        return f"<Workload {name}: {span}, {self.expected_requests:,.0f} requests expected, {self.backend.name}{shard}>"

    @property
    def expected_requests(self) -> float:
        """Expected length of the trace, all shares together."""
        packed = self.packed
        return expected_in(packed, packed.requests, (packed.start_us, packed.end_us))

    def __iter__(self) -> Iterator[Trace]:
        """Sample slab by slab, in order of time."""
        return self.cut(self.uncut())

    def uncut(self) -> Iterator[Trace]:
        """The same, whatever `cut` says."""
        return self._slabs(self.backend.slab_requests)

    def joined(self) -> Trace:
        """Sample all of it into memory; in slabs as large as the budget allows where the backend gains by that."""
        slabs = list(self.cut(self._slabs(self.backend.joined_slab_requests)))
        return slabs[0] if len(slabs) == 1 else Trace.concat(slabs)

    def bins(self, columns: Collection[str]) -> bool:
        """Whether `add_loads` may be called: rows are made by the backend alone, and it can bin these columns."""
        alone = self.packed.conversations is None and self.cut == UNCUT
        return alone and self.backend.bins(self.packed, columns)

    def add_loads(self, width_us: int, loads: Mapping[str, NDArray[np.int64]]) -> None:
        """Add requests and tokens to bins of time; see `Backend.add_loads`."""
        packed = realised(self.packed, self.key)
        for slab in plan(packed, self.max_requests, share_us(self.packed, self.shard), self.backend.slab_requests):
            self.backend.add_loads(packed, self.key, slab, width_us, loads)

    def _slabs(self, slab_requests: int | None) -> Iterator[Trace]:
        first_row, packed, span_us = 0, realised(self.packed, self.key), share_us(self.packed, self.shard)
        rows = plan(packed, self.max_requests, span_us, slab_requests)
        if packed.conversations is None:
            slabs = self.backend.sample_slabs(packed, self.key, rows)
        else:
            slabs = with_turns(self.backend, packed, self.key, rows, span_us, self.max_requests, self.carry_bytes)
        empty = True
        for columns in slabs:
            trace = Trace.trusted(columns, self.provenance, first_row)
            first_row, empty = first_row + len(trace), False
            yield trace
        if empty:
            yield Trace.trusted(empty_columns(packed.category, packed.conversations is not None), self.provenance)


class Options(TypedDict, total=False):
    """Keywords of `stream`, for functions that pass them on."""

    rate: Any
    scale: float | None
    peak: float | None
    start: float | str | None
    duration: float | str | None
    requests: int | None
    max_input: int | None
    max_output: int | None
    over: Over
    seed: int
    replica: int
    counts: str
    dependence: str
    rank_correlation: Mapping[str, float] | NDArray[np.float64] | None
    occupancy: str
    empty: str
    past_end: PastEnd
    warmup: float | str | None
    backend: str
    memory: float | str
    shard: str | tuple[int, int]
    device: bool


def generate(
    pool: AnyPool | PackedWorkload,
    *,
    rate: Any = None,
    scale: float | None = None,
    peak: float | None = None,
    start: float | str | None = None,
    duration: float | str | None = None,
    requests: int | None = None,
    max_input: int | None = None,
    max_output: int | None = None,
    over: Over = "cap",
    seed: int = 0,
    replica: int = 0,
    counts: str = "auto",
    dependence: str = "auto",
    rank_correlation: Mapping[str, float] | NDArray[np.float64] | None = None,
    occupancy: str = "profile",
    empty: str = "error",
    past_end: PastEnd = "wrap",
    warmup: float | str | None = None,
    backend: str = "auto",
    memory: float | str = "2GB",
    shard: str | tuple[int, int] = (0, 1),
    device: Literal[False] = False,
) -> Trace:
    """A whole trace in memory: all slabs of `stream`, which has the same parameters and says what they mean.

    Parameters
    ----------
    pool : ClientPool, PackedWorkload, or name
        ``"m-small"``, say: the name of a workload, or the path of a TOML file or of a saved profile.
    rate, scale, peak
        How much: requests per second in all, as a number or over time; or a factor or a bound of the clients' own.
    start, duration, requests
        When, and how long: seconds or ``"1h30m"``; or how many requests.
    max_input, max_output, over
        Most tokens, and what happens to requests above.
    seed, replica
        Replicas of a seed are independent.
    counts, dependence, rank_correlation, occupancy, empty, past_end, warmup
        Rules.
    backend, memory, shard
        Where and in which pieces it is computed.

    Returns
    -------
    Trace

    Raises
    ------
    OptionError, RateError
        As `stream`.

    Examples
    --------
    >>> generate("m-small", rate=20, duration="10m")
    """
    if device:
        raise OptionError("a trace in the host's memory", "device=True", "use stream, whose slabs stay on the device")
    workload = stream(
        pool,
        rate=rate,
        scale=scale,
        peak=peak,
        start=start,
        duration=duration,
        requests=requests,
        max_input=max_input,
        max_output=max_output,
        over=over,
        seed=seed,
        replica=replica,
        counts=counts,
        dependence=dependence,
        rank_correlation=rank_correlation,
        occupancy=occupancy,
        empty=empty,
        past_end=past_end,
        warmup=warmup,
        backend=backend,
        memory=memory,
        shard=shard,
    )
    return workload.joined()


def stream(
    pool: AnyPool | PackedWorkload,
    *,
    rate: Any = None,
    scale: float | None = None,
    peak: float | None = None,
    start: float | str | None = None,
    duration: float | str | None = None,
    requests: int | None = None,
    max_input: int | None = None,
    max_output: int | None = None,
    over: Over = "cap",
    seed: int = 0,
    replica: int = 0,
    counts: str = "auto",
    dependence: str = "auto",
    rank_correlation: Mapping[str, float] | NDArray[np.float64] | None = None,
    occupancy: str = "profile",
    empty: str = "error",
    past_end: PastEnd = "wrap",
    warmup: float | str | None = None,
    backend: str = "auto",
    memory: float | str = "2GB",
    shard: str | tuple[int, int] = (0, 1),
    device: bool = False,
) -> Workload:
    """A trace as an iterable of slabs in order of time, in bounded memory. Nothing is sampled before iteration.

    Parameters
    ----------
    pool : ClientPool, PackedWorkload, or name
        A name is that of a workload, or the path of a TOML file or of a saved profile. What was packed before, such as
        `Workload.packed` for another replica, is not packed again; only `requests`, limits, `seed`, `replica`,
        `backend`, `memory`, `shard` and `device` may be given with it.
    rate : float, str, Schedule, sequence of (time_s, rate_rps), or callable, optional
        Target total rate: req/s or ``"300/min"``, a schedule or the path of one, or a function of time (seconds on the
        pool's axis).
    scale : float, optional
        Multiplies the clients' own rates instead.
    peak : float, optional
        Scales the clients' own rates down until the busiest window has `peak` req/s.
    start : float or str, optional
        On the pool's time axis, seconds or ``"10h"``; the pool's begin by default.
    duration : float or str, optional
        Seconds, or ``"90s"``, ``"10 minutes"``, ``"1h30m"``, ``"7d"``; by default an hour, or what `requests` take.
    requests : int, optional
        Exactly so many: the first ones, as `servegen_gpu.head` cuts. A stated `duration` that has fewer is refused at
        its end; without one the trace goes on until it has them, for up to a year.
    max_input, max_output : int, optional
    over : {"cap", "drop"}
        Most tokens of an input and of an output, and what happens to requests above: see `servegen_gpu.limit`.
        `requests` counts what is left.
    seed, replica : int
        Replicas of a seed are independent.
    counts : {"auto", "exact", "renewal", "servegen"}
        How many requests a client sends in a window: its measured count, random, or as alibaba/ServeGen counts.
    dependence : {"auto", "independent", "comonotone", "copula"}
        How the fields of one request depend on each other: as every client's profile says (independent where it says
        nothing), or the same for all clients.
    rank_correlation : mapping or float64[fields, fields], optional
        Spearman correlations of all clients under ``copula``: ``{"input_tokens:output_tokens": 0.3}``, or the matrix.
    occupancy : {"profile", "window"}
        Keep bursts to the part of the window that the profile says, or spread them over all of it.
    empty : {"error", "skip"}
        What to do with windows that have a target but no active client.
    past_end : {"wrap", "end"}
        Past the end of the data, repeat whole days, or end the trace.
    warmup : float or str, optional
        How long before the start conversations may have begun whose later turns are in the trace; as long as any can
        last by default, so that every trace is a slice of a longer one. Sampling costs that much more time.
    backend : {"auto", "cupy", "native", "numpy", "jax"}
        What computes, the same rows in any case; by default the first of a CUDA device, compiled kernels, NumPy that is
        here.
    memory : float or str
        Budget for sampling, bytes or ``"2GB"``; the trace itself comes on top. Never changes the trace.
    shard : str or tuple of int
        ``"3/8"``: the third of eight shares, which together are the whole trace.
    device : bool
        Leave slabs on the device of backend ``cupy``: columns are CuPy arrays, for DLPack and code of your own; to
        write them or to turn them into frames, leave this out.

    Returns
    -------
    Workload
        Yields a `Trace` for every slab. `generate` joins them.

    Raises
    ------
    OptionError
        If an argument is out of range.
    RateError
        If the target rate cannot be read, or asks for requests where nobody is active.
    """
    cut = Cut(requests, max_input, max_output, over)
    key = derive_key(options.integer("seed", seed, 2**64 - 1), options.integer("replica", replica, 2**32 - 1))
    how = _How(key, seed, replica, backend, memory, shard, device, cut)
    if isinstance(pool, PackedWorkload):
        _check_nothing_to_pack(
            rate=rate, scale=scale, peak=peak, start=start, duration=duration, counts=counts, dependence=dependence,
            rank_correlation=rank_correlation, occupancy=occupancy, empty=empty, past_end=past_end, warmup=warmup,
        )  # fmt: skip
        return _ready(pool, how, partial(provenance_of_packed, pool), ())
    pool = as_pool(pool)
    check_rules(counts, dependence, occupancy, empty, past_end)
    target = resolve_rate(rate, scale, peak)
    if requests is not None and duration is None:
        start_s, end_s, span_notes = span_for(requests, pool, target, start, empty, past_end, cut.drops)
        told = schedule_notes(target, start_s)
    else:
        start_s, end_s, span_notes = span(pool, start, "1h" if duration is None else duration, past_end)
        told = schedule_notes(target, start_s, end_s)
    warmup_s = None if warmup is None else options.seconds("warmup", warmup)
    if warmup_s is not None and warmup_s < 0:
        raise OptionError("a warm-up of 0 s or more", repr(warmup), "change warmup")
    packed, shortfall = pack(
        pool,
        target,
        start_s=start_s,
        end_s=end_s,
        counts=counts,
        dependence=dependence,
        rank_correlation=rank_correlation,
        occupancy=occupancy,
        empty=empty,
        warmup_s=warmup_s,
    )
    rules: dict[str, Any] = {
        "counts": counts,
        "dependence": dependence,
        "occupancy": occupancy,
        "empty": empty,
        "past_end": past_end,
    }
    if rank_correlation is not None:
        rules["rank_correlation"] = spearman_matrix(rank_correlation, pool.category).tolist()
    if warmup_s is not None:
        rules["warmup_s"] = warmup_s
    notes = [*span_notes, *told]
    if shortfall:
        notes.append(f"{shortfall:,.0f} requests were asked for where no client is active")
    return _ready(packed, how, partial(provenance_of, pool, target, start_s, end_s, rules), tuple(notes))


class _How(NamedTuple):
    """How a packed workload is sampled: the arguments of `stream` that packing does not need."""

    key: Key
    seed: int
    replica: int
    backend: str
    memory: float | str
    shard: str | tuple[int, int]
    device: bool
    cut: Cut


def _check_nothing_to_pack(**given: Any) -> None:
    """Refuse what only packing could heed."""
    defaults = inspect.signature(stream).parameters
    changed = [name for name, value in given.items() if not _is(value, defaults[name].default)]
    if changed:
        raise OptionError(
            "only requests, limits, seed, replica, backend, memory, shard and device with a packed workload",
            f"{', '.join(changed)}",
            "give them with the pool that it was packed from",
        )


def _is(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, str) and bool(value == default))


def _ready(
    packed: PackedWorkload,
    how: _How,
    provenance: Callable[[int, int, tuple[int, int]], dict[str, Any]],
    notes: tuple[str, ...],
) -> Workload:
    """A packed workload with a backend and a budget."""
    if not isinstance(how.device, bool):
        raise OptionError("device as True or False", repr(how.device)[:60], "change device")
    if how.device and packed.conversations:
        raise OptionError(
            "requests that stand alone for device=True",
            "conversations, which continue on the host",
            "pass pool.with_conversations(None), or leave device out",
        )
    if how.device and how.cut.limits:
        raise OptionError("lengths as they are for device=True", "max_input or max_output", "leave out one of them")
    backend = choose_backend(how.backend)
    if how.device:
        backend = backend.on_device()
    shares = options.shard(how.shard)
    if how.cut.requests is not None and shares[1] > 1:
        raise OptionError("requests of a whole trace", f"shard {shares[0] + 1}/{shares[1]}", "leave out one of them")
    if shares[1] > 1 and _cuts_later_turns(packed, how.cut):
        got = f"shard {shares[0] + 1}/{shares[1]}, where earlier turns of a conversation may be in another share"
        raise OptionError(
            "limits on a whole trace with conversations", got, "join the shares first: servegen_gpu.limit"
        )
    talking = packed.conversations is not None
    needed = bytes_per_request(backend, packed.category) if talking else backend.bytes_per_request(packed.category)
    return Workload(
        packed=packed,
        key=how.key,
        backend=backend,
        max_requests=options.requests_in(how.memory, needed),
        carry_bytes=options.budget_bytes(how.memory) // CARRY_SHARE,
        shard=shares,
        provenance=provenance(how.seed, how.replica, shares),
        notes=(*notes, *_warmup_notes(packed, share_us(packed, shares), how.cut.requests)),
        cut=how.cut,
    )


def _cuts_later_turns(packed: PackedWorkload, cut: Cut) -> bool:
    """Whether a limit changes the turns after the one that it cuts."""
    if packed.conversations is None or packed.conversations.turns is None:
        return False
    repeats = HISTORY in packed.conversations.turns.growth
    return cut.drops or (cut.max_output is not None and repeats)


def _warmup_notes(packed: PackedWorkload, span_us: tuple[int, int], most: int | None) -> list[str]:
    """What the warm-up of a span of `most` requests leaves out, or what it costs where that is more than the span."""
    if (first_turns := packed.conversations) is None:
        return []
    longest, warmup_us = longest_us(first_turns), packed.start_us - first_turns.start_us
    if warmup_us < longest:
        return [f"conversations that began more than {warmup_us / 1e6:g} s before the start are left out"]
    before = expected_in(first_turns, first_turns.expected, (span_us[0] - longest, span_us[0]))
    requests = min(expected_in(packed, packed.requests, span_us), math.inf if most is None else most)
    if before <= requests:
        return []
    return [
        f"for later turns in a trace of {requests:,.0f} requests, {before:,.0f} conversations are drawn that begin "
        f"up to {longest / 3.6e9:.3g} h before it; a shorter --warmup draws fewer and leaves out turns of older ones"
    ]
