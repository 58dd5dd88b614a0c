"""Which part of the time axis a trace covers: as a user states it, or as many requests need."""

from __future__ import annotations

import numpy as np

from servegen_gpu.clients.pool import DAY_S, ClientPool
from servegen_gpu.clock import US
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import MAX_WINDOW
from servegen_gpu.options import seconds
from servegen_gpu.rates import Rate, targets

LONGEST_S = 366 * DAY_S
"""How long a trace of a number of requests may take where no duration is stated."""

SPARE, SPARE_DROPPED = 2, 100
"""How many times as many requests are expected in its span; more where an unknown part of them is left out."""

SPARE_STEPS = 32
"""For so many steps of an environment's coarsest lattice, at a variance of 0, a span goes on: silence may last."""
SPARE_CELLS = 1 << 20
"""Of all environments together: what that may cost."""


def span(
    pool: ClientPool, start: float | str | None, duration: float | str, past_end: str
) -> tuple[float, float, tuple[str, ...]]:
    """Start and end in seconds on the pool's axis, and what to tell the user about them."""
    start_s = start_of(pool, start)
    length_s = seconds("duration", duration)
    if not length_s * 1e6 >= 1:
        fix = "time runs forward: to begin earlier, change the start" if length_s < 0 else "generate longer"
        raise OptionError("a duration of at least a microsecond", repr(duration), fix)
    end_s = start_s + length_s
    if past_end == "end" and end_s > pool.end_s:
        if start_s >= pool.end_s:
            raise OptionError(
                f"a start before the data's end at {pool.end_s} s", f"{start_s:g} s", "start earlier, or wrap"
            )
        note = f"the trace ends with the data, {pool.end_s - start_s:,.0f} s after its start"
        return start_s, float(pool.end_s), (note,)
    return start_s, end_s, _notes(pool, end_s)


def start_of(pool: ClientPool, start: float | str | None) -> float:
    """Where a trace begins, seconds on the pool's axis; the pool's begin by default."""
    start_s = float(pool.start_s) if start is None else seconds("start", start)
    if start_s < pool.start_s:
        fix = "times count from the start of the data's first day: start there or later"
        raise OptionError(f"a start from {pool.start_s} s on", repr(start), fix)
    return start_s


def span_for(
    requests: int, pool: ClientPool, rate: Rate, start: float | str | None, empty: str, past_end: str, dropping: bool
) -> tuple[float, float, tuple[str, ...]]:
    """A span of whole windows with that many requests for all but certain; like `span`.

    It has twice as many expected ones (a hundred times, where `dropping` leaves out an unknown part) and more where
    environments make counts vary, since only what is needed of it is sampled. Sooner it ends with the data, with a
    schedule, and where nobody is active any more.
    """
    if rate.kind == "peak":
        raise OptionError(
            "a duration with requests under a peak", "none", "state one: the busiest window of it decides all rates"
        )
    start_s = start_of(pool, start)
    if past_end == "end" and start_s >= pool.end_s:
        return span(pool, start_s, 1.0, past_end)  # which refuses it
    first = int(start_s // pool.window_s)
    most = min(LONGEST_S // pool.window_s + 1, MAX_WINDOW - first)
    if past_end == "end":
        most = min(most, pool.first_window + pool.windows - first)
    if rate.schedule is not None and rate.schedule.kind == "linear":
        most = min(most, -int(-rate.schedule.times_us[-1] // (pool.window_s * US)) - first)
    most = max(most, 1)
    beyond = 2 + _patience(pool)
    n, wanted = 64, requests * (SPARE_DROPPED if dropping else SPARE) + 100
    while True:
        n = min(n, most)
        rows = pool.row(first + np.arange(n))
        own_rps, total_rps = pool.own_rps[rows], pool.total_rps[rows]
        target_rps = targets(rate, total_rps, first, pool.window_s).rps
        silent = np.flatnonzero((target_rps > 0) & (total_rps <= 0)) if empty == "error" else np.empty(0, np.int64)
        stop = int(silent[0]) if len(silent) else n
        scale = np.divide(target_rps, total_rps, out=np.zeros(n), where=total_rps > 0)
        upto = np.cumsum((scale * own_rps)[:stop]) * pool.window_s
        # one window more than expected at least: the first may have all but ended
        enough = int(np.searchsorted(upto, wanted)) + beyond
        if enough <= stop or stop < n or n == most:
            break
        n *= 4
    expected = int(np.searchsorted(upto, requests)) + 1
    end_s = float((first + max(min(enough, stop), 1)) * pool.window_s)
    return start_s, end_s, _notes(pool, min(float((first + expected) * pool.window_s), end_s))


def _patience(pool: ClientPool) -> int:
    """Windows that a number of requests may take longer than its expectation says, because of environments."""
    moves = np.bincount(pool.environment[pool.profile] + 1, minlength=len(pool.environments) + 1)[1:]
    longest_s = 0.0
    for each, clients in zip(pool.environments, moves.tolist(), strict=True):
        if clients:
            most = SPARE_CELLS // (clients if each.each == "client" else 1)
            steps = SPARE_STEPS * (1.0 + each.margin.variance)
            longest_s = max(longest_s, min(steps * each.longest_s, most * each.cell_s))
    return int(longest_s // pool.window_s) + (longest_s > 0)


def _notes(pool: ClientPool, end_s: float) -> tuple[str, ...]:
    if end_s <= pool.start_s + pool.period_windows * pool.window_s or pool.period_windows == 1:
        return ()
    period = pool.period_windows * pool.window_s / DAY_S
    return (f"profiles repeat every {period:g} days: the span goes past the end of the data",)
