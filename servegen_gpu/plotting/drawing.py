"""What the modules that draw share: sides, drawings, and axes in the units of the field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from servegen_gpu.comparing.table import number
from servegen_gpu.plotting.seen import Pictured
from servegen_gpu.plotting.style import LINES, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

TIMES = ((1e-6, "µs"), (1e-3, "ms"), (1, "s"), (60, "min"), (3600, "h"), (86_400, "d"))


@dataclass(frozen=True, eq=False)
class Side:
    """One trace of a picture, and what it is called."""

    name: str
    data: Pictured

    @property
    def label(self) -> str:
        """Its name, short enough for a legend."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in self.name)
        return shown if len(shown) <= 24 else shown[:23] + "…"


Sides = Sequence[Side]
"""One trace, or a reference and another one."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture, and what it shows in words.

    Attributes
    ----------
    title : str
    figure : matplotlib.figure.Figure
    alt : str
        What is drawn.
    caption : str
        Its main numbers.
    """

    title: str
    figure: Figure
    alt: str
    caption: str


def styles(sides: Sides) -> list[tuple[Side, Line]]:
    """Each side with how its curves look."""
    return list(zip(sides, LINES, strict=False))


def by_side(sides: Sides, says: Any) -> str:
    """What a function says of each side, a line for each, with names where there are two."""
    said = [(side, text) for side in sides if (text := says(side))]
    return "\n".join(f"{side.name}: {text}" if len(sides) > 1 else text for side, text in said)


def short(value: float) -> str:
    """A number for an axis: 10, 200, 1k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def time_text(seconds: float) -> str:
    """A time in the unit that suits it: 20 µs, 1 ms, 2 min."""
    known = [t for t in TIMES if t[0] <= seconds * 1.0001] or [TIMES[0]]
    size, unit = next((t for t in reversed(known) if t[0] <= 1 or seconds >= 1000 or seconds % t[0] == 0), known[0])
    return f"{number(seconds / size) if seconds / size % 1 > 1e-9 else round(seconds / size)} {unit}"


def log_axis(axes: Axes, which: Literal["x", "y"], kind: str = "", ticks: int = 7) -> None:
    """A logarithmic axis with decades labelled: as numbers, as ``"time"`` (in seconds) or as ``"share"``.

    Call it when all is drawn: an axis of few decades has more labels, and one of less than half a decade is linear.
    """
    axis: Any = axes.xaxis if which == "x" else axes.yaxis
    if (axes.dataLim.x1 if which == "x" else axes.dataLim.y1) <= 0:
        return  # nothing above 0
    axes.set(**{f"{which}scale": "log"})
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high < 4 * low and kind != "share":
        axes.set(**{f"{which}scale": "linear"})
        count_axis(axis)
        return
    log_labels(axis, {"time": _decade_s, "share": lambda share: f"{100 * share:.6g} %"}.get(kind, short), ticks)
    if high < 40 * low:
        axis.set_major_locator(_locator(subs=(1, 2, 5)))


def log_labels(axis: Any, said: Callable[[float], str] = short, ticks: int = 7) -> None:
    """Labels of decades in plain text."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_locator(_locator(numticks=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: said(value)))
    axis.set_minor_locator(NullLocator())  # most of the time of a picture would go into minor ticks


def _locator(**more: Any) -> Any:
    from matplotlib.ticker import LogLocator

    kind: Any = LogLocator  # whose initialiser has no types
    return kind(base=10, **more)


def _decade_s(seconds: float) -> str:
    """A decade of time; hours and days are none."""
    if seconds >= 0.9999:
        return f"{short(round(seconds))} s"
    size, unit = max((t for t in TIMES[:2] if t[0] <= seconds * 1.0001), default=TIMES[0])
    return f"{seconds / size:g} {unit}"


def share_axis(axis: Axis) -> None:
    """Labels in per cent."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def count_axis(axis: Axis) -> None:
    """Labels as short numbers, on a linear axis."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value, 6))))


def unit_of(seconds: float) -> tuple[float, str]:
    """The unit of time, seconds and name, for an axis of a length."""
    return max(t for t in TIMES[2:] if t[0] <= max(seconds / 2, 1))


def from_zero(axes: Axes) -> None:
    """Let the vertical axis begin at 0."""
    axes.set_ylim(bottom=0)


def sentence(parts: Sequence[str]) -> str:
    """Some facts in a row, with a full stop; empty without any."""
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:] + "." if text else ""
