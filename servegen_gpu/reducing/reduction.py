"""What a reduction is. Whole numbers only, so that slabs, shares, backends and their order change no bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Ragged

State = Mapping[str, Any]
"""Integer arrays by name: of NumPy, but for what a step makes on a device."""

Rows = Mapping[str, Any]
"""Columns of requests by name: arrays of NumPy or CuPy, or `Ragged` of them."""


def added(a: State, b: State) -> State:
    """The sum of two states, array by array."""
    return {name: a[name] + b[name] for name in a}


def numbers(state: State) -> dict[str, float]:
    """The arrays of a state that are single numbers, as figures by their own names."""
    return {name: float(value) for name, value in state.items() if np.ndim(value) == 0}


def nothing(xp: Any) -> State:
    """No state yet: the first step's is taken as it is."""
    return {}


@dataclass(frozen=True)
class Binned:
    """Says of a reduction that its state is `of` rows: backends add such loads up without columns, all in one pass.

    Attributes
    ----------
    columns : tuple of str
        ``"requests"``, or columns of whole numbers with one value a request (of lists: the sum of their items).
    width_us, bins : int
        Bins of equal length from the start of the trace.
    """

    columns: tuple[str, ...]
    width_us: int
    bins: int

    def nothing(self, xp: Any) -> State:
        """The state of no rows: of every column int64[bins + 1], whose last number is what arrives behind the bins."""
        return {name: xp.zeros(self.bins + 1, np.int64) for name in self.columns}

    def of(self, xp: Any, rows: Rows) -> State:
        """The state of some rows, in order of arrival."""
        found, at_us = self.nothing(xp), column_of(rows, "arrival_us")
        if not len(at_us):
            return found
        first, last = (min(int(at_us[at]) // self.width_us, self.bins) for at in (0, -1))
        before = xp.searchsorted(at_us, xp.arange(first + 1, last + 1) * self.width_us)  # rows before a bin's end
        before = xp.concatenate((xp.zeros(1, np.int64), before, xp.asarray([len(at_us)])))
        for name, load in found.items():
            load[first : last + 1] = xp.diff(_running(xp, rows, name, before))
        return found

    def among(self, finer: Mapping[str, NDArray[np.int64]], width_us: int) -> State:
        """The state from loads of finer bins, `width_us` long, which reach at least as far."""
        each, found = self.width_us // width_us, {}
        for name in self.columns:
            inside = finer[name][: self.bins * each]
            load = inside.reshape(self.bins, each).sum(axis=1) if each > 1 else inside
            found[name] = np.append(load, finer[name].sum() - inside.sum())
        return found


def _running(xp: Any, rows: Rows, name: str, before: Any) -> Any:
    """Requests, or tokens of a column, before some rows."""
    if name == "requests":
        return before
    column = column_of(rows, name)
    if isinstance(column, Ragged):
        before, column = column.offsets[before], column.values
    if not len(column):
        return xp.zeros(len(before), np.int64)
    return xp.where(before > 0, xp.cumsum(column, dtype=np.int64)[before - 1], 0)


def counted(xp: Any, bins: int, at: Any, weights: Any = None) -> Any:
    """How often numbers below `bins` occur, or the sums of whole weights, below 2**53: int64[bins]."""
    if not len(at):  # of which CuPy has no counts
        return xp.zeros(bins, np.int64)
    return xp.bincount(at, weights, minlength=bins).astype(np.int64)


def column_of(rows: Rows, column: str) -> Any:
    """A column, or an error that names it."""
    if column not in rows:
        raise OptionError(f"a trace with {column}", f"columns {', '.join(rows)}", "ask for another figure")
    return rows[column]


@dataclass(frozen=True)
class Reduction:
    """A figure of a trace that needs no trace.

    Attributes
    ----------
    name : str
        Of its state among others.
    init : function of a library
        The state of no requests; `nothing` where that of any rows will do.
    step : function of a library and columns
        The state of some rows, which are in order of arrival. Arrays are of that library: CuPy where columns stay on a
        device, or else NumPy (of backend ``jax``, too). Integers only; a jitted function's JAX arrays will do.
    merge : function of two states
        The state of both, of which the first is of earlier rows; `added` by default. It must not matter how rows are
        grouped. Arrays are NumPy's.
    figures : function of a state
        Names to numbers; by default every single number of the state under its own name.
    binned : Binned, optional
        What the state is, where it is the load of bins.
    span_s : float
        How long a trace must be at least, if its length is known: what never comes is no load of 0.

    Examples
    --------
    >>> long = Reduction("long", step=lambda xp, rows: {"long": (rows["input_tokens"] > 4096).sum()})
    >>> sg.reduce(pool, [long], rate=100).figures()
    """

    name: str
    init: Callable[[Any], State] = nothing
    step: Callable[[Any, Rows], State] = lambda xp, rows: {}
    merge: Callable[[State, State], State] = added
    figures: Callable[[State], dict[str, float]] = numbers
    binned: Binned | None = None
    span_s: float = 0.0

    def __repr__(self) -> str:
        return f"<Reduction {self.name}>"

    def check_span(self, known_s: float | None) -> None:
        """Refuse a trace that is known to be too short."""
        if known_s is not None and self.span_s > known_s + 1e-6:
            expected = f"a trace of {self.span_s:g} s or more for {self.name!r}"
            raise OptionError(expected, f"one of {known_s:g} s", "make the reduction with span_s of the trace")


class Reduced(dict[str, State]):
    """States by the names of their reductions, int64 arrays of NumPy.

    Parameters
    ----------
    reductions : iterable of Reduction
    states : iterable of dict
        Of each of them.
    """

    def __init__(self, reductions: Iterable[Reduction], states: Iterable[State]) -> None:
        self.reductions = tuple(reductions)
        super().__init__(zip((r.name for r in self.reductions), states, strict=True))

    def __repr__(self) -> str:
        return f"<Reduced: {', '.join(self)}>"

    def merged(self, later: Reduced) -> Reduced:
        """The states of both, of which the other is of later rows: the next share of a trace."""
        return Reduced(self.reductions, (_merged(one, self[one.name], later[one.name]) for one in self.reductions))

    def figures(self) -> dict[str, float]:
        """All figures of all states."""
        return {name: value for found in self.by_reduction.values() for name, value in found.items()}

    @cached_property
    def by_reduction(self) -> dict[str, dict[str, float]]:
        """Figures by the name of their reduction, computed once; of replicas on the threads that reduce them."""
        return {one.name: one.figures(self[one.name]) for one in self.reductions}


def checked(reductions: Reduction | Iterable[Reduction]) -> tuple[Reduction, ...]:
    """Reductions as a tuple; refuses what is none, none at all, and two of a name."""
    found = (reductions,) if isinstance(reductions, Reduction) else tuple(reductions)
    for one in found:
        if not isinstance(one, Reduction):
            raise OptionError("reductions", repr(one)[:60], "make one with metric(name, span_s), or Reduction(…)")
    names = [one.name for one in found]
    if not names or len(set(names)) < len(names):
        raise OptionError("one reduction or more, each with a name of its own", repr(names), "name them apart")
    return found


def over(reductions: tuple[Reduction, ...], slabs: Iterable[tuple[Any, Rows]]) -> Iterator[State]:
    """The states of reductions over slabs, each with the library of its arrays."""
    states = [on_host(one, one.init(np)) for one in reductions]
    for xp, rows in slabs:
        for i, one in enumerate(reductions):
            states[i] = _merged(one, states[i], on_host(one, one.step(xp, rows)))
    yield from states


def _merged(reduction: Reduction, before: State, later: State) -> State:
    return reduction.merge(before, later) if before and later else before or later


def on_host(reduction: Reduction, state: State) -> State:
    """A state in NumPy's int64; refuses other numbers than whole ones."""
    found = {}
    for name, value in state.items():
        array = np.asarray(value.get() if hasattr(value, "get") else value)
        if array.dtype.kind not in "iub":
            fix = "add whole numbers up: sums of others would hang on the order of the rows"
            raise OptionError("integers in a state", f"{array.dtype} in {name!r} of {reduction.name!r}", fix)
        found[name] = array.astype(np.int64, copy=False)
    return found
