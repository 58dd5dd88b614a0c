"""Traces cut to what a benchmark needs: so many requests, inputs and outputs of no more than so many tokens.

`head` and `limit` take a trace, or a stream of slabs in order of time, and give back the same; so they do to a trace
what they do while one is generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.histories import Ended, Shortened
from servegen_gpu.options import check_choice, integer
from servegen_gpu.provenance import noted
from servegen_gpu.request.by_hand import ITEMS, on_device
from servegen_gpu.request.schema import MAX_TOKENS
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

Over = Literal["cap", "drop"]
OVERS = ("cap", "drop")
TURN_COLUMNS = ("conversation", "turn", "new_tokens")


@overload
def head(trace: Trace, n: int, *, exact: bool = False) -> Trace: ...
@overload
def head(trace: Iterable[Trace], n: int, *, exact: bool = False) -> Iterator[Trace]: ...
def head(trace: Trace | Iterable[Trace], n: int, *, exact: bool = False) -> Trace | Iterator[Trace]:
    """The first `n` requests.

    Parameters
    ----------
    trace : Trace or iterable of Trace
        A stream is read no further than its `n`-th request.
    n : int
    exact : bool
        Refuse a trace that has fewer, instead of giving back all of it.

    Returns
    -------
    Trace or iterator of Trace
        Arrivals stay as they are. What comes out ends with its last request, so its provenance no longer states a
        duration: how long it takes to the `n`-th request is not known when a stream begins.

    Raises
    ------
    OptionError
        If `n` is no such number, or with `exact`, once the stream has ended, if there are fewer.
    """
    n = integer("a number of requests", n, 2**63 - 1)
    slabs = _first(slabs_of(trace), n, exact)
    if not isinstance(trace, Trace):
        return slabs
    found = next(slabs)
    next(slabs, None)  # past the end, where fewer are refused
    return found


def _first(slabs: Iterable[Trace], n: int, exact: bool) -> Iterator[Trace]:
    rows, last_us = 0, np.zeros(1, np.int64)
    for slab in slabs:
        part = slab.rows(0, n - rows)
        about = _without_duration(noted(slab.provenance, {"requests": n}, None))
        part = Trace.trusted(part.columns, about, rows)
        rows += len(part)
        yield part
        if rows == n:
            return
        if len(slab) and "arrival_us" in slab:
            last_us = slab["arrival_us"][-1:].copy()  # one number, wherever it is, and not the slab
    if exact and rows < n:
        fix = "ask for fewer, or for a longer duration" if rows else "give a trace with requests, or raise limits"
        raise OptionError(f"{n:,} requests", f"{rows:,}, the last at {int(last_us[0]) / 1e6:g} s", fix)


@overload
def limit(
    trace: Trace, *, max_input: int | None = None, max_output: int | None = None, over: Over = "cap"
) -> Trace: ...
@overload
def limit(
    trace: Iterable[Trace], *, max_input: int | None = None, max_output: int | None = None, over: Over = "cap"
) -> Iterator[Trace]: ...
def limit(
    trace: Trace | Iterable[Trace],
    *,
    max_input: int | None = None,
    max_output: int | None = None,
    over: Over = "cap",
) -> Trace | Iterator[Trace]:
    """No request with more than so many tokens.

    Parameters
    ----------
    trace : Trace or iterable of Trace
    max_input, max_output : int, optional
        Most tokens of an input and of an output, from 1; no limit on that side if left out.
    over : {"cap", "drop"}
        What happens to requests above a limit.

        ``cap`` shortens them. Of an output, reasoning comes first and the answer is cut. Of an input, the oldest
        tokens are cut, as a context limit does: what is left continues nothing, so all of it is new
        (``new_tokens == input_tokens``). Where inputs repeat what was answered (``growth="history"``), later turns
        have the shorter answer in their history; edits repeat none. Of a multimodal input, the history goes first,
        then text; images, audio and video stay what they are, and an input whose items alone are above the limit is
        refused.

        ``drop`` leaves them out, and with them all later turns of their conversation, whose inputs hold what was
        left out.

    Returns
    -------
    Trace or iterator of Trace
        Rows that were left out are not numbered.

    Raises
    ------
    OptionError
        If a limit is no such number, a column is missing, an input cannot be capped, or ids of blocks (``hash_ids``)
        would be those of other inputs.
    """
    limiter = Limiter(max_input, max_output, over)
    return limiter(trace) if isinstance(trace, Trace) else map(limiter, slabs_of(trace))


@dataclass(frozen=True)
class Cut:
    """What a trace is cut to: first `limit`, then `head`, each if it is asked for.

    Attributes
    ----------
    requests : int or None
        Exactly so many, from 1.
    max_input, max_output, over
        Arguments of `limit`.
    """

    requests: int | None = None
    max_input: int | None = None
    max_output: int | None = None
    over: Over = "cap"

    def __post_init__(self) -> None:
        if self.requests is not None and integer("requests", self.requests, 2**63 - 1) < 1:
            raise OptionError("requests from 1 on", repr(self.requests), "ask for some, or leave it out")
        check_choice("over", self.over, OVERS)
        if self.limits:
            self.limiter()
        elif self.over != "cap":
            raise OptionError("max_input or max_output with over", "none of them", "say how many tokens are too many")

    @property
    def limits(self) -> bool:
        """Whether lengths are limited."""
        return self.max_input is not None or self.max_output is not None

    @property
    def drops(self) -> bool:
        """Whether requests may be left out."""
        return self.limits and self.over == "drop"

    def limiter(self) -> Limiter:
        """A new limiter, where lengths are limited."""
        return Limiter(self.max_input, self.max_output, self.over, self.requests)

    def __call__(self, slabs: Iterator[Trace], limiter: Limiter | None = None) -> Iterator[Trace]:
        """The slabs, cut; by a limiter of the caller's where its counts are of interest."""
        if self.limits:
            slabs = map(limiter or self.limiter(), slabs)
        return slabs if self.requests is None else head(slabs, self.requests, exact=True)


