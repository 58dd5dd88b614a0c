"""Sections of a report about two traces: how alike they are, with what chance allows."""

from __future__ import annotations

from servegen_gpu.comparing.comparison import MEANING, Comparison, Row
from servegen_gpu.comparing.table import interval, number
from servegen_gpu.reporting.page import Section
from servegen_gpu.reporting.parts import bullets, paragraph, table

WIDE = 1e12
"""Whole numbers below have all their digits: a page has room."""
SAID = {"inside": "inside", "near": "near", "outside": "outside", "-": "no verdict"}


def comparison_section(found: Comparison, names: tuple[str, str]) -> Section:
    """A table of all figures of both traces, with verdicts and what they mean.

    Parameters
    ----------
    found : Comparison
    names : tuple of str
        What the page calls the reference and the other trace.
    """
    counts = found.verdicts()
    verdicts = ", ".join(f"{counts[verdict]} {SAID[verdict]}" for verdict in SAID if counts[verdict])
    said = [f"{names[1]} against {names[0]}, the reference: {verdicts}."]
    error = found.dispersion_error
    if "other" in error:
        halves = f"; the reference's halves differ by {error['halves']:.2f}" if "halves" in error else ""
        said.append(f"Mean |ln ratio| of the dispersion of requests: {error['other']:.2f}{halves}.")
    head = ["figure", "verdict", names[0], "its chance", names[1]]
    rows: list[list[str]] = []
    group = ""
    for row in found.rows:
        if row.group != group:
            group = row.group
            rows.append([group])
        rows.append(
            [_label(row), SAID[row.verdict], number(row.log, WIDE), interval(row, WIDE), number(row.other, WIDE)]
        )
    caption = "Figures of both traces; its chance is where the reference itself would be, or how far away"
    why = sorted({f"{row.why}: no verdict on {_those(found, row.why)}." for row in found.rows if row.why})
    meaning = [f"{SAID[verdict]}: {text}." for verdict, text in MEANING.items()]
    return Section(
        "Comparison",
        paragraph(" ".join(said))
        + table(head, rows, caption=caption, left=2)
        + bullets([*meaning, *why, *found.notes]),
    )


def _label(row: Row) -> str:
    return f"{row.label}, {row.unit}" if row.unit else row.label


def _those(found: Comparison, why: str) -> str:
    return ", ".join(row.name for row in found.rows if row.why == why)
