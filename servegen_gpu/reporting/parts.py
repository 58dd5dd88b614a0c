"""Parts of a page as HTML: text, lists, tables and pictures. Everything that comes from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {"inside": "good", "near": "fair", "outside": "bad"}
"""Classes of cells by their text; each has a sign of its own besides its colour."""


def escaped(text: object) -> str:
    """Text that HTML can hold in elements and attributes, whatever a file or client is called."""
    known = "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in str(text))
    return html.escape(known.encode(errors="replace").decode(), quote=True)


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escaped(text)}</p>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts; empty without any."""
    return "<ul>" + "".join(f"<li>{escaped(item)}</li>" for item in items) + "</ul>" if items else ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    left: int = 1,
    long: int | None = None,
    marks: Mapping[str, str] = MARKS,
) -> str:
    """A table of plain texts, in a box of its own that scrolls where it is wider than the page.

    Parameters
    ----------
    head : sequence of str
        Names of columns.
    rows : sequence of sequence of str
        A row of one cell spans all columns: the name of a group.
    caption : str
        What the table shows.
    left : int
        So many first columns hold text, the others numbers.
    long : int, optional
        A column whose text may take several lines.
    marks : mapping of str to str
        Classes of cells by their text.
    """

    def cell(at: int, text: str) -> str:
        kinds = [name for name, there in (("left", at < left or at == long), ("text", at == long)) if there]
        kinds += [marks[text]] if text in marks else []
        named = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<td{named}>{escaped(text)}</td>"

    def line(row: Sequence[str]) -> str:
        if len(row) == 1 and len(head) > 1:
            return f'<tr class="group"><td colspan="{len(head)}">{escaped(row[0])}</td></tr>'
        return "<tr>" + "".join(cell(at, text) for at, text in enumerate(row)) + "</tr>"

    names = "".join(
        f'<th scope="col"{" class=left" if at < left or at == long else ""}>{escaped(name)}</th>'
        for at, name in enumerate(head)
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escaped(caption)}"><table>'
        f"<caption>{escaped(caption)}</caption><thead><tr>{names}</tr></thead>"
        f"<tbody>{''.join(map(line, rows))}</tbody></table></div>"
    )


def picture(figure: Figure, alt: str, caption: str = "") -> str:
    """A figure of matplotlib as an image inside the page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        What it shows in words, with its main numbers, for those who do not see it.
    caption : str
        Below it, for all; lines stay apart.
    """
    from servegen_gpu.plotting.style import data_uri

    lines = "<br>".join(map(escaped, caption.splitlines()))
    below = f"<figcaption>{lines}</figcaption>" if caption else ""
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    image = f'<img src="{data_uri(figure)}" alt="{escaped(alt)}" width="{width}" height="{height}">'
    return f"<figure>{image}{below}</figure>"


def pictures(figures: Sequence[str]) -> str:
    """Pictures beside each other where there is room."""
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""
