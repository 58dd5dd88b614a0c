"""What changes in time: values that hold from a time to the next, and rates in any form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.errors import OptionError
from servegen_gpu.rates import Rate, resolve_rate, window_means
from servegen_gpu.schedules import Schedule


@dataclass(frozen=True, eq=False)
class Steps:
    """A value that holds from its time to the next one's, the last to the end of the period.

    Attributes
    ----------
    times_s : tuple of float
        Ascending, the first one 0.
    values : tuple
        One for every time.
    """

    times_s: tuple[float, ...]
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        _check_times(self.times_s)

    @classmethod
    def of(cls, pairs: Sequence[tuple[float | str, Any]]) -> Steps:
        """From pairs of a time (seconds, or text such as ``"8h"``) and a value."""
        return cls(tuple(options.seconds("a time", time) for time, _ in pairs), tuple(value for _, value in pairs))

    def map(self, convert: Callable[[Any], Any]) -> Steps:
        """The same times with other values."""
        return Steps(self.times_s, tuple(convert(value) for value in self.values))

    def at(self, windows: int, window_s: int) -> NDArray[np.int64]:
        """Which value holds in each window, int64[windows]; refuses changes inside a window."""
        for time in self.times_s:
            if time % window_s or time >= windows * window_s:
                raise OptionError(
                    f"changes at multiples of window_s ({window_s} s), within the period of {windows * window_s} s",
                    f"one at {time:g} s",
                    "move it, or choose another window_s or period",
                )
        return np.searchsorted(self.times_s, np.arange(windows) * window_s, side="right") - 1


def _check_times(times_s: Sequence[float]) -> None:
    if not times_s or times_s[0] != 0:
        got = f"{times_s[0]:g} s" if times_s else "no time at all"
        raise OptionError("steps that begin at 0 s", got, "say what holds from 0 s on")
    for before, after in pairwise(times_s):
        if not after > before:
            raise OptionError("ascending times", f"{after:g} s after {before:g} s", "sort the steps, one for each time")


def steps_of(value: Any) -> Steps:
    """Steps from a value that may change in time.

    Parameters
    ----------
    value : Steps, mapping or any other
        A mapping is read as ``{time: value}``, in any order, unless all its keys and values are numbers: those are
        PMFs. Anything else holds all the time.
    """
    if isinstance(value, Steps):
        return value
    if isinstance(value, Mapping) and not all(_is_number(x) for x in (*value, *value.values())):
        pairs = [(options.seconds("a time", time), held) for time, held in value.items()]
        return Steps.of(sorted(pairs, key=lambda pair: pair[0]))
    return Steps((0.0,), (value,))


def number_steps(value: Any) -> Steps:
    """Like `steps_of` for a number that may change in time: every mapping is ``{time: number}``."""
    if isinstance(value, Mapping):
        pairs = [(options.seconds("a time", time), held) for time, held in value.items()]
        return Steps.of(sorted(pairs, key=lambda pair: pair[0]))
    return steps_of(value)


def rate_of(value: Any) -> Rate:
    """A client's rate from a number, steps, a `Schedule` or the path of one, or a function of time (such as `Diurnal`).

    Steps are a mapping ``{time: rps}`` or a list of such pairs; times may be text such as ``"8h"``.
    """
    if isinstance(value, Mapping):
        pairs = sorted((options.seconds("a time", time), rps) for time, rps in value.items())
        value = pairs or [()]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = [(options.seconds("a time", p[0]), *p[1:]) if isinstance(p, Sequence) and p else p for p in value]
    rate = resolve_rate(value)
    if rate.kind not in ("constant", "schedule", "function"):
        raise OptionError("a rate: req/s, steps, a Schedule or a function of time", repr(value), "state the rate")
    return rate


def window_rates(rate: Rate, windows: int, window_s: int) -> NDArray[np.float64]:
    """Mean rate in every window of a period that begins at 0, float64[windows].

    Inside a window a client's rate is constant: what varies faster needs a smaller `window_s`.
    """
    end_s = windows * window_s
    if rate.schedule is not None:
        _check_schedule(rate.schedule, end_s)
    rps = window_means(rate, windows, window_s)
    if not rps.any():
        raise OptionError(f"a rate above 0 at some time of the period, {end_s} s", "zeros only", "change the rate")
    return rps


def _check_schedule(schedule: Schedule, end_s: int) -> None:
    first, last = float(schedule.times_s[0]), float(schedule.times_s[-1])
    if first != 0:
        raise OptionError("a rate from 0 s on", f"one from {first:g} s on", "begin its steps or knots at 0")
    if schedule.kind == "linear" and last != end_s:
        raise OptionError(f"knots up to the end of the period, {end_s} s", f"the last at {last:g} s", "add a knot")
    if last > end_s or (schedule.kind == "steps" and last == end_s):
        raise OptionError(f"steps within the period of {end_s} s", f"one at {last:g} s", "drop it, or lengthen period")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
