"""What all pictures share: size, colours, line styles, and how they are saved. Matplotlib is imported inside functions.

Colours are those of Okabe and Ito, which the colour-blind tell apart, ordered so that neighbours differ in grey, too.
Lines differ in dashes and markers as well.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, HEIGHT_IN = 4.6, 3.0
"""Of a picture with one panel: its text can be read at the width of a phone."""
PANEL_IN = 1.9
"""Height of each row of panels, if there are several."""

GREY, PALE = "#666666", "#bbbbbb"
BAND = 0.18
"""Opacity of bands."""
SHADES = "cividis"
"""Colour map of two-dimensional histograms: its lightness rises evenly."""


@dataclass(frozen=True)
class Line:
    """How a curve looks."""

    color: str
    dashes: Any
    marker: str

    def curve(self, **more: Any) -> dict[str, Any]:
        """Keywords of ``Axes.plot`` for a line."""
        return {"color": self.color, "linestyle": self.dashes, "linewidth": 1.6} | more

    def points(self, **more: Any) -> dict[str, Any]:
        """Keywords of ``Axes.plot`` for markers alone."""
        return {"color": self.color, "linestyle": "none", "marker": self.marker, "markersize": 4} | more


LINES = (
    Line("#000000", "solid", "o"),
    Line("#D55E00", (0, (5, 2)), "s"),
    Line("#0072B2", (0, (1.5, 1.5)), "^"),
    Line("#E69F00", (0, (7, 2, 1.5, 2)), "D"),
    Line("#009E73", (0, (3, 1, 1, 1, 1, 1)), "v"),
    Line("#56B4E9", (0, (10, 3)), "P"),
    Line("#CC79A7", (0, (2, 4)), "X"),
)
"""Curves of a panel, in order."""

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.handlelength": 2.6,
    "figure.facecolor": "white",
    "figure.dpi": 110,
    "savefig.facecolor": "white",
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "servegen_gpu",
    "path.simplify": True,
}


def require_matplotlib() -> Any:
    """The module ``matplotlib``.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        fix = 'install it: pip install "servegen-gpu[plot]"'
        raise OptionError("matplotlib for pictures", f"{type(error).__name__}: {error}", fix) from error
    return matplotlib


@contextmanager
def _settings() -> Iterator[None]:
    """The house's style; numbers may be near the largest there are, for which a figure has no room."""
    with require_matplotlib().rc_context(SETTINGS), np.errstate(all="ignore"):
        yield


@contextmanager
def sheet(
    panels: int = 1, columns: int = 1, *, share_x: bool = True, height_in: float | None = None
) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house's style, and its axes: one, or an array of panels, row by row.

    >>> with sheet() as (figure, axes):
    ...     axes.plot(x, y, **LINES[0].curve())
    """
    require_matplotlib()
    from servegen_gpu.plotting.picture import Picture

    rows = -(-panels // columns)
    height = height_in or (HEIGHT_IN if rows == 1 else PANEL_IN * rows + 0.2)
    with _settings():
        figure = Picture(figsize=(WIDTH_IN, height), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=share_x)
        yield figure, axes.ravel() if panels > 1 else axes


def legend(axes: Axes, **more: Any) -> None:
    """A legend, if there is anything to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**({"loc": "best"} | more))


def legend_below(figure: Figure, axes: Axes) -> None:
    """The legend of some axes below all of them, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 2 if sum(map(len, labels)) > 40 or len(labels) == 4 else len(labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def heading(figure: Figure, text: str) -> None:
    """A heading above panels that have titles of their own."""
    figure.suptitle(text, x=0.01, horizontalalignment="left", fontsize=10.5, fontweight="bold")


def svg_of(figure: Figure) -> str:
    """A figure as SVG: the same bytes each time, without a date, document type or address."""
    text = _saved(figure, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}).decode()
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def png_of(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as PNG."""
    return _saved(figure, format="png", dpi=dpi, metadata={"Software": None})


def _saved(figure: Figure, **how: Any) -> bytes:
    out = io.BytesIO()
    with _settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # names may be in any script: boxes then
        figure.savefig(out, **how)
    return out.getvalue()


def data_uri(figure: Figure) -> str:
    """A figure as the address of an image that needs no file: SVG in base64."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg_of(figure).encode()).decode()
