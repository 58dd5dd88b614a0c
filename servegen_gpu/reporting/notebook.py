"""A trace in a notebook: a small table, and its rate over time, in far less time than a pass over all rows takes."""

from __future__ import annotations

import numpy as np

from servegen_gpu.comparing.table import number
from servegen_gpu.errors import OptionError
from servegen_gpu.plotting.drawing import count_axis, from_zero, time_text, unit_of
from servegen_gpu.plotting.style import LINES, sheet
from servegen_gpu.provenance import duration_of
from servegen_gpu.reporting.parts import escaped, picture, table
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

BINS = 200
MOST_ROWS = 100_000
"""Rows that quantiles are taken of: every second, third, … one of more."""


def summary_html(trace: Trace) -> str:
    """A table of its columns, and a picture of its rate where matplotlib is installed."""
    step = max(-(-len(trace) // MOST_ROWS), 1)
    rows = []
    for name in trace:
        column = trace[name]
        if not name.endswith("_tokens"):
            continue
        values = column.lengths[::step] if isinstance(column, Ragged) else column[::step]
        cells = [number(float(x)) for x in (values.mean(), *np.quantile(values, (0.5, 0.99)))] if len(values) else []
        label = f"{name.removesuffix('_tokens')} items" if isinstance(column, Ragged) else name
        rows.append([label, *(cells or ["–"] * 3)])
    of = f", of one request in {step:,}" if step > 1 else ""
    found = table(["", "mean", "P50", "P99"], rows, caption=f"Of a request{of}") if rows else ""
    return f"<p><strong>{escaped(_said(trace))}</strong></p>{found}{_rate(trace)}"


def _said(trace: Trace) -> str:
    seconds = _seconds(trace)
    name = str(trace.provenance.get("workload", "Trace"))
    return f"{name}: {len(trace):,} requests" + (f" in {time_text(seconds)}" if seconds else "")


def _seconds(trace: Trace) -> float:
    if not len(trace) or "arrival_us" not in trace:
        return 0.0
    return max(duration_of(trace.provenance) or 0.0, float(trace["arrival_us"][-1]) / 1e6)


def _rate(trace: Trace) -> str:
    """A picture of requests per second; empty without matplotlib, or without time."""
    seconds = _seconds(trace)
    if not seconds or len(trace) < 2:
        return ""
    edges = np.linspace(0, seconds, BINS + 1)
    counts = np.diff(np.searchsorted(trace["arrival_us"], edges * 1e6))
    size, unit = unit_of(seconds)
    try:
        with sheet() as (figure, axes):
            axes.plot((edges[1:] + edges[:-1]) / 2 / size, counts * BINS / seconds, **LINES[0].curve(linewidth=1.2))
            axes.set(title="Rate", xlabel=unit, ylabel="requests/s")
            from_zero(axes)
            count_axis(axes.yaxis)
    except OptionError:
        return ""
    alt = f"Requests per second over {time_text(seconds)}, {number(len(trace) / seconds)} on average."
    return picture(figure, alt)
