"""Traces made denser or thinner, and cut in time.

`rescale` changes the rate by squeezing or stretching time, `thin` by leaving requests out, `between` takes a part as it
is. Squeezing all of time (``naive``) also squeezes the pauses inside conversations, which no user would do; ``itt``
moves conversations closer together and leaves the inter-turn times alone (ServeGen, arXiv 2505.09999, section 5.2,
Fig. 16). Each takes a trace, or a stream of slabs in order of time, and gives back the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.blocks import for_blocks
from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.philox import MASK
from servegen_gpu.merge import merge_order
from servegen_gpu.provenance import begun_later, changes_of, duration_of, noted
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

Method = Literal["itt", "naive"]
Tails = Literal["keep", "cut"]
METHODS = ("itt", "naive")
TAILS = ("keep", "cut")
MAX_TIME_US = 2**53
"""Times are divided as float64, which is exact up to here (285 years)."""


@overload
def rescale(trace: Trace, factor: float, method: Method = "itt", *, tails: Tails = "keep") -> Trace: ...
@overload
def rescale(
    trace: Iterable[Trace], factor: float, method: Method = "itt", *, tails: Tails = "keep"
) -> Iterator[Trace]: ...
def rescale(
    trace: Trace | Iterable[Trace], factor: float, method: Method = "itt", *, tails: Tails = "keep"
) -> Trace | Iterator[Trace]:
    """The same requests at `factor` times the rate, in a `factor`-th of the time.

    Parameters
    ----------
    trace : Trace or iterable of Trace
        Slabs of a stream stay a stream under ``naive``; ``itt`` joins them in memory, because a turn may come hours
        after the start of its conversation.
    factor : float
        Above 0; below 1 the rate falls and the trace becomes longer.
    method : {"itt", "naive"}
        ``naive`` divides every arrival by `factor`. ``itt`` divides the starts of conversations, and keeps every
        inter-turn time to the microsecond; it needs the column ``conversation``. The start is the first request
        that the trace has, also of conversations that had begun before it.
    tails : {"keep", "cut"}
        Later turns may arrive after the end of the scaled time under ``itt``: keep them, and with them every request,
        or cut the trace there.

    Returns
    -------
    Trace or iterator of Trace
        In order of time; what arrives at the same time stays in the order that it had. Divided times are rounded to
        the nearest microsecond, halves to the even one.

    Raises
    ------
    OptionError
        If an argument is out of range, or conversations are missing.
    """
    factor = number("factor", factor, above=0)
    for name, value, known in (("method", method, METHODS), ("tails", tails, TAILS)):
        if value not in known:
            raise OptionError(f"{name} as {' or '.join(known)}", repr(value), f"change {name}")
    if method == "naive":
        return _mapped(trace, lambda slab: _squeezed(slab, factor))
    if isinstance(trace, Trace):
        return _starts_moved(trace, factor, tails)
    return iter([_starts_moved(Trace.concat(list(slabs_of(trace))), factor, tails)])


@overload
def between(
    trace: Trace, start: float | str | None = None, end: float | str | None = None, *, keep_times: bool = False
) -> Trace: ...
@overload
def between(
    trace: Iterable[Trace],
    start: float | str | None = None,
    end: float | str | None = None,
    *,
    keep_times: bool = False,
) -> Iterator[Trace]: ...
def between(
    trace: Trace | Iterable[Trace],
    start: float | str | None = None,
    end: float | str | None = None,
    *,
    keep_times: bool = False,
) -> Trace | Iterator[Trace]:
    """The requests that arrive from `start` up to, not at, `end`.

    Parameters
    ----------
    trace : Trace or iterable of Trace
        A stream is read no further than `end`.
    start, end : float or str, optional
        From the start of the trace: seconds, or text such as ``"10m"``. Left out, the slice is open on that side.
    keep_times : bool
        Leave arrivals as they are, instead of counting them from `start`.

    Returns
    -------
    Trace or iterator of Trace
        Rows are numbered from 0. Conversations are cut where they are: turns keep their numbers, so the first that is
        left of a conversation may be its third.
    """
    from_us = 0 if start is None else _microseconds("start", start)
    to_us = MAX_TIME_US if end is None else _microseconds("end", end)
    if from_us >= to_us:
        raise OptionError("a start before the end", f"{start!r} to {end!r}", "change one of them")
    slabs = _slices(slabs_of(trace), from_us, to_us, keep_times)
    return next(slabs) if isinstance(trace, Trace) else slabs


@overload
def thin(trace: Trace, share: float, *, seed: int = 0) -> Trace: ...
@overload
def thin(trace: Iterable[Trace], share: float, *, seed: int = 0) -> Iterator[Trace]: ...
def thin(trace: Trace | Iterable[Trace], share: float, *, seed: int = 0) -> Trace | Iterator[Trace]:
    """Fewer requests in the same time: every conversation is kept or left out as a whole.

    What is kept does not move. As always where points are left out at random, burstiness fades: arrivals come closer
    to a Poisson process. Where the clients are at hand, `generate` with a smaller `scale` keeps theirs.

    Parameters
    ----------
    trace : Trace or iterable of Trace
        Without a column ``conversation``, every request is on its own.
    share : float
        Probability with which a conversation is kept, above 0, up to 1.
    seed : int
        0 to 2**64 - 1. Of one seed, what a smaller share keeps is a part of what a larger one keeps.

    Returns
    -------
    Trace or iterator of Trace
        Rows are numbered from 0.
    """
    share = number("share", share, above=0, high=1)
    seed = options.integer("seed", seed, 2**64 - 1)
    slabs = _thinned(slabs_of(trace), share, seed)
    return next(slabs) if isinstance(trace, Trace) else slabs


def _squeezed(slab: Trace, factor: float) -> Trace:
    arrival_us = _divided(_times(slab), factor)
    duration_s = duration_of(slab.provenance)
    note = {"rescale": factor, "method": "naive"}
    about = noted(slab.provenance, note, None if duration_s is None else duration_s / factor)
    return Trace.trusted(slab.columns | {"arrival_us": arrival_us}, about, slab.first_row)


def _starts_moved(trace: Trace, factor: float, tails: Tails) -> Trace:
    if "conversation" not in trace or isinstance(trace["conversation"], Ragged):
        raise OptionError(
            'a column "conversation", whose inter-turn times are to stay',
            f"columns {', '.join(trace)}",
            "rescale with method naive, or generate with conversations",
        )
    if (shard := trace.provenance.get("shard", "1/1")) != "1/1":
        raise OptionError("whole conversations", f"shard {shard} of a trace", "join all first: servegen-gpu join")
    time_us = _times(trace)
    start_us = first_arrivals(time_us, trace["conversation"])
    moved_us = _divided(start_us, factor) + (time_us - start_us)
    duration_s = duration_of(trace.provenance) or (int(time_us.max(initial=-1)) + 1) / 1e6
    span_us = round(duration_s * 1e6 / factor)
    arrival_us, order = merge_order(moved_us, int(moved_us.max(initial=0)) + 1)
    if tails == "cut":
        order = order[: np.searchsorted(arrival_us, span_us)]
        arrival_us = arrival_us[: len(order)]
    elif len(arrival_us):
        span_us = max(span_us, int(arrival_us[-1]) + 1)
    about = noted(trace.provenance, {"rescale": factor, "method": "itt", "tails": tails}, span_us / 1e6)
    moved = trace.take(order)
    return Trace.trusted(moved.columns | {"arrival_us": arrival_us}, about)


def first_arrivals(time_us: NDArray[np.int64], conversation: NDArray[np.int64]) -> NDArray[np.int64]:
    """When the conversation of each request begins, int64[n]: its first arrival."""
    if not len(time_us):
        return time_us
    order = np.argsort(conversation)
    grouped = conversation[order]
    begins = np.concatenate(([True], grouped[1:] != grouped[:-1]))
    first_us = np.minimum.reduceat(time_us[order], np.flatnonzero(begins))
    start_us = np.empty_like(time_us)
    start_us[order] = first_us[np.cumsum(begins) - 1]
    return start_us


def _slices(slabs: Iterable[Trace], from_us: int, to_us: int, keep_times: bool) -> Iterator[Trace]:
    shift_us = 0 if keep_times else from_us
    note: dict[str, Any] = {"from_s": from_us / 1e6, "keep_times": keep_times}
    if to_us < MAX_TIME_US:
        note["to_s"] = to_us / 1e6
    rows = 0
    empty: Trace | None = None
    for slab in slabs:
        if shift_us:
            slab = Trace.trusted(slab.columns, begun_later(slab.provenance, shift_us), slab.first_row)
        low, high = np.searchsorted(_times(slab), [from_us, to_us]).tolist()
        part = slab.rows(low, high)
        ends_s = [s for s in (note.get("to_s"), duration_of(slab.provenance)) if s is not None]
        about = noted(slab.provenance, note, max(min(ends_s) - shift_us / 1e6, 0.0) if ends_s else None)
        part = Trace.trusted(part.columns | {"arrival_us": part["arrival_us"] - shift_us}, about, rows)
        rows += len(part)
        if len(part):
            yield part
        else:
            empty = part
        if high < len(slab):
            break
    if not rows and empty is not None:
        yield empty


def _thinned(slabs: Iterable[Trace], share: float, seed: int) -> Iterator[Trace]:
    key = derive_key(seed)
    rows = 0
    for slab in slabs:
        if any(change.get("thin") and change.get("seed") == seed for change in changes_of(slab.provenance)):
            raise OptionError("a seed that has not thinned this trace before", f"{seed}", "thin with another seed")
        by = "conversation" if isinstance(slab.columns.get("conversation"), np.ndarray) else "request"
        names = slab["conversation"] if by == "conversation" else np.arange(slab.first_row, slab.first_row + len(slab))
        word = np.empty(len(slab), np.uint64)

        def fill(
            a: int, b: int, names: NDArray[np.int64] = names, word: NDArray[np.uint64] = word, by: str = by
        ) -> None:
            name = names[a:b].astype(np.uint64)
            low, high = name & np.uint64(MASK), name >> np.uint64(32)
            word[a:b] = draw(np, key, Purpose.THINNING, ordinal=low, client=high, window=int(by == "request"))[0]

        for_blocks(len(word), fill)
        kept = slab.take(np.flatnonzero(word < np.uint64(round(share * 2**32))))
        note = {"thin": share, "seed": seed, "by": by}
        yield Trace.trusted(kept.columns, noted(slab.provenance, note, None), rows)
        rows += len(kept)


def _mapped(trace: Trace | Iterable[Trace], change: Callable[[Trace], Trace]) -> Trace | Iterator[Trace]:
    return change(trace) if isinstance(trace, Trace) else map(change, slabs_of(trace))


def _times(slab: Trace) -> NDArray[np.int64]:
    """Arrivals, checked to ascend from 0 on."""
    if "arrival_us" not in slab or isinstance(slab["arrival_us"], Ragged):
        raise OptionError("a column arrival_us of numbers", f"columns {', '.join(slab)}", "give a trace")
    time_us: NDArray[np.int64] = slab["arrival_us"]
    back = time_us[1:] < time_us[:-1]
    if back.any() or (len(time_us) and not 0 <= time_us[0] <= time_us[-1] < MAX_TIME_US):
        row = slab.first_row + (int(np.argmax(back)) + 1 if back.any() else 0)
        raise OptionError("requests in order of time, from 0 us on", f"another at row {row}", "sort the trace")
    return time_us


def _divided(time_us: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    with np.errstate(over="ignore"):
        divided = np.rint(time_us / factor)
    if divided.max(initial=0) >= MAX_TIME_US:
        raise OptionError(f"arrivals below {MAX_TIME_US / 1e6:.3g} s", f"a factor of {factor:g}", "stretch it less")
    return divided.astype(np.int64)


def _microseconds(name: str, value: float | str) -> int:
    found = options.seconds(name, value)
    if not 0 <= found < MAX_TIME_US / 1e6:
        raise OptionError(f"{name} from 0 s on", repr(value), "count it from the start of the trace")
    return round(found * 1e6)
