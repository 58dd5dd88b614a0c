"""How much: the target rate, its mean in every window, and how it moves inside windows.

All times are seconds on the profiles' time axis, where 0 is the start of the data's first day, as for `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.clock import US, ClockTables, Pieces, clock_of, constant_clock, mean_rates
from servegen_gpu.errors import RateError
from servegen_gpu.options import rps
from servegen_gpu.schedules import MAX_RATE_RPS, Schedule, read_schedule

__all__ = ["ClockTables", "Rate", "RateFunction", "Schedule", "Targets", "read_schedule", "resolve_rate", "targets"]

RateFunction = Callable[[Any], Any]
"""From seconds on the time axis, float64[n] or one float, to requests per second."""

Kind = Literal["own", "scaled", "peak", "constant", "schedule", "function"]

UNITS: Mapping[Kind, str] = {"scaled": "factor", "peak": "rps", "constant": "rps"}
"""Of the one number that a kind of rate may have, in its description."""

REAL = (int, float, np.integer, np.floating)

Knots = Mapping[float, float] | Sequence[Sequence[float]] | NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rate:
    """What total rate is asked for.

    Attributes
    ----------
    kind : str
        ``"own"``: the clients' own rates. ``"scaled"``: those times `value`. ``"peak"``: those scaled down so that
        the busiest window of the span has `value` req/s, and never up. ``"constant"``: `value` req/s.
        ``"schedule"`` and ``"function"``: as given over time.
    value : float
    schedule : Schedule, optional
    function : callable, optional
        Called with float64 arrays of seconds; one that refuses arrays is called with one float at a time.
    """

    kind: Kind
    value: float = 1.0
    schedule: Schedule | None = None
    function: RateFunction | None = None

    def describe(self) -> dict[str, Any]:
        """For provenance, in terms that JSON has."""
        if self.schedule is not None:
            return {"rate": "schedule", "schedule": self.schedule.describe()}
        if self.function is not None:
            return {"rate": "function", "name": _name(self.function)}
        unit = UNITS.get(self.kind)
        return {"rate": self.kind} | ({unit: self.value} if unit else {})

    @classmethod
    def described(cls, stated: Any) -> Rate:
        """The rate that `describe` describes.

        Raises
        ------
        RateError
            If it cannot be told from that: a function, and a schedule that is named by its digest.
        """
        about = stated if isinstance(stated, Mapping) else {}
        kind = about.get("rate")
        if kind == "own":
            return cls("own")
        for one, unit in UNITS.items():
            if one == kind and isinstance(value := about.get(unit), int | float):
                return cls(one, _positive(value, unit))
        if kind == "schedule":
            return cls("schedule", schedule=Schedule.described(about.get("schedule")))
        got = f"the function {str(about.get('name'))[:60]}" if kind == "function" else repr(stated)[:60]
        raise RateError("a rate that its description tells", got, "give the rate itself")


@dataclass(frozen=True, eq=False)
class Targets:
    """The target rate of a span of windows.

    Attributes
    ----------
    rps : float64[windows]
        Mean total rate in each window, req/s.
    clock : ClockTables
        How the rate moves inside each window.
    """

    rps: NDArray[np.float64]
    clock: ClockTables


def resolve_rate(
    rate: float | str | Path | Schedule | Knots | RateFunction | Rate | None = None,
    scale: float | None = None,
    peak: float | None = None,
) -> Rate:
    """Take a target rate in any of the forms it may be given; at most one of the three.

    Parameters
    ----------
    rate : number, text, path, Schedule, list, dict or callable, optional
        Requests per second in all: a number, also as text such as ``"1k"``, ``"5 req/s"`` or ``"300/min"``; a schedule
        or the path of one, steps as a list of (time_s, rate_rps) pairs or a dict {time_s: rate_rps}, or a function of
        the time in seconds.
    scale : float, optional
        Multiplies the clients' own rates.
    peak : float, optional
        Scales the clients' own rates down so that no window of the span has more than this, req/s.
    """
    given = {name: value for name, value in {"rate": rate, "scale": scale, "peak": peak}.items() if value is not None}
    if len(given) > 1:
        raise RateError("at most one of rate, scale and peak", " and ".join(given), "leave out all but one")
    if scale is not None:
        return Rate("scaled", _positive(scale, "scale"))
    if peak is not None:
        return Rate("peak", _positive(peak, "peak"))
    if rate is None:
        return Rate("own")
    if isinstance(rate, Rate):
        return rate
    if isinstance(rate, Schedule):
        return Rate("schedule", schedule=rate)
    if isinstance(rate, str | Path):
        number = rps(str(rate))
        if number is None:
            return Rate("schedule", schedule=read_schedule(rate))
        return Rate("constant", _positive(number, "rate", got=str(rate)))
    if isinstance(rate, Mapping | Sequence) or (isinstance(rate, np.ndarray) and rate.ndim):
        return Rate("schedule", schedule=_steps(rate))
    if callable(rate):
        return Rate("function", function=rate)
    return Rate("constant", _positive(rate, "rate"))


def targets(rate: Rate, own_rps: NDArray[np.float64], first_window: int, window_s: int) -> Targets:
    """The target rate of each window of a span.

    A window's figures depend on the rate and on the window's place on the time axis only, never on which windows
    are around it; the one exception is a bounded peak, which is a property of the span.

    Parameters
    ----------
    rate : Rate
    own_rps : float64[windows]
        Total of the clients' own rates in each window of the span.
    first_window : int
        Number of the first window on the time axis.
    window_s : int
        Length of a window, from 1 to 4,294 s.

    Returns
    -------
    Targets
    """
    windows = len(own_rps)
    pieces = _pieces(rate, first_window, windows, window_s)
    if pieces is not None:
        return Targets(*clock_of(pieces, window_s))
    rps = np.full(windows, rate.value) if rate.kind == "constant" else np.array(own_rps, np.float64)
    if rate.kind == "scaled":
        rps *= rate.value
    elif rate.kind == "peak" and windows and rps.max() > rate.value:
        rps = np.minimum(rps / rps.max() * rate.value, rate.value)
    return Targets(rps, constant_clock(windows, window_s))


def known_before(rate: Rate, own_rps: NDArray[np.float64], from_s: int, begin_s: int, start_us: int) -> Rate:
    """The same rate, known from an earlier time on, for conversations that begin before a trace does.

    A schedule that the trace begins in has its first rate before, too; one that begins later has none. A function has
    its value at the begin of the data; a bounded peak is that of the trace's own span.

    Parameters
    ----------
    own_rps : float64[windows]
        Total of the clients' own rates in each window of the trace.
    from_s : int
        From when on.
    begin_s : int
        Where the data begins.
    start_us : int
        Where the trace begins.
    """
    if rate.kind == "peak":
        return Rate("scaled", min(1.0, rate.value / max(float(own_rps.max(initial=0.0)), 1e-300)))
    if rate.function is not None:
        function = rate.function
        return Rate("function", function=lambda time_s: function(np.maximum(time_s, begin_s)))
    schedule = rate.schedule
    if schedule is None or not from_s * US < schedule.times_us[0] <= start_us:
        return rate
    times_s = np.concatenate(([float(from_s)], schedule.times_us / US))
    rates_rps = np.concatenate((schedule.rates_rps[:1], schedule.rates_rps))
    return Rate("schedule", schedule=Schedule(times_s, rates_rps, schedule.kind))


def schedule_notes(rate: Rate, start_s: float, end_s: float | None = None) -> tuple[str, ...]:
    """What holds where a schedule does not reach, between a start and an end, if that is known.

    Raises
    ------
    RateError
        If the schedule says nothing of the span.
    """
    if (schedule := rate.schedule) is None:
        return ()
    start_us = round(start_s * US)
    end_us = max(start_us, int(schedule.times_us[-1])) + 1 if end_s is None else round(end_s * US)
    _check_overlap(schedule, start_us, end_us)
    first_us, last_us = int(schedule.times_us[0]), int(schedule.times_us[-1])
    notes = [f"the schedule begins at {_s(first_us)}: the rate is 0 before"] if start_us < first_us else []
    if schedule.kind == "linear":
        ends = end_s is not None and end_us > last_us
        return (*notes, f"the schedule ends at {_s(last_us)}: the rate is 0 after") if ends else tuple(notes)
    longest_us = int(np.diff(schedule.times_us).max(initial=0))
    if longest_us and end_us - max(last_us, start_us) > (0 if start_us >= last_us else longest_us):
        until = "throughout" if start_us >= last_us else "to the end"
        notes.append(
            f"the schedule ends at {_s(last_us)}: its last rate, {schedule.rates_rps[-1]:g} req/s, holds {until}"
        )
    return tuple(notes)


def _check_overlap(schedule: Schedule, start_us: int, end_us: int, whole: bool = False) -> None:
    """Refuse a schedule that says nothing of a span, or does not say all of it."""
    first_us, last_us, linear = int(schedule.times_us[0]), int(schedule.times_us[-1]), schedule.kind == "linear"
    if whole:
        reaches = first_us <= start_us and not (linear and last_us < end_us)
    else:
        reaches = first_us < end_us and not (linear and last_us <= start_us)
    if not reaches:
        until = f"from {_s(first_us)} to {_s(last_us)}" if linear else f"from {_s(first_us)} on"
        moved = f"its times are on the profiles' axis, as the start is: add {_s(start_us)} to them"
        fix = moved if start_us else "change its times, or start and duration"
        raise RateError(f"a schedule for the span from {_s(start_us)} to {_s(end_us)}", f"one {until}", fix)


def _s(time_us: int) -> str:
    return f"{time_us / US:,.10g} s"


def window_means(rate: Rate, windows: int, window_s: int) -> NDArray[np.float64]:
    """Mean of a stated rate in every window of a span that begins at 0, float64[windows]: `targets` without clocks."""
    if rate.schedule is not None:
        _check_overlap(rate.schedule, 0, windows * window_s * US, whole=True)
    pieces = _pieces(rate, 0, windows, window_s)
    return np.full(windows, rate.value) if pieces is None else mean_rates(pieces, window_s)[0]


def _pieces(rate: Rate, first_window: int, windows: int, window_s: int) -> Pieces | None:
    """A rate that varies, piece by piece."""
    if rate.schedule is not None:
        return _schedule_pieces(rate.schedule, first_window, windows, window_s)
    if rate.function is not None:
        return _function_pieces(rate.function, first_window, windows, window_s)
    return None


def _schedule_pieces(schedule: Schedule, first_window: int, windows: int, window_s: int) -> Pieces:
    """Cut a schedule at its knots and at the edges of the windows; outside of it the rate is 0."""
    knots = schedule.times_us
    edges = (first_window + np.arange(windows + 1, dtype=np.int64)) * (window_s * US)
    linear = schedule.kind == "linear"
    inside = knots[(knots > edges[0]) & (knots < edges[-1])]
    # Inside a piece arrivals are uniform, so a slope is followed second by second.
    seconds = np.arange(edges[0], edges[-1], US) if linear else edges[:-1]
    begin = distinct(np.concatenate((seconds, inside)))
    end = np.append(begin[1:], edges[-1])
    window = (begin - edges[0]) // (window_s * US)
    start_us = begin - edges[window]
    offsets = np.searchsorted(window, np.arange(windows + 1))

    at = np.searchsorted(knots, begin, side="right") - 1
    within = (at >= 0) & (at < len(knots) - linear)
    at = np.clip(at, 0, len(knots) - 1 - linear)
    left = right = schedule.rates_rps[at]
    if linear:
        rise = np.diff(schedule.rates_rps)[at]
        span = np.diff(knots)[at]
        left = schedule.rates_rps[at] + rise * ((begin - knots[at]) / span)
        right = schedule.rates_rps[at] + rise * ((end - knots[at]) / span)
    if not within.all():
        left, right = np.where(within, left, 0.0), np.where(within, right, 0.0)
    return Pieces(offsets, start_us, end - begin, left, right)


def _function_pieces(function: RateFunction, first_window: int, windows: int, window_s: int) -> Pieces:
    """Cut a function at whole seconds, taking it as linear in between.

    A second's right end is the last instant before the next second, so that jumps at whole seconds stay jumps.
    Windows are evaluated one at a time: array functions may differ in the last bit with the length of the array.
    """
    rates = np.empty((windows, 2, window_s))
    for w in range(windows):
        begin = (first_window + w) * window_s + np.arange(window_s, dtype=np.float64)
        times = np.concatenate((begin, np.nextafter(begin + 1, begin)))
        rates[w] = _evaluate(function, times).reshape(2, window_s)
    return Pieces(
        offsets=np.arange(windows + 1, dtype=np.int64) * window_s,
        start_us=np.tile(np.arange(window_s, dtype=np.int64) * US, windows),
        length_us=np.full(windows * window_s, US, np.int64),
        left_rps=rates[:, 0].ravel(),
        right_rps=rates[:, 1].ravel(),
    )


def _evaluate(function: RateFunction, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """A function of time at float64[n] seconds, checked; one by one where it does not take arrays."""
    try:
        rates = np.asarray(function(times))
        refused = rates.shape != times.shape or rates.dtype.kind not in "fiu"
    except Exception:  # whatever the user's code raises on an array, it may do well on a number
        refused = True
    if refused:
        rates = np.array([_evaluate_one(function, t) for t in times.tolist()])
    rates = rates.astype(np.float64)
    fault = ~((rates >= 0) & (rates <= MAX_RATE_RPS))
    if fault.any():
        i = int(np.argmax(fault))
        got = f"{rates[i]:g} from {_name(function)} at {times[i]:g} s"
        raise RateError(f"a rate from 0 to {MAX_RATE_RPS:g} req/s", got, "fix the function")
    return rates


def _evaluate_one(function: RateFunction, time_s: float) -> float:
    try:
        value = function(time_s)
        if type(value) in (float, int):  # the common case, a second at a time
            return float(value)
        if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "fiu":
            raise TypeError(f"{type(value).__name__} {str(value)[:40]}")
        return float(value)
    except Exception as error:
        got = f"{_name(function)} at {time_s:g} s: {type(error).__name__}: {error}"
        raise RateError("a function from seconds to req/s", got, "fix the function") from error


def _steps(knots: Mapping[float, float] | Iterable[Any]) -> Schedule:
    """Steps from a dict in any order, or from ascending pairs."""
    pairs = list(knots.items() if isinstance(knots, Mapping) else knots)
    for pair in pairs:
        real = isinstance(pair, Sequence | np.ndarray) and len(pair) == 2 and all(isinstance(x, REAL) for x in pair)
        if not real or any(isinstance(x, bool) for x in pair):
            raise RateError("pairs (time_s, rate_rps) of numbers", f"{str(pair)[:60]!r}", "fix the list")
    if isinstance(knots, Mapping):
        pairs.sort()
    return Schedule(np.array([t for t, _ in pairs]), np.array([r for _, r in pairs]), "steps")


def _positive(value: object, name: str, got: object = None) -> float:
    if isinstance(value, bool) or not (isinstance(value, REAL) and 0 < value <= MAX_RATE_RPS):  # NaN compares false
        came = repr(value if got is None else got)
        raise RateError(f"{name}: a number above 0, up to {MAX_RATE_RPS:g}", came, f"change {name}")
    return float(value)


def _name(function: RateFunction) -> str:
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}"
