"""The class of all figures; it is imported where one is made, as it needs matplotlib."""

from __future__ import annotations

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure of matplotlib that notebooks show by themselves, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        from servegen_gpu.plotting.style import png_of

        return png_of(self)