UNCUT = Cut()


class Limiter:
    """`limit` for one stream: called with its slabs in order of time, until it has given back so many `requests`.

    Attributes
    ----------
    inputs, outputs : int
        How many were above their limit so far, those of requests left out among them.
    dropped : int
        How many requests were left out so far.
    """

    def __init__(self, max_input: int | None, max_output: int | None, over: Over, requests: int | None = None) -> None:
        check_choice("over", over, OVERS)
        given = {"max_input": max_input, "max_output": max_output}
        most = {name: _at_least_one(name, value) for name, value in given.items() if value is not None}
        if not most:
            raise OptionError("max_input or max_output", "none of them", "say how many tokens are too many")
        self._note: dict[str, Any] = most | {"over": over}
        self._most_input, self._most_output = most.get("max_input", MAX_TOKENS), most.get("max_output", MAX_TOKENS)
        self._drops, self._requests = over == "drop", requests
        self._ended, self._shortened = Ended(), Shortened()
        self._rows = self.inputs = self.outputs = self.dropped = 0

    def __call__(self, slab: Trace) -> Trace:
        """The slab, limited."""
        if on_device(slab.columns):
            raise OptionError("slabs in the host's memory to limit", "arrays of a device", "leave out device=True")
        for name in ("input_tokens", "output_tokens"):
            if name not in slab:
                raise OptionError(f"a column {name} to limit", f"columns {', '.join(slab)}", "add it to the trace")
        missing = None if self._requests is None else self._requests - self._rows
        rows = self._kept(slab)[:missing] if self._drops else np.arange(len(slab))[:missing]
        read = len(slab) if missing is None or len(rows) < missing else int(rows.max(initial=-1)) + 1
        self.inputs += int(np.count_nonzero(slab["input_tokens"][:read] > self._most_input))
        self.outputs += int(np.count_nonzero(slab["output_tokens"][:read] > self._most_output))
        self.dropped += read - len(rows)
        kept = slab.rows(0, read) if len(rows) == read else slab.take(rows)
        columns = kept.columns if self._drops else self._capped(kept)
        first_row = self._rows if self._drops else slab.first_row
        self._rows += len(rows)
        return Trace.trusted(columns, noted(slab.provenance, self._note, None), first_row)

    def _kept(self, slab: Trace) -> NDArray[np.int64]:
        """Rows that are not left out."""
        gone = (slab["input_tokens"] > self._most_input) | (slab["output_tokens"] > self._most_output)
        if "conversation" in slab:
            gone |= self._ended.after(slab["conversation"], gone)
        return np.flatnonzero(~gone)

    def _capped(self, slab: Trace) -> dict[str, Any]:
        """Columns of a slab whose requests are capped."""
        talks = all(name in slab for name in TURN_COLUMNS)
        if "hash_ids" in slab and ("max_input" in self._note or talks):
            raise OptionError(
                "inputs without ids of blocks to cap",
                "a column hash_ids, whose ids would be those of other inputs",
                "cap first and compute ids last, take the column out, or drop requests instead (over drop)",
            )
        columns: dict[str, Any] = dict(slab.columns)
        columns["output_tokens"] = np.minimum(slab["output_tokens"], self._most_output)
        if "reason_tokens" in slab:
            columns["reason_tokens"] = np.minimum(slab["reason_tokens"], columns["output_tokens"])
        if talks and "max_output" in self._note:
            columns["input_tokens"] = self._shortened.inputs(slab.columns, columns)
        tokens: Any = columns["input_tokens"]
        above = tokens > self._most_input
        if above.any():
            columns["input_tokens"] = np.minimum(tokens, self._most_input)
            if "new_tokens" in slab:
                columns["new_tokens"] = np.where(above, columns["input_tokens"], slab["new_tokens"])
            if any(name in slab for name in ITEMS):
                items = self._items(slab)
                if "text_tokens" in slab:
                    columns["text_tokens"] = np.minimum(slab["text_tokens"], self._most_input - items).astype(np.int32)
        return columns

    def _items(self, slab: Trace) -> NDArray[np.int64]:
        """Tokens of all items of each request, none above the limit."""
        items = sum(slab[name].sums() for name in ITEMS if name in slab)
        above = np.asarray(items > self._most_input)
        if above.any():
            row = int(above.argmax())
            raise OptionError(
                f"items of at most {self._most_input:,} tokens together, which are not cut",
                f"{items[row]:,} tokens of items in row {slab.first_row + row:,}",
                "raise max_input, or leave such requests out (over drop)",
            )
        return np.asarray(items)


