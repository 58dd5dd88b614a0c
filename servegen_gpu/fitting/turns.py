"""A model of conversations from a trace that has some."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S
from servegen_gpu.clients.stated.turns import SESSION_S, Growth, TurnModel
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace

MOST_BINS = 512
NEEDED = ("arrival_us", "conversation", "turn", "input_tokens", "new_tokens")


def fit_turns(trace: Trace, *, session_s: float = SESSION_S, growth: Growth = "sorted") -> TurnModel:
    """A model of the conversations of a trace.

    What a trace's edges cut is left out: conversations count that begin in it, at least `session_s` before its last
    request; so a trace must be longer than that. What comes later than `session_s` is not looked at.

    Parameters
    ----------
    trace : Trace
        With the columns `conversation`, `turn` (from 1) and `new_tokens`.
    session_s : float
        Longest time from a first turn to the last.
    growth : {"sorted", "history", "edit"}
        With ``history``, new tokens of later turns are fitted as well; with ``edit``, how much longer inputs are than
        those before them, where they repeat any of them.

    Returns
    -------
    TurnModel
        Turns and new tokens as they were counted; times as a histogram of at most `MOST_BINS` bins.

    Raises
    ------
    OptionError
        If columns are missing, or nothing is left to count.
    """
    if missing := [name for name in NEEDED if name not in trace]:
        raise OptionError(f"columns {', '.join(NEEDED)}", f"none of {missing[0]!r}", "give a trace of conversations")
    order = np.lexsort((trace["turn"], trace["conversation"]))
    conversation, turn, at_us = (trace[name][order] for name in ("conversation", "turn", "arrival_us"))
    longest_us = round(number("session_s", session_s, 1, high=MAX_SESSION_S) * 1e6)
    opens = np.flatnonzero(turn == 1)
    start = np.full(len(turn), -1)
    start[opens] = opens
    start = np.maximum.accumulate(start)  # of the conversation, if it is the row's own
    own = (start >= 0) & (conversation[start] == conversation)
    begin_us = at_us[start]
    kept = own & (at_us - begin_us <= longest_us) & (begin_us <= at_us.max(initial=0) - longest_us)
    turns = np.bincount(start[kept], minlength=len(turn))[opens]
    turns = turns[turns > 0]
    several = turns[turns > 1]
    if not len(several):
        raise OptionError(
            f"conversations that begin {session_s:g} s before the end of the trace", "none", "lower session_s"
        )
    later = np.flatnonzero(kept & (turn > 1) & np.roll(kept, 1))
    new = None
    if growth == "history":
        new = _counted(trace["new_tokens"][order][later])
    elif growth == "edit":
        new = _counted(_added(trace["input_tokens"][order], trace["new_tokens"][order], later))
    return TurnModel(
        share=float(several.sum() / turns.sum()),
        turns=_counted(several),
        gap_s=_histogram((at_us[later] - at_us[later - 1]) / 1e6),
        growth=growth,
        new_tokens=new,
        session_s=session_s,
    )


def _counted(values: NDArray[np.integer]) -> d.Pmf:
    each, times = np.unique(values, return_counts=True)
    return d.Pmf(each.astype(np.float64), times.astype(np.float64))


def _added(inputs: NDArray[np.int32], new: NDArray[np.int32], later: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens that edits add, 0 where they take some away; without inputs of which all is new: those were cut."""
    edits = later[new[later] < inputs[later]]
    if not len(edits):
        raise OptionError("later turns that repeat an input", "none", "take growth='sorted', or check new_tokens")
    longer: NDArray[np.int64] = inputs[edits].astype(np.int64) - inputs[edits - 1]
    return longer.clip(min=0)


def _histogram(values: np.ndarray) -> d.Distribution:
    """Bins that hold about as many values each."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, min(MOST_BINS, len(values)) + 1)))
    if len(edges) < 2:
        return d.Constant(float(edges[0]))
    return d.Histogram(edges, np.histogram(values, edges)[0].astype(np.float64))
