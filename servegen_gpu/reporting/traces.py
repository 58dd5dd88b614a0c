"""Sections of the report of a trace: figures, pictures, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from servegen_gpu.comparing.figures import ABOUT, Figures, top_shares
from servegen_gpu.comparing.histograms import Counts
from servegen_gpu.comparing.table import number
from servegen_gpu.describe import QUANTILES
from servegen_gpu.plotting import curves
from servegen_gpu.plotting.drawing import Side, Sides, time_text
from servegen_gpu.plotting.plots import Plots
from servegen_gpu.provenance import VERSION
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import bullets, paragraph, picture, pictures, table
from servegen_gpu.windowed import BURST_WINDOW_S

LONGEST_VALUE = 2000
"""Letters of a value of the provenance that are shown."""
MOST_VALUES = 100


def trace_sections(plots: Plots, figures: Sequence[Figures | None]) -> Iterator[Section]:
    """Figures, pictures and provenance of one trace, or of two side by side.

    Parameters
    ----------
    plots : Plots
    figures : sequence of Figures or None
        Of each side; None without requests.
    """
    sides = plots.sides
    yield Section("Summary", _summary(sides) + _lengths(sides))
    for group, drawings in plots.drawings():
        drawn = [picture(d.figure, f"{d.title}. {d.alt} {d.caption}", d.caption) for d in drawings]
        yield Section(group, pictures(drawn))
    if len(sides) == 1 and figures[0] is not None:
        yield Section("Figures", _figures(figures[0]))
    yield Section("Provenance", "".join(_provenance(side, len(sides) > 1) for side in sides))


def _summary(sides: Sides) -> str:
    """Main figures, a column for each side."""
    found: dict[str, list[str]] = {}
    for at, side in enumerate(sides):
        for name, value in _facts(side):
            found.setdefault(name, [""] * len(sides))[at] = value
    head = ["", *(side.name for side in sides)] if len(sides) > 1 else ["figure", "value"]
    return table(head, [[name, *values] for name, values in found.items()], caption="The trace in figures")


def _facts(side: Side) -> Iterator[tuple[str, str]]:
    seen = side.data.seen
    yield "requests", f"{seen.rows:,}"
    if not seen.rows:
        return
    yield "duration", time_text(seen.seconds)
    if seen.seconds:
        yield "mean rate", f"{number(seen.rows / seen.seconds)} requests/s"
    if seen.clients is not None:
        counts = seen.clients.points()[1]
        yield "clients", f"{len(counts):,}"
        for name, share in top_shares(counts).items():
            yield ABOUT[name].label, f"{share:.1%}"
    cvs = curves.windows(seen, int(BURST_WINDOW_S)).gap_cv
    if np.isfinite(cvs).any() and seen.seconds >= BURST_WINDOW_S:
        yield "CV of inter-arrival times (median of 5-minute windows)", number(float(np.nanmedian(cvs)))


def _lengths(sides: Sides) -> str:
    """Mean and quantiles of all columns of lengths."""
    rows: list[list[str]] = []
    for side in sides:
        found = [
            [_label(name), *_quantiles(counts)]
            for name, counts in [*side.data.seen.lengths.items(), ("answer_tokens", side.data.answers)]
            if name != "reason_share" and len(counts.points()[0])
        ]
        rows += [[side.name]] * (len(sides) > 1 and bool(found)) + found
    head = ["", "mean", *(f"P{100 * p:.0f}" for p in QUANTILES), "largest"]
    return table(head, rows, caption="Tokens of a request, or of an item") if rows else ""


def _label(name: str) -> str:
    """A column in words: ``image_tokens per request`` is how many images a request has."""
    if name.endswith("_tokens per request"):
        return f"{name.removesuffix('_tokens per request')} items of a request"
    return name.removesuffix("_tokens").replace("_", " ")


def _quantiles(counts: Counts) -> list[str]:
    values, weights = counts.points()
    running = np.cumsum(weights)
    at = np.searchsorted(running, np.ceil(np.array([*QUANTILES, 1.0]) * running[-1]))
    return [number(float(values @ weights / running[-1])), *(f"{value:,}" for value in values[at].tolist())]


def _figures(figures: Figures) -> str:
    """All figures of `compare`, by group."""
    rows: list[list[str]] = []
    group = ""
    for name, value in figures.values.items():
        about = ABOUT[name]
        if not np.isfinite(value) or about.group == "volume":  # the summary has it, of all rows
            continue
        if about.group != group:
            group = about.group
            rows.append([group])
        rows.append([about.label, name, f"{number(value)} {about.unit}".strip()])
    said = paragraph("The figures that compare holds against another trace, under the names that its --only takes.")
    return said + table(["figure", "name", "value"], rows, caption="Figures of the trace", left=2)


def _provenance(side: Side, named: bool) -> str:
    """What made the trace, as its file says."""
    about: Mapping[str, Any] = side.data.provenance
    rows = [[str(name), _text(value)] for name, value in list(about.items())[:MOST_VALUES]]
    whose = f" of {side.name}" if named else ""
    if not rows:
        return paragraph(f"The trace{whose} does not say what made it.")
    return table(["what", "value"], rows, caption=f"What made the trace{whose}", long=1)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " …"


def notes(sides: Sides, figures: Sequence[Figures | None], more: Sequence[str] = ()) -> Section:
    """What a reader should know of how the numbers came about."""
    said = list(more)
    for side, found in zip(sides, figures, strict=True):
        seen = side.data.seen
        name = f"{side.name}: " if len(sides) > 1 else ""
        if not seen.rows:
            said.append(f"{name}the trace has no requests.")
        if stated := side.data.provenance.get("note"):
            said.append(f"{name}{_text(stated)}")
        if found is not None and found.tick_us > 1:
            said.append(f"{name}time stamps sit on ticks of {time_text(found.tick_us / 1e6)}.")
        if seen.sampled:
            said.append(
                f"{name}correlations of consecutive requests are those of stretches of 1,024, 2^18 rows at most."
            )
        if seen.cell_s > 1:
            said.append(f"{name}a trace of {seen.seconds:,.0f} s is counted in cells of {seen.cell_s} s.")
        if side.data.by_client.full:
            said.append(f"{name}too many clients to draw them one by one.")
        if seen.talks_sampled:
            said.append(f"{name}pictures of conversations show a part of them, chosen by their ids.")
    said.append(
        "Histograms count all requests. Those of inter-arrival times have bins of 0.1 %, those of pairs of lengths "
        "bins of a sixteenth of an octave. Windows are whole: a part of one at the end is left out."
    )
    said.append(f"Made by servegen_gpu {VERSION} in one pass over the trace.")
    return Section("Notes", bullets(said))
