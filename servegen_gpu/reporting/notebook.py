"""Traces, clients, studies and comparisons in a notebook: small tables, in far less time than a pass over all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import DAY_S, ClientPool
from servegen_gpu.comparing.table import interval, number
from servegen_gpu.describe import cell
from servegen_gpu.errors import OptionError
from servegen_gpu.plotting.drawing import count_axis, from_zero, time_text, unit_of
from servegen_gpu.plotting.style import LINES, sheet
from servegen_gpu.provenance import duration_of
from servegen_gpu.reporting.parts import escaped, picture, table
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from servegen_gpu.comparing.comparison import Comparison
    from servegen_gpu.studies.study import Study

BINS = 200
MOST_SHOWN = 5
"""Rows of a trace, and clients of a pool."""
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
    return f"{_title(_said(trace))}{found}{_first_rows(trace)}{_rate(trace)}"


def pool_html(pool: ClientPool) -> str:
    """The largest clients in a table, and a picture of the rate where matplotlib is installed."""
    skew, days = pool.skew(), pool.windows * pool.window_s / DAY_S
    rate = f"{pool.own_rps.mean():.4g} requests/s on average"
    rows = [
        [str(client), f"{requests:,.0f}", f"{requests / max(skew.requests.sum(), 1e-300):.2%}"]
        for client, requests in zip(skew.client_ids[:MOST_SHOWN].tolist(), skew.requests[:MOST_SHOWN], strict=True)
    ]
    said = _title(f"{pool.name}: {len(pool):,} clients ({pool.category}), {days:.3g} days, {rate}")
    largest = table(["client", "requests", "share"], rows, caption="The largest clients")
    hours = (pool.start_s + (np.arange(pool.windows) + 0.5) * pool.window_s) / 3600
    alt = f"Requests per second of all clients over {time_text(pool.windows * pool.window_s)}."
    return f"{said}{largest}{_curve(hours, pool.own_rps, 'h', alt)}"


def study_html(study: Study) -> str:
    """A row for each metric."""
    from servegen_gpu.studies.table import cells_of

    head, *rows = cells_of(study)
    return f"{_title(repr(study)[1:-1])}{table(head, rows, caption='Over all replicas')}"


def comparison_html(found: Comparison) -> str:
    """A row for each figure, and its picture."""
    rows = [[row.label, number(row.log), interval(row), number(row.other), row.verdict] for row in found.rows]
    shown = table(["", "log", "its chance", "other", "verdict"], rows, caption="Figures side by side")
    svg = found.svg()
    return f"{_title(repr(found)[1:-1])}{shown}{svg[svg.index('<svg') :]}"


def _title(text: str) -> str:
    return f"<p><strong>{escaped(text)}</strong></p>"


def _first_rows(trace: Trace) -> str:
    part = trace.rows(0, MOST_SHOWN)
    rows = [[str(part.first_row + i), *(cell(part[name][i]) for name in part)] for i in range(len(part))]
    return table(["", *part], rows, caption="The first requests") if rows else ""


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
    alt = f"Requests per second over {time_text(seconds)}, {number(len(trace) / seconds)} on average."
    return _curve((edges[1:] + edges[:-1]) / 2 / size, counts * BINS / seconds, unit, alt)


def _curve(time: NDArray[np.float64], rate_rps: NDArray[np.float64], unit: str, alt: str) -> str:
    """A picture of a rate over time; empty without matplotlib."""
    try:
        with sheet() as (figure, axes):
            axes.plot(time, rate_rps, **LINES[0].curve(linewidth=1.2))
            axes.set(title="Rate", xlabel=unit, ylabel="requests/s")
            from_zero(axes)
            count_axis(axes.yaxis)
    except OptionError:
        return ""
    return picture(figure, alt)
