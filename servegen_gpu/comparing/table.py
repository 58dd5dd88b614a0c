"""A comparison as text."""

from __future__ import annotations

import math
import textwrap

from servegen_gpu.comparing.comparison import MEANING, Comparison, Row, Side

WIDTH = 118
MOST = 1e7
"""Numbers from here on are too wide for a column."""


def table(c: Comparison) -> str:
    """Rows by group, then what the verdicts mean and what is to be noted."""
    several, naive = c.other.traces > 1, c.naive is not None
    label = max((len(_label(row)) for row in c.rows), default=0)
    head = ["log", "its chance", "other"] + ["5–95 %"] * several + ["verdict"] + ["naive", "verdict"] * naive
    widths = [9, 19, 9] + [19] * several + [8] + [9, 8] * naive
    lines = [_about("log  ", c.log), _about("other", c.other)] + ([_about("naive", c.naive)] if c.naive else []) + [""]
    lines.append("  " + " " * label + _cells(head, widths))
    group = ""
    for row in c.rows:
        if row.group != group:
            group = row.group
            lines.append(group)
        cells = [number(row.log), interval(row), number(row.other)]
        cells += [span(row.spread)] * several + [row.verdict]
        cells += [number(row.naive), row.naive_verdict] * naive
        lines.append("  " + _label(row).ljust(label) + _cells(cells, widths))
    lines.append("")
    error = c.dispersion_error
    if error:
        words = {"other": "{:.2f}", "halves": "{:.2f} between the log's halves", "naive": "{:.2f} naive"}
        said = [words[of].format(value) for of, value in error.items()]
        lines.append("mean |ln ratio| of the dispersion of requests: " + ", ".join(said))
    counts = [f"{n} {verdict}" for verdict, n in c.verdicts().items() if n and verdict != "-"]
    lines.append("verdicts: " + ", ".join(counts or ["none"]))
    if naive:
        counts = [f"{n} {verdict}" for verdict, n in c.verdicts(naive=True).items() if n and verdict != "-"]
        lines.append("naive: " + ", ".join(counts or ["none"]))
    there = {row.verdict for row in c.rows} | {row.naive_verdict for row in c.rows}
    said = [f"{verdict}: {meaning}" for verdict, meaning in MEANING.items() if verdict in there]
    reasons: dict[str, list[str]] = {}
    for row in c.rows:
        if row.why:
            reasons.setdefault(row.why, []).append(row.name)
    said += [f"{why}: {', '.join(names)}" for why, names in reasons.items()]
    for text in (*said, *(f"note: {note}" for note in c.notes)):
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _about(what: str, side: Side) -> str:
    traces = f"{side.traces} traces of " if side.traces > 1 else ""
    return f"{what}  {side.name}: {traces}{side.requests:,.0f} requests in {side.seconds:,.6g} s"


def _label(row: Row) -> str:
    return row.label + (f" ({row.unit})" if row.unit else "")


def _cells(cells: list[str], widths: list[int]) -> str:
    return "".join(" " + cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def number(value: float | None, most: float = MOST) -> str:
    """Three or four digits that matter; whole numbers below `most` have all."""
    if value is None or not math.isfinite(value):
        return ""
    if abs(value) >= most:
        return f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or abs(value) < 5e-6 else f"{value:.5f}".rstrip("0")


def span(ends: tuple[float, float] | None, most: float = MOST) -> str:
    """Both ends of a range; empty without one."""
    if ends is None or not all(map(math.isfinite, ends)):
        return ""
    return f"{number(ends[0], most)} – {number(ends[1], most)}"


def interval(row: Row, most: float = MOST) -> str:
    """What the log's own chance allows."""
    if row.kind in ("ks", "energy") and row.floor is not None:
        return f"≤ {number(row.floor[1])}" if math.isfinite(row.floor[1]) else ""
    return span(row.floor, most)
