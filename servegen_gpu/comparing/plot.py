"""A comparison as SVG, without any library: one file, complete in itself.

Colours are those of Okabe and Ito, which the colour-blind tell apart; lines differ in dashes, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from typing import Any

from servegen_gpu.comparing.comparison import Comparison

STYLE = {"log": ("#000000", ""), "other": ("#0072B2", "7 3"), "naive": ("#D55E00", "2 3")}
"""Colour and dashes of each side."""
WIDTH, HEIGHT = 960, 640
PANEL_W, PANEL_H = 380, 210
IDC_S = (1, 10, 60, 600)

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Values on a range of the page, linear or logarithmic."""

    low: float
    high: float
    log: bool

    def at(self, value: float, length: float) -> float:
        """Where a value is, from 0 to `length`."""
        low, high, x = (log10(v) if self.log else v for v in (self.low, self.high, self._within(value)))
        return (x - low) / (high - low) * length

    def _within(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self) -> list[float]:
        """Values to label."""
        if self.log:
            tens = range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)
            return [10.0**ten for ten in tens][:: max(1, -(-len(tens) // 6))]
        step = 10.0 ** floor(log10((self.high - self.low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 6)
        return [n * step for n in range(ceil(self.low / step), floor(self.high / step + 1e-9) + 1)]


def axis(values: Iterable[float], log: bool, zero: bool = False) -> Axis:
    """An axis that holds all values; whole decades if it is logarithmic."""
    known = [v for v in values if isfinite(v) and (v > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if log:
        low, high = 10.0 ** floor(log10(low)), 10.0 ** ceil(log10(high))
        return Axis(low, high if high > low else 10 * low, True)
    low = 0.0 if zero else low
    return Axis(low, high if high > low else low + 1, False)


def svg(c: Comparison) -> str:
    """The plot; see `Comparison.svg`."""
    names = {"log": c.log.name, "other": c.other.name} | ({"naive": "naive baseline"} if c.naive else {})
    heading = f"{c.log.name} and {c.other.name}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title desc" font-family="sans-serif" font-size="12">',
        f'<title id="title">{_text(heading)}</title>',
        f'<desc id="desc">{_text(_description(c))}</desc>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for at, (side, name) in enumerate(names.items()):
        x = 60 + 300 * at
        parts.append(_line(side, [(x, 20), (x + 36, 20)]))
        shown = name if len(name) <= 34 else name[:33] + "…"
        parts.append(f'<text x="{x + 44}" y="24">{_text(f"{side}: {shown}" if side != "naive" else shown)}</text>')
    parts += _dispersion(c, 60, 60)
    parts += _lines("requests per second over time", "s", c.curves["rate"], ("time_s", "rps"), 540, 60, (False, False))
    for side, x in (("input", 60), ("output", 540)):
        curves = c.curves[side]
        title = f"share of {side}s up to so many tokens"
        parts += _lines(title, "tokens", curves, ("tokens", "share"), x, 360, (True, False))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _description(c: Comparison) -> str:
    """What the plot shows, in words."""
    said = [
        "Four panels: dispersion of requests by window with the interval of the log's own chance, requests per second "
        "over time, and distribution functions of inputs and of outputs."
    ]
    for row in c.rows:
        if row.name.startswith("idc_") and row.log is not None and row.other is not None:
            said.append(f"{row.label}: {row.log:.3g} and {row.other:.3g}, {row.verdict}.")
    counts = ", ".join(f"{n} {verdict}" for verdict, n in c.verdicts().items() if n and verdict != "-")
    return " ".join([*said, f"Verdicts: {counts or 'none'}."])


def _dispersion(c: Comparison, x: int, y: int) -> list[str]:
    rows = {row.name: row for row in c.rows}
    shown = [(float(w), rows[f"idc_{w}s"]) for w in IDC_S if f"idc_{w}s" in rows]
    sides: dict[str, list[Point]] = {}
    for side in ("log", "other", "naive"):
        values = [(w, getattr(row, side)) for w, row in shown]
        sides[side] = [(w, v) for w, v in values if v is not None and v > 0]
    band = [(w, *row.floor) for w, row in shown if row.floor is not None and row.floor[0] > 0]
    down = axis([v for points in sides.values() for _, v in points] + [v for _, *ends in band for v in ends], log=True)
    across = Axis(1, 1000, True)
    parts = _frame("dispersion of requests (variance / mean) by window", "s", x, y, across, down)
    if len(band) > 1:
        edge = [(w, high) for w, _, high in band] + [(w, low) for w, low, _ in reversed(band)]
        parts.append(f'<polygon points="{_points(_placed(edge, x, y, across, down))}" fill="#000000" opacity="0.12"/>')
    for side, points in sides.items():
        placed = _placed(points, x, y, across, down)
        parts.append(_line(side, placed))
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{STYLE[side][0]}"/>' for px, py in placed]
    return parts


def _lines(
    title: str, unit: str, curves: Any, keys: tuple[str, str], x: int, y: int, logs: tuple[bool, bool]
) -> list[str]:
    """A panel with a curve for each side."""
    first, second = keys
    across = axis([v for curve in curves.values() for v in curve[first]], logs[0])
    down = axis([v for curve in curves.values() for v in curve[second]], logs[1], zero=True)
    parts = _frame(title, unit, x, y, across, down)
    for side, curve in curves.items():
        points = [(max(a, across.low), b) for a, b in zip(curve[first], curve[second], strict=True)]
        parts.append(_line(side, _placed(points, x, y, across, down)))
    return parts


def _frame(title: str, unit: str, x: int, y: int, across: Axis, down: Axis) -> list[str]:
    bottom = y + PANEL_H
    parts = [
        f'<text x="{x}" y="{y - 8}" font-weight="bold">{_text(title)}</text>',
        f'<text x="{x + PANEL_W}" y="{bottom + 32}" text-anchor="end">{_text(unit)}</text>',
        f'<rect x="{x}" y="{y}" width="{PANEL_W}" height="{PANEL_H}" fill="none" stroke="#888888"/>',
    ]
    for value in across.ticks():
        at = x + across.at(value, PANEL_W)
        parts.append(f'<path d="M{at:.1f} {bottom}v4" stroke="#888888"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
    for value in down.ticks():
        at = bottom - down.at(value, PANEL_H)
        parts.append(f'<path d="M{x} {at:.1f}h{PANEL_W}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    return parts


def _placed(points: Sequence[Point], x: int, y: int, across: Axis, down: Axis) -> list[Point]:
    return [(x + across.at(a, PANEL_W), y + PANEL_H - down.at(b, PANEL_H)) for a, b in points]


def _line(side: str, points: Sequence[Point]) -> str:
    colour, dashes = STYLE[side]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{_points(points)}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>'


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _text(text: str) -> str:
    """Text that XML can hold, whatever a file is called."""
    known = "".join(letter if letter.isprintable() else "?" for letter in text)
    return escape(known.encode(errors="replace").decode())
