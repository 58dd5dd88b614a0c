"""What a log can say about its arrivals, before anything is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError

WINDOWS_NEEDED = 10
"""Windows that a log must have of a length, to say how much counts of that length vary."""
OCTAVES_NEEDED = 8
"""Steps of a lattice that a log must have, to say what weight its octave has."""
TICKS_US = (60_000_000, 30_000_000, 10_000_000, 5_000_000, 3_000_000, 2_000_000, 1_000_000, 100_000, 10_000, 1_000)
ON_TICK = 0.98
"""Share of the time stamps on a lattice that makes it the log's tick: a few stamps may be off."""
NEAR_TICK = 0.4
"""Mean cosine of the phase of gaps, from which on they cluster at multiples: 0 where they do not, ±0.03 by chance."""
ENOUGH = 100
"""Gaps without which nobody looks for ticks and silences."""
ENOUGH_APART = 30
"""Gaps that are not within a tick."""
DRIFT_ERRORS = 4.0
BLOCKS = 16
LONG_SILENCE = 0.1
"""Share of a log's span that makes a silence worth a note."""
SHORT_LOG_S = 600.0


@dataclass(frozen=True)
class LogFacts:
    """What a log can say about its arrivals.

    Attributes
    ----------
    requests : int
    span_s : float
        From the first request to the last, or as stated.
    tick_us : int
        Step of the time stamps' lattice; 1 if there is none above a microsecond.
    exact_ticks : bool
        Whether the stamps are on the lattice. Otherwise only gaps cluster at its multiples.
    equal_share : float
        Share of requests with the time stamp of the one before.
    drift, drift_error : float
        Logarithm of the rate in the second half over that in the first one, and its standard error, which includes
        how much counts of a sixteenth of the log vary.
    horizon_s : float
        Longest time about whose dispersion the log says something: it has `WINDOWS_NEEDED` windows of that length.
    longest_octave_s : float
        Longest lattice step of an environment about whose weight it does.
    notes : tuple of str
        What a user should know, a sentence each.
    """

    requests: int
    span_s: float
    tick_us: int
    exact_ticks: bool
    equal_share: float
    drift: float
    drift_error: float
    horizon_s: float
    longest_octave_s: float
    notes: tuple[str, ...]

    @property
    def rate_rps(self) -> float:
        """Mean rate."""
        return self.requests / self.span_s


def log_facts(
    arrival_us: NDArray[np.int64], *, begin_us: int | None = None, end_us: int | None = None, name: str = "the log"
) -> LogFacts:
    """Look at the time stamps of a log.

    Parameters
    ----------
    arrival_us : int64[requests]
        Ascending.
    begin_us, end_us : int, optional
        Where the log begins and ends, if that is known; else at its first and last request.
    name : str
        Of the log, for errors.

    Raises
    ------
    OptionError
        If there are fewer than two requests, or all have one time stamp: no rate follows from that.
    """
    requests = len(arrival_us)
    begin_us = int(arrival_us[0]) if begin_us is None and requests else (begin_us or 0)
    end_us = int(arrival_us[-1]) if end_us is None and requests else (end_us or 0)
    if requests < 2 or end_us <= begin_us:
        got = f"{requests} request{'s' * (requests != 1)}" + " at one time" * (requests > 1)
        wanted = "at least 2 requests at different times (250 to find more than a mean rate)"
        raise OptionError(wanted, f"{got} in {name}", "give a longer log")
    span_s = (end_us - begin_us) / 1e6
    gap_us = np.diff(arrival_us)
    constant = requests > 2 and int(gap_us.min()) == int(gap_us.max())
    tick_us, exact = (1, False) if constant else _tick(arrival_us, gap_us)
    drift, error = _drift(arrival_us, begin_us, end_us)
    facts = LogFacts(
        requests=requests,
        span_s=span_s,
        tick_us=tick_us,
        exact_ticks=exact,
        equal_share=float((gap_us == 0).mean()),
        drift=drift,
        drift_error=error,
        horizon_s=span_s / WINDOWS_NEEDED,
        longest_octave_s=span_s / OCTAVES_NEEDED,
        notes=(),
    )
    return LogFacts(**{**facts.__dict__, "notes": tuple(_notes(facts, int(gap_us.max()), constant))})


def _tick(arrival_us: NDArray[np.int64], gap_us: NDArray[np.int64]) -> tuple[int, bool]:
    """The coarsest lattice of the stamps, or else one near whose multiples the gaps are."""
    common = int(np.gcd.reduce(gap_us))
    fallback = (common, True) if common >= TICKS_US[-1] else (1, False)
    if len(gap_us) < ENOUGH:
        return fallback
    coarser = [tick_us for tick_us in TICKS_US if tick_us > common]
    for tick_us in coarser:
        rest = np.sort((arrival_us - arrival_us[0]) % tick_us)
        runs = np.diff(np.flatnonzero(np.diff(rest, prepend=-1, append=tick_us)))
        if runs.max() >= ON_TICK * len(rest):
            return tick_us, True
    for tick_us in coarser:
        gaps = gap_us[(gap_us > tick_us / 2) & (gap_us < 20 * tick_us)]
        if len(gaps) >= ENOUGH_APART and np.cos(gaps * (2 * np.pi / tick_us)).mean() > NEAR_TICK:
            return tick_us, False
    return fallback


def _drift(arrival_us: NDArray[np.int64], begin_us: int, end_us: int) -> tuple[float, float]:
    block = np.minimum((arrival_us - begin_us) * BLOCKS // (end_us - begin_us), BLOCKS - 1)
    halves = np.bincount(block, minlength=BLOCKS).astype(np.float64).reshape(2, BLOCKS // 2)
    dispersion = max(float(halves.var(axis=1, ddof=1).mean() / halves.mean()), 1.0)
    first, second = halves.sum(axis=1) + 0.5
    return float(np.log(second / first)), float(np.sqrt(dispersion * (1 / first + 1 / second)))


def _notes(facts: LogFacts, longest_us: int, constant: bool) -> list[str]:
    notes = []
    if constant:
        notes.append(f"All gaps are {longest_us / 1e6:g} s: requests are sent by a clock, and have no burstiness.")
    if facts.tick_us > 1:
        where = "lie on ticks" if facts.exact_ticks else "are mostly whole ticks apart"
        ticks = f"Time stamps {where} of {facts.tick_us / 1e6:g} s"
        notes.append(f"{ticks}: nothing is known about gaps below that.")
    if facts.span_s < 1.0:
        notes.append(f"All requests lie within {facts.span_s:g} s: only their rate in that time is known.")
    elif facts.span_s < SHORT_LOG_S * WINDOWS_NEEDED:
        notes.append(
            f"The log is {_time(facts.span_s)} long: it says how counts vary up to windows of "
            f"{_time(facts.horizon_s)}, and what happens over longer times is unknown."
        )
    if abs(facts.drift) > DRIFT_ERRORS * facts.drift_error:
        notes.append(
            f"The rate drifts: in the second half it is {np.exp(facts.drift):.3g} times that of the first half "
            f"(times or over {np.exp(facts.drift_error):.3g})."
        )
    silence_s = longest_us / 1e6
    if facts.requests > ENOUGH and silence_s > LONG_SILENCE * facts.span_s:
        share = silence_s / facts.span_s
        notes.append(f"There is a silence of {_time(silence_s)}, {share:.0%} of the log: mean rates include it.")
    return notes


def _time(s: float) -> str:
    for unit_s, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if s >= 2 * unit_s:
            return f"{s / unit_s:.3g} {name}"
    return f"{s:.3g} s"
