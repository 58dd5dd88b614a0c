"""The class of all figures; it is imported where one is made, as it needs matplotlib."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from servegen_gpu.formats.atomic import new_file
from servegen_gpu.formats.own import refuse_foreign

MADE_BY = {"png": {"Software": "servegen_gpu"}, "svg": {"Creator": "servegen_gpu"}, "pdf": {"Creator": "servegen_gpu"}}
"""What tells our own pictures, by format."""


class Picture(Figure):
    """A figure of matplotlib that notebooks show by themselves, whether or not pyplot was imported."""

    def savefig(self, fname: Any, *, overwrite: bool = False, **how: Any) -> None:
        """Save the figure as matplotlib does; a file appears complete or not at all.

        Parameters
        ----------
        fname : path or file object
        overwrite : bool
            Replace a file of others, too; an earlier picture of this package is replaced in any case.
        **how
            Of `matplotlib.figure.Figure.savefig`.

        Raises
        ------
        OutputError
            If a file of others is in the way, or nothing can be written there.
        """
        if not isinstance(fname, str | os.PathLike):
            super().savefig(fname, **how)
            return
        path = Path(fname)
        suffix = how.pop("format", None) or path.suffix.removeprefix(".").lower() or "png"
        if not path.suffix:
            path = path.with_name(f"{path.name}.{suffix}")
        refuse_foreign(path, overwrite)
        how["metadata"] = MADE_BY.get(suffix, {}) | (how.get("metadata") or {})
        made = io.BytesIO()
        super().savefig(made, format=suffix, **how)
        with new_file(path) as sink:
            sink.write(made.getvalue())

    def _repr_png_(self) -> bytes:
        from servegen_gpu.plotting.style import png_of

        return png_of(self)