def where(trace: Trace, keep: Any) -> Trace:
    """The requests for which a mask or a predicate holds: see `Trace.where`."""
    name = getattr(keep, "__qualname__", "predicate") if callable(keep) else "mask"
    mask = np.asarray(keep(trace) if callable(keep) else keep)
    if mask.dtype != np.bool_ or mask.shape != (len(trace),):
        raise OptionError(
            f"a mask of {len(trace):,} booleans, or a function of the trace that returns one",
            f"{mask.dtype} of shape {mask.shape}",
            'compare whole columns, such as trace["input_tokens"] < 4096, with & and | between comparisons',
        )
    kept = trace.take(np.flatnonzero(mask))
    note = {"where": name, "kept": len(kept), "of": len(trace)}
    return Trace.trusted(kept.columns, noted(trace.provenance, note, None))


def rows_of(trace: Trace, rows: slice) -> Trace:
    """Consecutive requests, or every so many-th: ``trace[rows]``."""
    lo, hi, step = rows.indices(len(trace))
    if step < 1:
        raise OptionError("a slice that goes forwards in time", f"a step of {step}", "leave out the step")
    if (lo, step) == (0, 1) and rows.stop is not None:
        return head(trace, hi)
    kept = trace.rows(lo, hi) if step == 1 else trace.take(np.arange(lo, hi, step))
    about = noted(trace.provenance, {"rows": [lo, hi, step]}, None)
    return Trace.trusted(kept.columns, about if hi == len(trace) else _without_duration(about))


def _without_duration(provenance: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in provenance.items() if name != "duration_s"}


def _at_least_one(name: str, value: int) -> int:
    if integer(name, value, MAX_TOKENS) < 1:
        raise OptionError(f"{name} of at least 1 token", repr(value), f"change {name}")
    return int(value)
