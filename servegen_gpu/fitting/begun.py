"""Conversations that begin in a log: their turns, and how long a next one would have been seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distribution import number
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S
from servegen_gpu.clients.stated.turns import SESSION_S
from servegen_gpu.errors import OptionError
from servegen_gpu.trace import Trace

NEEDED = ("arrival_us", "conversation", "turn", "input_tokens", "new_tokens")
SHOWN = 0.95
"""Share of inter-turn times after which a conversation that began before the log has shown itself."""
MOST_WAIT = 0.05
"""Of the log."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Begun:
    """Turns of the conversations that begin in a log, one conversation after another; and requests that stand alone.

    Attributes
    ----------
    turn : int64[n]
        From 1 on.
    gap_s : float64[n]
        To the next turn; NaN if none was seen.
    seen_s : float64[n]
        How long a next one would have been seen.
    client, input, said : int64[n]
        Clients, tokens of inputs, and of answers without their reasoning.
    session_s : float
        The longest time from a first turn to the last.
    ended : bool
        Whether one of several turns begins that long before the end of the log.
    """

    turn: Ints
    gap_s: Floats
    seen_s: Floats
    client: Ints
    input: Ints
    said: Ints
    session_s: float
    ended: bool


def begun_in(trace: Trace, session_s: float | None) -> Begun:
    """Conversations that begin in a trace; `session_s` as for `servegen_gpu.fit_turns`.

    Where no conversation is known to have begun before the trace, because turns are numbered from what was seen, those
    are left out that begin before others would have shown themselves.
    """
    if missing := [name for name in NEEDED if name not in trace]:
        raise OptionError(f"columns {', '.join(NEEDED)}", f"none of {missing[0]!r}", "give a trace of conversations")
    order = np.lexsort((trace["turn"], trace["conversation"]))
    conversation, turn, at_us = (trace[name][order].astype(np.int64) for name in ("conversation", "turn", "arrival_us"))
    opens = np.flatnonzero(turn == 1)
    start = np.full(len(turn), -1)
    start[opens] = opens
    start = np.maximum.accumulate(start)  # of the conversation, if it is the row's own
    own = (start >= 0) & (conversation[start] == conversation)
    begin_us = at_us[start]
    since_us = at_us - begin_us
    longest_us = _longest_us(since_us[own], session_s)
    kept = own & (since_us <= longest_us)
    if own.all():
        kept &= begin_us >= _shown_us(at_us, turn)
    end_us = int(at_us.max(initial=0))
    ended = session_s is None or bool((kept & (turn == 2) & (begin_us <= end_us - longest_us)).any())
    rows = np.flatnonzero(kept)

    at, which = at_us[rows], conversation[rows]
    gap_s = np.full(len(rows), np.nan)
    goes_on = np.flatnonzero(which[1:] == which[:-1])
    gap_s[goes_on] = np.diff(at)[goes_on] / 1e6
    rows_of = order[rows]

    def column(name: str) -> Ints:
        return trace[name][rows_of].astype(np.int64) if name in trace else np.zeros(len(rows), np.int64)

    return Begun(
        turn=turn[rows],
        gap_s=gap_s,
        seen_s=np.minimum(end_us - at, longest_us - since_us[rows]) / 1e6,
        client=column("client"),
        input=column("input_tokens"),
        said=column("output_tokens") - column("reason_tokens"),
        session_s=longest_us / 1e6,
        ended=ended,
    )


def _longest_us(since_us: Ints, session_s: float | None) -> int:
    """The longest time from a first turn to the last: as stated, or as seen."""
    if session_s is None:
        return min(max(int(since_us.max(initial=0)) + 1, 1_000_000), round(SESSION_S * 1e6))
    return round(number("session_s", session_s, 1, high=MAX_SESSION_S) * 1e6)


def _shown_us(at_us: Ints, turn: Ints) -> float:
    """When conversations that began before the trace have shown themselves."""
    later = np.flatnonzero(turn > 1)
    if not len(later):
        return float("-inf")
    begin, end = int(at_us.min()), int(at_us.max())
    gap = float(np.quantile(at_us[later] - at_us[later - 1], SHOWN))
    return begin + min(gap, MOST_WAIT * (end - begin))
