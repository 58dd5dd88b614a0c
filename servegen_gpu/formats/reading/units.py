"""Which unit times are in, where neither a name nor a format says so: by their size, or by the rate that they give.

Numbers from 10**9 on are seconds, from 10**12 on milliseconds, from 10**15 on microseconds and from 10**18 on
nanoseconds since 1970, up to ten times as much: years 2001 to 2286. Smaller ones count from some start. Then a unit is
plausible if it makes a mean rate from 0.02 to 1,000 requests/s.
"""

from __future__ import annotations

from dataclasses import dataclass

from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading.times import NS_PER

EPOCHS = {"s": 10**9, "ms": 10**12, "us": 10**15, "ns": 10**18}
SLOWEST_RPS, FASTEST_RPS = 0.02, 1_000.0
ENOUGH = 10
"""With fewer requests a rate tells nothing."""
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Spread:
    """What all times of a file have in common, as numbers.

    Attributes
    ----------
    count : int
    low, high : float
        The first and the last.
    whole : bool
        Whether all are whole numbers.
    fine : bool
        Whether some have more than three digits behind the point.
    """

    count: int
    low: float
    high: float
    whole: bool
    fine: bool

    def rate_rps(self, unit: str) -> float:
        """Mean rate if times are in this unit."""
        span = (self.high - self.low) * NS_PER[unit] / 1e9
        return (self.count - 1) / span if span > 0 else 0.0


def unit_of(times: Spread, usual: str | None, source: str) -> tuple[str, str]:
    """The unit of times, and how it was told, for the note.

    Parameters
    ----------
    times : Spread
    usual : str, optional
        Unit of the format, which some programs do not keep to.
    source : str
        For messages.

    Raises
    ------
    OptionError
        If more than one unit or none is plausible.
    """
    epochs = [unit for unit, least in EPOCHS.items() if least <= times.low and times.high < 10 * least]
    if epochs:
        return epochs[0], f"{WORDS[epochs[0]]} since 1970, by their size"
    seldom = usual is None and times.whole and 0 < times.rate_rps("s") < SLOWEST_RPS
    if (times.count < ENOUGH and not seldom) or times.high <= times.low:
        return usual or "s", f"{WORDS[usual or 's']}, {'as usual in this format' if usual else 'assumed'}"
    able = [unit for unit in NS_PER if SLOWEST_RPS <= times.rate_rps(unit) <= FASTEST_RPS]
    if found := _by_rate(times, usual, able):
        if found == usual:
            return found, f"{WORDS[found]}, as usual in this format"
        as_usual = f": in {WORDS[usual]} they give {times.rate_rps(usual):.3g} requests/s" if usual else ""
        return found, f"{WORDS[found]}, by their rate{' and digits' * times.fine}{as_usual}"
    rates = ", ".join(f"{times.rate_rps(unit):.3g} requests/s in {WORDS[unit]}" for unit in ("s", "ms", "us"))
    got = f"times from {times.low:.15g} to {times.high:.15g} in {source}: {rates}"
    raise OptionError("times whose unit can be told", got, "state it: --unit s, ms, us or ns (unit=)")


def _by_rate(times: Spread, usual: str | None, able: list[str]) -> str | None:
    """The unit among the plausible ones; None if it is doubtful.

    Programs write milliseconds with up to three digits behind the point, since the rest is below a microsecond: more of
    them tell seconds.
    """
    if times.fine and "s" in able and usual in ("ms", None):
        return "s"
    if usual in able:
        return usual
    if usual == "ms":
        return None if "s" in able else usual
    if usual is not None and not times.whole:
        return usual
    if not times.whole and "ms" not in able:
        return "s"
    if len(able) == 1:
        return able[0]
    return None if able or usual is None else usual
