"""From times as a file states them to microseconds of a trace."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.plan import Plan
from servegen_gpu.formats.reading.survey import Survey
from servegen_gpu.formats.reading.times import LARGEST, NS_PER, Dates, Ticks
from servegen_gpu.formats.reading.units import EPOCHS, WORDS, unit_of

MAX_SPAN_NS = 2**53 * 1000
"""285 years: microseconds are exact as float64, which scaling relies on."""


class Clock:
    """Unit and begin of the times of a file.

    Attributes
    ----------
    unit : {"s", "ms", "us", "ns"}
        Dates are nanoseconds.
    how : str
        The unit, and how it was told, for the note.
    origin : str
        What time 0 of the trace is in the file.
    from_first : bool
        Whether times are counted from the first request.
    first_us, last_us : int
        Arrivals of the first and the last request.
    """

    def __init__(
        self, plan: Plan, dates: Dates | None, survey: Survey, stated: Mapping[str, Any] | None, source: str
    ) -> None:
        self.unit, self.how = _unit(plan, dates, survey, source)
        ends = Ticks(*(np.array(both) for both in zip(survey.first, survey.last, strict=True)))
        first, last = ends.nanoseconds(self.unit).tolist()
        begin = _begin_ns(plan, dates, stated)
        self.from_first = begin is None or first < begin
        self._begin_ns = first if begin is None or first < begin else begin
        if ends.unfit(self.unit).any() or last - self._begin_ns >= MAX_SPAN_NS:
            span_s = float(np.ptp(ends.floats())) * NS_PER[self.unit] / 1e9
            raise OptionError(
                f"times within {MAX_SPAN_NS / 1e9:.3g} s", f"{span_s:.3g} s in {source}", "check the unit"
            )
        self.first_us, self.last_us = self.microseconds(ends).tolist()
        self.origin = _shown(self._begin_ns, survey.first if self.from_first else (0, 0), self.unit, dates)

    def nanoseconds(self, times: Ticks) -> NDArray[np.int64]:
        """Nanoseconds since the begin, int64[n]."""
        return np.asarray(times.nanoseconds(self.unit) - self._begin_ns)

    def microseconds(self, times: Ticks) -> NDArray[np.int64]:
        """Microseconds since the begin, int64[n], to the nearest."""
        return to_us(self.nanoseconds(times))


def to_us(time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Nanoseconds to the nearest microsecond, int64[n]."""
    return np.asarray((time_ns + 500) // 1000)


def _unit(plan: Plan, dates: Dates | None, survey: Survey, source: str) -> tuple[str, str]:
    stated, layout = plan.unit, plan.layout
    if stated is not None and (dates is not None) != (stated == "iso"):
        got = f"{'numbers' if dates is None else 'dates'} in {source}, column {plan.columns['time']!r}"
        raise OptionError("dates by ISO 8601" if stated == "iso" else f"times in {WORDS[stated]}", got, "change unit")
    if dates is not None:
        return "ns", "dates"
    if stated is None and (layout.unit is None or not layout.sure):
        return unit_of(survey.spread(), layout.unit, source)
    unit = stated or layout.unit or "s"
    return unit, WORDS[unit]


def _begin_ns(plan: Plan, dates: Dates | None, stated: Mapping[str, Any] | None) -> int | None:
    """Where times are counted from, if that is not the first request."""
    if dates is None:
        return 0 if stated is not None or not plan.layout.rebase else None
    if stated is None or not plan.layout.begin:
        return None
    for begin in (str(stated["provenance"].get("origin")).removesuffix("Z"), plan.layout.begin):
        with suppress(ValueError):
            if not np.isnat(stated_ns := np.datetime64(begin, "ns")):
                return int(stated_ns.astype(np.int64))
    return None


def _shown(begin_ns: int, begin: tuple[int, int], unit: str, dates: Dates | None) -> str:
    """A begin as a date, if it is one, or as a number and its unit."""
    if dates is not None:
        return f"{np.datetime64(begin_ns, 'ns')}{'Z' if dates.zoned else ''}"
    if EPOCHS["s"] * NS_PER["s"] <= begin_ns < LARGEST:
        return f"{np.datetime64(begin_ns, 'ns')}Z"
    whole, part = begin
    return f"{whole + part / 1e9:.15g} {unit}" if part else f"{whole} {unit}"
